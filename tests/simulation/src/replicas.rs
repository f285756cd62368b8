//! The processes of a run: replicas of ingest and drains, as their composition roots put them together.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use database::TableDirectory;
use drain_svc::{Drain, DrainOptions, DrainParts};
use event_log::LogSettings;
use futures::FutureExt as _;
use ingest_svc::{
    Core, HotTtl, IngestOptions, WallClock, accept::Writer, applied::Waiter, backlog, find::Finder, holds,
    holds::Operators, opening, opening::checkpoint, read::Reader, relay, startup, tables, tables::TableOptions,
    watch::Watcher,
};
use jiff::Timestamp;
use model::Chance;
use tokio::{
    task::{AbortHandle, JoinHandle},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backends::{
        ReplicaCore, ReplicaDrain, ReplicaFinder, ReplicaOperators, ReplicaReader, ReplicaWaiter, ReplicaWatcher,
        ReplicaWriter,
    },
    faulty::{Faulty, FaultySource},
    nature::Nature,
    process::Process,
    world::{World, database_name},
};

/// Between two attempts to start.
const START_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The longest publish that is waited for.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(900);

/// A replica of ingest.
pub(crate) struct Ingest {
    pub(crate) process: Arc<Process>,
    core: Arc<ReplicaCore>,
    watcher: ReplicaWatcher,
    is_ready: Arc<AtomicBool>,
    tasks: Vec<AbortHandle>,
}

impl Ingest {
    pub(crate) fn start(world: &Arc<World>, name: String) -> Self {
        let process = Process::new(name, world.nature.clone());
        let stores = &world.stores;
        let database = Faulty::new(stores.database.clone(), process.clone());
        let directory = TableDirectory::new(vec![(database_name(), database)]);
        let core = Arc::new(Core::new(
            Faulty::new(stores.hot.clone(), process.clone()),
            Faulty::new(stores.log.clone(), process.clone()),
            Arc::new(directory),
            world.shards,
            options(&world.nature, process.name()),
        ));
        let is_ready = Arc::new(AtomicBool::new(false));
        let watcher = Watcher::new(core.clone());
        let mut ingest = Self { process, core, watcher, is_ready: is_ready.clone(), tasks: Vec::new() };
        let core = ingest.core.clone();
        let preparing = {
            let core = core.clone();
            async move {
                while let Err(error) = startup::prepare(&core).await {
                    if !error.is_transient() {
                        return Err(error.to_string());
                    }
                    sleep(START_AGAIN_AFTER).await;
                }
                is_ready.store(true, Ordering::Relaxed);
                let never = CancellationToken::new;
                futures::join!(
                    opening::run(core.clone(), never()),
                    checkpoint::run(core.clone(), never()),
                    backlog::run(core.clone(), never()),
                    relay::run(core.clone(), never()),
                    tables::run(core.clone(), never()),
                    holds::run(core.clone(), never()),
                );
                Err("the background tasks ended".to_owned())
            }
        };
        ingest.watch(world, tokio::spawn(preparing));
        ingest
    }

