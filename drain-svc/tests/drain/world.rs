//! The stores of a test, and short words for what tests do.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use database::{
    AnyDatabase, CatalogEntry, Change, CreateCheck, Database, DatabaseOptions, DatabaseRow, TableDirectory,
    TableSettings,
    memory::{MemoryDatabase, MemoryTable},
};
use drain_svc::{Drain, DrainError, DrainOptions, DrainParts, TableOptions};
use event_log::{
    EventPublisher, EventSource, LogReader, LogRecord, LogSettings, Outgoing, Progress, TopicPartition,
    embedded::{EmbeddedLog, EmbeddedOptions, EmbeddedSource},
    memory::{MemoryLog, MemoryLogOptions, MemorySource},
};
use hot_store::{
    Budget, Checkpoint, HotStore, OpeningStart, OpeningToken, Precondition, RecordId, Slot, Stamp, Write, WriteOutcome,
    memory::MemoryStore,
};
use model::{
    ColumnName, ColumnType, Content, DatabaseName, DeadLetter, DeadLetterBody, DeadLetterRecord, Epoch, Event,
    EventBody, Fence, Image, Key, Mutation, Namespace, Operation, Row, Shard, ShardCount, TableName, TableRef,
    TableSchema, Topic, Value, Version,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{BentDatabase, id},
    source::{Told, WatchedSource},
};

pub(crate) const SHARDS: u32 = 4;

/// By default what the embedded edition has; see [`World::still`].
pub(crate) struct World<L = EmbeddedLog, D = AnyDatabase> {
    pub(crate) hot: Arc<MemoryStore>,
    pub(crate) log: L,
    pub(crate) db: Arc<BentDatabase<D>>,
    pub(crate) schema: TableSchema,
    shards: ShardCount,
    /// Every write that was acknowledged.
    pub(crate) acked: Mutex<Vec<(Key, Version)>>,
    /// What every key was last written as: its version and amount, `None` if it was deleted.
    pub(crate) written: Mutex<BTreeMap<i64, (Version, Option<i64>)>>,
    _dir: Option<TempDir>,
}

/// A world in which nothing happens by itself: for one thread, and a clock that stands while anything runs.
pub(crate) type Still = World<MemoryLog, MemoryDatabase>;

/// A log with a drain group.
pub(crate) trait Group: EventPublisher + LogReader + Clone {
    type Member: EventSource;

    fn member_named(&self, name: &str) -> Self::Member;
}

impl Group for EmbeddedLog {
    type Member = EmbeddedSource;

    fn member_named(&self, name: &str) -> EmbeddedSource {
        self.join(name)
    }
}

impl Group for MemoryLog {
    type Member = MemorySource;

    fn member_named(&self, name: &str) -> MemorySource {
        self.member(name)
    }
}

/// A drain that runs.
pub(crate) struct Running {
    pub(crate) told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), DrainError>>,
}

impl Running {
    /// Stops it as a signal does.
    pub(crate) async fn stop(self) {
        self.stopped().await.unwrap();
    }

    /// Stops it as a signal does, and tells how it ended.
    pub(crate) async fn stopped(self) -> Result<(), DrainError> {
        self.stop.cancel();
        self.task.await.unwrap()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> Result<(), DrainError> {
        self.task.await.unwrap()
    }

    /// Ends it as a crash does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub(crate) fn topic() -> Topic {
    Topic::new("payments").unwrap()
}

pub(crate) fn partition(shard: Shard) -> TopicPartition {
    TopicPartition { topic: topic(), partition: shard.0 }
}

fn namespace() -> Namespace {
    Namespace::new("main.payments").unwrap()
}

fn table() -> TableRef {
    TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() }
}

pub(crate) fn settings() -> TableSettings {
    TableSettings {
        topic: topic(),
        namespace: namespace(),
        group_by: Vec::new(),
        create_check: CreateCheck::Database,
        indexed_fields: Vec::new(),
    }
}

pub(crate) fn options() -> DrainOptions {
    DrainOptions {
        replica: "test".into(),
        default_table: TableOptions {
            rows_per_second: None,
            transactions_per_second: None,
            batch_rows: 100,
            min_batch_rows: 100,
            batch_target: Duration::from_millis(200),
            batch_bytes: 1 << 20,
            batch_age: Duration::from_millis(5),
            ttl: Duration::from_secs(60),
        },
        lanes: 2,
        retry_initial: Duration::from_millis(10),
        retry_max: Duration::from_millis(50),
        shards: SHARDS as u16,
        log: LogSettings { allow_single_node: true },
        table_refresh: Duration::from_millis(50),
        shutdown_deadline: Duration::from_secs(10),
        ..DrainOptions::default()
    }
}

pub(crate) fn limited(rows_per_second: f64) -> DrainOptions {
    let mut options = options();
    options.default_table.rows_per_second = Some(rows_per_second);
    options
}

