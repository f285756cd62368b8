//! Openings after the hot store was restarted: with all it held, with less, with nothing.

use std::{sync::Arc, time::Duration};

use database::{Database as _, Horizon, Owner, ShardRow};
use event_log::{Outgoing, Progress, TopicPartition};
use futures::FutureExt as _;
use hot_store::{HotStore as _, HotStoreError, OpeningToken, Settings, Slot, Stage, memory::Survives};
use ingest_svc::{
    StoreError,
    accept::{Require, WriteError},
    opening::{self, OpeningError, checkpoint, open_shard},
    read::ReadError,
};
use model::{Epoch, Event, EventBody, Fence, Mutation, Shard, Value, Version};
use tokio_util::sync::CancellationToken;

use crate::{log::Fate, world::*};

fn aborted() -> WriteResult {
    Err(WriteError::Aborted(table("payments")))
}

#[tokio::test]
async fn a_fresh_installation_opens_under_its_first_epoch_with_a_fence_in_every_topic() {
    let world = World::closed(quick_options(), u64::MAX / 1000).await;
    world.db.make_table("orders", Some(crate::db::payment_columns()));
    for name in ["payments", "orders"] {
        world.tables.enable(&table(name)).await.unwrap();
    }
    let opened = world.open(Shard(2)).await.unwrap().unwrap();
    assert_eq!((opened.epoch, opened.mutations, opened.void), (Epoch(1), 0, 0));
    assert_eq!(world.open(Shard(2)).await, Ok(None));
    for enabled in world.core.directory.all() {
        let partition = TopicPartition { topic: enabled.settings.topic.clone(), partition: 2 };
        let events = world.log.events(&partition);
        assert!(matches!(events.as_slice(), [(0, Event { epoch: Epoch(1), body: EventBody::Fence(_), .. })]));
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_a_store_that_lost_everything() {
    let world = World::new().await;
    for n in 0..50 {
        world.write(put(&format!("k{n}"), n)).await.unwrap();
    }
    world.drain().await;
    for n in 25..75 {
        world.write(put(&format!("k{n}"), n + 1000)).await.unwrap();
    }
    world.write(delete("k3")).await.unwrap();
    let before = world.get("k60").await.unwrap();
    world.restart(Survives::Nothing).await;
    for n in 0..75 {
        let expected = if n == 3 { None } else { Some(if n < 25 { n } else { n + 1000 }) };
        assert_eq!(world.amount(&format!("k{n}")).await, expected, "k{n}");
    }
    assert_eq!((world.dirty().await, world.unqueued().await), (51, 0));
    // A version can come again after a loss, so an etag of before names nothing any more.
    let after = world.get("k60").await.unwrap();
    assert_eq!(before.etag.unwrap().version, after.etag.unwrap().version);
    assert_eq!(world.write(put_if("k60", 1, Require::Etag(before.etag.unwrap()))).await, aborted());
    world.write(put_if("k60", 1, Require::Etag(after.etag.unwrap()))).await.unwrap();
    // New versions are above all those of before.
    assert!(etag(world.write(put("k60", 2)).await).version > before.etag.unwrap().version);
    world.drain().await;
    assert_eq!(world.dirty().await, 0);
}

#[tokio::test]
async fn versions_rise_above_those_of_before_even_if_the_clock_steps_back() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.drain().await;
    // The log has forgotten it, only the database knows how high versions had risen.
    let far = Version::new(1 << 52).unwrap();
    world.db.set_shard_row("payments", world.shard("a"), ShardRow { high_water: far, ..ShardRow::default() });
    world.restart(Survives::Nothing).await;
    assert!(etag(world.write(put("a", 2)).await).version > far);
}

#[tokio::test]
async fn versions_rise_above_the_horizon_that_readers_of_the_database_were_told() {
    let world = World::new().await;
    let far = Version::new(1 << 52).unwrap();
    world.db.set_shard_row("payments", world.shard("a"), ShardRow { horizon: far, ..ShardRow::default() });
    world.restart(Survives::Nothing).await;
    assert!(etag(world.write(put("a", 2)).await).version > far);
}

#[tokio::test]
async fn a_horizon_that_comes_too_late_for_the_opening_to_see_is_not_taken() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.drain().await;
    let (shard, payments) = (world.shard("a"), table("payments").table);
    let epoch = world.store.header(shard).await.unwrap().epoch;
    // The store had said so before it was lost, with a clock that was far ahead.
    let far = Version::new(1 << 52).unwrap();
    let said = |epoch| [Horizon { shard, owner: Owner("drain".into()), epoch, version: far }];
    world.restart(Survives::Nothing).await;
    world.db.note_horizons(&payments, &said(epoch)).await.unwrap();
    let written = etag(world.write(put("a", 2)).await);
    let row = world.db.shard_rows(std::slice::from_ref(&payments), shard).await.unwrap()[0];
    assert!(written.version > row.horizon, "readers of the database would take it for one that is there");
    assert!(row.epoch > epoch && row.epoch == world.store.header(shard).await.unwrap().epoch);
    // What is said in the epoch of the opening is taken.
    world.db.note_horizons(&payments, &said(row.epoch)).await.unwrap();
    assert_eq!(world.db.shard_rows(&[payments], shard).await.unwrap()[0].horizon, far);
}

