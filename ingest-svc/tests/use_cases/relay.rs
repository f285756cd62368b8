//! The relay heals what was left between the hot store and the log.

use event_log::LogReader as _;
use hot_store::{HotStore as _, Precondition, RecordId, Write, memory::Survives};
use ingest_svc::{
    accept::{Acknowledge, WriteRequest},
    opening::checkpoint,
    relay::Relay,
};
use model::KeyBytes;
use tokio::time::Instant;

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

#[tokio::test]
async fn a_key_that_can_t_be_read_stops_no_other() {
    let world = World::new().await;
    world.log.set_available(false);
    world.write_at(put("a", 1), LOGGED).await.unwrap();
    let shard = world.shard("a");
    let hot_store::Slot::Image { image, .. } = world.slot("a").await else { panic!("a is not there") };
    // Older than what comes behind it, so it is met first.
    let record = RecordId { key: KeyBytes::from_stored(b"no key"[..].into()), ..world.record("a") };
    let write = Write { record, precondition: Precondition::None, image, index: None };
    world.store.write(shard, Instant::now(), vec![write]).await.unwrap();
    let others: Vec<String> = (0..).map(|n| format!("k{n}")).filter(|id| world.shard(id) == shard).take(5).collect();
    for id in &others {
        world.write_at(put(id, 1), LOGGED).await.unwrap();
    }
    world.log.set_available(true);
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    let swept = relay.sweep().await;
    assert_eq!((swept.relayed, swept.refused), (6, 1));
    assert_eq!(world.unqueued().await, 1);
}

#[tokio::test]
async fn replicas_that_relay_at_once_do_no_harm() {
    let world = World::new().await;
    world.log.set_available(false);
    for n in 0..10 {
        world.write_at(put(&format!("k{n}"), n), LOGGED).await.unwrap();
    }
    world.write_at(delete("k3"), LOGGED).await.unwrap();
    world.log.set_available(true);
    let mut relays: Vec<_> = (0..3).map(|_| Relay::new(world.core.clone())).collect();
    for relay in &mut relays {
        relay.sweep().await;
    }
    // All of them have read what is unqueued before the first one produces it.
    world.log.set_fate(Fate::Hold);
    let sweeps = futures::future::join_all(relays.iter_mut().map(Relay::sweep));
    futures::future::join(sweeps, async { world.log.release() }).await;
    assert_eq!(world.unqueued().await, 0);
    assert!(world.logged("k1").len() > 1, "they did not meet");
    world.write(put("k1", 100)).await.unwrap();
    // Late copies of what is older now.
    world.log.append_again(&world.partition("k1"));
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
    for n in 0..10 {
        let expected = match n {
            1 => Some(100),
            3 => None,
            n => Some(n),
        };
        assert_eq!(world.amount(&format!("k{n}")).await, expected, "k{n}");
    }
}

#[tokio::test]
async fn what_is_dirty_though_the_drain_has_passed_it_is_produced_again() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    // The checkpoint and the write survive, the mark clean is in the tail that gets lost.
    checkpoint::write(&world.core).await;
    let survives = Survives::Snapshot(world.store.memory.snapshot());
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
    world.restart(survives).await;
    assert_eq!(world.dirty().await, 1, "the opening has nothing to read and leaves it dirty");

    let mut relay = Relay::new(world.core.clone());
    assert_eq!(relay.sweep().await.missed, 0);
    assert_eq!(relay.sweep().await.missed, 0, "the drain has not come as far as the log's end of the first sweep");
    world.drain().await;
    assert_eq!(relay.sweep().await.missed, 1);
    assert_eq!(world.logged("a").len(), 2);
    world.drain().await;
    assert_eq!((world.dirty().await, world.amount("a").await), (0, Some(1)));
    relay.sweep().await;
    world.drain().await;
    assert_eq!(relay.sweep().await.missed, 0);
}

