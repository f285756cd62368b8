//! One run's world: its stores, its processes, what is known about it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use database::{
    CatalogEntry, CreateCheck, Database as _, ErrorClass, TableSettings,
    memory::{MemoryCheck, MemoryDatabaseOptions, MemoryTable},
};
use event_log::{EventPublisher as _, LogSettings, TopicPartition, memory::MemoryLogOptions};
use history::{Base, History, Image, Loss, Span, Stamp};
use hot_store::memory::{MemorySnapshot, Survives};
use model::{
    Column, ColumnDefault, ColumnName, ColumnType, DatabaseName, Epoch, InvalidName, Key, Namespace, Row, Shard,
    ShardCount, ShardCountError, TableName, TableRef, TableSchema, Topic, Value, Version, VersionGuard,
};

use tokio::time::sleep;

use crate::{
    backends::{Db, Hot, Log, Stores},
    nature::{Nature, lock},
    operator::DrainedDown,
    replicas::{DrainProcess, Ingest},
    witness::Witness,
};

/// Shards of every world.
const SHARDS: u32 = 2;
/// Keys of a table whose keys are unique by construction.
const FRESH_KEYS: u64 = 8;
/// A drain that says nothing for so long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_millis(600);
/// How long a request's id is known.
const REQUEST_WINDOW: Duration = Duration::from_secs(20);
/// How long a transaction waits for a shard's lock.
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);
/// Between two looks whether a replica takes requests.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Moments to which the hot store can be set back.
const SNAPSHOTS: usize = 24;

/// Why a world could not be made: a defect of the harness.
#[derive(Debug)]
pub(crate) struct Unmade(pub(crate) String);

impl From<InvalidName> for Unmade {
    fn from(error: InvalidName) -> Self {
        Self(error.to_string())
    }
}

impl From<ShardCountError> for Unmade {
    fn from(error: ShardCountError) -> Self {
        Self(error.to_string())
    }
}

/// A table and its keys.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: TableRef,
    pub(crate) schema: TableSchema,
    pub(crate) settings: TableSettings,
}

/// One record of a run.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) table: usize,
    pub(crate) key: Key,
    pub(crate) shard: Shard,
    /// Its name in the history.
    pub(crate) name: String,
}

/// Everything of one run.
pub(crate) struct World {
    pub(crate) nature: Arc<Nature>,
    pub(crate) stores: Stores,
    pub(crate) shards: ShardCount,
    pub(crate) tables: Vec<Table>,
    pub(crate) records: Vec<Record>,
    pub(crate) ingests: Mutex<Vec<Arc<Ingest>>>,
    pub(crate) drains: Mutex<Vec<Arc<DrainProcess>>>,
    pub(crate) history: Mutex<History>,
    /// Whether the log keeps what is drained.
    pub(crate) keeps_drained: bool,
    snapshots: Mutex<Vec<MemorySnapshot>>,
    fresh: AtomicUsize,
    cuts: AtomicUsize,
    made_up: Mutex<Vec<usize>>,
    ticks: AtomicU64,
    numbers: AtomicU64,
    drained_down: Mutex<Option<DrainedDown>>,
}

/// What a value leaves over, divided by this, decides whether the database takes it, if there is poison at all.
const DIVISOR: u64 = 9;
/// It never does.
const NEVER: u64 = 4;
/// Another row stands in the way, for ever.
const DEPENDENT: u64 = 7;

fn is_refused(value: u64) -> bool {
    [NEVER, DEPENDENT].contains(&(value % DIVISOR))
}

pub(crate) fn database_name() -> DatabaseName {
    // A constant that is a name.
    DatabaseName::new("main").unwrap_or_else(|_| unreachable!())
}

