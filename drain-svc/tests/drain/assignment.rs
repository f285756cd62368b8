//! Crashes, rebalances, shutdowns.

use std::{collections::HashSet, time::Duration};

use database::{Database as _, DatabaseRow, Owner, ShardClaim};
use drain_svc::DrainError;
use event_log::LogError;
use model::Shard;

use crate::{
    db::id,
    world::{Still, World, limited, options, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_everything_that_was_not_done_comes_again_and_ends_in_the_same_rows() {
    let world = World::new().await;
    let mut offsets = Vec::new();
    for n in 0..300 {
        let (_, offset) = world.write(n, Some(n)).await;
        offsets.push((n, offset));
    }
    let drain = world.start(limited(150.0));
    // Long enough for a commit in the middle.
    until("a part is committed", || async { world.committed().await.iter().any(Option::is_some) }).await;
    drain.kill().await;

    let (committed, rows) = (world.committed().await, world.rows(0..300).await);
    assert!(rows.values().any(|row| *row == DatabaseRow::Absent), "it was killed in the middle");
    for (n, offset) in &offsets {
        let shard = world.shard(&id(*n));
        let below = committed[usize::from(shard.0)].is_some_and(|progress| *offset < progress.offset);
        assert!(!below || rows[n] != DatabaseRow::Absent, "{n} was committed and is not there");
    }
    for n in (0..300).step_by(7) {
        world.write(n, None).await;
    }
    let drain = world.start(options());
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_and_hand_them_on() {
    let world = World::new().await;
    let one = world.start(options());
    for n in 0..50 {
        world.write(n, Some(1)).await;
    }
    world.until_clean().await;
    let two = world.start(options());
    let mut round = 1;
    // Until the second has got its part and made progress in it.
    until("both make progress", || {
        round += 1;
        let (world, two) = (&world, &two);
        async move {
            for n in 0..50 {
                world.write(n, Some(round)).await;
            }
            world.until_clean().await;
            !two.told.lock().unwrap().noted.is_empty()
        }
    })
    .await;
    world.assert_rows_are_as_written().await;
    one.stop().await;
    for n in 0..50 {
        world.write(n, Some(1000)).await;
    }
    world.until_clean().await;
    let shards: HashSet<u16> = (0..50).map(|n| world.shard(&id(n)).0).collect();
    until("the other has taken all over", || async {
        let told = two.told.lock().unwrap();
        shards.iter().all(|shard| told.noted.contains_key(shard))
    })
    .await;
    world.assert_rows_are_as_written().await;
    two.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_was_taken_away_in_the_database_is_taken_back_while_it_is_still_assigned() {
    let world = World::new().await;
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    let claims: Vec<_> =
        (0..4).map(|n| ShardClaim { table: world.schema.table.table.clone(), shard: Shard(n) }).collect();
    world.db.straight().take_ownership(&claims, &Owner("late".into())).await.unwrap();
    world.write(1, Some(2)).await;
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_what_only_waits() {
    let world = World::new().await;
    for n in 0..100 {
        world.write(n, Some(n)).await;
    }
    // All of it would take 100 seconds.
    let drain = world.start(limited(1.0));
    until("one is written", || async { world.db.rows_applied() > 0 }).await;
    tokio::time::timeout(Duration::from_secs(60), drain.stop()).await.unwrap();
    let applied = world.db.rows_applied() as i64;
    let committed: i64 = world.committed().await.iter().flatten().map(|progress| progress.offset).sum();
    assert!(applied < 10 && committed <= applied, "{applied} written, {committed} committed");

    let drain = world.start(options());
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
    let applied = world.db.rows_applied();
    let drain = world.start(options());
    world.write(5, Some(5)).await;
    world.until_clean().await;
    drain.stop().await;
    assert_eq!(world.db.rows_applied(), applied + 1, "what was committed does not come again");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_log_that_does_not_pass_ends_the_drain_and_one_that_does_is_waited_out() {
    let world = Still::still().await;
    let drain = world.start(options());
    world.write(1, Some(1)).await;
    world.until_clean().await;
    drain.told.lock().unwrap().next_error = Some(LogError::Unavailable("no broker".into()));
    until("it was told so", || async { drain.told.lock().unwrap().errors == 1 }).await;
    world.write(1, Some(2)).await;
    world.until_clean().await;

    let fatal = LogError::Fatal("fenced".into());
    drain.told.lock().unwrap().next_error = Some(fatal.clone());
    let Err(DrainError::Log(ended)) = drain.ended().await else { panic!("it ended as if all were well") };
    assert_eq!(ended, fatal);
    world.assert_rows_are_as_written().await;
    world.assert_all_committed().await;
}

/// The group may be sharing the partitions anew just then, or the log be away.
#[tokio::test(start_paused = true)]
async fn a_last_commit_that_is_refused_costs_a_redelivery_and_is_no_failure() {
    let world = Still::still().await;
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    let refused = LogError::Unavailable("committing progress at the end: RebalanceInProgress".into());
    drain.told.lock().unwrap().refused_close = Some(refused);
    drain.stop().await;

    world.write(2, Some(2)).await;
    let heir = world.start(options());
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    heir.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_the_log_refuses_for_good_has_failed_also_when_it_was_told_to_stop() {
    let world = Still::still().await;
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    let fenced = LogError::Fatal("another process has taken this member's name".into());
    drain.told.lock().unwrap().refused_close = Some(fenced.clone());
    assert!(matches!(drain.stopped().await, Err(DrainError::Log(error)) if error == fenced));
}