    /// A process that ends by itself is a defect.
    fn watch(&mut self, world: &Arc<World>, task: JoinHandle<Result<(), String>>) {
        self.tasks.push(task.abort_handle());
        let (world, name) = (world.clone(), self.process.name().to_owned());
        tokio::spawn(async move {
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(problem)) => world.complain(format!("{name} ended: {problem}")),
                Err(error) if error.is_cancelled() => {}
                Err(error) => world.complain(format!("{name} panicked: {error}")),
            }
        });
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && !self.process.is_dead()
    }

    pub(crate) fn operators(&self) -> ReplicaOperators {
        Operators::new(self.core.clone())
    }

    pub(crate) fn writer(&self) -> ReplicaWriter {
        Writer::new(self.core.clone())
    }

    pub(crate) fn reader(&self) -> ReplicaReader {
        Reader::new(self.core.clone())
    }

    pub(crate) fn finder(&self) -> ReplicaFinder {
        Finder::new(self.core.clone())
    }

    /// One for all, since they share what they read.
    pub(crate) fn watcher(&self) -> ReplicaWatcher {
        self.watcher.clone()
    }

    pub(crate) fn waiter(&self) -> ReplicaWaiter {
        Waiter::new(self.core.clone())
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A drain.
pub(crate) struct DrainProcess {
    pub(crate) process: Arc<Process>,
    stop: CancellationToken,
    task: AbortHandle,
}

impl DrainProcess {
    pub(crate) fn start(world: &Arc<World>, name: String) -> Self {
        let process = Process::new(name, world.nature.clone());
        let stop = CancellationToken::new();
        let running = run_drain(world.clone(), process.clone(), stop.clone());
        let task = tokio::spawn(running);
        let abort = task.abort_handle();
        let (world, name) = (world.clone(), process.name().to_owned());
        tokio::spawn(async move {
            match task.await {
                Ok(Ok(())) => world.nature.note(|| format!("{name} has left")),
                Ok(Err(error)) => world.complain(format!("{name} ended: {error}")),
                Err(error) if error.is_cancelled() => {}
                Err(error) => world.complain(format!("{name} panicked: {error}")),
            }
        });
        Self { process, stop, task: abort }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.process.is_dead() || self.task.is_finished()
    }

    /// As a signal does.
    pub(crate) fn leave(&self) {
        self.stop.cancel();
    }

    pub(crate) fn has_left(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
        self.task.abort();
    }
}

async fn run_drain(world: Arc<World>, process: Arc<Process>, stop: CancellationToken) -> Result<(), String> {
    let stores = &world.stores;
    let hot = Faulty::new(stores.hot.clone(), process.clone());
    let database = Faulty::new(stores.database.clone(), process.clone());
    let directory = Arc::new(TableDirectory::new(vec![(database_name(), database)]));
    let preparing = async {
        while let Err(error) = drain_svc::startup::prepare(&*hot, &directory, world.shards).await {
            if !error.is_transient() {
                return Err(error.to_string());
            }
            sleep(START_AGAIN_AFTER).await;
        }
        Ok(())
    };
    match stop.run_until_cancelled(preparing).await {
        Some(prepared) => prepared?,
        None => return Ok(()),
    }
    let log = Faulty::new(stores.log.clone(), process.clone());
    let source = FaultySource::new(stores.log.member(process.name()), process.clone(), world.witness());
    let options = drain_options(&world.nature, world.shards.get(), process.name());
    let drain: ReplicaDrain = Drain::new(DrainParts { hot, source, log, directory, options });
    drain.run(stop).boxed().await.map_err(|error| error.to_string())
}

fn options(nature: &Arc<Nature>, replica: &str) -> IngestOptions {
    let clock = {
        let nature = nature.clone();
        move || Timestamp::from_microsecond(nature.wall_micros() as i64).unwrap_or_default()
    };
    IngestOptions {
        replica: replica.to_owned(),
        max_cold_reads: 4,
        lease_ttl: Duration::from_millis(300),
        absent_ttl: Duration::from_millis(200),
        hot_ttl: HotTtl { default: nature.climate().hot_ttl, per_table: HashMap::new() },
        write_attempts: 4,
        publish_timeout: PUBLISH_TIMEOUT,
        max_background_batches: 8,
        relay_batch: 2,
        relay_interval: Duration::from_millis(200),
        checkpoint_interval: Duration::from_millis(150),
        opening_interval: Duration::from_millis(100),
        shards_at_once: 4,
        table_refresh: Duration::from_millis(700),
        tables: TableOptions { log: LogSettings { allow_single_node: true }, ..TableOptions::default() },
        chance: Chance::seeded(nature.seed()),
        wall_clock: WallClock::new(clock),
        ..IngestOptions::default()
    }
}

fn drain_options(nature: &Nature, shards: u16, replica: &str) -> DrainOptions {
    let climate = nature.climate();
    DrainOptions {
        replica: replica.to_owned(),
        default_table: drain_svc::TableOptions {
            rows_per_second: None,
            transactions_per_second: None,
            batch_rows: 4,
            min_batch_rows: 1,
            batch_target: Duration::from_millis(50),
            batch_bytes: 1 << 20,
            batch_age: climate.batch_age,
            ttl: climate.hot_ttl,
        },
        per_database: Default::default(),
        adaptive: Default::default(),
        per_table: HashMap::new(),
        lanes: 2,
        lane_capacity: 16,
        retry_initial: Duration::from_millis(20),
        retry_max: Duration::from_millis(300),
        shards,
        log: LogSettings { allow_single_node: true },
        dependent_patience: Duration::from_secs(1),
        horizon_interval: Duration::from_millis(100),
        purge_interval: Duration::from_millis(150),
        tombstone_retention: climate.tombstone_retention,
        table_refresh: Duration::from_millis(700),
        shutdown_deadline: Duration::from_secs(2),
        chance: Chance::seeded(nature.seed()),
    }
}
