//! Whether log, hot store and database agree: what is found in a system that is right, and in one that was tampered with.

use std::{collections::BTreeMap, time::Duration};

use database::{DatabaseRow, ShardRow};
use hot_store::{HotStore as _, Stamp, memory::Survives};
use ingest_svc::{
    dead_letters::{DeadLetters, LetterId, LetterName},
    verify::{Difference, DifferenceKind, Progress, Told, Verifier, VerifyError, VerifyRequest},
};
use jiff::Timestamp;
use model::{DeadLetterCause, Row, Value, Version};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letters::{refuse, write_letter},
    log::Fate,
    world::*,
};

fn all() -> VerifyRequest {
    VerifyRequest { table: table("payments"), since: None, records_per_second: 100_000, max_listed: 100 }
}

async fn try_verify(world: &World, request: &VerifyRequest) -> Result<(Progress, Vec<Difference>), VerifyError> {
    let (tell, mut told) = mpsc::channel(1024);
    let progress = Verifier::new(world.core.clone()).verify(request, &tell, &CancellationToken::new()).await?;
    drop(tell);
    let (mut differences, mut last) = (Vec::new(), None);
    while let Some(Told { progress, differences: more, is_complete }) = told.recv().await {
        assert!(last.is_none(), "something is told behind the last word");
        differences.extend(more);
        last = is_complete.then_some(progress);
    }
    assert_eq!(last, Some(progress));
    Ok((progress, differences))
}

/// How the records differ that do, by the id of each.
async fn differing(world: &World) -> BTreeMap<String, DifferenceKind> {
    let (progress, differences) = try_verify(world, &all()).await.unwrap();
    assert_eq!(progress.differ, differences.len() as u64);
    let id = |key: &Row| match key.get("id") {
        Some(Value::Text(id)) => id.clone(),
        other => panic!("{other:?} is no id"),
    };
    differences.into_iter().map(|difference| (id(&difference.key), difference.kind)).collect()
}

fn expected<const N: usize>(of: [(&str, DifferenceKind); N]) -> BTreeMap<String, DifferenceKind> {
    of.into_iter().map(|(id, kind)| (id.to_owned(), kind)).collect()
}

/// Takes a dirty image out of the hot store, as nobody does who is right.
async fn take_out(world: &World, id: &str, version: Version) {
    let stamp = Stamp { record: world.record(id), version };
    world.store.park(world.shard(id), vec![stamp.clone()]).await.unwrap();
    assert!(world.store.purge_parked(world.shard(id), stamp).await.unwrap());
}

fn newest(world: &World, id: &str) -> Version {
    world.logged(id).into_iter().map(|(version, ..)| version).max().unwrap()
}

#[tokio::test]
async fn a_system_that_is_right_agrees_with_drained_waiting_refused_and_given_up_records() {
    let world = World::new().await;
    for n in 0..40 {
        world.write(put(&format!("k{n}"), n)).await.unwrap();
    }
    for n in 0..10 {
        world.write(delete(&format!("k{n}"))).await.unwrap();
        world.write(put(&format!("k{}", n + 10), 7)).await.unwrap();
    }
    world.drain().await;
    for id in ["waits", "k0", "parked", "given up"] {
        world.write(put(id, 1)).await.unwrap();
    }
    refuse(&world, "parked").await;
    refuse(&world, "given up").await;
    let name =
        |offset| LetterName { table: table("payments"), id: LetterId { shard: world.shard("given up"), offset } };
    let offset = i64::from(world.shard("given up") == world.shard("parked"));
    DeadLetters::new(world.core.clone()).purge(&[name(offset)]).await;

    let (progress, differences) = try_verify(&world, &all()).await.unwrap();
    assert_eq!(differences, []);
    let Progress { agree, pending, parked, given_up, differ, moving, .. } = progress;
    assert_eq!((agree, pending, parked, given_up, differ, moving), (39, 2, 1, 1, 0, 0));
    assert_eq!((progress.undecided(), progress.deleted), (0, 0));
    assert!(progress.read == progress.records && progress.read >= 64, "{progress:?}");
}

