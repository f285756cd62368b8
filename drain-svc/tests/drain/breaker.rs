//! While a database can write nothing, nobody tries; and nobody else notices.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use database::memory::{MemoryDatabase, MemoryTable};
use database::{CatalogEntry, Database as _, DatabaseRow, ErrorClass, TableDirectory, TableSettings};
use event_log::{EventPublisher as _, LogSettings, Outgoing, TopicPartition};
use model::{
    ColumnType, DatabaseName, Epoch, Event, EventBody, Mutation, Namespace, TableName, TableRef, Topic, Version,
};
use tokio::time::{Instant, sleep};

use crate::{
    db::{BentDatabase, id},
    world::{SHARDS, Still, limited, options, settings},
};

#[tokio::test(start_paused = true)]
async fn while_a_database_is_away_it_is_asked_seldom_and_no_row_is_tried() {
    let world = Still::still().await;
    let drain = world.start(limited(100.0));
    sleep(Duration::from_secs(3)).await;
    world.db.away.store(true, Ordering::SeqCst);
    for n in 0..500 {
        world.write(n, Some(n)).await;
    }
    let long = Duration::from_secs(300);
    sleep(long).await;
    let attempts = world.db.attempts().len();
    let longest = limited(100.0).retry_max;
    let probes = world.db.probes.load(Ordering::SeqCst);
    assert!(attempts <= 4, "{attempts} attempts: each lane finds it out at most once or twice");
    let fewest = long.as_secs_f64() / longest.as_secs_f64();
    assert!((fewest..3.0 * fewest + 30.0).contains(&(probes as f64)), "{probes} probes in {long:?}");
    assert!(drain.told.lock().unwrap().paused.is_empty(), "there is room, so it goes on reading");

    world.db.away.store(false, Ordering::SeqCst);
    let back = Instant::now();
    world.until_clean().await;
    let took = back.elapsed();
    assert!(took <= longest + Duration::from_secs(8), "{took:?}: 500 rows at 100 a second, and one delay");
    drain.stop().await;
    world.assert_rows_are_as_written().await;
    world.assert_all_committed().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_statement_always_breaks_off_is_neither_given_up_nor_in_the_way_of_others() {
    one_row_is_never_written(ErrorClass::Unclassified).await;
}

/// A full or broken table says the same as a database that is.
#[tokio::test(start_paused = true)]
async fn what_looks_like_an_outage_and_is_none_holds_up_nobody_else() {
    one_row_is_never_written(ErrorClass::Transient).await;
}

async fn one_row_is_never_written(class: ErrorClass) {
    let world = Still::still().await;
    world.db.poison.lock().unwrap().replace((id(7), class));
    for n in 0..300 {
        world.write(n, Some(n)).await;
    }
    let drain = world.start(options());
    sleep(Duration::from_secs(30)).await;
    let rows = world.rows((0..300).filter(|n| *n != 7)).await;
    assert!(rows.values().all(|row| *row != DatabaseRow::Absent));
    sleep(Duration::from_secs(270)).await;
    assert!(world.letters().await.is_empty(), "nobody knows that it is to blame");
    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    drain.stop().await;
    world.assert_rows_are_as_written().await;
    world.assert_all_committed().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_database_does_not_hold_another_up() {
    let world = Still::still().await;
    let (elsewhere, orders) = (DatabaseName::new("elsewhere").unwrap(), TableName::new("orders").unwrap());
    let other = MemoryDatabase::default();
    let column = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
    other.define_table(orders.clone(), MemoryTable::new(vec![column("id"), column("amount")]));
    other.prepare().await.unwrap();
    let schema = other.introspect(&elsewhere, &orders).await.unwrap();
    let other = Arc::new(BentDatabase::new(other));
    let table = TableRef { database: elsewhere.clone(), table: orders };
    let topic = Topic::new("orders").unwrap();
    world.log.ensure_topic(&topic, SHARDS as u16, LogSettings { allow_single_node: true }).await.unwrap();
    let namespace = Namespace::new("elsewhere.orders").unwrap();
    let settings = TableSettings { topic: topic.clone(), namespace, ..settings() };
    let entry = CatalogEntry { table: table.clone(), enabled: true, settings };
    assert!(world.db.straight().enable(&entry).await.unwrap());
    let directory =
        TableDirectory::new(vec![(world.schema.table.database.clone(), world.db.clone()), (elsewhere, other.clone())]);
    let drain = world.start_over(directory, options());
    until_owned(&other).await;
    other.away.store(true, Ordering::SeqCst);
    for n in 0..100 {
        let shard = world.shard(&id(n));
        let version = Version::new(1_000_000 + n.unsigned_abs()).unwrap();
        let mutation = Mutation { table: table.clone(), key: id(n), version, image: world.image(n, Some(n)) };
        let body = EventBody::Mutations(vec![mutation]);
        let payload = Event { shard, epoch: Epoch(1), body }.encode();
        let to = TopicPartition { topic: topic.clone(), partition: shard.0 };
        world.log.publish(vec![Outgoing { to, key: bytes::Bytes::new(), payload }]).await.remove(0).unwrap();
    }
    for n in 0..200 {
        world.write(n, Some(n)).await;
    }
    let begun = Instant::now();
    world.until_clean().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(world.db.probes.load(Ordering::SeqCst), 0, "its own breaker was never open");
    sleep(Duration::from_secs(1)).await;
    assert!(other.probes.load(Ordering::SeqCst) > 5);
    assert_eq!(other.rows_applied(), 0);

    other.away.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    let keys: Vec<_> = (0..100).map(id).collect();
    let rows = other.straight().read(&schema, &keys).await.unwrap();
    assert!(rows.iter().all(|row| *row != DatabaseRow::Absent));
    drain.stop().await;
    world.assert_rows_are_as_written().await;
}

/// Waits until partitions were taken over, which an outage would hold up too.
async fn until_owned(database: &BentDatabase<MemoryDatabase>) {
    let begun = Instant::now();
    while !database.calls().iter().any(|call| call.contains(" take ")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "never owned");
        sleep(Duration::from_millis(1)).await;
    }
}