#[tokio::test]
async fn a_shard_row_that_knows_a_higher_epoch_is_outrun() {
    let world = World::new().await;
    let shard = world.shard("a");
    // As after the database that counts the epochs was restored from a backup, and this one was not.
    world.db.set_shard_row("payments", shard, ShardRow { epoch: Epoch(40), ..ShardRow::default() });
    world.store.memory.restart(Survives::Nothing);
    let outrun = OpeningError::Outrun { found: Epoch(40), drawn: Epoch(2) };
    assert_eq!(world.open(shard).await, Err(outrun));
    assert_eq!(world.get("a").await.unwrap_err(), ReadError::Store(StoreError::Closed { shard }), "it stays closed");
    let opened = open_shard(&world.core, shard, Epoch(40)).await.unwrap().unwrap();
    assert_eq!(opened.epoch, Epoch(41));
    world.write(put("a", 1)).await.unwrap();
}

#[tokio::test]
async fn versions_rise_above_those_in_the_log_even_if_the_clock_steps_back() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let (_, epoch, mutation) = world.logged("a").pop().unwrap();
    let far = Version::new(1 << 52).unwrap();
    let body = EventBody::Mutations(vec![Mutation { version: far, ..mutation }]);
    let payload = Event { shard: world.shard("a"), epoch, body }.encode();
    world.log.append(Outgoing { to: world.partition("a"), key: Default::default(), payload });
    world.restart(Survives::Nothing).await;
    assert!(etag(world.write(put("a", 2)).await).version > far);
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn a_store_that_lost_nothing_keeps_what_was_only_logged() {
    let world = World::new().await;
    world.log.set_available(false);
    world.write_at(put("a", 1), LOGGED).await.unwrap();
    world.log.set_available(true);
    world.restart(Survives::Everything).await;
    assert_eq!((world.amount("a").await, world.unqueued().await), (Some(1), 1));
}

#[tokio::test]
async fn a_lost_tail_is_read_from_the_checkpoint() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    assert_eq!(checkpoint::write(&world.core).await, 4);
    let snapshot = world.store.memory.snapshot();
    world.write(put("a", 2)).await.unwrap();
    world.write(put("b", 3)).await.unwrap();
    world.store.memory.restart(Survives::Snapshot(snapshot));
    let mut mutations = 0;
    for shard in world.core.shards.all() {
        let opened = world.open(shard).await.unwrap().unwrap();
        assert!(!opened.discarded);
        mutations += opened.mutations;
    }
    assert_eq!(mutations, 2, "what the checkpoint covers is not read again");
    assert_eq!((world.amount("a").await, world.amount("b").await), (Some(2), Some(3)));
}

#[tokio::test]
async fn an_event_that_lands_behind_the_fence_is_void_for_everyone() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    world.restart(Survives::Nothing).await;
    assert_eq!(world.amount("a").await, None);
    world.log.land();
    assert_eq!(world.logged("a").len(), 1);
    world.drain().await;
    assert_eq!(world.db.row("payments", &key("a")), database::DatabaseRow::Absent);
    // For a later opening, too, from whatever start.
    world.log.committed.lock().unwrap().clear();
    world.store.memory.restart(Survives::Nothing);
    let opened = world.open(world.shard("a")).await.unwrap().unwrap();
    assert_eq!((opened.mutations, opened.void), (0, 1));
    assert_eq!(world.amount("a").await, None);
}

