//! Openings over a log that has lost its end, as Kafka may in a power cut, while the hot store kept what it had.

use std::collections::BTreeSet;

use event_log::{LogReader as _, Progress};
use hot_store::{Slot, memory::Survives};
use ingest_svc::{opening::checkpoint, relay::Relay};
use model::Epoch;

use crate::world::*;

/// Keys of one shard, that of `k0`.
fn keys(world: &World, count: usize) -> Vec<String> {
    let keys = (0..).map(|n| format!("k{n}")).filter(|key| world.shard(key) == world.shard("k0"));
    keys.take(count).collect()
}

async fn end_of_log(world: &World, key: &str) -> i64 {
    world.log.bounds(&[world.partition(key)]).await.unwrap()[0].1
}

/// The relay queues what is unqueued, and the drain applies all there is.
async fn settle(world: &World) {
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    relay.sweep().await;
    world.drain().await;
    assert_eq!((world.dirty().await, world.unqueued().await), (0, 0));
}

#[tokio::test]
async fn what_the_store_had_for_the_database_is_kept_and_the_rest_is_dropped() {
    let world = World::new().await;
    let keys = keys(&world, 5);
    let [clean, again, queued, logged, deleted] = [0, 1, 2, 3, 4].map(|at| keys[at].as_str());
    for key in [clean, again, deleted] {
        world.write(put(key, 1)).await.unwrap();
    }
    world.drain().await;
    let end = end_of_log(&world, clean).await;
    world.write(put(again, 2)).await.unwrap();
    world.write(put(queued, 2)).await.unwrap();
    world.write(put(queued, 3)).await.unwrap();
    world.write(delete(deleted)).await.unwrap();
    world.log.set_available(false);
    world.write_at(put(logged, 4), LOGGED).await.unwrap();
    world.log.set_available(true);
    checkpoint::write(&world.core).await;
    world.log.lose_end(&world.partition(clean), end);
    world.store.memory.restart(Survives::Everything);
    let opened = world.open(world.shard(clean)).await.unwrap().unwrap();
    assert_eq!((opened.discarded, opened.kept, opened.mutations), (true, 4, 0));
    assert_eq!(world.slot(clean).await, Slot::Empty, "it may be older than its row");
    world.open_all().await;
    let expected = [(clean, Some(1)), (again, Some(2)), (queued, Some(3)), (logged, Some(4)), (deleted, None)];
    for (key, amount) in expected {
        assert_eq!(world.amount(key).await, amount, "{key}");
    }
    // The log lacks them, whatever their marks said.
    assert_eq!((world.dirty().await, world.unqueued().await), (4, 4));
    settle(&world).await;
    for (key, amount) in expected {
        assert_eq!(
            world.logged(key).last().map(|(.., epoch, _)| *epoch),
            Some(if key == clean { Epoch(1) } else { opened.epoch })
        );
        assert_eq!(world.amount(key).await, amount, "{key}");
    }
    assert!(etag(world.write(put(queued, 9)).await).version > world.logged(logged).last().unwrap().0);
}

#[tokio::test]
async fn what_the_database_has_of_it_is_not_brought_back_older() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.write(put("b", 1)).await.unwrap();
    checkpoint::write(&world.core).await;
    let kept = world.store.memory.snapshot();
    world.write(put("a", 2)).await.unwrap();
    world.write(delete("b")).await.unwrap();
    world.drain().await;
    // The store has lost what came behind the checkpoint, and the log even what came before it.
    for partition in BTreeSet::from(["a", "b"].map(|key| world.partition(key))) {
        world.log.lose_end(&partition, 1);
        world.log.committed.lock().unwrap().insert(partition, Progress { offset: 1, epoch: Epoch(1) });
    }
    world.restart(Survives::Snapshot(kept)).await;
    assert_eq!((world.amount("a").await, world.amount("b").await), (Some(2), None));
    assert_eq!(world.dirty().await, 0);
}

