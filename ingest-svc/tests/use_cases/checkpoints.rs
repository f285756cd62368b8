//! Checkpoints: taken under the epoch in which the log's end was read, or not at all.

use std::collections::BTreeMap;

use event_log::TopicPartition;
use hot_store::{HotStore as _, LogPoint, OpeningToken, memory::Survives};
use ingest_svc::opening::checkpoint::{self, Checkpoints};
use model::{Epoch, Shard, Topic};

use crate::{db::payment_columns, world::*};

#[tokio::test]
async fn a_checkpoint_spares_the_opening_what_came_before() {
    let world = World::new().await;
    for n in 0..20 {
        world.write(put(&format!("k{n}"), n)).await.unwrap();
    }
    assert_eq!(checkpoint::write(&world.core).await, 4);
    world.store.memory.restart(Survives::Everything);
    assert_eq!(checkpoint::write(&world.core).await, 0, "a closed shard takes none");
    for shard in world.core.shards.all() {
        assert_eq!(world.open(shard).await.unwrap().unwrap().mutations, 0);
    }
    assert_eq!(world.amount("k7").await, Some(7));
}

#[tokio::test]
async fn an_opening_leaves_a_checkpoint_at_its_fence() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.restart(Survives::Nothing).await;
    world.store.memory.restart(Survives::Everything);
    let opened = world.open(world.shard("a")).await.unwrap().unwrap();
    assert_eq!((opened.mutations, opened.discarded), (0, false));
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn only_open_shards_take_a_checkpoint() {
    let world = World::new().await;
    world.store.memory.restart(Survives::Everything);
    world.open(world.shard("a")).await.unwrap();
    assert_eq!(checkpoint::write(&world.core).await, 1);
    assert!(world.store.header(world.shard("a")).await.unwrap().open);
}

/// Two tables; the topic of the second.
async fn with_orders() -> (World, Topic) {
    let world = World::new().await;
    world.db.make_table("orders", Some(payment_columns()));
    world.tables.enable(&table("orders")).await.unwrap();
    let orders = world.core.directory.all().iter().find(|t| t.settings.topic.as_str().ends_with("orders")).cloned();
    (world, orders.unwrap().settings.topic.clone())
}

/// What survives of the checkpoint of a shard.
async fn checkpoint_of(world: &World, shard: Shard) -> BTreeMap<Topic, LogPoint> {
    world.store.memory.restart(Survives::Everything);
    let claim = world.store.claim(shard, &OpeningToken("test".into())).await.unwrap().unwrap();
    claim.checkpoint.unwrap().0
}

#[tokio::test]
async fn a_partition_that_does_not_tell_its_end_keeps_its_last_point_and_no_other_from_a_new_one() {
    let (world, orders) = with_orders().await;
    let (shard, payments) = (world.shard("a"), world.partition("a"));
    let mut checkpoints = Checkpoints::default();
    world.write(put("a", 1)).await.unwrap();
    assert_eq!(checkpoints.write(&world.core).await, 4);

    let leaderless = TopicPartition { topic: orders.clone(), partition: shard.0 };
    world.log.leaderless.lock().unwrap().insert(leaderless);
    world.write(put("a", 2)).await.unwrap();
    assert_eq!(checkpoints.write(&world.core).await, 4);
    let points = checkpoint_of(&world, shard).await;
    let end = world.log.events(&payments).len() as i64;
    assert_eq!(points[&payments.topic].offset, end);
    assert_eq!(points[&orders], LogPoint { offset: 0, epoch: Epoch(1) });
}

#[tokio::test]
async fn a_point_of_an_earlier_epoch_never_takes_the_place_of_an_opening_s() {
    let (world, orders) = with_orders().await;
    let shard = world.shard("a");
    let mut checkpoints = Checkpoints::default();
    assert_eq!(checkpoints.write(&world.core).await, 4);
    world.store.memory.restart(Survives::Everything);
    world.open_all().await;
    let leaderless = TopicPartition { topic: orders.clone(), partition: shard.0 };
    world.log.leaderless.lock().unwrap().insert(leaderless);
    assert_eq!(checkpoints.write(&world.core).await, 3, "the other shards");
    let points = checkpoint_of(&world, shard).await;
    assert_eq!(points[&orders].epoch, Epoch(2), "what the opening left");
}

#[tokio::test]
async fn a_replica_that_never_knew_an_end_leaves_the_shard_s_last_checkpoint_alone() {
    let (world, orders) = with_orders().await;
    let (shard, payments) = (world.shard("a"), world.partition("a"));
    assert_eq!(Checkpoints::default().write(&world.core).await, 4);
    world.write(put("a", 1)).await.unwrap();
    let leaderless = TopicPartition { topic: orders.clone(), partition: shard.0 };
    world.log.leaderless.lock().unwrap().insert(leaderless);
    let mut checkpoints = Checkpoints::default();
    for _ in 0..20 {
        assert_eq!(checkpoints.write(&world.core).await, 3, "the other shards");
    }
    let points = checkpoint_of(&world, shard).await;
    assert_eq!(points.keys().collect::<Vec<_>>(), [&orders, &payments.topic]);
    assert_eq!(points[&payments.topic].offset, world.log.events(&payments).len() as i64 - 1);
}

#[tokio::test]
async fn a_topic_that_is_gone_for_good_keeps_no_shard_from_a_checkpoint() {
    let (world, orders) = with_orders().await;
    world.log.delete_topic(&orders);
    let mut checkpoints = Checkpoints::default();
    // It may only be a broker that knows too little.
    assert_eq!(checkpoints.write(&world.core).await, 0);
    let mut written = 0;
    for _ in 0..10 {
        written = checkpoints.write(&world.core).await;
    }
    assert_eq!(written, 4);
    let points = checkpoint_of(&world, world.shard("a")).await;
    assert_eq!(points.keys().collect::<Vec<_>>(), [&world.partition("a").topic]);
}