/// Looks again and again until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl FnMut() -> F) {
    until_within(Duration::from_secs(90), what, holds).await;
}

/// The same, for what takes its time on a clock that stands while anything runs.
pub(crate) async fn until_within<F: Future<Output = bool>>(within: Duration, what: &str, mut holds: impl FnMut() -> F) {
    let begun = tokio::time::Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < within, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl World {
    /// Everything made and open, table `payments` enabled.
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let shards = ShardCount::new(SHARDS).unwrap();
        let name = DatabaseName::new("main").unwrap();
        let url = format!("sqlite:{}", dir.path().join("data.sqlite").display());
        let database = AnyDatabase::connect(DatabaseOptions {
            create_if_missing: true,
            ..DatabaseOptions::new(name.clone(), url)
        })
        .await
        .unwrap();
        database.prepare().await.unwrap();
        database.shard_count(shards).await.unwrap();
        database
            .run_script("CREATE TABLE payments (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL)")
            .await
            .unwrap();
        database.add_version_column(&table().table).await.unwrap();
        let schema = database.introspect(&name, &table().table).await.unwrap();
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path().join("log"))).await.unwrap();
        log.ensure_topic(&topic(), SHARDS as u16, LogSettings { allow_single_node: true }).await.unwrap();
        let entry = CatalogEntry { table: table(), enabled: true, settings: settings() };
        assert!(database.enable(&entry).await.unwrap());
        let world = Self {
            hot: Arc::new(MemoryStore::new(shards, 1 << 30)),
            log,
            db: Arc::new(BentDatabase::new(database)),
            schema,
            shards,
            acked: Mutex::default(),
            written: Mutex::default(),
            _dir: Some(dir),
        };
        world.open(Epoch(1)).await;
        world
    }
}

impl Still {
    /// The same, all of it in memory.
    pub(crate) async fn still() -> Self {
        let (database, log) = (MemoryDatabase::default(), MemoryLog::new(MemoryLogOptions::default()));
        let shards = ShardCount::new(SHARDS).unwrap();
        let column = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
        database.define_table(table().table, MemoryTable::new(vec![column("id"), column("amount")]));
        database.prepare().await.unwrap();
        database.shard_count(shards).await.unwrap();
        let schema = database.introspect(&table().database, &table().table).await.unwrap();
        log.ensure_topic(&topic(), SHARDS as u16, LogSettings { allow_single_node: true }).await.unwrap();
        let entry = CatalogEntry { table: table(), enabled: true, settings: settings() };
        assert!(database.enable(&entry).await.unwrap());
        let begun = tokio::time::Instant::now();
        let clock = move || 1_700_000_000_000_000 + begun.elapsed().as_micros() as u64;
        let world = Self {
            hot: Arc::new(MemoryStore::new(shards, 1 << 30).with_wall_clock(clock)),
            log,
            db: Arc::new(BentDatabase::new(database)),
            schema,
            shards,
            acked: Mutex::default(),
            written: Mutex::default(),
            _dir: None,
        };
        world.open(Epoch(1)).await;
        world
    }

    /// A second table, before `payments` in any order. Nobody writes to it.
    pub(crate) async fn enable_orders(&self) {
        let (database, name) = (self.db.straight(), TableName::new("orders").unwrap());
        database.define_table(
            name.clone(),
            MemoryTable::new(vec![MemoryTable::column("id", ColumnType::Int { bits: 64 }).unwrap()]),
        );
        let topic = Topic::new("orders").unwrap();
        self.log.ensure_topic(&topic, SHARDS as u16, LogSettings { allow_single_node: true }).await.unwrap();
        let settings = TableSettings { topic, namespace: Namespace::new("main.orders").unwrap(), ..settings() };
        let table = TableRef { table: name, ..table() };
        assert!(database.enable(&CatalogEntry { table, enabled: true, settings }).await.unwrap());
    }
}

impl<L: Group, D: Database> World<L, D> {
    /// What is written reaches the same database through another log, and another hot store or this one.
    pub(crate) async fn over<M: Group>(&self, log: M, hot: Option<Arc<MemoryStore>>) -> World<M, D> {
        let is_new = hot.is_none();
        let world = World {
            hot: hot.unwrap_or_else(|| Arc::new(MemoryStore::new(self.shards, 1 << 30))),
            log,
            db: self.db.clone(),
            schema: self.schema.clone(),
            shards: self.shards,
            acked: Mutex::default(),
            written: Mutex::new(self.written.lock().unwrap().clone()),
            _dir: None,
        };
        if is_new {
            world.open(Epoch(1)).await;
        }
        world
    }

