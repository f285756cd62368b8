//! What all use cases of a replica share: the three stores, the tables, the options.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use database::TableDirectory;
use jiff::Timestamp;
use model::{Chance, Moment, ShardCount, TableRef};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{
    accept::{AckLevel, FormsMet, LastLooks},
    backlog::Backlogs,
    find::Unindexed,
    opening::OpeningProgress,
    read::{Flights, Outages},
    tables::TableOptions,
};

/// How long records stay in the hot store once the database has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotTtl {
    /// For tables that are not named.
    pub default: Duration,
    /// For those that are.
    pub per_table: HashMap<TableRef, Duration>,
}

impl HotTtl {
    /// That of a table.
    pub fn of(&self, table: &TableRef) -> Duration {
        self.per_table.get(table).copied().unwrap_or(self.default)
    }
}

/// What of a table may wait for the database; `None` is no cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MaxBacklog {
    /// Records.
    pub records: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// How long the oldest of them has waited.
    pub age: Option<Duration>,
}

/// What holds for writes to one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRules {
    /// The level of those that do not say.
    pub ack: AckLevel,
    /// Past it they are refused.
    pub max_backlog: MaxBacklog,
    /// At so many parked records writes to others are refused; `None` is no cap.
    pub max_parked: Option<u64>,
}

impl Default for TableRules {
    fn default() -> Self {
        Self { ack: AckLevel::Queued, max_backlog: MaxBacklog::default(), max_parked: Some(100_000) }
    }
}

/// What holds for writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteRules {
    /// For tables that are not named.
    pub default: TableRules,
    /// For those that are.
    pub per_table: HashMap<TableRef, TableRules>,
}

impl WriteRules {
    /// Those of a table.
    pub fn of(&self, table: &TableRef) -> TableRules {
        self.per_table.get(table).copied().unwrap_or(self.default)
    }
}

/// The clock that defaults such as CURRENT_TIMESTAMP go by, and the ages that are measured.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl WallClock {
    /// Another clock than the system's.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for WallClock {
    /// The system's.
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}

/// What can be set about the use cases. The defaults are those of the configuration.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// The name of this replica, in logs and fences.
    pub replica: String,
    /// Cold reads of the database at once.
    pub max_cold_reads: usize,
    /// A cold read waits for the database's answer for so long.
    pub database_patience: Duration,
    /// After a database, or one table of it, did not answer, those who miss a record are told so at once for so long, and
    /// then all but one of them, who asks again; zero: all ask.
    pub outage_pause: Duration,
    /// Watches at once.
    pub max_watches: usize,
    /// A watch that has nothing to tell says so after this time, with a new token.
    pub watch_progress: Duration,
    /// Records that a find answers at once.
    pub max_find_records: usize,
    /// Bytes of the images that a find reads at once.
    pub max_find_bytes: usize,
    /// How long a reader may take to fill a cold record.
    pub lease_ttl: Duration,
    /// How long "there is no such row" is remembered.
    pub absent_ttl: Duration,
    /// How long a clean record stays.
    pub hot_ttl: HotTtl,
    /// What holds for writes, table by table.
    pub rules: WriteRules,
    /// Attempts of a write whose record changes under it, or turns cold again.
    pub write_attempts: u32,
    /// A produce that takes longer has an unknown outcome. Above the log's own delivery timeout.
    pub publish_timeout: Duration,
    /// Batches that are produced behind the back of clients who asked for LOGGED only; past it the relay does it.
    pub max_background_batches: usize,
    /// Writers that wait for the database at once: past it they learn at once how far their write has come. It is less
    /// than the requests that are worked on at once, so that they are not in the way of others while the database is
    /// away.
    pub max_applied_waits: usize,
    /// Records that the relay produces again at once.
    pub relay_batch: usize,
    /// How often the relay sweeps.
    pub relay_interval: Duration,
    /// How often what waits for the database is counted.
    pub backlog_interval: Duration,
    /// How long the log keeps events: when the oldest record has waited for half of it, writes are refused. `None`: until
    /// they are drained.
    pub log_retention: Option<Duration>,
    /// How often the end of the log is written into the shards.
    pub checkpoint_interval: Duration,
    /// How often closed shards are looked for.
    pub opening_interval: Duration,
    /// Shards that are opened, swept or asked at once.
    pub shards_at_once: usize,
    /// How often tables that were enabled, disabled or altered elsewhere are looked for.
    pub table_refresh: Duration,
    /// How tables are enabled.
    pub tables: TableOptions,
    /// Whatever is left to chance.
    pub chance: Chance,
    /// The wall clock.
    pub wall_clock: WallClock,
}

