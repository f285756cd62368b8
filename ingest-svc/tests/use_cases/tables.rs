//! Enabling, disabling and listing tables, and what is checked at the start.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use database::TableDirectory;
use event_log::{EventPublisher as _, LogSettings, Outgoing, Progress, TopicPartition};
use hot_store::Settings;
use ingest_svc::{
    Core, IngestOptions,
    accept::WriteError,
    startup::{self, StartError},
    tables::{self, TableError, Tables},
};
use model::{DatabaseName, Epoch, Shard, TableName, TableRef, Topic};
use tokio_util::sync::CancellationToken;

use crate::{db::payment_columns, log::Fate, world::*};

#[tokio::test]
async fn a_table_is_enabled_for_all_replicas_and_again_without_harm() {
    let world = World::new().await;
    let other = Tables::new(replica(&world, 4));
    assert!(other.get(&table("payments")).await.unwrap().is_enabled());
    let again = other.enable(&table("payments")).await.unwrap();
    assert_eq!(again.topic, Some(Topic::new("shock-absorber.payments").unwrap()));
    assert_eq!(again.schema.unwrap().columns, payment_columns());
}

#[tokio::test]
async fn tables_are_listed_with_what_keeps_them_from_being_enabled() {
    let world = World::new().await;
    world.db.make_table("keyless", None);
    world.db.make_table("orders", Some(payment_columns()));
    let list = world.tables.list().await.unwrap();
    let seen: Vec<_> = list.iter().map(|t| (t.table.table.as_str(), t.is_enabled(), t.schema.clone().err())).collect();
    assert_eq!(
        seen,
        [("keyless", false, Some("no primary key".to_owned())), ("orders", false, None), ("payments", true, None)]
    );
}

#[tokio::test]
async fn what_can_t_be_enabled_says_why() {
    let world = World::new().await;
    world.db.make_table("keyless", None);
    world.db.make_table("two words", Some(payment_columns()));
    let reason = "no primary key".to_owned();
    let refused = TableError::Unsupported { table: table("keyless"), reason };
    assert_eq!(world.tables.enable(&table("keyless")).await, Err(refused));
    assert_eq!(world.tables.enable(&table("none")).await, Err(TableError::NotFound(table("none"))));
    assert!(matches!(world.tables.enable(&table("two words")).await, Err(TableError::Name { .. })));
    let elsewhere =
        TableRef { database: DatabaseName::new("other").unwrap(), table: TableName::new("payments").unwrap() };
    let no_database = TableError::NoSuchDatabase(elsewhere.database.clone());
    assert_eq!(world.tables.enable(&elsewhere).await, Err(no_database));
    assert!(!world.tables.get(&table("keyless")).await.unwrap().is_enabled());
}

#[tokio::test]
async fn a_disabled_table_takes_no_requests_and_is_drained_all_the_same() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    assert!(!world.tables.disable(&table("payments")).await.unwrap().is_enabled());
    assert_eq!(world.write(put("a", 2)).await, Err(WriteError::TableNotEnabled(table("payments"))));
    assert!(!world.tables.disable(&table("payments")).await.unwrap().is_enabled());
    let known = world.core.directory.known(&table("payments")).unwrap();
    assert!(!known.enabled);
    // What was accepted goes on its way: the relay and openings know the table by its namespace and topic.
    assert_eq!(world.core.directory.by_namespace(&known.settings.namespace), Some(known.clone()));
    assert_eq!(world.core.directory.all(), [known]);
    world.tables.enable(&table("payments")).await.unwrap();
    assert_eq!(world.amount("a").await, Some(1));
    world.write(put("a", 3)).await.unwrap();
    assert_eq!(world.amount("a").await, Some(3));
}

#[tokio::test]
async fn a_topic_of_another_installation_is_not_taken_over() {
    let world = World::new().await;
    world.db.make_table("orders", Some(payment_columns()));
    let partition = TopicPartition { topic: Topic::new("shock-absorber.orders").unwrap(), partition: 1 };
    world.log.ensure_topic(&partition.topic, 4, LogSettings { allow_single_node: true }).await.unwrap();
    world.log.append(Outgoing { to: partition.clone(), key: Bytes::new(), payload: Bytes::from_static(b"older") });
    let in_use = TableError::TopicInUse { table: table("orders"), topic: partition.topic.clone(), shard: Shard(1) };
    // An undrained event would overtake new writes.
    assert_eq!(world.tables.enable(&table("orders")).await, Err(in_use.clone()));
    // A fence of a higher epoch would void what is written now.
    let drained = |epoch| Progress { offset: 1, epoch: Epoch(epoch) };
    world.log.committed.lock().unwrap().insert(partition.clone(), drained(9));
    assert_eq!(world.tables.enable(&table("orders")).await, Err(in_use));
    world.log.committed.lock().unwrap().insert(partition, drained(1));
    world.tables.enable(&table("orders")).await.unwrap();
}

#[tokio::test]
async fn another_number_of_shards_refuses_to_start() {
    let world = World::new().await;
    let refused = startup::prepare(&replica(&world, 8)).await;
    assert_eq!(refused, Err(StartError::ShardCount { stored: 4, configured: 8 }));
    assert!(!refused.unwrap_err().is_transient());
    startup::prepare(&replica(&world, 4)).await.unwrap();
}

#[tokio::test]
async fn a_hot_store_that_is_set_up_wrongly_refuses_to_start() {
    let world = World::new().await;
    let refused = vec!["set maxmemory-policy to noeviction".to_owned()];
    world.store.set_settings(Settings { refused: refused.clone(), warned: vec!["appendfsync".to_owned()] });
    assert_eq!(startup::prepare(&world.core).await, Err(StartError::HotStoreUnfit(refused)));
    world.store.set_settings(Settings { refused: vec![], warned: vec!["appendfsync".to_owned()] });
    startup::prepare(&world.core).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_away_at_the_start_may_come_back() {
    let world = World::new().await;
    world.db.set_away(true);
    assert!(startup::prepare(&world.core).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn the_topics_of_enabled_tables_are_checked_at_the_start() {
    let world = World::new().await;
    let elsewhere = crate::log::BentLog::new();
    let topic = Topic::new("shock-absorber.payments").unwrap();
    elsewhere.ensure_topic(&topic, 7, LogSettings { allow_single_node: false }).await.unwrap();
    let directory = Arc::new(TableDirectory::new(vec![(DatabaseName::new("main").unwrap(), world.db.clone())]));
    let core = Core::new(world.store.clone(), Arc::new(elsewhere), directory, world.core.shards, quick_options());
    assert!(matches!(startup::prepare(&core).await, Err(StartError::Log(_))));
    let partition = TopicPartition { topic, partition: 0 };
    assert_eq!(world.log.events(&partition).len(), 1, "the shards' fences lie in the right log");
}

#[tokio::test]
async fn an_altered_table_is_noticed_although_the_catalog_is_as_it_was() {
    let options = IngestOptions { table_refresh: Duration::from_millis(2), ..quick_options() };
    let world = World::with(options, u64::MAX / 1000).await;
    let mut columns = payment_columns();
    let dropped = columns.pop().unwrap().name;
    let has_it = || world.core.directory.table(&table("payments")).unwrap().schema.column(dropped.as_str()).is_some();
    assert!(has_it());
    world.db.make_table("payments", Some(columns));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(tables::run(world.core.clone(), shutdown.clone()));
    let noticed = async {
        while has_it() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), noticed).await.unwrap();
    shutdown.cancel();
    running.await.unwrap();
}
