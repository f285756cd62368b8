//! The three stores of a test, a drain that works when it is told to, and short words for what tests do.

use std::{sync::Arc, time::Duration};

use database::{Batch, Change as RowChange, Database as _, DatabaseRow, TableDirectory};
use event_log::{LogReader as _, Progress, TopicPartition};
use hot_store::{Clean, HotStore as _, RecordId, Slot, memory::Survives};
use ingest_svc::{
    Core, Etag, IngestOptions,
    accept::{Accepted, AckLevel, Acknowledge, Change, Require, WriteError, WriteRequest, Writer},
    find::Finder,
    opening::{Opened, OpeningError, open_shard},
    read::{Found, ReadError, Reader},
    startup,
    tables::Tables,
};
use model::{
    ColumnName, Content, DatabaseName, Epoch, Event, EventBody, Key, Mutation, RequestId, Row, Shard, ShardCount,
    TableName, TableRef, Value, Version,
};

use crate::{
    db::{BentDatabase, payment_columns},
    log::BentLog,
    store::BentStore,
};

pub type TestCore = Core<BentStore, BentLog, BentDatabase>;
pub type WriteResult = Result<Accepted, WriteError>;

pub struct World {
    pub core: Arc<TestCore>,
    pub store: Arc<BentStore>,
    pub log: Arc<BentLog>,
    pub db: Arc<BentDatabase>,
    pub writer: Writer<BentStore, BentLog, BentDatabase>,
    pub reader: Reader<BentStore, BentLog, BentDatabase>,
    pub finder: Finder<BentStore, BentLog, BentDatabase>,
    pub tables: Tables<BentStore, BentLog, BentDatabase>,
}

pub const LOGGED: AckLevel = AckLevel::Logged;
pub const QUEUED: AckLevel = AckLevel::Queued;
pub const APPLIED: AckLevel = AckLevel::Applied;

pub fn table(name: &str) -> TableRef {
    TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new(name).unwrap() }
}

pub fn row(columns: &[(&str, Value)]) -> Row {
    columns.iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value.clone())).collect()
}

pub fn key(id: &str) -> Key {
    Key(vec![Value::Text(id.into())])
}

pub fn key_row(id: &str) -> Row {
    row(&[("id", Value::Text(id.into()))])
}

pub fn payment(id: &str, amount: i64) -> Row {
    row(&[("id", Value::Text(id.into())), ("amount", Value::Int64(amount))])
}

/// The row as it is stored: with the defaults.
pub fn full_payment(id: &str, amount: i64) -> Row {
    let rest = row(&[("status", Value::Text("new".into())), ("note", Value::Null)]);
    payment(id, amount).merged_with(rest)
}

pub fn create(id: &str, amount: i64) -> Change {
    Change::Create { row: payment(id, amount) }
}

pub fn put(id: &str, amount: i64) -> Change {
    Change::Put { row: payment(id, amount), precondition: None }
}

pub fn put_if(id: &str, amount: i64, require: Require) -> Change {
    Change::Put { row: payment(id, amount), precondition: Some(require) }
}

pub fn update(id: &str, changes: &[(&str, Value)]) -> Change {
    Change::Update { key: key_row(id), changes: row(changes), precondition: None }
}

pub fn update_if(id: &str, changes: &[(&str, Value)], require: Require) -> Change {
    Change::Update { key: key_row(id), changes: row(changes), precondition: Some(require) }
}

pub fn delete(id: &str) -> Change {
    Change::Delete { key: key_row(id), precondition: None }
}

pub fn delete_if(id: &str, require: Require) -> Change {
    Change::Delete { key: key_row(id), precondition: Some(require) }
}

pub fn request(change: Change) -> WriteRequest {
    WriteRequest { table: table("payments"), change, request_id: None }
}

pub fn named(id: &str, change: Change) -> WriteRequest {
    WriteRequest { request_id: Some(RequestId::new(id).unwrap()), ..request(change) }
}

pub fn quick_options() -> IngestOptions {
    IngestOptions {
        publish_timeout: Duration::from_millis(100),
        lease_ttl: Duration::from_millis(300),
        outage_pause: Duration::ZERO,
        relay_batch: 2,
        ..IngestOptions::default()
    }
}

