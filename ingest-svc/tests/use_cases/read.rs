//! Reads: from the hot store, from the database under a lease, never older than the newest acknowledged write.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use hot_store::{HotStore as _, LeaseOutcome, Slot, Stage, memory::Survives};
use ingest_svc::{Part, StoreError, read::ReadError};
use model::{Value, ViolationReason};

use crate::world::*;

fn not_found() -> Option<ReadError> {
    Some(ReadError::NotFound(table("payments")))
}

#[tokio::test]
async fn a_read_sees_what_was_just_written() {
    let world = World::new().await;
    world.plant("a", 1);
    world.db.set_away(true);
    let written = etag(world.write(put("a", 2)).await);
    let found = world.get("a").await.unwrap();
    assert_eq!((found.row, found.etag), (full_payment("a", 2), Some(written)));
    world.write(delete("a")).await.unwrap();
    assert_eq!(world.get("a").await.err(), not_found());
}

#[tokio::test]
async fn a_cold_record_is_read_once_and_remembered_and_so_is_an_absence() {
    let world = World::new().await;
    world.plant("a", 1);
    for _ in 0..3 {
        assert_eq!(world.amount("a").await, Some(1));
        assert_eq!(world.amount("none").await, None);
    }
    assert_eq!(world.db.reads.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn columns_can_be_chosen_and_must_exist() {
    let world = World::new().await;
    world.write(put("a", 2)).await.unwrap();
    let get = async |key, columns: &[&str]| {
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        world.reader.get(&table("payments"), &key, &columns).await
    };
    let found = get(key_row("a"), &["amount", "note"]).await.unwrap();
    assert_eq!(found.row, row(&[("amount", Value::Int64(2)), ("note", Value::Null)]));
    let wrong = [(get(key_row("a"), &["x"]).await, Part::Columns), (get(payment("a", 1), &[]).await, Part::Key)];
    for (result, expected) in wrong {
        match result {
            Err(ReadError::Invalid { part, violations }) => {
                assert_eq!((part, violations[0].reason), (expected, ViolationReason::UnknownColumn));
            }
            other => panic!("{other:?}"),
        }
    }
    let other = world.reader.get(&table("orders"), &key_row("a"), &[]).await;
    assert_eq!(other.err(), Some(ReadError::TableNotEnabled(table("orders"))));
}

#[tokio::test]
async fn what_can_t_be_answered_is_refused() {
    let world = World::new().await;
    world.plant("a", 1);
    world.db.set_away(true);
    let refused = world.get("a").await;
    assert!(matches!(refused, Err(ReadError::Store(StoreError::DatabaseDown(_)))), "{refused:?}");
    world.store.memory.restart(Survives::Everything);
    let closed = StoreError::Closed { shard: world.shard("a") };
    assert_eq!(world.get("a").await.err(), Some(ReadError::Store(closed)));
}

#[tokio::test]
async fn concurrent_misses_make_one_read_of_the_database() {
    let world = Arc::new(World::new().await);
    world.plant("a", 1);
    world.db.hold_reads();
    let reads: Vec<_> = (0..20)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.amount("a").await })
        })
        .collect();
    world.db.held_read().await;
    world.db.release_reads();
    for read in reads {
        assert_eq!(read.await.unwrap(), Some(1));
    }
    assert_eq!(world.db.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_slow_reader_does_not_bury_a_newer_write() {
    let world = Arc::new(World::new().await);
    world.plant("a", 1);
    world.db.hold_reads();
    let reading = {
        let world = world.clone();
        tokio::spawn(async move { world.amount("a").await })
    };
    world.db.held_read().await;
    // The reader holds the old row in its hands now.
    world.write(put("a", 2)).await.unwrap();
    world.db.release_reads();
    assert_eq!(reading.await.unwrap(), Some(2));
    assert_eq!(world.amount("a").await, Some(2));
    assert!(matches!(world.slot("a").await, Slot::Image { stage: Stage::Dirty, .. }));
}

#[tokio::test]
async fn a_slow_reader_does_not_remember_an_absence_over_a_create() {
    let world = Arc::new(World::new().await);
    world.db.hold_reads();
    let reading = {
        let world = world.clone();
        tokio::spawn(async move { world.amount("a").await })
    };
    world.db.held_read().await;
    let created = world.write(put("a", 2)).await;
    world.db.release_reads();
    assert_eq!(reading.await.unwrap(), Some(2));
    created.unwrap();
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn a_reader_that_died_is_waited_for_no_longer_than_its_lease() {
    let world = World::new().await;
    world.plant("a", 1);
    let dead = world.store.lease(world.shard("a"), world.record("a"), Duration::from_millis(30)).await.unwrap();
    assert!(matches!(dead, LeaseOutcome::Granted(_)));
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn a_store_without_room_for_fills_still_lets_reads_through() {
    let world = World::with(quick_options(), 2000).await;
    let mut n = 0;
    while world.store.memory.used_bytes() < 1500 {
        world.write(put(&format!("k{n}"), n)).await.unwrap();
        n += 1;
    }
    world.plant("a", 1);
    for _ in 0..2 {
        assert_eq!(world.amount("a").await, Some(1));
        assert_eq!(world.amount("none").await, None);
        assert_eq!(world.slot("a").await, Slot::Empty);
    }
}

#[tokio::test]
async fn a_record_that_is_drained_and_forgotten_is_read_from_the_database() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let written = etag(world.write(put("a", 2)).await);
    world.write(put("gone", 1)).await.unwrap();
    world.write(delete("gone")).await.unwrap();
    world.drain().await;
    world.restart(Survives::Nothing).await;
    assert_eq!(world.slot("a").await, Slot::Empty);
    let found = world.get("a").await.unwrap();
    assert_eq!((found.row, found.etag.unwrap().version), (full_payment("a", 2), written.version));
    // The tombstone came back too, not only an absence.
    assert_eq!(world.amount("gone").await, None);
    assert!(matches!(world.slot("gone").await, Slot::Image { stage: Stage::Clean, .. }));
}
