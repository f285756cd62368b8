//! `shock-absorber dev`: ingest and drain in one process, on memory, an embedded log and SQLite.
//!
//! The composition root of the embedded edition: the same use cases, the same API, other backends. Its hot store is
//! empty after every start, so every start is an opening: the log is read, and what the database lacks is put back.

mod first_start;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use database::{AnyDatabase, DatabaseOptions, TableDirectory};
use drain_svc::{Drain, DrainOptions, DrainParts};
use event_log::embedded::{EmbeddedLog, EmbeddedOptions};
use hot_store::memory::MemoryStore;
use ingest_svc::Core;
use model::{DatabaseName, ShardCount};
use runtime::{ConfigArgs, Readiness, Settings, Shutdown, Signals, telemetry};

/// The name of the one database of the embedded edition.
const DATABASE: &str = "main";

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where the log and the database are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// SQL that makes the tables, run when the database has none; without it there is an example table
    #[arg(long, value_name = "FILE")]
    init_sql: Option<PathBuf>,
}

/// Runs until a signal.
pub(crate) async fn run(arguments: DevArgs, config: &ConfigArgs) -> Result<()> {
    let signals = Signals::of_process()?;
    let settings = settings(&arguments, config)?;
    let metrics = telemetry::init(&settings.telemetry)?;
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    let embedded = Embedded::open(&settings).await?;
    let first = first_start::prepare(&embedded.database, &embedded.core, arguments.init_sql.as_deref()).await?;
    let listener = ingest_svc::app::bind(settings.ingest.listen).await?;
    let address = listener.local_addr()?;
    let admin = runtime::admin::serve(settings.ingest.admin_listen, &metrics, &readiness, &shutdown).await?;
    ingest_svc::app::serve(embedded.core.clone(), &settings, listener, &readiness, &shutdown).await?;
    embedded.start_drain(&settings, &readiness, &shutdown).await?;
    first.print(address, admin, &settings.embedded.data_dir);
    shutdown.run(signals, settings.shutdown_deadline).await.exit()
}

/// What was configured, but for what the embedded edition brings itself.
fn settings(arguments: &DevArgs, config: &ConfigArgs) -> Result<Settings> {
    let mut settings = config.load()?;
    if let Some(data_dir) = &arguments.data_dir {
        settings.embedded.data_dir.clone_from(data_dir);
    }
    Ok(settings)
}

/// The parts of the embedded edition.
struct Embedded {
    hot: Arc<MemoryStore>,
    log: EmbeddedLog,
    database: Arc<AnyDatabase>,
    core: Arc<Core<MemoryStore, EmbeddedLog, AnyDatabase>>,
}

impl Embedded {
    async fn open(settings: &Settings) -> Result<Self> {
        let directory = &settings.embedded.data_dir;
        std::fs::create_dir_all(directory).with_context(|| format!("making the data directory {}", directory.display()))?;
        // First the log, since opening it locks the directory.
        let log = EmbeddedLog::open(EmbeddedOptions {
            max_log_bytes: settings.embedded.max_log_bytes,
            ..EmbeddedOptions::new(directory.join("log"))
        })
        .await?;
        let name = DatabaseName::new(DATABASE)?;
        let url = format!("sqlite://{}", directory.join("main.db").display());
        let options = DatabaseOptions { create_if_missing: true, ..DatabaseOptions::new(name.clone(), url) };
        let database = Arc::new(AnyDatabase::connect(options).await?);
        let shards = ShardCount::new(settings.shards)?;
        let hot = Arc::new(MemoryStore::new(shards, settings.embedded.max_hot_bytes));
        let tables = Arc::new(TableDirectory::new(vec![(name, database.clone())]));
        let options = ingest_svc::app::options(settings)?;
        let core = Arc::new(Core::new(hot.clone(), Arc::new(log.clone()), tables, shards, options));
        ingest_svc::startup::prepare(&core).await?;
        Ok(Self { hot, log, database, core })
    }

    async fn start_drain(&self, settings: &Settings, readiness: &Readiness, shutdown: &Shutdown) -> Result<()> {
        let parts = DrainParts {
            hot: self.hot.clone(),
            source: self.log.join("drain"),
            directory: self.core.directory.clone(),
            options: DrainOptions::from_settings(settings),
        };
        let drain = Drain::new(parts);
        let stopping = shutdown.stopping().clone();
        let ready = readiness.part("drain");
        ready.ready();
        shutdown.spawn("drain", async move { drain.run(stopping).await });
        Ok(())
    }
}