    /// Opens every shard of the hot store under an epoch, keeping what is in it.
    pub(crate) async fn open(&self, epoch: Epoch) {
        for shard in self.shards.all() {
            let token = OpeningToken("test".into());
            let start = OpeningStart { points: Default::default(), discard: false };
            self.hot.claim(shard, &token).await.unwrap().unwrap();
            self.hot.begin_opening(shard, &token, epoch, start).await.unwrap();
            self.hot.finish_opening(shard, &token, Version::ZERO, Checkpoint::default()).await.unwrap();
        }
    }

    pub(crate) fn start(&self, options: DrainOptions) -> Running {
        self.start_on(self.hot.clone(), options)
    }

    /// With this in the hot store's place.
    pub(crate) fn start_on(&self, hot: Arc<impl HotStore + Budget>, options: DrainOptions) -> Running {
        self.start_with(hot, Arc::new(self.log.clone()), options)
    }

    /// With these in the place of the hot store and of the log that takes dead letters.
    pub(crate) fn start_with(
        &self,
        hot: Arc<impl HotStore + Budget>,
        log: Arc<impl EventPublisher>,
        options: DrainOptions,
    ) -> Running {
        let directory = TableDirectory::new(vec![(table().database, self.db.clone())]);
        self.start_parts(hot, log, directory, options)
    }

    /// With these databases.
    pub(crate) fn start_over(&self, directory: TableDirectory<BentDatabase<D>>, options: DrainOptions) -> Running {
        self.start_parts(self.hot.clone(), Arc::new(self.log.clone()), directory, options)
    }

    fn start_parts(
        &self,
        hot: Arc<impl HotStore + Budget>,
        log: Arc<impl EventPublisher>,
        directory: TableDirectory<BentDatabase<D>>,
        options: DrainOptions,
    ) -> Running {
        let (source, told) = WatchedSource::new(self.log.member_named("test"));
        let parts = DrainParts { hot, source, log, directory: Arc::new(directory), options };
        let stop = CancellationToken::new();
        let task = tokio::spawn(Drain::new(parts).run(stop.clone()));
        Running { told, stop, task }
    }

    pub(crate) fn shard(&self, key: &Key) -> Shard {
        self.schema.shard_of(key, self.shards)
    }

    pub(crate) fn row(&self, n: i64, amount: i64) -> Row {
        let column = |name: &str, value| (ColumnName::new(name).unwrap(), Value::Int64(value));
        Row::from_iter([column("id", n), column("amount", amount)])
    }

    pub(crate) fn image(&self, n: i64, amount: Option<i64>) -> Image {
        let (content, operation) = match amount {
            Some(amount) => (Content::Row(self.row(n, amount)), Operation::Put),
            None => (Content::Tombstone, Operation::Delete),
        };
        Image { content, operation, fingerprint: self.schema.fingerprint(), request: None, since: None }
    }

    /// Writes as the write path does; `None` deletes.
    pub(crate) async fn write(&self, n: i64, amount: Option<i64>) -> (Version, i64) {
        let (version, epoch) = self.store(n, amount).await;
        let offset = self.publish(n, version, epoch, amount).await;
        let stamp = Stamp { record: self.record(n), version };
        self.hot.mark_queued(self.shard(&id(n)), epoch, vec![stamp]).await.unwrap();
        self.acked.lock().unwrap().push((id(n), version));
        (version, offset)
    }

    /// The first step of a write: into the hot store.
    pub(crate) async fn store(&self, n: i64, amount: Option<i64>) -> (Version, Epoch) {
        let image = self.image(n, amount);
        let write = Write { record: self.record(n), precondition: Precondition::None, image, index: None };
        let outcome = self.hot.write(self.shard(&id(n)), Instant::now(), vec![write]).await.unwrap()[0];
        let WriteOutcome::Stored { version, epoch, .. } = outcome else { panic!("{outcome:?}") };
        self.written.lock().unwrap().insert(n, (version, amount));
        (version, epoch)
    }

    /// Its second step: into the log.
    pub(crate) async fn publish(&self, n: i64, version: Version, epoch: Epoch, amount: Option<i64>) -> i64 {
        let (key, shard) = (id(n), self.shard(&id(n)));
        let mutation = Mutation { table: table(), key, version, image: self.image(n, amount) };
        self.append(shard, Event { shard, epoch, body: EventBody::Mutations(vec![mutation]) }.encode()).await
    }

    pub(crate) async fn fence(&self, shard: Shard, epoch: Epoch) -> i64 {
        let body = EventBody::Fence(Fence { opener: "test".into() });
        self.append(shard, Event { shard, epoch, body }.encode()).await
    }

    pub(crate) async fn append(&self, shard: Shard, payload: Bytes) -> i64 {
        let record = Outgoing { to: partition(shard), key: Bytes::new(), payload };
        self.log.publish(vec![record]).await.remove(0).unwrap()
    }

