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
use ingest_svc::{Core, app::ReadyParts};
use model::{DatabaseName, ShardCount};
use runtime::{ConfigArgs, Readiness, Settings, Shutdown, Signals, telemetry};
use tokio::net::TcpListener;

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
    let mut settings = config.load()?;
    if let Some(data_dir) = arguments.data_dir {
        settings.embedded.data_dir = data_dir;
    }
    let metrics = telemetry::init(&settings.telemetry)?;
    let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
    // Named before anybody can ask, lest nothing to wait for be taken for ready.
    let (ingest_parts, drain_part) = (ReadyParts::of(&readiness), readiness.part("drain"));
    let address = settings.ingest.listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}; set another ingest.listen"))?;
    let address = listener.local_addr()?;
    let admin = runtime::admin::serve(settings.ingest.admin_listen, metrics, readiness.clone(), &shutdown).await?;
    let embedded = Embedded::open(&settings).await?;
    let welcome = first_start::prepare(&embedded.database, &embedded.core, arguments.init_sql.as_deref()).await?;
    embedded.start_drain(&settings, &shutdown);
    drain_part.ready();
    let (core, deadline) = (embedded.core, settings.shutdown_deadline);
    let data_dir = settings.embedded.data_dir.clone();
    let stop = shutdown.clone();
    shutdown
        .spawn("ingest", async move { ingest_svc::app::serve(core, &settings, listener, ingest_parts, &stop).await });
    if shutdown.stopping().run_until_cancelled(readiness.ready()).await.is_some() {
        welcome.print(address, admin, &data_dir);
    }
    shutdown.run(signals, deadline).await.exit()
}

/// The parts of the embedded edition.
struct Embedded {
    log: EmbeddedLog,
    database: Arc<AnyDatabase>,
    core: Arc<Core<MemoryStore, EmbeddedLog, AnyDatabase>>,
}

impl Embedded {
    async fn open(settings: &Settings) -> Result<Self> {
        let directory = &settings.embedded.data_dir;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making the data directory {}", directory.display()))?;
        // First the log, since opening it locks the directory.
        let options = EmbeddedOptions {
            max_log_bytes: settings.embedded.max_log_bytes,
            request_window: settings.request_window,
            ..EmbeddedOptions::new(directory.join("log"))
        };
        let log = EmbeddedLog::open(options).await?;
        let name = DatabaseName::new(DATABASE)?;
        let url = format!("sqlite://{}", directory.join("main.db").display());
        let options = DatabaseOptions { create_if_missing: true, ..DatabaseOptions::new(name.clone(), url) };
        let database = Arc::new(AnyDatabase::connect(options).await?);
        let hot = MemoryStore::new(ShardCount::new(settings.shards)?, settings.embedded.max_hot_bytes)
            .with_request_window(settings.request_window);
        let tables = Arc::new(TableDirectory::new(vec![(name, database.clone())]));
        // The embedded log keeps what is not drained, however old it is.
        let core = ingest_svc::app::core(settings, Arc::new(hot), Arc::new(log.clone()), tables, None)?;
        let core = Arc::new(core);
        ingest_svc::startup::prepare(&core).await?;
        Ok(Self { log, database, core })
    }

    fn start_drain(&self, settings: &Settings, shutdown: &Shutdown) {
        let parts = DrainParts {
            hot: self.core.hot.clone(),
            source: self.log.join("drain"),
            log: Arc::new(self.log.clone()),
            directory: self.core.directory.clone(),
            options: DrainOptions::from_settings(settings),
        };
        let stopping = shutdown.stopping().clone();
        shutdown.spawn("drain", async move { Drain::new(parts).run(stopping).await });
    }
}