#[tokio::test]
async fn an_event_that_lands_before_the_fence_counts_although_nobody_was_told() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    world.log.land();
    world.restart(Survives::Nothing).await;
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn a_slow_older_event_does_not_bury_a_newer_row() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    world.write(put("a", 2)).await.unwrap();
    world.drain().await;
    // The older version lies behind the newer one, and behind what is committed.
    world.log.land();
    for survives in [Survives::Nothing, Survives::Everything] {
        world.restart(survives).await;
        assert_eq!(world.amount("a").await, Some(2));
        assert!(matches!(world.slot("a").await, Slot::Image { stage: Stage::Clean, .. }));
    }
    world.drain().await;
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn a_lower_image_does_not_survive_the_comparison_with_the_database() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let snapshot = world.store.memory.snapshot();
    world.write(put("a", 2)).await.unwrap();
    world.drain().await;
    world.restart(Survives::Snapshot(snapshot)).await;
    assert_eq!(world.amount("a").await, Some(2));
    assert!(matches!(world.slot("a").await, Slot::Image { stage: Stage::Clean, .. }));
}

#[tokio::test]
async fn the_newest_version_comes_back_wherever_it_lies_in_the_log() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    world.write(put("a", 2)).await.unwrap();
    world.log.land();
    world.restart(Survives::Nothing).await;
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn what_was_deleted_and_purged_does_not_come_back() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    let snapshot = world.store.memory.snapshot();
    let deleted = etag(world.write(delete("a")).await);
    world.drain().await;
    let row = ShardRow { high_water: deleted.version, purge_horizon: deleted.version, ..ShardRow::default() };
    world.db.set_shard_row("payments", world.shard("a"), row);
    world.db.set_row("payments", &key("a"), database::DatabaseRow::Absent);
    // The put lies behind the delete, and behind what is committed.
    world.log.land();
    for survives in [Survives::Nothing, Survives::Snapshot(snapshot)] {
        world.restart(survives).await;
        assert_eq!(world.amount("a").await, None);
    }
}

#[tokio::test]
async fn a_purge_during_the_opening_does_not_bring_back_what_was_deleted() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    world.write(put("a", 1)).await.unwrap_err();
    world.log.set_fate(Fate::Append);
    let deleted = etag(world.write(delete("a")).await);
    world.drain().await;
    world.log.land();
    world.store.memory.restart(Survives::Nothing);
    world.db.hold_reads();
    let purge = async {
        // The opening has read the shard's row, and the rows that it compares with as they are after the purge.
        let row = ShardRow { high_water: deleted.version, purge_horizon: deleted.version, ..ShardRow::default() };
        world.db.set_row("payments", &key("a"), database::DatabaseRow::Absent);
        world.db.held_read().await;
        world.db.set_shard_row("payments", world.shard("a"), row);
        world.db.release_reads();
    };
    let (opened, ()) = tokio::join!(world.open(world.shard("a")), purge);
    opened.unwrap().unwrap();
    assert_eq!(world.amount("a").await, None);
}

#[tokio::test]
async fn a_checkpoint_that_the_log_no_longer_reaches_discards_all_but_what_is_dirty() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    checkpoint::write(&world.core).await;
    world.write(put("a", 2)).await.unwrap();
    world.drain().await;
    world.write(put("a", 3)).await.unwrap();
    let other = (0..).map(|n| format!("k{n}")).find(|key| world.shard(key) == world.shard("a")).unwrap();
    world.log.set_available(false);
    world.write_at(put(&other, 4), LOGGED).await.unwrap();
    world.log.set_available(true);
    let partition = world.partition("a");
    let committed = world.log.committed.lock().unwrap()[&partition];
    world.log.trim(&partition, committed.offset);
    world.store.memory.restart(Survives::Everything);
    let opened = world.open(world.shard("a")).await.unwrap().unwrap();
    assert_eq!((opened.discarded, opened.kept), (true, 2));
    assert_eq!(opened.mutations, 1);
    assert_eq!((world.amount("a").await, world.amount(&other).await), (Some(3), Some(4)));
}