impl World {
    /// Everything made and open, table `payments` enabled.
    pub async fn new() -> Self {
        Self::with(quick_options(), u64::MAX / 1000).await
    }

    pub async fn with(options: IngestOptions, max_bytes: u64) -> Self {
        let world = Self::closed(options, max_bytes).await;
        world.tables.enable(&table("payments")).await.unwrap();
        world.open_all().await;
        world
    }

    /// No table enabled, no shard open.
    pub async fn closed(options: IngestOptions, max_bytes: u64) -> Self {
        let shards = ShardCount::new(4).unwrap();
        let store = Arc::new(BentStore::new(shards, max_bytes));
        let log = Arc::new(BentLog::new());
        let db = Arc::new(BentDatabase::default());
        db.make_table("payments", Some(payment_columns()));
        let directory = Arc::new(TableDirectory::new(vec![(DatabaseName::new("main").unwrap(), db.clone())]));
        let core = Arc::new(Core::new(store.clone(), log.clone(), directory, shards, options));
        startup::prepare(&core).await.unwrap();
        Self {
            writer: Writer::new(core.clone()),
            reader: Reader::new(core.clone()),
            finder: Finder::new(core.clone()),
            tables: Tables::new(core.clone()),
            core,
            store,
            log,
            db,
        }
    }

    pub async fn open(&self, shard: Shard) -> Result<Option<Opened>, OpeningError> {
        open_shard(&self.core, shard, Epoch::ZERO).await
    }

    pub async fn open_all(&self) {
        for shard in self.core.shards.all() {
            self.open(shard).await.unwrap();
        }
    }

    /// The store restarts with what survives, and is opened again.
    pub async fn restart(&self, survives: Survives) {
        self.store.memory.restart(survives);
        self.open_all().await;
    }

    pub async fn write(&self, change: Change) -> WriteResult {
        self.writer.write(request(change), Acknowledge::default()).await
    }

    pub async fn write_at(&self, change: Change, level: AckLevel) -> WriteResult {
        self.writer.write(request(change), Acknowledge::required(level)).await
    }

    /// A write with a request id.
    pub async fn write_as(&self, id: &str, change: Change) -> WriteResult {
        self.writer.write(named(id, change), Acknowledge::default()).await
    }

    pub async fn get(&self, id: &str) -> Result<Found, ReadError> {
        self.reader.get(&table("payments"), &key_row(id), &[]).await
    }