impl World {
    /// Everything made, the tables enabled; no process runs.
    pub(crate) async fn new(nature: Arc<Nature>) -> Result<Arc<Self>, Unmade> {
        let shards = ShardCount::new(SHARDS)?;
        let clock = nature.clone();
        let hot = Hot::new(shards, nature.climate().hot_bytes)
            .with_wall_clock(move || clock.wall_micros())
            .with_request_window(REQUEST_WINDOW);
        let keeps_drained = nature.happens(0.7);
        let log = Log::new(MemoryLogOptions {
            session_timeout: SESSION_TIMEOUT,
            request_window: REQUEST_WINDOW,
            keep_drained: keeps_drained,
            ..MemoryLogOptions::default()
        });
        let database = Db::new(MemoryDatabaseOptions {
            lock_timeout: LOCK_TIMEOUT,
            statement_time: nature.climate().statement_time,
        });
        let failed = |error: &dyn std::fmt::Display| Unmade(error.to_string());
        database.prepare().await.map_err(|e| failed(&e))?;
        database.shard_count(shards).await.map_err(|e| failed(&e))?;
        let mut tables = Vec::new();
        for name in ["payments", "orders"].into_iter().take(if nature.climate().two_tables { 2 } else { 1 }) {
            let fresh_keys = name == "orders" && nature.climate().fresh_keys;
            let table = Table::new(name, &database, fresh_keys, nature.climate().poison).await?;
            log.ensure_topic(&table.settings.topic, shards.get(), LogSettings { allow_single_node: true })
                .await
                .map_err(|e| failed(&e))?;
            let entry = CatalogEntry { table: table.name.clone(), enabled: true, settings: table.settings.clone() };
            if !database.enable(&entry).await.map_err(|e| failed(&e))? {
                return Err(Unmade(format!("{name} can't be enabled")));
            }
            tables.push(table);
        }
        let mut records = Vec::new();
        for (at, table) in tables.iter().enumerate() {
            let keys = if table.has_fresh_keys() { FRESH_KEYS } else { nature.climate().keys };
            for n in 0..keys {
                let key = Key(vec![Value::Text(format!("k{n}"))]);
                let shard = table.schema.shard_of(&key, shards);
                records.push(Record { table: at, key, shard, name: format!("{}/k{n}", table.name.table) });
            }
        }
        let records_planted = records.len() as u64;
        let history = History { initial: plant(&nature, &database, &tables, &records)?, ..History::default() };
        Ok(Arc::new(Self {
            stores: Stores { hot: Arc::new(hot), log: Arc::new(log), database: Arc::new(database) },
            nature,
            shards,
            tables,
            records,
            ingests: Mutex::default(),
            drains: Mutex::default(),
            history: Mutex::new(history),
            keeps_drained,
            snapshots: Mutex::default(),
            fresh: AtomicUsize::new(0),
            cuts: AtomicUsize::new(0),
            made_up: Mutex::default(),
            ticks: AtomicU64::new(0),
            // Below are the values of the rows that were there before.
            numbers: AtomicU64::new(records_planted),
            drained_down: Mutex::default(),
        }))
    }

    /// The next instant of the history. There is one thread, so what happens happens in an order.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A record: of those that are made up, only those that are known to be there.
    pub(crate) fn any_record(&self) -> usize {
        let made_up = lock(&self.made_up);
        let is_common = |record: &&Record| !self.tables[record.table].has_fresh_keys();
        // They come first.
        let common = self.records.iter().filter(is_common).count();
        let at = self.nature.pick(0..(common + made_up.len()) as u64) as usize;
        at.checked_sub(common).and_then(|at| made_up.get(at)).copied().unwrap_or(at)
    }

    /// Makes a record up, if there is a table for that.
    pub(crate) fn fresh_record(&self) -> Option<usize> {
        let first = self.records.iter().position(|record| self.tables[record.table].has_fresh_keys())?;
        let at = first + self.fresh.load(Ordering::Relaxed);
        (at < self.records.len()).then(|| {
            self.fresh.fetch_add(1, Ordering::Relaxed);
            at
        })
    }

    /// Whoever made a record up knows that it is there, and tells others.
    pub(crate) fn is_made_up(&self, at: usize) {
        if self.tables[self.records[at].table].has_fresh_keys() && !lock(&self.made_up).contains(&at) {
            lock(&self.made_up).push(at);
        }
    }

    /// A number that was not given before.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the database refuses rows with this value.
    pub(crate) fn is_poison(&self, value: u64) -> bool {
        self.nature.climate().poison && is_refused(value)
    }

