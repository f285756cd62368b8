//! MariaDB.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{Kind, MariaDbServer, Place, run};

/// How a MariaDB is started.
#[derive(Debug, Default)]
pub struct MariaDb {
    arguments: Vec<String>,
}

impl Kind for MariaDb {
    const NAME: &'static str = "mariadb";
    const PATIENCE: Duration = Duration::from_secs(180);

    async fn prepare(&mut self, place: &Place) -> Result<()> {
        let mut command = Command::new(program("mariadb-install-db"));
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.args(as_root()).arg(option("datadir", &place.dir.join("data")));
        fs::create_dir(tmpdir(place))?;
        command.arg(option("tmpdir", &tmpdir(place)));
        run(command).await.map(drop)
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new(program("mariadbd"));
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]).args(as_root());
        command.arg(format!("--port={}", place.port));
        command.arg(option("datadir", &place.dir.join("data")));
        command.arg(option("tmpdir", &tmpdir(place)));
        command.arg(option("socket", &place.dir.join("socket")));
        command.arg(option("pid-file", &place.dir.join("mariadbd.pid")));
        command.args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin"]);
        // As durable as in earnest, but small.
        command.args(["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=64M"]);
        command.args(&self.arguments);
        Ok(command)
    }

    async fn answers(&self, place: &Place) -> bool {
        greets(place.port).await.unwrap_or(false)
    }
}

/// A directory of its own: a server that starts deletes what servers leave behind in theirs, `#sql*`, and a temporary table
/// of another one that runs looks the same.
fn tmpdir(place: &Place) -> PathBuf {
    place.dir.join("tmp")
}

/// A server that is ready opens with protocol version 10; one that is full, or shuts down, with an error packet.
pub(super) async fn greets(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await?;
    Ok(greeting[4] == 10)
}

/// The server refuses to run as root unless it is told to.
pub(super) fn as_root() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("--user=root")
}

pub(super) fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Debian keeps the server where an ordinary user's PATH doesn't look.
fn program(name: &str) -> PathBuf {
    let hidden = Path::new("/usr/sbin").join(name);
    if hidden.exists() { hidden } else { PathBuf::from(name) }
}

impl MariaDbServer {
    /// Starts a MariaDB.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start() -> Result<Self> {
        Self::start_kind(MariaDb::default()).await
    }

    /// Starts a MariaDB with arguments of your own after ours, such as `["--max-connections=20"]`.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        Self::start_kind(MariaDb { arguments: arguments.iter().map(|&a| a.to_owned()).collect() }).await
    }

    /// `mysql://root@127.0.0.1:PORT/SCHEMA`; the schema must be there, see [`MariaDbServer::create_schema`].
    pub fn url(&self, schema: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{schema}", self.port())
    }

    /// Makes a schema if it isn't there.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn create_schema(&self, schema: &str) -> Result<()> {
        self.sql("", &format!("CREATE DATABASE IF NOT EXISTS `{schema}`")).await.map(drop)
    }

    /// Runs statements in a schema by the command-line client; returns its rows, columns by tabs, without headings.
    ///
    /// # Errors
    /// If the server refuses one.
    pub async fn sql(&self, schema: &str, statements: &str) -> Result<String> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", "--batch"]);
        command.args(["--skip-column-names", "--default-character-set=utf8mb4"]);
        command.arg(format!("--port={}", self.port())).arg(format!("--execute={statements}"));
        if !schema.is_empty() {
            command.arg(schema);
        }
        run(command).await
    }
}
