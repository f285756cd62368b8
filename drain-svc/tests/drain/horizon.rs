//! Up to where readers of the database are told that it has everything.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use database::{Database as _, ErrorClass, Owner, ShardClaim, ShardRow, memory::ShardState};
use hot_store::memory::Survives;
use model::{Chance, Epoch, Key, Shard, Version};
use tokio::time::sleep;

use crate::{
    db::{Happened, id},
    purge::purging,
    world::{Still, options, until},
};

/// No horizon was ever told at or above which a write was, or would be, acknowledged that the database did not have.
fn assert_no_horizon_passed_what_was_missing(world: &Still) {
    let acked = world.acked.lock().unwrap().clone();
    let mut held: BTreeMap<Vec<u8>, Version> = BTreeMap::new();
    let bytes = |key: &Key| key.to_bytes().as_bytes().to_vec();
    let mut notes = 0;
    for happened in world.db.history() {
        match happened {
            Happened::Applied(changes) => {
                for (key, version) in changes {
                    let held = held.entry(bytes(&key)).or_default();
                    *held = version.max(*held);
                }
            }
            Happened::Noted(horizons) => {
                for (shard, horizon) in horizons {
                    notes += 1;
                    for (key, version) in acked.iter().filter(|(key, v)| *v <= horizon && world.shard(key) == shard) {
                        let held = held.get(&bytes(key)).copied().unwrap_or_default();
                        assert!(held >= *version, "horizon {horizon} of {shard}, but {key:?} {version} is not there");
                    }
                }
            }
        }
    }
    assert!(notes > 0);
}