#[tokio::test]
async fn a_newer_event_that_the_log_still_has_goes_over_what_was_kept() {
    let world = World::new().await;
    let keys = keys(&world, 2);
    let [twice, once] = [0, 1].map(|at| keys[at].as_str());
    world.write(put(twice, 1)).await.unwrap();
    let kept = world.store.memory.snapshot();
    world.write(put(twice, 2)).await.unwrap();
    let end = end_of_log(&world, twice).await;
    world.write(put(once, 1)).await.unwrap();
    world.log.lose_end(&world.partition(twice), end);
    // No checkpoint names anything of this log.
    world.log.trim(&world.partition(twice), 1);
    world.store.memory.restart(Survives::Snapshot(kept));
    let opened = world.open(world.shard(twice)).await.unwrap().unwrap();
    assert_eq!((opened.discarded, opened.kept, opened.mutations), (true, 1, 2));
    world.open_all().await;
    assert_eq!(world.amount(twice).await, Some(2));
    settle(&world).await;
    assert_eq!(world.amount(twice).await, Some(2));
    // What both have lost is lost.
    assert_eq!(world.amount(once).await, None);
}

#[tokio::test]
async fn an_opener_that_dies_and_a_store_that_dies_after_it_lose_nothing_of_it() {
    for opener_dies_alone in [true, false] {
        let world = World::new().await;
        let keys = keys(&world, 3);
        let [applied, kept, other] = [0, 1, 2].map(|at| keys[at].as_str());
        let shard = world.shard(kept);
        world.write(put(applied, 1)).await.unwrap();
        let end = end_of_log(&world, kept).await;
        world.write(put(kept, 2)).await.unwrap();
        checkpoint::write(&world.core).await;
        world.log.lose_end(&world.partition(kept), end);
        // The opener has to look into the database, and dies while it does.
        world.drain_without_marks().await;
        world.store.memory.restart(Survives::Everything);
        world.db.hold_reads();
        tokio::select! {
            biased;
            opened = world.open(shard) => panic!("{opened:?}"),
            () = world.db.held_read() => {}
        }
        world.db.release_reads();
        // Its fence is in the log, which is as long by now as it was when the checkpoint was taken.
        assert_eq!(end_of_log(&world, kept).await, end + 1);
        if !opener_dies_alone {
            world.store.memory.restart(Survives::Everything);
        }
        let opened = world.open(shard).await.unwrap().unwrap();
        assert_eq!((opened.discarded, opened.kept), (true, 1), "{opener_dies_alone}");
        world.open_all().await;
        world.write(put(other, 3)).await.unwrap();
        for (key, amount) in [(applied, 1), (kept, 2), (other, 3)] {
            assert_eq!(world.amount(key).await, Some(amount), "{key}");
        }
        settle(&world).await;
    }
}

#[tokio::test]
async fn a_retry_of_what_was_superseded_before_takes_no_effect() {
    let world = World::new().await;
    let end = end_of_log(&world, "a").await;
    let first = world.write_as("r", put("a", 1)).await.unwrap();
    world.write(put("a", 2)).await.unwrap();
    checkpoint::write(&world.core).await;
    world.log.lose_end(&world.partition("a"), end);
    world.restart(Survives::Everything).await;
    let again = world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!(again.etag.version, first.etag.version);
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn a_retry_of_what_was_kept_takes_effect_once() {
    let world = World::new().await;
    let end = end_of_log(&world, "a").await;
    let first = world.write_as("r", put("a", 1)).await.unwrap();
    checkpoint::write(&world.core).await;
    world.log.lose_end(&world.partition("a"), end);
    world.restart(Survives::Everything).await;
    let again = world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!((again.etag.version, again.reached), (first.etag.version, QUEUED));
    // It is in the log by now, and was not when the shard was opened.
    assert_eq!(world.logged("a").len(), 1);
    settle(&world).await;
}
