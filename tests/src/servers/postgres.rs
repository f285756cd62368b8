//! PostgreSQL.

use std::{
    env, fs,
    net::Ipv4Addr,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Kind, Place, PostgresServer, run};

/// How a PostgreSQL is started.
#[derive(Debug, Default)]
pub struct Postgres {
    arguments: Vec<String>,
    /// Whom it runs as, where that is not ourselves.
    user: Option<(u32, u32)>,
}

impl Kind for Postgres {
    const NAME: &'static str = "postgres";
    const PATIENCE: Duration = Duration::from_secs(90);
    // TERM waits for the clients to go.
    const STOP: Signal = Signal::INT;

    async fn prepare(&mut self, place: &Place) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            let user = (number_of("-u").await?, number_of("-g").await?);
            let_in(&place.dir, user)?;
            self.user = Some(user);
        }
        let mut command = self.program("initdb", place);
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        command.arg("--pgdata").arg(place.dir.join("data"));
        run(command).await.map(drop)
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = self.program("postgres", place);
        command.arg("-D").arg(place.dir.join("data"));
        command.args(["-h", "127.0.0.1", "-p", &place.port.to_string()]);
        // The path of a socket in a temporary directory may be too long for one.
        let settings =
            ["unix_socket_directories=", "max_connections=300", "shared_buffers=64MB", "logging_collector=off"];
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.args(&self.arguments);
        Ok(command)
    }

    async fn answers(&self, place: &Place) -> bool {
        lets_in(place.port).await.unwrap_or(false)
    }
}

impl Postgres {
    /// One of the server's programs, as the user that the server has.
    fn program(&self, name: &str, place: &Place) -> Command {
        let mut command = Command::new(program(name));
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        // Wherever we are may be closed to that user.
        command.current_dir(&place.dir).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// A server that is ready answers the opening of a session with what it wants to know of the client; one that starts
/// or stops with an error.
async fn lets_in(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    stream.write_u32(8 + parameters.len() as u32).await?;
    stream.write_u32(3 << 16).await?;
    stream.write_all(parameters).await?;
    Ok(stream.read_u8().await? == b'R')
}

/// The user or group that Debian's package makes: the server refuses to run as root.
async fn number_of(option: &str) -> Result<u32> {
    let mut command = Command::new("id");
    command.args([option, "postgres"]);
    run(command).await?.trim().parse().context("the number of the user postgres")
}

/// Gives a directory to a user, who must be let through those above it, as far as they are temporary.
fn let_in(dir: &Path, (user, group): (u32, u32)) -> Result<()> {
    chown(dir, Some(user), Some(group))?;
    let temporary = env::temp_dir();
    for above in dir.ancestors().skip(1).take_while(|above| above.starts_with(&temporary)) {
        let mode = fs::metadata(above)?.permissions().mode();
        if mode & 0o001 == 0 {
            fs::set_permissions(above, fs::Permissions::from_mode(mode | 0o011))?;
        }
    }
    Ok(())
}

/// Debian keeps the programs by version, where nobody's PATH looks.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered = versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let programs = numbered.map(|(version, path)| (version, path.join("bin").join(name)));
    programs.filter(|(_, path)| path.exists()).max().map_or_else(|| PathBuf::from(name), |(_, path)| path)
}

impl PostgresServer {
    /// Starts a PostgreSQL.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start() -> Result<Self> {
        Self::start_kind(Postgres::default()).await
    }

    /// Starts a PostgreSQL with arguments of your own after ours, such as `["-c", "max_connections=20"]`.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        Self::start_kind(Postgres { arguments, user: None }).await
    }

    /// `postgres://postgres@127.0.0.1:PORT/DATABASE`; the database must be there, see
    /// [`PostgresServer::create_database`].
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// Makes a database.
    ///
    /// # Errors
    /// If the server refuses, or has one of that name.
    pub async fn create_database(&self, database: &str) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE \"{database}\"")).await.map(drop)
    }

    /// Runs statements in a database by the command-line client; returns its rows, columns by tabs, without headings.
    ///
    /// # Errors
    /// If the server refuses one.
    pub async fn sql(&self, database: &str, statements: &str) -> Result<String> {
        let mut command = Command::new(program("psql"));
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--field-separator=\t"]);
        command.args(["--host=127.0.0.1", "--username=postgres", "--set=ON_ERROR_STOP=1"]);
        command.arg(format!("--port={}", self.port())).arg(format!("--dbname={database}"));
        command.arg(format!("--command={statements}")).env("PGCLIENTENCODING", "UTF8");
        run(command).await
    }
}
