//! The use cases on what the embedded edition runs on: the hot store in memory, the log and the database on disk.
#![allow(clippy::unwrap_used)]

use std::{path::Path, sync::Arc, time::Duration};

use database::{
    AnyDatabase, Batch, Change as RowChange, Database as _, DatabaseOptions, Owner, ShardClaim, TableDirectory,
};
use event_log::{
    LogReader as _, TopicPartition,
    embedded::{EmbeddedLog, EmbeddedOptions},
};
use hot_store::{
    Clean, HotStore as _, RecordId,
    memory::{MemoryStore, Survives},
};
use ingest_svc::{
    Core, IngestOptions,
    accept::{AckLevel, Acknowledge, Change, Require, WriteError, WriteRequest, Writer},
    opening::{checkpoint, open_shard},
    read::{ReadError, Reader},
    startup,
    tables::Tables,
};
use model::{ColumnName, DatabaseName, Epoch, Event, EventBody, Row, Shard, ShardCount, TableName, TableRef, Value};

type Embedded = Core<MemoryStore, EmbeddedLog, AnyDatabase>;

const SHARDS: u32 = 4;

fn payments() -> TableRef {
    TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() }
}

fn row(columns: &[(&str, Value)]) -> Row {
    columns.iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value.clone())).collect()
}

fn key(id: &str) -> Row {
    row(&[("id", Value::Text(id.into()))])
}

fn amount(amount: i64) -> Row {
    row(&[("amount", Value::Int64(amount))])
}

fn put(id: &str, n: i64) -> Change {
    Change::Put { row: key(id).merged_with(amount(n)), precondition: None }
}

async fn database(dir: &Path) -> AnyDatabase {
    let url = format!("sqlite://{}", dir.join("data.sqlite").display());
    let options = DatabaseOptions::new(DatabaseName::new("main").unwrap(), url);
    AnyDatabase::connect(DatabaseOptions { create_if_missing: true, ..options }).await.unwrap()
}

async fn make_table(dir: &Path) {
    let script = "CREATE TABLE payments (id VARCHAR(40) NOT NULL PRIMARY KEY, amount BIGINT NOT NULL, \
         status VARCHAR(10) NOT NULL DEFAULT 'new', note TEXT); \
         INSERT INTO payments (id, amount) VALUES ('cold', 1), ('other', 1);";
    database(dir).await.run_script(script).await.unwrap();
}

/// Starts on a directory: a first time, or again on what an earlier life left there.
async fn start(dir: &Path) -> Arc<Embedded> {
    let name = DatabaseName::new("main").unwrap();
    let shards = ShardCount::new(SHARDS).unwrap();
    let database = Arc::new(database(dir).await);
    let log = Arc::new(EmbeddedLog::open(EmbeddedOptions::new(dir.join("log"))).await.unwrap());
    let directory = Arc::new(TableDirectory::new(vec![(name, database)]));
    let store = Arc::new(MemoryStore::new(shards, 1 << 30));
    let core = Arc::new(Core::new(store, log, directory, shards, IngestOptions::default()));
    startup::prepare(&core).await.unwrap();
    Tables::new(core.clone()).enable(&payments()).await.unwrap();
    open_all(&core).await;
    core
}

async fn open_all(core: &Embedded) {
    for shard in core.shards.all() {
        open_shard(core, shard, Epoch::ZERO).await.unwrap();
    }
}

async fn write(core: &Arc<Embedded>, change: Change) -> Result<AckLevel, WriteError> {
    let request = WriteRequest { table: payments(), change, request_id: None };
    let accepted = Writer::new(core.clone()).write(request, Acknowledge::default()).await?;
    Ok(accepted.reached)
}