    /// Notes what must not be.
    pub(crate) fn complain(&self, what: String) {
        self.nature.complain(what);
    }

    /// A drain-down was told to be ready, or is over.
    pub(crate) fn is_drained_down(&self, newest: Option<DrainedDown>) {
        *lock(&self.drained_down) = newest;
    }

    /// A write was acknowledged.
    pub(crate) fn heard_of(&self, record: &Record, stamp: Stamp) {
        let (epoch, version) = (Epoch(stamp.epoch), Version::new(stamp.version).unwrap_or_default());
        if lock(&self.drained_down).as_ref().is_some_and(|down| down.is_broken_by(record.shard, epoch, version)) {
            self.complain(format!("{} was accepted at {stamp:?} after all was told to be drained down", record.name));
        }
    }

    pub(crate) fn start_ingest(self: &Arc<Self>) {
        let name = format!("ingest-{}", self.number());
        self.nature.note(|| format!("{name} starts"));
        let ingest = Ingest::start(self, name);
        lock(&self.ingests).push(Arc::new(ingest));
    }

    pub(crate) fn start_drain(self: &Arc<Self>) {
        let name = format!("drain-{}", self.number());
        self.nature.note(|| format!("{name} starts"));
        let drain = DrainProcess::start(self, name);
        lock(&self.drains).push(Arc::new(drain));
    }

    /// Ingest replicas that live.
    pub(crate) fn living_ingests(&self) -> Vec<Arc<Ingest>> {
        lock(&self.ingests).iter().filter(|ingest| !ingest.process.is_dead()).cloned().collect()
    }