#[tokio::test]
async fn what_was_changed_beside_us_is_found_and_named() {
    let world = World::new().await;
    for id in ["good", "changed", "gone", "back", "older", "again"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.drain().await;
    let first = newest(&world, "older");
    for id in ["older", "again"] {
        world.write(put(id, 2)).await.unwrap();
    }
    world.write(delete("back")).await.unwrap();
    world.drain().await;
    world.plant_at("changed", 5, newest(&world, "changed"));
    world.db.set_row("payments", &key("gone"), DatabaseRow::Absent);
    world.plant_at("back", 1, newest(&world, "back"));
    world.plant_at("older", 1, first);
    world.plant("again", 2);
    let expected = expected([
        ("changed", DifferenceKind::ContentDiffers),
        ("gone", DifferenceKind::RowMissing),
        ("back", DifferenceKind::Phantom),
        ("older", DifferenceKind::Stale),
        ("again", DifferenceKind::Stale),
    ]);
    assert_eq!(differing(&world).await, expected);
    let (_, differences) = try_verify(&world, &all()).await.unwrap();
    let changed = differences.iter().find(|difference| difference.kind == DifferenceKind::ContentDiffers).unwrap();
    assert_eq!((&changed.columns[..], changed.key.clone()), (&["amount".to_owned()][..], key_row("changed")));

    // Once nothing clean is left, a row that is not there may as well never have been written.
    world.restart(Survives::Nothing).await;
    world.db.set_row("payments", &key("gone"), DatabaseRow::Absent);
    assert_eq!(differing(&world).await.get("gone"), Some(&DifferenceKind::Lost));
}

#[tokio::test]
async fn what_the_hot_store_lost_is_found_before_and_after_the_drain_has_passed_it() {
    let world = World::new().await;
    for id in ["good", "lost"] {
        world.write(put(id, 1)).await.unwrap();
    }
    let version = newest(&world, "lost");
    take_out(&world, "lost", version).await;
    assert_eq!(differing(&world).await, expected([("lost", DifferenceKind::NotInHotStore)]));
    // A drain that commits what it did not write.
    world.drain().await;
    world.db.set_row("payments", &key("lost"), DatabaseRow::Absent);
    take_clean_out(&world).await;
    assert_eq!(differing(&world).await, expected([("lost", DifferenceKind::Lost)]));
    // The same with a letter: somebody has to look at it, and can't read it.
    write_letter(&world, "lost", DeadLetterCause::Permanent, 1);
    assert_eq!(differing(&world).await, expected([("lost", DifferenceKind::ParkedLost)]));
}

/// Lets everything clean expire, as a restart that loses nothing else does.
async fn take_clean_out(world: &World) {
    assert_eq!(world.dirty().await, 0);
    world.restart(Survives::Nothing).await;
}

#[tokio::test]
async fn a_row_whose_delete_was_purged_is_no_difference_and_one_that_was_taken_away_is() {
    let world = World::new().await;
    for id in ["purged", "taken", "kept"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.write(delete("purged")).await.unwrap();
    world.drain().await;
    take_clean_out(&world).await;
    let horizon = ["purged", "taken", "kept"].map(|id| newest(&world, id)).into_iter().max().unwrap();
    for shard in world.core.shards.all() {
        world.db.set_shard_row("payments", shard, ShardRow { purge_horizon: horizon, ..ShardRow::default() });
    }
    for id in ["purged", "taken"] {
        world.db.set_row("payments", &key(id), DatabaseRow::Absent);
    }
    assert_eq!(differing(&world).await, expected([("taken", DifferenceKind::Lost)]));
    // Where the log has lost its beginning, the delete may have been there.
    world.log.trim(&world.partition("taken"), 1);
    let (progress, differences) = try_verify(&world, &all()).await.unwrap();
    assert_eq!((differences.len(), progress.may_be_purged, progress.deleted), (0, 1, 1));
}

#[tokio::test]
async fn a_loss_of_the_hot_store_and_what_it_makes_void_are_no_differences() {
    let world = World::new().await;
    for n in 0..8 {
        world.write(put(&format!("k{n}"), 1)).await.unwrap();
    }
    world.drain().await;
    let snapshot = world.store.memory.snapshot();
    // These are in the hot store only, and get into the log behind the fence.
    world.log.set_fate(Fate::Delay);
    for n in 0..8 {
        world.write_at(put(&format!("k{n}"), 2), LOGGED).await.unwrap();
    }
    eventually_delayed(&world).await;
    world.log.set_fate(Fate::Append);
    world.restart(Survives::Snapshot(snapshot)).await;
    world.log.land();
    let (progress, differences) = try_verify(&world, &all()).await.unwrap();
    assert_eq!((differences.len(), progress.void, progress.agree), (0, 8, 8), "{progress:?}");
    // Without its beginning the log does not tell that they are void.
    for n in 0..8 {
        let partition = world.partition(&format!("k{n}"));
        let late = world.log.events(&partition).len() as i64 - 1;
        world.log.trim(&partition, late);
    }
    let (progress, differences) = try_verify(&world, &all()).await.unwrap();
    assert!(differences.is_empty() && progress.may_be_void > 0, "{progress:?}");
}

/// Writes at LOGGED are produced behind the back of who asked.
async fn eventually_delayed(world: &World) {
    let all_tried = async {
        while !world.core.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(90), all_tried).await.unwrap();
}

#[tokio::test]
async fn only_what_was_written_since_is_compared() {
    let world = World::new().await;
    world.write(put("before", 1)).await.unwrap();
    let since = newest(&world, "before").get() + 1;
    while u64::try_from(Timestamp::now().as_microsecond()).unwrap() <= since {
        tokio::task::yield_now().await;
    }
    world.write(put("after", 1)).await.unwrap();
    world.drain().await;
    for id in ["before", "after"] {
        world.plant_at(id, 5, newest(&world, id));
    }
    let since = Timestamp::from_microsecond(i64::try_from(since).unwrap()).unwrap();
    let (progress, differences) = try_verify(&world, &VerifyRequest { since: Some(since), ..all() }).await.unwrap();
    assert_eq!((progress.differ, differences[0].key.clone()), (1, key_row("after")));
    let one = VerifyRequest { max_listed: 1, ..all() };
    let (progress, differences) = try_verify(&world, &one).await.unwrap();
    assert_eq!((progress.differ, differences.len()), (2, 1), "all are counted");
}

#[tokio::test]
async fn it_keeps_its_rate_and_ends_when_nobody_listens_or_the_replica_stops() {
    let world = World::new().await;
    for n in 0..60 {
        world.write(put(&format!("k{n}"), 1)).await.unwrap();
    }
    let begun = Instant::now();
    try_verify(&world, &VerifyRequest { records_per_second: 100, ..all() }).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    // So slow that it would take a minute.
    let slow = VerifyRequest { records_per_second: 1, ..all() };
    let verifier = Verifier::new(world.core.clone());
    let stopping = CancellationToken::new();
    let (tell, told) = mpsc::channel(1);
    let (left, ()) = tokio::join!(verifier.verify(&slow, &tell, &stopping), async {
        sleep(Duration::from_millis(50)).await;
        drop(told);
    });
    assert_eq!(left, Err(VerifyError::NobodyListens));
    let (tell, _told) = mpsc::channel(1);
    let (stopped, ()) = tokio::join!(verifier.verify(&slow, &tell, &stopping), async {
        sleep(Duration::from_millis(50)).await;
        stopping.cancel();
    });
    assert_eq!(stopped, Err(VerifyError::Stopping));
}

#[tokio::test]
async fn it_fills_nothing_and_says_what_it_cannot_do() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    world.drain().await;
    take_clean_out(&world).await;
    let before = world.slot("k").await;
    assert_eq!(differing(&world).await, expected([]));
    assert_eq!(world.slot("k").await, before);
    let never = VerifyRequest { table: table("never"), ..all() };
    assert_eq!(try_verify(&world, &never).await, Err(VerifyError::NoSuchTable(table("never"))));
}

#[tokio::test]
async fn writes_that_go_on_meanwhile_are_no_differences() {
    let world = World::new().await;
    for n in 0..30 {
        world.write(put(&format!("k{n}"), 0)).await.unwrap();
    }
    let stop = CancellationToken::new();
    let traffic = async {
        let mut n = 0_i64;
        while !stop.is_cancelled() {
            let id = format!("k{}", n % 30);
            let change = if n % 7 == 0 { delete(&id) } else { put(&id, n) };
            world.write(change).await.unwrap();
            if n % 5 == 0 {
                world.drain().await;
            }
            n += 1;
            tokio::task::yield_now().await;
        }
    };
    let verifying = async {
        for _ in 0..20 {
            let (progress, differences) =
                try_verify(&world, &VerifyRequest { records_per_second: 20_000, ..all() }).await.unwrap();
            assert_eq!((progress.differ, differences), (0, vec![]));
        }
        stop.cancel();
    };
    tokio::join!(traffic, verifying);
}
