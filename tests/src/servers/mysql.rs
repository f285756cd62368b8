//! MySQL, as `tests/install/mysql` unpacks it: a server with libraries, and a loader, of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Kind, MySqlServer, Place, mariadb, run};

/// How a MySQL is started.
#[derive(Debug, Default)]
pub struct MySql {}

impl Kind for MySql {
    const NAME: &'static str = "mysql";
    const PATIENCE: Duration = Duration::from_secs(90);

    async fn prepare(&mut self, place: &Place) -> Result<()> {
        let mut command = program(place)?;
        command.arg("--initialize-insecure");
        run(command).await.map(drop)
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = program(place)?;
        // Its root is `root@localhost`: so it must look up who 127.0.0.1 is.
        command.args(["--bind-address=127.0.0.1", "--mysqlx=OFF", "--skip-log-bin"]);
        command.arg(format!("--port={}", place.port));
        command.arg(mariadb::option("socket", &place.dir.join("socket")));
        command.arg(mariadb::option("pid-file", &place.dir.join("mysqld.pid")));
        command.args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin"]);
        // As durable as in earnest, but small.
        command.args(["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=64M"]);
        command.args(["--innodb-redo-log-capacity=16777216", "--performance-schema=OFF"]);
        Ok(command)
    }

    async fn answers(&self, place: &Place) -> bool {
        mariadb::greets(place.port).await.unwrap_or(false)
    }
}

/// The server by its own loader, so that it finds its own libraries and not this machine's; where its data lie.
fn program(place: &Place) -> Result<Command> {
    let home = home()?;
    let libraries = home.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(home.join("usr/sbin/mysqld")).arg("--no-defaults");
    command.args(mariadb::as_root());
    command.arg(mariadb::option("basedir", &home.join("usr")));
    command.arg(mariadb::option("lc-messages-dir", &home.join("usr/share/mysql")));
    command.arg(mariadb::option("character-sets-dir", &home.join("usr/share/mysql/charsets")));
    command.arg(mariadb::option("plugin-dir", &home.join("usr/lib/mysql/plugin")));
    command.arg(mariadb::option("datadir", &place.dir.join("data")));
    command.arg("--secure-file-priv=NULL");
    Ok(command)
}

/// Where `tests/install/mysql` puts it.
fn home() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set: where would MySQL be?")?;
    Ok(cache.join("shock-absorber/mysql"))
}

impl MySqlServer {
    /// Starts a MySQL.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start() -> Result<Self> {
        Self::start_kind(MySql::default()).await
    }

    /// `mysql://root@127.0.0.1:PORT/SCHEMA`; the server has `mysql` and no other schema.
    pub fn url(&self, schema: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{schema}", self.port())
    }
}