    /// All dead letters, in the order of the log.
    pub(crate) async fn letters(&self) -> Vec<DeadLetter> {
        let topic = topic().dead_letters().unwrap();
        let mut letters = Vec::new();
        for shard in self.shards.all() {
            let partition = TopicPartition { topic: topic.clone(), partition: shard.0 };
            let Ok(bounds) = self.log.bounds(std::slice::from_ref(&partition)).await else { return Vec::new() };
            let mut each = |record: LogRecord| {
                let found = DeadLetterRecord::decode(record.payload).unwrap();
                assert_eq!((found.shard, &found.table), (shard, &table()));
                let DeadLetterBody::Letter(letter) = found.body else { panic!("{found:?}") };
                assert_eq!((record.key, &letter.topic), (letter.key.as_bytes().clone(), &self::topic()));
                letters.push(letter);
                true
            };
            let (first, end) = bounds[0];
            self.log.read(&partition, first, end, &mut each).await.unwrap();
        }
        letters
    }

    /// The payload of a record of the log.
    pub(crate) async fn payload(&self, shard: Shard, offset: i64) -> Bytes {
        let mut found = Bytes::new();
        let mut each = |record: LogRecord| {
            found = record.payload;
            true
        };
        self.log.read(&partition(shard), offset, offset + 1, &mut each).await.unwrap();
        found
    }

    pub(crate) fn record(&self, n: i64) -> RecordId {
        RecordId { namespace: namespace(), key: id(n).to_bytes() }
    }

    pub(crate) async fn slot(&self, n: i64) -> Slot {
        self.hot.read(self.shard(&id(n)), vec![self.record(n)]).await.unwrap().slots.remove(0)
    }

    /// The rows of these keys in the database: version and amount.
    pub(crate) async fn rows(&self, keys: impl IntoIterator<Item = i64>) -> HashMap<i64, DatabaseRow> {
        let keys: Vec<i64> = keys.into_iter().collect();
        let ids: Vec<Key> = keys.iter().map(|n| id(*n)).collect();
        let mut rows = HashMap::new();
        for (ns, ids) in keys.chunks(50).zip(ids.chunks(50)) {
            rows.extend(ns.iter().copied().zip(self.db.straight().read(&self.schema, ids).await.unwrap()));
        }
        rows
    }

    /// Whether the hot store knows that the database has everything.
    pub(crate) async fn is_clean(&self) -> bool {
        for shard in self.shards.all() {
            if self.hot.header(shard).await.unwrap().dirty > 0 {
                return false;
            }
        }
        true
    }

    pub(crate) async fn until_clean(&self) {
        until("everything is clean", || self.is_clean()).await;
    }

    /// How many records the database lacks.
    pub(crate) async fn dirty(&self) -> u64 {
        let mut dirty = 0;
        for shard in self.shards.all() {
            dirty += self.hot.header(shard).await.unwrap().dirty;
        }
        dirty
    }

    pub(crate) async fn ends(&self) -> Vec<i64> {
        let partitions: Vec<_> = self.shards.all().map(partition).collect();
        self.log.bounds(&partitions).await.unwrap().into_iter().map(|(_, end)| end).collect()
    }

    pub(crate) async fn committed(&self) -> Vec<Option<Progress>> {
        let partitions: Vec<_> = self.shards.all().map(partition).collect();
        let committed = self.log.committed(&partitions).await.unwrap();
        committed.into_iter().map(|committed| committed.map(|committed| committed.done)).collect()
    }

    /// Everything that is in the log has been committed; partitions that hold nothing need no commit.
    pub(crate) async fn assert_all_committed(&self) {
        let committed: Vec<i64> = self.committed().await.iter().map(|p| p.map_or(0, |p| p.offset)).collect();
        assert_eq!(committed, self.ends().await);
    }

    /// The database holds each key as it was last written, but for purged tombstones.
    pub(crate) async fn assert_rows_are_as_written(&self) {
        let written = self.written.lock().unwrap().clone();
        let rows = self.rows(written.keys().copied()).await;
        for (n, (version, amount)) in written {
            let expected = match amount {
                Some(amount) => DatabaseRow::Present { version, row: self.row(n, amount) },
                None => DatabaseRow::Deleted { version },
            };
            let was_purged = amount.is_none() && rows[&n] == DatabaseRow::Absent && {
                let table = std::slice::from_ref(&self.schema.table.table);
                let shard = self.db.straight().shard_rows(table, self.shard(&id(n))).await.unwrap()[0];
                version <= shard.purge_horizon
            };
            assert!(was_purged || rows[&n] == expected, "key {n}: {:?}, not {expected:?}", rows[&n]);
        }
    }

    /// A change past everything, as an earlier transaction would have made it.
    pub(crate) fn change(&self, n: i64, version: Version, amount: Option<i64>) -> Change {
        Change { shard: self.shard(&id(n)), key: id(n), version, image: self.image(n, amount) }
    }
}
