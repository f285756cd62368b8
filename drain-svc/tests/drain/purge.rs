//! Tombstones are forgotten, and nothing comes back.

use std::{sync::atomic::Ordering, time::Duration};

use database::{DatabaseRow, ErrorClass};
use drain_svc::DrainOptions;
use model::Version;
use tokio::time::sleep;

use crate::{
    db::id,
    world::{Still, options, until},
};

pub(crate) fn purging(retention: Duration) -> DrainOptions {
    let mut options = options();
    options.purge_interval = Duration::from_secs(1);
    options.tombstone_retention = retention;
    options
}

impl Still {
    /// The versions of all tombstones that the database holds.
    pub(crate) fn tombstones(&self) -> Vec<Version> {
        let records = self.db.straight().records(&self.schema.table.table).unwrap();
        let version = |(_, row)| match row {
            DatabaseRow::Deleted { version } => Some(version),
            _ => None,
        };
        records.into_iter().filter_map(version).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_is_kept_for_its_time_and_then_forgotten() {
    let world = Still::still().await;
    let drain = world.start(purging(Duration::from_secs(600)));
    for n in 0..50 {
        world.write(n, Some(n)).await;
        world.write(n, None).await;
    }
    world.until_clean().await;
    sleep(Duration::from_secs(590)).await;
    assert_eq!(world.tombstones().len(), 50);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.tombstones(), []);
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_that_a_write_the_database_lacks_may_lie_below() {
    let world = Still::still().await;
    let shard = world.shard(&id(0));
    let mine: Vec<i64> = (1..200).filter(|n| world.shard(&id(*n)) == shard).take(20).collect();
    let [below, missing, above] = [&mine[..9], &mine[9..10], &mine[10..]];
    let drain = world.start(purging(Duration::from_millis(400)));
    for n in below {
        world.write(*n, None).await;
    }
    world.until_clean().await;
    sleep(Duration::from_millis(500)).await;
    world.db.poison.lock().unwrap().replace((id(missing[0]), ErrorClass::Permanent));
    let (oldest, _) = world.write(missing[0], Some(1)).await;
    world.write(missing[0], Some(2)).await;
    for n in above {
        world.write(*n, None).await;
    }
    until("those below are forgotten", || async { world.tombstones().len() == above.len() }).await;
    sleep(Duration::from_secs(60)).await;
    let kept = world.tombstones();
    assert!(kept.len() == above.len() && kept.iter().all(|version| *version > oldest), "{kept:?}");
    let horizon = world.db.straight().shard_state(&world.schema.table.table, shard).unwrap().purge_horizon;
    assert!(horizon < oldest, "{horizon}");

    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    until("the others are forgotten as well", || async { world.tombstones().is_empty() }).await;
    let kept = world.rows([missing[0]]).await.remove(&missing[0]).unwrap();
    assert!(matches!(kept, DatabaseRow::Present { .. }), "{kept:?}");
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_counts_against_the_limit() {
    let world = Still::still().await;
    let drain = world.start(options());
    for n in 0..200 {
        world.write(n, None).await;
    }
    world.until_clean().await;
    drain.stop().await;
    let mut slow = purging(Duration::ZERO);
    slow.default_table.rows_per_second = Some(20.0);
    let drain = world.start(slow);
    until("it begins", || async { world.tombstones().len() < 200 }).await;
    let begun = tokio::time::Instant::now();
    while !world.tombstones().is_empty() {
        sleep(Duration::from_millis(100)).await;
        let (gone, allowed) = (200 - world.tombstones().len(), begun.elapsed().as_secs_f64() * 20.0 + 3.0);
        assert!(gone as f64 <= allowed, "{gone}, {allowed} allowed");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_waits_for_a_database_that_is_away() {
    let world = Still::still().await;
    let drain = world.start(purging(Duration::ZERO));
    world.write(1, None).await;
    world.until_clean().await;
    world.db.away.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(20)).await;
    world.db.away.store(false, Ordering::SeqCst);
    until("it is forgotten", || async { world.tombstones().is_empty() }).await;
    drain.stop().await;
}
