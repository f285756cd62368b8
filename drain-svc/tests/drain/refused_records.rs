//! Records that can be neither applied nor skipped.

use bytes::Bytes;
use database::{CatalogEntry, CreateCheck, Database as _, DatabaseRow, TableSettings};
use event_log::{EventPublisher as _, LogSettings, Outgoing, TopicPartition};
use model::{ColumnName, Content, Epoch, Event, EventBody, Mutation, Namespace, TableName, TableRef, Topic, Version};

use crate::{
    db::id,
    world::{SHARDS, World, options, partition, until},
};

fn settings(name: &str) -> TableSettings {
    TableSettings {
        topic: Topic::new(name).unwrap(),
        namespace: Namespace::new(name).unwrap(),
        group_by: Vec::new(),
        create_check: CreateCheck::Database,
        indexed_fields: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_later_release_can_read_holds_its_partition_and_no_other() {
    let world = World::new().await;
    let held = world.shard(&id(0));
    let (before, behind) = (0, (1..100).find(|n| world.shard(&id(*n)) == held).unwrap());
    world.write(before, Some(1)).await;
    let mut later = world.payload(held, 0).await.to_vec();
    // The layout is the first field.
    assert_eq!(later[..2], [0x08, 0x01]);
    later[1] = 2;
    let offset = world.append(held, Bytes::from(later)).await;
    world.write(behind, Some(1)).await;
    let others: Vec<i64> = (1..40).filter(|n| world.shard(&id(*n)) != held).collect();
    for n in &others {
        world.write(*n, Some(1)).await;
    }
    let drain = world.start(options());
    until("the partition is paused", || async { drain.told.lock().unwrap().paused.contains(&partition(held)) }).await;
    until("all others, and what was before it, are there", || async {
        world.rows(others.iter().copied().chain([before])).await.values().all(|row| *row != DatabaseRow::Absent)
    })
    .await;
    assert_eq!(world.rows([behind]).await[&behind], DatabaseRow::Absent);
    until("what was before it is done", || async {
        drain.told.lock().unwrap().noted.get(&held.0).is_some_and(|progress| progress.offset == offset)
    })
    .await;
    drain.stop().await;
    assert_eq!(world.committed().await[usize::from(held.0)].unwrap().offset, offset);
    assert_eq!(world.letters().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_whose_topic_is_missing_stops_no_other() {
    let world = World::new().await;
    let database = world.db.straight();
    database.run_script("CREATE TABLE lost (id BIGINT NOT NULL PRIMARY KEY)").await.unwrap();
    let table = TableRef { database: world.schema.table.database.clone(), table: TableName::new("lost").unwrap() };
    assert!(database.enable(&CatalogEntry { table, enabled: true, settings: settings("lost") }).await.unwrap());
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_enabled_while_the_drain_runs_is_drained() {
    let world = World::new().await;
    let drain = world.start(options());
    world.write(1, Some(1)).await;
    world.until_clean().await;
    let database = world.db.straight();
    database.run_script("CREATE TABLE orders (id BIGINT NOT NULL PRIMARY KEY)").await.unwrap();
    let settings = settings("orders");
    let topic = settings.topic.clone();
    world.log.ensure_topic(&topic, SHARDS as u16, LogSettings { allow_single_node: true }).await.unwrap();
    let table = TableRef { database: world.schema.table.database.clone(), table: TableName::new("orders").unwrap() };
    assert!(database.enable(&CatalogEntry { table: table.clone(), enabled: true, settings }).await.unwrap());
    let schema = database.introspect(&table.database, &table.table).await.unwrap();

    let (key, version) = (id(5), Version::new(9).unwrap());
    let shard = world.shard(&key);
    let mut image = world.image(5, None);
    image.content = Content::Row(world.row(5, 0).select(&[ColumnName::new("id").unwrap()]));
    let mutation = Mutation { table, key: key.clone(), version, image };
    let event = Event { shard, epoch: Epoch(1), body: EventBody::Mutations(vec![mutation]) };
    let to = TopicPartition { topic, partition: shard.0 };
    let outgoing = Outgoing { to, key: Bytes::new(), payload: event.encode() };
    world.log.publish(vec![outgoing]).await.remove(0).unwrap();
    until("the row is there", || async {
        matches!(
            database.read(&schema, std::slice::from_ref(&key)).await.unwrap()[0],
            DatabaseRow::Present { version: found, .. } if found == version
        )
    })
    .await;
    drain.stop().await;
}
