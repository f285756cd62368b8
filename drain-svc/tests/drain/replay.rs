//! The whole log once more, and once more: the tables stay as they are.

use std::{sync::Arc, time::Duration};

use database::{Database, DatabaseRow};
use event_log::{
    EventPublisher as _, LogSettings, Outgoing,
    memory::{MemoryLog, MemoryLogOptions},
};
use hot_store::{Slot, memory::MemoryStore};
use model::{Chance, Content, Epoch, Shard, Version};
use tokio::time::sleep;

use crate::{
    purge::purging,
    world::{Group, SHARDS, Still, World, options, partition, topic, until},
};

/// Writes and deletes with a little of everything: several versions of a key at once, a key that is written again after
/// its delete, duplicates behind newer versions.
async fn write_a_history<L: Group, D: Database>(world: &World<L, D>, chance: &Chance, writes: usize) {
    for n in 0..writes {
        let key = i64::try_from(chance.token() % 200).unwrap();
        let amount = (!chance.token().is_multiple_of(3)).then(|| i64::try_from(n).unwrap());
        let (version, _) = world.write(key, amount).await;
        // Duplicates, and old news behind newer ones, as the relay makes them.
        if chance.token().is_multiple_of(5) {
            world.publish(key, version, Epoch(1), amount).await;
        }
    }
}

/// Another log with the same records at the same offsets, of which no group has committed anything.
async fn from_the_beginning<L: Group>(log: &L) -> MemoryLog {
    let again = MemoryLog::new(MemoryLogOptions::default());
    again.ensure_topic(&topic(), SHARDS as u16, LogSettings { allow_single_node: true }).await.unwrap();
    for shard in 0..SHARDS as u16 {
        let at = partition(Shard(shard));
        let (_, end) = log.bounds(std::slice::from_ref(&at)).await.unwrap()[0];
        let mut records = Vec::new();
        log.read(&at, 0, end, &mut |record| {
            records.push(Outgoing { to: record.from, key: record.key, payload: record.payload });
            true
        })
        .await
        .unwrap();
        let offsets: Vec<i64> = again.publish(records).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(offsets, (0..end).collect::<Vec<_>>());
    }
    again
}

/// Drains a whole log again, into the database that has it all, with the hot store as it is or an empty one.
async fn replay<L: Group, D: Database>(world: &World<L, D>, hot: Option<Arc<MemoryStore>>) {
    let again = world.over(from_the_beginning(&world.log).await, hot).await;
    let ends = again.ends().await;
    let drain = again.start(options());
    until("all of it is drained", || async {
        let told = drain.told.lock().unwrap();
        let done = |at: usize| told.noted.get(&(at as u16)).map_or(0, |progress| progress.offset);
        ends.iter().enumerate().all(|(at, end)| done(at) == *end)
    })
    .await;
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_of_everything_changes_nothing_also_after_tombstones_were_purged() {
    for seed in 0..4 {
        let world = Still::still().await;
        let chance = Chance::seeded(seed);
        let drain = world.start(purging(Duration::from_secs(10)));
        for _ in 0..20 {
            write_a_history(&world, &chance, 30).await;
            sleep(Duration::from_secs(2)).await;
        }
        world.until_clean().await;
        drain.stop().await;
        world.assert_rows_are_as_written().await;
        let dump = || {
            let table = &world.schema.table.table;
            let state = |n| world.db.straight().shard_state(table, Shard(n)).unwrap();
            let shards: Vec<_> = (0..4).map(|n| (state(n).purge_horizon, state(n).high_water)).collect();
            (world.db.straight().records(table).unwrap(), shards)
        };
        let before = dump();
        assert!(before.1.iter().all(|(horizon, _)| *horizon > Version::ZERO), "some tombstones are gone");
        assert!(!world.tombstones().is_empty(), "and some are not");
        for hot in [Some(world.hot.clone()), None] {
            for _ in 0..2 {
                replay(&world, hot.clone()).await;
                assert_eq!(dump(), before, "seed {seed}");
            }
        }
        // What clients read is what it was.
        let written = world.written.lock().unwrap().clone();
        for (n, (version, amount)) in written {
            let Slot::Image { image, version: found, .. } = world.slot(n).await else { panic!("{n} is not there") };
            assert!(found >= version);
            assert_eq!(matches!(image.content, Content::Row(_)), amount.is_some(), "{n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_in_a_relational_database() {
    let world = World::new().await;
    let mut often = purging(Duration::ZERO);
    often.purge_interval = Duration::from_millis(50);
    let chance = Chance::seeded(1);
    let drain = world.start(often);
    write_a_history(&world, &chance, 200).await;
    world.until_clean().await;
    let is_tombstone = |row: &DatabaseRow| matches!(row, DatabaseRow::Deleted { .. });
    until("tombstones are purged", || async { !world.rows(0..200).await.values().any(is_tombstone) }).await;
    drain.stop().await;
    // These stay.
    let drain = world.start(options());
    write_a_history(&world, &chance, 30).await;
    world.until_clean().await;
    drain.stop().await;
    let before = world.rows(0..200).await;
    assert!(before.values().any(is_tombstone) && before.values().any(|row| *row == DatabaseRow::Absent));
    for hot in [Some(world.hot.clone()), None] {
        for _ in 0..2 {
            replay(&world, hot.clone()).await;
            assert_eq!(world.rows(0..200).await, before);
        }
    }
}