    /// An ingest replica that takes requests, when there is one.
    pub(crate) async fn ready_replica(&self) -> Arc<Ingest> {
        loop {
            let ready: Vec<_> = self.living_ingests().into_iter().filter(|ingest| ingest.is_ready()).collect();
            if let Some(one) = self.nature.one_of(&ready) {
                return one.clone();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Drains that live.
    pub(crate) fn living_drains(&self) -> Vec<Arc<DrainProcess>> {
        lock(&self.drains).iter().filter(|drain| !drain.is_dead()).cloned().collect()
    }

    /// Remembers what the hot store holds now, as a moment to which it may be set back.
    pub(crate) fn take_snapshot(&self) {
        let snapshot = self.stores.hot.snapshot();
        let mut snapshots = lock(&self.snapshots);
        if snapshots.len() >= SNAPSHOTS {
            // Some old ones stay, most are new.
            let at = self.nature.pick(0..snapshots.len() as u64) as usize;
            snapshots.remove(at);
        }
        snapshots.push(snapshot);
    }

    pub(crate) fn restart_hot(&self) {
        self.nature.note(|| "the hot store restarts with everything".to_owned());
        self.stores.hot.restart(Survives::Everything);
    }

    /// Each partition loses what the log had not forced to the disk.
    pub(crate) fn lose_end_of_log(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
        for table in &self.tables {
            for shard in self.shards.all() {
                let at = TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 };
                let many = self.nature.pick(0..self.nature.pick(1..16)) as usize;
                self.nature.note(|| format!("{}/{} loses its last {many} records", at.topic, at.partition));
                self.stores.log.lose_last(&at, many);
            }
        }
    }

    /// How often the log has lost its end.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }

    /// The hot store restarts with what it held at an earlier moment of its own history.
    pub(crate) fn lose_tail(&self) {
        let mut snapshots = lock(&self.snapshots);
        let Some(newest) = snapshots.len().checked_sub(1) else { return };
        // Mostly little is lost.
        let back = self.nature.pick(0..self.nature.pick(1..newest as u64 + 2)) as usize;
        let at = newest - back.min(newest);
        self.nature.note(|| format!("the hot store restarts as it was {back} snapshots ago"));
        snapshots.truncate(at + 1);
        self.lose(Survives::Snapshot(snapshots[at].clone()));
    }

    pub(crate) fn lose_all(&self) {
        self.nature.note(|| "the hot store restarts empty".to_owned());
        lock(&self.snapshots).clear();
        self.lose(Survives::Nothing);
    }

    fn lose(&self, survives: Survives) {
        let from = self.tick();
        self.stores.hot.restart(survives);
        self.nature.lost();
        let span = Span::new(from, self.tick());
        lock(&self.history).losses.push(Loss { span });
    }

    /// Who watches the drains.
    pub(crate) fn witness(&self) -> Arc<Witness> {
        let (nature, stores, tables) = (self.nature.clone(), self.stores.clone(), self.tables.clone());
        Arc::new(Witness { nature, stores, tables })
    }

    /// The columns of a record's key.
    pub(crate) fn key_row(record: &Record) -> Row {
        let Key(values) = &record.key;
        column("id").into_iter().zip(values.iter().cloned()).collect()
    }
}

/// Some rows were there before us.
fn plant(
    nature: &Nature,
    database: &Db,
    tables: &[Table],
    records: &[Record],
) -> Result<BTreeMap<String, Base>, Unmade> {
    let mut initial = BTreeMap::new();
    for (value, record) in (1..).zip(records) {
        let refused = nature.climate().poison && is_refused(value);
        if !tables[record.table].has_fresh_keys() && nature.happens(0.3) && !refused {
            let row = World::key_row(record).merged_with(whole(value));
            let written = database.write_row(&tables[record.table].name.table, row);
            written.map_err(|error| Unmade(error.to_string()))?;
            initial.insert(record.name.clone(), Base { version: 0, image: Some(Image::whole(value)) });
        }
    }
    Ok(initial)
}

/// All columns of a row but its key.
pub(crate) fn whole(value: u64) -> Row {
    columns(&[("value", value), ("left_part", value), ("right_part", value)])
}

/// Columns that hold numbers.
pub(crate) fn columns(of: &[(&str, u64)]) -> Row {
    of.iter().filter_map(|(name, value)| Some((column(name)?, Value::Int64(*value as i64)))).collect()
}

pub(crate) fn column(name: &str) -> Option<ColumnName> {
    ColumnName::new(name).ok()
}

impl Table {
    /// Whether its keys are unique by construction: each is created once, by whoever made it up.
    pub(crate) fn has_fresh_keys(&self) -> bool {
        self.settings.create_check == CreateCheck::HotStore
    }

    async fn new(name: &str, database: &Db, fresh_keys: bool, poison: bool) -> Result<Self, Unmade> {
        let table = TableRef { database: database_name(), table: TableName::new(name)? };
        let text = ColumnType::Text { max_chars: Some(20), max_bytes: None };
        let number = ColumnType::Int { bits: 64 };
        let columns: Result<Vec<Column>, InvalidName> =
            [("id", text), ("value", number.clone()), ("left_part", number.clone()), ("right_part", number)]
                .into_iter()
                .map(|(name, ty)| {
                    let name = ColumnName::new(name)?;
                    Ok(Column { name, ty, nullable: false, default: ColumnDefault::None, on_update_now: false })
                })
                .collect();
        let check =
            |class, remainder| MemoryCheck { column: 1, divisor: DIVISOR as i64, remainder: remainder as i64, class };
        let checks = vec![check(ErrorClass::Permanent, NEVER), check(ErrorClass::Dependent, DEPENDENT)];
        let definition = MemoryTable {
            checks: if poison { checks } else { Vec::new() },
            guard: if name == "orders" { VersionGuard::Ledger } else { VersionGuard::Column },
            ..MemoryTable::new(columns?)
        };
        database.define_table(table.table.clone(), definition);
        let schema = database.introspect(&table.database, &table.table).await;
        let schema = schema.map_err(|error| Unmade(error.to_string()))?;
        let settings = TableSettings {
            topic: Topic::new(format!("shock-absorber.{name}"))?,
            namespace: Namespace::new(table.to_string())?,
            group_by: Vec::new(),
            create_check: if fresh_keys { CreateCheck::HotStore } else { CreateCheck::Database },
            indexed_fields: vec![ColumnName::new("value")?],
        };
        Ok(Self { name: table, schema, settings })
    }
}
