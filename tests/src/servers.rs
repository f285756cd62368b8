//! Real servers, each on a free port in a temporary directory.

mod kafka;
mod mariadb;
mod mysql;
mod postgres;
mod redis;

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

pub use self::{
    kafka::{Door, Kafka},
    mariadb::MariaDb,
    mysql::MySql,
    postgres::Postgres,
    redis::Redis,
};
use crate::{Process, eventually, port};

/// A Redis.
pub type RedisServer = Server<Redis>;
/// A Kafka of one node.
pub type KafkaServer = Server<Kafka>;
/// A MariaDB.
pub type MariaDbServer = Server<MariaDb>;
/// A MySQL.
pub type MySqlServer = Server<MySql>;
/// A PostgreSQL.
pub type PostgresServer = Server<Postgres>;

/// How one kind of server is started and asked.
pub trait Kind: Send + Sync {
    /// Its name in messages.
    const NAME: &'static str;
    /// How long it may take to start, or to stop.
    const PATIENCE: Duration;
    /// What asks it to stop, now and not when its last client has gone.
    const STOP: Signal = Signal::TERM;

    /// Lays its data out, once.
    fn prepare(&mut self, place: &Place) -> impl Future<Output = Result<()>> + Send;

    /// What starts it; the same for every restart.
    fn command(&self, place: &Place) -> Result<Command>;

    /// Whether it does its work: not only that the port is open.
    fn answers(&self, place: &Place) -> impl Future<Output = bool> + Send;
}

/// Where a server lives.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its directory: data, configuration, log.
    pub dir: PathBuf,
    /// Its port on loopback.
    pub port: u16,
}

/// A server that runs, or did until a test hurt it. Killed when dropped.
#[derive(Debug)]
pub struct Server<K: Kind> {
    kind: K,
    place: Place,
    // Before the directory, so that the process is gone when its files go.
    process: Process,
    dir: TempDir,
}

impl<K: Kind> Server<K> {
    /// Starts a server of this kind, and waits until it answers.
    ///
    /// # Errors
    /// If it ends, with the end of its log, or doesn't answer in time.
    pub async fn start_kind(mut kind: K) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{}-", K::NAME)).tempdir()?;
        let place = Place { dir: dir.path().to_owned(), port: port::free()? };
        kind.prepare(&place).await.with_context(|| format!("{} could not be prepared", K::NAME))?;
        let process = Process::spawn(K::NAME, kind.command(&place)?, &place.dir)?;
        let mut server = Self { kind, place, process, dir };
        server.answers().await?;
        Ok(server)
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it as kill -9 does.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops it as an operator would, and waits until it has.
    ///
    /// # Errors
    /// If it doesn't in time; then it is killed.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop_by(K::STOP, K::PATIENCE).await.map(drop)
    }

    /// Freezes it: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Starts it again on the same port and data, and waits until it answers. One that still runs is killed first.
    ///
    /// # Errors
    /// As for [`Server::start_kind`].
    pub async fn restart(&mut self) -> Result<()> {
        self.relaunch()?;
        self.answers().await
    }

    /// The same without waiting: see [`Server::answers`].
    ///
    /// # Errors
    /// If it can't be started.
    pub fn relaunch(&mut self) -> Result<()> {
        self.process.kill9();
        self.process = Process::spawn(K::NAME, self.kind.command(&self.place)?, &self.place.dir)?;
        Ok(())
    }

    /// Whether it runs; a frozen one does.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// If it ends, with the end of its log, or doesn't answer in time.
    pub async fn answers(&mut self) -> Result<()> {
        let (kind, place, process) = (&self.kind, &self.place, &mut self.process);
        eventually("answer", K::PATIENCE, || {
            let runs = process.must_run();
            async move {
                runs?;
                Ok(kind.answers(place).await.then_some(()))
            }
        })
        .await
        .with_context(|| format!("{} on port {}: its log ends:\n{}", K::NAME, self.place.port, self.process.log_tail()))
    }
}

/// Runs a command to its end, off the async threads.
async fn run(mut command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .with_context(|| format!("{shown}; ./tests/run installs what is missing"))?;
    anyhow::ensure!(
        output.status.success(),
        "{shown}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
