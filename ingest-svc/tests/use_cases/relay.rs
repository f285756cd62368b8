//! The relay heals what was left between the hot store and the log.

use hot_store::memory::Survives;
use ingest_svc::relay::Relay;

use crate::{log::Fate, world::*};

#[tokio::test]
async fn a_write_whose_publish_failed_is_produced_again_in_the_second_sweep() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    // More than the relay takes at once, and some in every shard.
    for n in 0..30 {
        world.write(put(&format!("k{n}"), n)).await.unwrap_err();
    }
    world.log.set_fate(Fate::Append);
    let mut relay = Relay::new(world.core.clone());
    let first = relay.sweep().await;
    assert_eq!((first.unqueued, first.relayed), (30, 0));
    // Written since the first sweep: that is left to the one who is writing it.
    world.log.set_fate(Fate::Refuse);
    world.write(put("young", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    let second = relay.sweep().await;
    assert_eq!((second.unqueued, second.relayed), (31, 30));
    assert!(second.oldest.is_some());
    assert_eq!((world.unqueued().await, world.logged("young").len()), (1, 0));
    assert_eq!(relay.sweep().await.relayed, 1);
    assert_eq!(relay.sweep().await.unqueued, 0);
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
    assert_eq!(world.amount("k7").await, Some(7));
}

#[tokio::test]
async fn a_record_written_again_between_two_sweeps_is_not_produced_yet() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    world.write(put("a", 1)).await.unwrap_err();
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    world.write(put("a", 2)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    assert_eq!(relay.sweep().await.relayed, 0);
    assert_eq!(relay.sweep().await.relayed, 1);
    assert_eq!(world.logged("a").len(), 1);
}

#[tokio::test]
async fn a_log_that_refuses_is_asked_again_in_the_next_sweep() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    world.write(put("a", 1)).await.unwrap_err();
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    assert_eq!(relay.sweep().await.relayed, 0);
    world.log.set_available(false);
    assert_eq!(relay.sweep().await.relayed, 0);
    world.log.set_available(true);
    world.log.set_fate(Fate::Append);
    assert_eq!(relay.sweep().await.relayed, 1);
}

#[tokio::test]
async fn what_is_relayed_after_an_opening_carries_the_new_epoch() {
    let world = World::new().await;
    world.log.set_available(false);
    let logged = etag(world.write_at(put("a", 1), LOGGED).await);
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    world.log.set_available(true);
    world.restart(Survives::Everything).await;
    assert_eq!(relay.sweep().await.relayed, 0, "the first sweep of an epoch only looks");
    assert_eq!(relay.sweep().await.relayed, 1);
    let (version, epoch, _) = world.logged("a").pop().unwrap();
    assert_eq!(version, logged.version);
    assert!(epoch > logged.epoch);
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
}

#[tokio::test]
async fn a_record_of_a_table_that_is_gone_stays() {
    let world = World::new().await;
    world.log.set_available(false);
    world.write_at(put("a", 1), LOGGED).await.unwrap();
    world.log.set_available(true);
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    // Somebody took it out of the catalog by hand.
    let entry = world.db.forget_table(&table("payments"));
    world.core.directory.refresh(false).await.unwrap();
    let swept = relay.sweep().await;
    assert_eq!((swept.relayed, swept.homeless, swept.unqueued), (0, 1, 1));
    database::Database::enable(&*world.db, &entry).await.unwrap();
    world.core.directory.refresh(false).await.unwrap();
    assert_eq!(relay.sweep().await.relayed, 1);
}

#[tokio::test]
async fn a_record_of_a_disabled_table_goes_on_its_way() {
    let world = World::new().await;
    world.log.set_available(false);
    world.write_at(put("a", 1), LOGGED).await.unwrap();
    world.log.set_available(true);
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    world.tables.disable(&table("payments")).await.unwrap();
    assert_eq!(relay.sweep().await.relayed, 1);
}