#[tokio::test(start_paused = true)]
async fn it_never_passes_an_acknowledged_write_that_the_database_lacks() {
    for seed in 0..8 {
        let world = Still::still().await;
        let chance = Chance::seeded(seed);
        let mut options = options();
        options.chance = chance.clone();
        options.horizon_interval = Duration::from_millis(20);
        let (mut one, two) = (world.start(options.clone()), world.start(options.clone()));
        for n in 0..400 {
            // A few keys, so that much is coalesced away under a newer version that is dirty again.
            let key = i64::try_from(chance.token() % 8).unwrap();
            world.write(key, (!chance.token().is_multiple_of(4)).then_some(n)).await;
            sleep(Duration::from_millis(chance.token() % 5)).await;
            let poison = |on: bool| *world.db.poison.lock().unwrap() = on.then(|| (id(3), ErrorClass::Dependent));
            match chance.token() % 60 {
                0 => world.db.away.store(true, Ordering::SeqCst),
                1..=4 => world.db.away.store(false, Ordering::SeqCst),
                5 => poison(true),
                6..=8 => poison(false),
                9 => world.db.lose_next_answer.store(true, Ordering::SeqCst),
                10 => {
                    one.kill().await;
                    one = world.start(options.clone());
                }
                _ => {}
            }
        }
        world.db.away.store(false, Ordering::SeqCst);
        *world.db.poison.lock().unwrap() = None;
        world.until_clean().await;
        one.stop().await;
        two.stop().await;
        assert_no_horizon_passed_what_was_missing(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn it_rises_where_nothing_is_written_and_stands_still_before_what_is_missing() {
    let world = Still::still().await;
    let table = &world.schema.table.table;
    let horizon = || world.db.straight().horizon(table).unwrap_or_default();
    let (first, _) = world.write(1, Some(1)).await;
    let drain = world.start(options());
    // One record, four shards: those without any are told as well.
    until("the horizon has passed the write", || async { horizon() > first }).await;

    world.db.poison.lock().unwrap().replace((id(2), ErrorClass::Dependent));
    let (missing, _) = world.write(2, Some(1)).await;
    let (newer, _) = world.write(2, Some(2)).await;
    let elsewhere = (3..).find(|n| world.shard(&id(*n)) != world.shard(&id(2))).unwrap();
    let (other, _) = world.write(elsewhere, Some(3)).await;
    sleep(Duration::from_secs(30)).await;
    assert!(horizon() < missing && horizon() >= first, "{} and {missing}", horizon());
    let state = |n: i64| world.db.straight().shard_state(table, world.shard(&id(n))).unwrap().horizon;
    assert!(state(elsewhere) > other, "another shard goes on");
    world.db.poison.lock().unwrap().take();
    until("it has passed the others", || async { horizon() > newer.max(other) }).await;
    assert_no_horizon_passed_what_was_missing(&world);
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_former_owner_tells_nothing_and_a_closed_shard_is_told_of_by_nobody() {
    let world = Still::still().await;
    let table = &world.schema.table.table;
    let horizons = || {
        let of = |n| world.db.straight().shard_state(table, Shard(n)).map(|state| state.horizon).unwrap_or_default();
        (0..4).map(of).collect::<Vec<_>>()
    };
    let drain = world.start(options());
    until("all are told of", || async { horizons().iter().all(|horizon| *horizon > Version::ZERO) }).await;
    let claim = ShardClaim { table: table.clone(), shard: Shard(2) };
    world.db.straight().take_ownership(&[claim], &Owner("another".into())).await.unwrap();
    let before = horizons();
    sleep(Duration::from_secs(5)).await;
    for (shard, (before, after)) in before.iter().zip(horizons()).enumerate() {
        assert_eq!(*before == after, shard == 2, "shard {shard}: {before}, {after}");
    }

    world.hot.restart(Survives::Everything);
    let before = horizons();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(before, horizons(), "nobody knows what is dirty");
    world.open(Epoch(2)).await;
    until("the others rise again", || async { horizons()[0] > before[0] }).await;
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_refuses_horizons_and_purges_is_written_all_the_same() {
    let world = Still::still().await;
    world.db.no_upkeep.store(true, Ordering::SeqCst);
    let mut options = options();
    options.purge_interval = Duration::from_millis(100);
    options.tombstone_retention = Duration::ZERO;
    let drain = world.start(options);
    for n in 0..40 {
        world.write(n, (n % 2 == 0).then_some(n)).await;
        sleep(Duration::from_millis(100)).await;
    }
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    assert_eq!(world.db.straight().horizon(&world.schema.table.table), Some(Version::ZERO));
    world.db.no_upkeep.store(false, Ordering::SeqCst);
    until("the horizon rises", || async {
        world.db.straight().horizon(&world.schema.table.table) > Some(Version::ZERO)
    })
    .await;
    drain.stop().await;
    world.assert_all_committed().await;
}

/// The shard rows as an opening of this epoch finds them; the store has lost everything, and is opened in it.
async fn lost_and_opened(world: &Still, epoch: Epoch) -> Vec<ShardRow> {
    world.hot.restart(Survives::Nothing);
    let mut rows = Vec::new();
    for shard in 0..4 {
        let tables = std::slice::from_ref(&world.schema.table.table);
        rows.extend(world.db.straight().announce_opening(tables, Shard(shard), epoch).await.unwrap());
    }
    world.open(epoch).await;
    rows
}

fn states(world: &Still) -> Vec<ShardState> {
    let state = |n| world.db.straight().shard_state(&world.schema.table.table, Shard(n)).unwrap();
    (0..4).map(state).collect()
}

#[tokio::test(start_paused = true)]
async fn what_the_store_said_before_it_was_lost_is_not_told_after_it_was_opened() {
    let world = Still::still().await;
    let drain = world.start(options());
    let horizons = || states(&world).into_iter().map(|state| state.horizon).collect::<Vec<_>>();
    world.write(1, Some(1)).await;
    world.until_clean().await;
    until("all are told of", || async { horizons().iter().all(|horizon| *horizon > Version::ZERO) }).await;
    world.db.notes.close();
    let late = world.db.notes.next().await;
    let found: Vec<_> = lost_and_opened(&world, Epoch(2)).await.into_iter().map(|row| row.horizon).collect();
    assert_eq!(late.iter().map(|said| said.epoch).collect::<Vec<_>>(), [Epoch(1); 4]);
    assert!(late.iter().zip(&found).all(|(said, found)| said.version > *found), "it would be told otherwise");
    world.db.notes.let_one_through();
    let next = world.db.notes.next().await;
    assert_eq!(horizons(), found, "an opening has gone by what was there");
    assert_eq!(next.iter().map(|said| said.epoch).collect::<Vec<_>>(), [Epoch(2); 4]);
    world.db.notes.open();
    until("they rise again", || async { horizons().iter().zip(&found).all(|(now, before)| now > before) }).await;
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_was_bounded_before_the_store_was_lost_forgets_nothing_after_it_was_opened() {
    let world = Still::still().await;
    world.db.purges.close();
    let drain = world.start(purging(Duration::ZERO));
    world.write(1, None).await;
    let shard = world.shard(&id(1));
    world.until_clean().await;
    let (tombstone, _) = world.written.lock().unwrap()[&1];
    let mut late = world.db.purges.next().await;
    while late[0].shard != shard || late[0].version < tombstone {
        world.db.purges.let_one_through();
        late = world.db.purges.next().await;
    }
    lost_and_opened(&world, Epoch(2)).await;
    // The round ends, and the next one knows.
    while late[0].shard != shard || late[0].epoch < Epoch(2) {
        assert_eq!(world.tombstones(), [tombstone]);
        world.db.purges.let_one_through();
        late = world.db.purges.next().await;
    }
    assert_eq!(world.tombstones(), [tombstone]);
    assert!(states(&world).iter().all(|state| state.purge_horizon == Version::ZERO));
    world.db.purges.open();
    until("it is forgotten", || async { world.tombstones().is_empty() }).await;
    drain.stop().await;
}