#[tokio::test]
async fn what_waits_for_the_drain_is_not_produced_twice() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let mut relay = Relay::new(world.core.clone());
    for _ in 0..4 {
        assert_eq!(relay.sweep().await.missed, 0);
    }
    // Written behind the mark: nobody has missed it.
    world.drain().await;
    world.write(put("a", 2)).await.unwrap();
    assert_eq!(relay.sweep().await.missed, 0);
    assert_eq!(world.logged("a").len(), 2);
}

#[tokio::test]
async fn what_the_log_deleted_before_it_was_drained_is_produced_again() {
    let world = World::new().await;
    world.drain().await;
    for amount in 1..4 {
        world.write(put("a", amount)).await.unwrap();
    }
    let mut relay = Relay::new(world.core.clone());
    for _ in 0..3 {
        assert_eq!(relay.sweep().await.missed, 0);
    }
    let partition = world.partition("a");
    let (_, end) = world.log.bounds(std::slice::from_ref(&partition)).await.unwrap()[0];
    // One is left: it may be drained yet.
    world.log.trim(&partition, end - 1);
    assert_eq!(relay.sweep().await.missed, 0);
    world.log.trim(&partition, end);
    assert_eq!(relay.sweep().await.missed, 1);
    assert_eq!(world.logged("a").len(), 1);
    for _ in 0..3 {
        assert_eq!(relay.sweep().await.missed, 0, "that one is waiting for the drain");
    }
    world.drain().await;
    assert_eq!((world.dirty().await, world.amount("a").await), (0, Some(3)));
}

#[tokio::test]
async fn what_went_with_a_topic_that_was_made_anew_is_produced_again() {
    let world = World::new().await;
    for amount in 1..5 {
        world.write(put("a", amount)).await.unwrap();
    }
    world.drain().await;
    world.write(put("a", 5)).await.unwrap();
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    let partition = world.partition("a");
    world.log.make_anew(&partition);
    // The new log is shorter than the mark, and what the group had committed of the old one lies beyond its end.
    assert_eq!(relay.sweep().await.missed, 0, "there is a new mark first");
    assert_eq!(relay.sweep().await.missed, 1);
    for _ in 0..3 {
        assert_eq!(relay.sweep().await.missed, 0, "that one is waiting for the drain");
    }
    world.log.committed.lock().unwrap().remove(&partition);
    world.drain().await;
    assert_eq!((world.dirty().await, world.amount("a").await), (0, Some(5)));
}

/// A world in which the mark clean of record `a` of `payments` was lost, and in the same shard, table `others` has a
/// record that is not drained.
async fn world_with_a_lost_mark_beside_what_waits() -> World {
    let world = World::new().await;
    world.db.make_table("others", Some(crate::db::payment_columns()));
    world.tables.enable(&table("others")).await.unwrap();
    world.write(put("a", 1)).await.unwrap();
    checkpoint::write(&world.core).await;
    let survives = Survives::Snapshot(world.store.memory.snapshot());
    world.drain().await;
    world.restart(survives).await;
    world.drain().await;
    let other = WriteRequest { table: table("others"), ..request(put("a", 1)) };
    world.writer.write(other, Acknowledge::default()).await.unwrap();
    assert_eq!(world.store.header(world.shard("a")).await.unwrap().dirty, 2, "not in one shard");
    world
}

#[tokio::test]
async fn a_table_that_is_not_drained_holds_up_no_other() {
    let world = world_with_a_lost_mark_beside_what_waits().await;
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    assert_eq!(relay.sweep().await.missed, 1);
    for _ in 0..3 {
        assert_eq!(relay.sweep().await.missed, 0);
    }
    assert_eq!(world.logged("a").len(), 2);
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
}

#[tokio::test]
async fn a_topic_that_can_t_be_asked_for_holds_up_no_other() {
    let world = world_with_a_lost_mark_beside_what_waits().await;
    let others = world.core.directory.table(&table("others")).unwrap();
    world.log.silent.lock().unwrap().insert(others.settings.topic.clone());
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    assert_eq!(relay.sweep().await.missed, 1);
    world.log.silent.lock().unwrap().clear();
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
}