    /// The amount that a read answers, `None` if it finds nothing.
    pub async fn amount(&self, id: &str) -> Option<i64> {
        match self.get(id).await {
            Ok(found) => match found.row.get("amount") {
                Some(Value::Int64(amount)) => Some(*amount),
                other => panic!("{other:?} is no amount"),
            },
            Err(ReadError::NotFound(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn record(&self, id: &str) -> RecordId {
        let table = self.core.directory.table(&table("payments")).unwrap();
        RecordId { namespace: table.settings.namespace.clone(), key: key(id).to_bytes() }
    }

    pub fn shard(&self, id: &str) -> Shard {
        let table = self.core.directory.table(&table("payments")).unwrap();
        table.schema.shard_of(&key(id), self.core.shards)
    }

    pub fn partition(&self, id: &str) -> TopicPartition {
        let table = self.core.directory.table(&table("payments")).unwrap();
        TopicPartition { topic: table.settings.topic.clone(), partition: self.shard(id).0 }
    }

    /// What the hot store holds of a record.
    pub async fn slot(&self, id: &str) -> Slot {
        self.store.read(self.shard(id), vec![self.record(id)]).await.unwrap().slots.remove(0)
    }

    pub async fn unqueued(&self) -> u64 {
        let mut unqueued = 0;
        for shard in self.core.shards.all() {
            unqueued += self.store.header(shard).await.unwrap().unqueued;
        }
        unqueued
    }

    pub async fn dirty(&self) -> u64 {
        let mut dirty = 0;
        for shard in self.core.shards.all() {
            dirty += self.store.header(shard).await.unwrap().dirty;
        }
        dirty
    }

    /// Mutations of a record in the log: version, epoch.
    pub fn logged(&self, id: &str) -> Vec<(Version, Epoch, Mutation)> {
        let mut found = Vec::new();
        for (_, event) in self.log.events(&self.partition(id)) {
            let Event { epoch, body: EventBody::Mutations(mutations), .. } = event else { continue };
            found.extend(mutations.into_iter().filter(|m| m.key == key(id)).map(|m| (m.version, epoch, m)));
        }
        found
    }

    /// The row that lies in the database without ever having come through us.
    pub fn plant(&self, id: &str, amount: i64) {
        self.plant_at(id, amount, Version::ZERO);
    }

    pub fn plant_at(&self, id: &str, amount: i64, version: Version) {
        self.db.set_row("payments", &key(id), DatabaseRow::Present { version, row: full_payment(id, amount) });
    }

    /// Applies all that the log holds and is not void, marks it clean and commits; in the log's order, record by
    /// record, as a drain may do.
    pub async fn drain(&self) {
        for table in self.core.directory.all() {
            for shard in self.core.shards.all() {
                let partition = TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 };
                let end = self.log.bounds(std::slice::from_ref(&partition)).await.unwrap()[0].1;
                let done = self.log.committed.lock().unwrap().get(&partition).copied();
                let mut progress = done.unwrap_or(Progress { offset: 0, epoch: Epoch::ZERO });
                for (offset, event) in self.log.events(&partition) {
                    if offset < progress.offset {
                        continue;
                    }
                    match event.body {
                        EventBody::Fence(_) => progress.epoch = progress.epoch.max(event.epoch),
                        EventBody::Requests(_) => {}
                        EventBody::Mutations(_) if event.epoch.is_void_under(progress.epoch) => {}
                        EventBody::Mutations(mutations) => {
                            for mutation in mutations {
                                self.apply(&table.schema, shard, mutation).await;
                            }
                        }
                    }
                }
                progress.offset = end;
                self.log.committed.lock().unwrap().insert(partition, progress);
            }
        }
    }

    /// Applies all that the log holds, and dies before it has marked or committed any of it.
    pub async fn drain_without_marks(&self) {
        for table in self.core.directory.all() {
            for shard in self.core.shards.all() {
                let partition = TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 };
                for (_, event) in self.log.events(&partition) {
                    let EventBody::Mutations(mutations) = event.body else { continue };
                    for Mutation { key, version, image, .. } in mutations {
                        let changes = [RowChange { shard, key, version, image }];
                        let batch = Batch { schema: &table.schema, owners: vec![], changes: &changes };
                        self.db.apply(batch).await.unwrap();
                    }
                }
            }
        }
    }

    /// Applies one, and marks it clean.
    pub async fn apply(&self, schema: &model::TableSchema, shard: Shard, mutation: Mutation) {
        let Mutation { table, key, version, image } = mutation;
        let record = RecordId {
            namespace: self.core.directory.table(&table).unwrap().settings.namespace.clone(),
            key: key.to_bytes(),
        };
        let changes = [RowChange { shard, key: key.clone(), version, image }];
        self.db.apply(Batch { schema, owners: vec![], changes: &changes }).await.unwrap();
        let (version, content) = match self.db.row(table.table.as_str(), &key) {
            DatabaseRow::Present { version, row } => (version, Content::Row(row)),
            DatabaseRow::Deleted { version } => (version, Content::Tombstone),
            DatabaseRow::Absent => panic!("nothing was applied"),
        };
        let [RowChange { image, .. }] = changes;
        let clean = Clean { record, version, newer: Some(model::Image { content, ..image }) };
        self.store.mark_clean(shard, vec![clean], Duration::from_secs(60)).await.unwrap();
    }
}

/// Another replica on the same stores.
pub fn replica(world: &World, shards: u32) -> Arc<TestCore> {
    let directory = Arc::new(TableDirectory::new(vec![(DatabaseName::new("main").unwrap(), world.db.clone())]));
    let shards = ShardCount::new(shards).unwrap();
    Arc::new(Core::new(world.store.clone(), world.log.clone(), directory, shards, quick_options()))
}

pub fn etag(result: WriteResult) -> Etag {
    result.unwrap().etag
}