#[tokio::test]
async fn an_opening_that_failed_goes_on_from_its_start() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let shard = world.shard("a");
    world.store.memory.restart(Survives::Nothing);
    world.db.set_away(true);
    assert!(matches!(world.open(shard).await, Err(OpeningError::Database(_))));
    world.db.set_away(false);
    world.log.set_fate(Fate::Refuse);
    assert!(matches!(world.open(shard).await, Err(OpeningError::Fence { .. })));
    world.log.set_fate(Fate::Hold);
    assert!(matches!(world.open(shard).await, Err(OpeningError::Fence { .. })));
    world.log.set_fate(Fate::Append);
    // What is committed after the start was stored moves the start no more: the store may lack what lies before.
    let partition = world.partition("a");
    world.log.committed.lock().unwrap().insert(partition, Progress { offset: 2, epoch: Epoch(1) });
    assert_eq!(world.open(shard).await.unwrap().unwrap().mutations, 1);
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn who_is_superseded_changes_nothing_any_more() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let shard = world.shard("a");
    world.store.memory.restart(Survives::Nothing);
    let (store, rival) = (world.store.clone(), OpeningToken("rival".into()));
    world.log.after_publish(move || {
        // Nothing here ever waits.
        assert!(store.claim(shard, &rival).now_or_never().unwrap().unwrap().unwrap().resumed.is_some());
    });
    assert_eq!(world.open(shard).await, Err(OpeningError::HotStore(HotStoreError::Superseded { shard })));
    assert!(!world.store.header(shard).await.unwrap().open);
    assert!(world.open(shard).await.unwrap().is_some());
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn an_epoch_that_the_log_has_overtaken_is_drawn_again() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let (shard, partition) = (world.shard("a"), world.partition("a"));
    // As after the database was restored from a backup.
    let body = EventBody::Fence(Fence { opener: "another life".into() });
    let payload = Event { shard, epoch: Epoch(40), body }.encode();
    world.log.append(Outgoing { to: partition, key: Default::default(), payload });
    world.store.memory.restart(Survives::Nothing);
    let outrun = OpeningError::Outrun { found: Epoch(40), drawn: Epoch(2) };
    assert_eq!(world.open(shard).await, Err(outrun));
    let opened = open_shard(&world.core, shard, Epoch(40)).await.unwrap().unwrap();
    assert!(opened.epoch > Epoch(40));
    world.write(put("a", 2)).await.unwrap();
    world.drain().await;
    assert_eq!((world.dirty().await, world.amount("a").await), (0, Some(2)));
}

#[tokio::test]
async fn a_table_that_was_enabled_while_the_shards_were_open_loses_nothing() {
    let world = World::new().await;
    world.db.make_table("orders", Some(crate::db::payment_columns()));
    world.tables.enable(&table("orders")).await.unwrap();
    let request = |amount| ingest_svc::accept::WriteRequest { table: table("orders"), ..request(put("a", amount)) };
    world.writer.write(request(1), Default::default()).await.unwrap();
    checkpoint::write(&world.core).await;
    let snapshot = world.store.memory.snapshot();
    world.writer.write(request(2), Default::default()).await.unwrap();
    for survives in [Survives::Snapshot(snapshot), Survives::Nothing] {
        world.restart(survives).await;
        let found = world.reader.get(&table("orders"), &key_row("a"), &[]).await.unwrap();
        assert_eq!(found.row.get("amount"), Some(&Value::Int64(2)));
    }
}