impl IngestOptions {
    /// What the defaults of a write that comes now are made of.
    pub(crate) fn moment(&self) -> Moment<'_> {
        Moment { now: self.wall_clock.now(), chance: &self.chance }
    }
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            replica: "ingest".to_owned(),
            max_cold_reads: 32,
            database_patience: Duration::from_secs(2),
            outage_pause: Duration::from_secs(1),
            max_watches: 256,
            watch_progress: Duration::from_secs(10),
            max_find_records: 1000,
            max_find_bytes: 2 << 20,
            lease_ttl: Duration::from_secs(5),
            absent_ttl: Duration::from_secs(5),
            hot_ttl: HotTtl { default: Duration::from_secs(600), per_table: HashMap::new() },
            rules: WriteRules::default(),
            write_attempts: 8,
            publish_timeout: Duration::from_secs(15),
            max_background_batches: 1024,
            max_applied_waits: 512,
            relay_batch: 256,
            relay_interval: Duration::from_secs(1),
            backlog_interval: Duration::from_secs(1),
            log_retention: Some(Duration::from_secs(168 * 3600)),
            checkpoint_interval: Duration::from_secs(1),
            opening_interval: Duration::from_millis(250),
            shards_at_once: 16,
            table_refresh: Duration::from_secs(1),
            tables: TableOptions::default(),
            chance: Chance::from_os(),
            wall_clock: WallClock::default(),
        }
    }
}

/// What all use cases of a replica share.
pub struct Core<H, L, D> {
    /// The hot store.
    pub hot: Arc<H>,
    /// The event log.
    pub log: Arc<L>,
    /// The databases and the enabled tables.
    pub directory: Arc<TableDirectory<D>>,
    /// The number of shards.
    pub shards: ShardCount,
    /// What was set.
    pub options: IngestOptions,
    /// Writes under way, also those whose client has gone: close it and wait for it before the stores are closed.
    pub tasks: TaskTracker,
    pub(crate) cold_reads: Semaphore,
    pub(crate) flights: Flights,
    pub(crate) outages: Outages,
    pub(crate) unindexed: Unindexed,
    pub(crate) forms_met: FormsMet,
    pub(crate) last_looks: LastLooks,
    /// Whoever makes indexes.
    pub(crate) index_builds: Arc<Semaphore>,
    pub(crate) background: Arc<Semaphore>,
    pub(crate) applied_waits: Semaphore,
    pub(crate) backlogs: Backlogs,
    pub(crate) opening: watch::Sender<OpeningProgress>,
}

impl<H, L, D> Core<H, L, D> {
    /// Puts the parts together; nothing is asked or started yet.
    pub fn new(
        hot: Arc<H>,
        log: Arc<L>,
        directory: Arc<TableDirectory<D>>,
        shards: ShardCount,
        options: IngestOptions,
    ) -> Self {
        let progress = OpeningProgress { opened: 0, total: shards.get() };
        Self {
            hot,
            log,
            directory,
            shards,
            tasks: TaskTracker::new(),
            index_builds: Arc::new(Semaphore::new(1)),
            unindexed: Unindexed::default(),
            forms_met: FormsMet::default(),
            last_looks: LastLooks::default(),
            cold_reads: Semaphore::new(options.max_cold_reads.max(1)),
            flights: Flights::default(),
            outages: Outages::new(options.outage_pause, options.database_patience),
            background: Arc::new(Semaphore::new(options.max_background_batches)),
            applied_waits: Semaphore::new(options.max_applied_waits),
            backlogs: Backlogs::default(),
            opening: watch::Sender::new(progress),
            options,
        }
    }

    /// How many shards were open when they were last looked at; changes as [`crate::opening::run`] goes on.
    pub fn opening_progress(&self) -> watch::Receiver<OpeningProgress> {
        self.opening.subscribe()
    }
}