async fn read(core: &Arc<Embedded>, id: &str) -> Option<Row> {
    match Reader::new(core.clone()).get(&payments(), &key(id), &[]).await {
        Ok(found) => Some(found.row),
        Err(ReadError::NotFound(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

async fn amount_of(core: &Arc<Embedded>, id: &str) -> Option<Value> {
    read(core, id).await.map(|row| row.get("amount").unwrap().clone())
}

/// Writes all that counts in the log into the database, as a drain would that never commits.
async fn drain(core: &Embedded) {
    let table = core.directory.table(&payments()).unwrap();
    let database = core.directory.database(&payments().database).unwrap();
    for shard in core.shards.all() {
        let claim = ShardClaim { table: payments().table, shard };
        let owner = Owner(format!("test-{shard}"));
        database.take_ownership(&[claim], &owner).await.unwrap();
        let (mut in_force, mut mutations) = (Epoch::ZERO, Vec::new());
        for event in events(core, shard).await {
            match event.body {
                EventBody::Fence(_) => in_force = in_force.max(event.epoch),
                EventBody::Mutations(more) if !event.epoch.is_void_under(in_force) => mutations.extend(more),
                EventBody::Mutations(_) | EventBody::Requests(_) => {}
            }
        }
        for mutation in mutations {
            let (record, version) = (
                RecordId { namespace: table.settings.namespace.clone(), key: mutation.key.to_bytes() },
                mutation.version,
            );
            let changes = [RowChange { shard, key: mutation.key, version, image: mutation.image }];
            let batch = Batch { schema: &table.schema, owners: vec![(shard, owner.clone())], changes: &changes };
            database.apply(batch).await.unwrap();
            let clean = Clean { record, version, newer: None };
            core.hot.mark_clean(shard, vec![clean], Duration::from_secs(60)).await.unwrap();
        }
    }
}

async fn events(core: &Embedded, shard: Shard) -> Vec<Event> {
    let topic = core.directory.table(&payments()).unwrap().settings.topic.clone();
    let partition = TopicPartition { topic, partition: shard.0 };
    let (low, high) = core.log.bounds(std::slice::from_ref(&partition)).await.unwrap()[0];
    let mut events = Vec::new();
    let mut each = |record: event_log::LogRecord| {
        events.push(Event::decode(record.payload).unwrap());
        true
    };
    core.log.read(&partition, low, high, &mut each).await.unwrap();
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_written_and_read_hot_cold_and_drained() {
    let dir = tempfile::tempdir().unwrap();
    make_table(dir.path()).await;
    let core = start(dir.path()).await;

    assert_eq!(write(&core, put("a", 1)).await, Ok(AckLevel::Queued));
    let changes = row(&[("note", Value::Text("x".into()))]);
    let update = |id: &str| Change::Update { key: key(id), changes: changes.clone(), precondition: None };
    write(&core, update("cold")).await.unwrap();
    assert_eq!(write(&core, update("none")).await, Err(WriteError::NotFound(payments())));
    let create = Change::Create { row: key("other").merged_with(amount(2)) };
    assert_eq!(write(&core, create).await, Err(WriteError::AlreadyExists(payments())));
    let delete = Change::Delete { key: key("other"), precondition: Some(Require::Exists(true)) };
    write(&core, delete).await.unwrap();

    let status = row(&[("status", Value::Text("new".into()))]);
    let expected = key("cold").merged_with(amount(1)).merged_with(status.clone()).merged_with(changes);
    assert_eq!(read(&core, "cold").await, Some(expected.clone()));
    assert_eq!(read(&core, "other").await, None);

    drain(&core).await;
    for survives in [Survives::Everything, Survives::Nothing] {
        core.hot.restart(survives);
        open_all(&core).await;
        assert_eq!(read(&core, "cold").await, Some(expected.clone()));
        assert_eq!(read(&core, "other").await, None, "the tombstone is in the database");
        let plain = key("a").merged_with(amount(1)).merged_with(status.clone());
        assert_eq!(read(&core, "a").await, Some(plain.merged_with(row(&[("note", Value::Null)]))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    make_table(dir.path()).await;
    let first = start(dir.path()).await;
    for n in 0..100 {
        write(&first, put(&format!("k{n}"), n)).await.unwrap();
    }
    drain(&first).await;
    for n in 50..150 {
        write(&first, put(&format!("k{n}"), n + 1000)).await.unwrap();
    }
    assert_eq!(checkpoint::write(&first).await, SHARDS as usize);
    EmbeddedLog::clone(&first.log).close().await;
    drop(first);

    let second = start(dir.path()).await;
    for n in 0..150 {
        let expected = if n < 50 { n } else { n + 1000 };
        assert_eq!(amount_of(&second, &format!("k{n}")).await, Some(Value::Int64(expected)), "k{n}");
    }
    write(&second, put("k7", 7000)).await.unwrap();
    drain(&second).await;
    EmbeddedLog::clone(&second.log).close().await;
    drop(second);

    let third = start(dir.path()).await;
    assert_eq!(amount_of(&third, "k7").await, Some(Value::Int64(7000)));
    assert_eq!(amount_of(&third, "k149").await, Some(Value::Int64(1149)));
}