#[tokio::test]
async fn a_record_that_is_none_of_ours_stops_no_opening() {
    let world = World::new().await;
    let partition = world.partition("a");
    world.log.append(Outgoing { to: partition, key: Default::default(), payload: "rubbish".into() });
    world.write(put("a", 1)).await.unwrap();
    world.restart(Survives::Nothing).await;
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn closed_shards_are_found_and_opened_until_the_end() {
    let world = Arc::new(World::closed(quick_options(), u64::MAX / 1000).await);
    world.tables.enable(&table("payments")).await.unwrap();
    let mut progress = world.core.opening_progress();
    assert!(!progress.borrow().is_complete());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(opening::run(world.core.clone(), shutdown.clone()));
    let patience = Duration::from_secs(90);
    tokio::time::timeout(patience, progress.wait_for(|p| p.is_complete())).await.unwrap().unwrap();
    world.write(put("a", 1)).await.unwrap();
    // Also those whose epoch the log has overtaken.
    let body = EventBody::Fence(Fence { opener: "another life".into() });
    let payload = Event { shard: world.shard("a"), epoch: Epoch(40), body }.encode();
    world.log.append(Outgoing { to: world.partition("a"), key: Default::default(), payload });
    world.store.memory.restart(Survives::Nothing);
    tokio::time::timeout(patience, progress.wait_for(|p| !p.is_complete())).await.unwrap().unwrap();
    tokio::time::timeout(patience, progress.wait_for(|p| p.is_complete())).await.unwrap().unwrap();
    assert_eq!(world.amount("a").await, Some(1));
    shutdown.cancel();
    tokio::time::timeout(patience, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_store_that_came_back_unfit_stays_closed_until_it_is_mended() {
    let world = World::closed(quick_options(), u64::MAX / 1000).await;
    world.tables.enable(&table("payments")).await.unwrap();
    let refused = vec!["set maxmemory-policy to noeviction".to_owned()];
    world.store.set_settings(Settings { refused, warned: vec![] });
    let mut progress = world.core.opening_progress();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(opening::run(world.core.clone(), shutdown.clone()));
    let moment = Duration::from_secs(2);
    assert!(tokio::time::timeout(moment, progress.wait_for(|p| p.opened > 0)).await.is_err(), "it was opened");
    world.store.set_settings(Settings::default());
    tokio::time::timeout(Duration::from_secs(90), progress.wait_for(|p| p.is_complete())).await.unwrap().unwrap();
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_row_that_can_t_be_read_keeps_no_shard_closed_and_nothing_stale_is_read_of_it() {
    // Over what the store has lost, and over an image that is older than the row.
    for survives_older in [false, true] {
        let world = World::new().await;
        world.write(put("newer", 1)).await.unwrap();
        checkpoint::write(&world.core).await;
        let survives = Survives::Snapshot(world.store.memory.snapshot());
        for (id, amount) in [("same", 2), ("lower", 3), ("newer", 4), ("fine", 5)] {
            world.write(put(id, amount)).await.unwrap();
        }
        world.drain().await;
        for id in ["same", "lower", "newer"] {
            world.db.spoil(&key(id), "amount");
        }
        for partition in world.log.committed.lock().unwrap().values_mut() {
            // The commit of the drain was lost, so all of it is read again.
            partition.offset = 1;
        }
        let version = |id: &str| world.logged(id).last().unwrap().0;
        let at = |number: u64| Version::new(number).unwrap();
        world.plant_at("lower", 0, at(version("lower").get() - 1));
        world.plant_at("newer", 9, at(version("newer").get() + 1));
        world.restart(if survives_older { survives } else { Survives::Nothing }).await;
        assert_eq!((world.amount("same").await, world.amount("lower").await), (Some(2), Some(3)));
        assert_eq!(world.amount("fine").await, Some(5));
        assert!(matches!(world.slot("lower").await, Slot::Image { stage: Stage::Dirty, .. }));
        assert!(matches!(world.slot("same").await, Slot::Image { stage: Stage::Clean, .. }));
        let refused = world.get("newer").await;
        assert!(matches!(refused, Err(ReadError::Store(StoreError::DatabaseUnfit(_)))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_row_of_another_key_that_the_database_takes_for_ours_keeps_no_shard_closed() {
    let world = World::new().await;
    for (id, amount) in [("e", 1), ("fine", 2)] {
        world.write(put(id, amount)).await.unwrap();
    }
    world.drain().await;
    // As it is with a row named é where the collation takes that for e: not even its key is one that we could have made.
    world.db.spoil(&key("e"), "id");
    for partition in world.log.committed.lock().unwrap().values_mut() {
        partition.offset = 1;
    }
    world.restart(Survives::Nothing).await;
    assert_eq!((world.amount("e").await, world.amount("fine").await), (Some(1), Some(2)));
    assert!(matches!(world.slot("e").await, Slot::Image { stage: Stage::Dirty, .. }));
}
