//! The system that the demo drives: the embedded edition as a process of its own, or ingest and drain on real servers.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use database::{AnyDatabase, DatabaseOptions};
use model::DatabaseName;
use runtime::Settings;
use shock_absorber_client::Client;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a started system may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(60);

/// One process of the system and how it is started.
struct Process {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
}

impl Process {
    fn start(program: PathBuf, arguments: Vec<String>, log: PathBuf) -> Result<Self> {
        let child = Self::spawn(&program, &arguments, &log)?;
        Ok(Self { program, arguments, log, child })
    }

    fn spawn(program: &Path, arguments: &[String], log: &Path) -> Result<Child> {
        let output = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        command.spawn().with_context(|| {
            format!("starting {}: build it with `cargo build --release --workspace`", program.display())
        })
    }

    /// kill -9, and wait until it is gone.
    async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.program.display()))
    }

    fn start_again(&mut self) -> Result<()> {
        self.child = Self::spawn(&self.program, &self.arguments, &self.log)?;
        Ok(())
    }

    fn assert_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(15).collect();
                let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                bail!("{} ended with {status}; its last lines:\n{tail}", self.program.display())
            }
        }
    }
}

/// A running system.
pub(crate) struct Installation {
    processes: Vec<Process>,
    /// How many of `processes`, from the first on, are killed together.
    victims: usize,
    /// Where its API listens.
    pub(crate) endpoint: String,
    /// The database behind it, reached past it.
    pub(crate) database: AnyDatabase,
    /// The name under which that database is configured.
    pub(crate) database_name: DatabaseName,
    /// What it is, in words.
    pub(crate) description: String,
}

impl Installation {
    /// `shock-absorber dev` on an empty directory.
    pub(crate) async fn embedded(directory: &Path, init_sql: &Path, limit: u32) -> Result<Self> {
        let data = directory.join("data");
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut arguments = vec!["dev".into(), "--data-dir".into(), path(&data), "--init-sql".into(), path(init_sql)];
        for setting in [
            format!("ingest.listen={address}"),
            "ingest.admin_listen=127.0.0.1:0".into(),
            "drain.admin_listen=127.0.0.1:0".into(),
            format!("drain.rows_per_second={limit}"),
        ] {
            arguments.extend(["--set".into(), setting]);
        }
        let program = std::env::current_exe().context("finding the path of this program")?;
        let mut processes = vec![Process::start(program, arguments, directory.join("dev.log"))?];
        let endpoint = format!("http://{address}");
        wait_until_it_answers(&mut processes, &endpoint).await?;
        let database_name = DatabaseName::new("main")?;
        let url = format!("sqlite://{}", data.join("main.db").display());
        let database = AnyDatabase::connect(DatabaseOptions::new(database_name.clone(), url)).await?;
        let description = "one process on memory, an embedded log and SQLite".into();
        Ok(Self { processes, victims: 1, endpoint, database, database_name, description })
    }

    /// One ingest and two drain replicas on the servers that the configuration names.
    pub(crate) async fn on_servers(
        directory: &Path,
        config: &Path,
        settings: &Settings,
        init_sql: &str,
        limit: u32,
    ) -> Result<Self> {
        let Some(configured) = settings.databases.first() else { bail!("{} names no database", config.display()) };
        let name = DatabaseName::new(&configured.name)?;
        let database = AnyDatabase::connect(DatabaseOptions::new(name.clone(), configured.url.expose())).await?;
        database.run_script(init_sql).await.context("making the demo's table")?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let common = |log: &str, sets: &[String]| -> (Vec<String>, PathBuf) {
            let mut arguments = vec!["--config".into(), path(config)];
            for setting in sets {
                arguments.extend(["--set".into(), setting.clone()]);
            }
            (arguments, directory.join(log))
        };
        let (arguments, log) =
            common("ingest.log", &[format!("ingest.listen={address}"), "ingest.admin_listen=127.0.0.1:0".into()]);
        let mut processes = vec![Process::start(sibling("ingest-svc")?, arguments, log)?];
        for replica in ["drain-a", "drain-b"] {
            let sets = [
                format!("drain.replica={replica}"),
                format!("drain.rows_per_second={limit}"),
                "drain.admin_listen=127.0.0.1:0".into(),
            ];
            let (arguments, log) = common(&format!("{replica}.log"), &sets);
            processes.push(Process::start(sibling("drain-svc")?, arguments, log)?);
        }
        let description =
            format!("ingest and two drains on Redis, Kafka and {}", configured.url.scheme().unwrap_or("a database"));
        let endpoint = format!("http://{address}");
        wait_until_it_answers(&mut processes, &endpoint).await?;
        // The ingest replica and one of the two drains.
        Ok(Self { processes, victims: 2, endpoint, database, database_name: name, description })
    }

    /// kill -9 of the victims; returns when they are gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        for process in &mut self.processes[..self.victims] {
            process.kill().await?;
        }
        Ok(())
    }

    /// Starts the victims again; returns without waiting until they answer.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.processes[..self.victims].iter_mut().try_for_each(Process::start_again)
    }

    /// Fails with the log's last lines if a process has ended by itself.
    pub(crate) fn assert_running(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::assert_running)
    }
}

async fn wait_until_it_answers(processes: &mut [Process], endpoint: &str) -> Result<()> {
    let deadline = Instant::now() + START_WITHIN;
    loop {
        processes.iter_mut().try_for_each(Process::assert_running)?;
        let asked = async { Client::connect(endpoint).await?.list_tables().await };
        if let Ok(Ok(_)) = timeout(Duration::from_secs(1), asked).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{endpoint} does not answer within {START_WITHIN:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A program that lies beside this one.
fn sibling(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding the path of this program")?.with_file_name(name);
    if !program.exists() {
        bail!("{} is not there: build it with `cargo build --release --workspace`", program.display());
    }
    Ok(program)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
