//! The database is never written faster than its limit.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use database::{Database as _, DatabaseRow, SetRate};
use model::{TableName, TableRef};
use tokio::time::{Instant, sleep};

use crate::{
    db::BentDatabase,
    world::{Still, World, limited, options, until},
};

/// Rows tried in the busiest second.
fn busiest_second(world: &World) -> usize {
    let attempts = world.db.attempts();
    let in_second = |from: Instant| {
        let until = from + Duration::from_secs(1);
        attempts.iter().filter(|a| a.at >= from && a.at < until).map(|a| a.changes.len()).sum()
    };
    attempts.iter().map(|attempt| in_second(attempt.at)).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_together_keep_to_the_limit_from_the_first_batch_on() {
    let (limit, batch) = (100.0, 5);
    let world = World::new().await;
    for n in 0..180 {
        world.write(n, Some(n)).await;
    }
    let begun = Instant::now();
    let (one, two) = (world.start(limited(limit)), world.start(limited(limit)));
    world.until_clean().await;
    let took = begun.elapsed().as_secs_f64();
    assert!(took >= (180 - batch) as f64 / limit, "{took} s");
    assert!(took <= 180.0 / limit * 2.0, "the budget is used, too: {took} s");
    let busiest = busiest_second(&world);
    assert!(busiest <= limit as usize + batch, "{busiest} rows in one second");
    assert!(world.db.attempts().iter().all(|attempt| attempt.changes.len() <= batch));
    world.assert_rows_are_as_written().await;
    one.stop().await;
    two.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_fail_take_budget_as_well() {
    let world = World::new().await;
    world.db.poison.lock().unwrap().replace((crate::db::id(0), database::ErrorClass::Permanent));
    for n in 0..60 {
        world.write(n, Some(n)).await;
    }
    let drain = world.start(limited(40.0));
    until("all but one are clean", || async {
        world.rows(1..60).await.values().all(|row| *row != database::DatabaseRow::Absent)
    })
    .await;
    let busiest = busiest_second(&world);
    assert!(busiest <= 42, "{busiest} rows in one second");
    drain.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_full_pauses_its_partitions_and_goes_on_when_there_is_room() {
    let world = World::new().await;
    let mut small = options();
    small.lane_capacity = 20;
    small.default_table.batch_rows = 10;
    world.db.poison.lock().unwrap().replace((crate::db::id(0), database::ErrorClass::Contended));
    // Neither lane gets through while its first key is refused.
    world.write(0, Some(0)).await;
    let drain = world.start(small);
    until("it is tried", || async { !world.db.attempts().is_empty() }).await;
    let delivered_at_first = drain.told.lock().unwrap().delivered;
    let lane_of_0 = world.shard(&crate::db::id(0)).0 % 2;
    let same_lane: Vec<i64> = (1..1000).filter(|n| world.shard(&crate::db::id(*n)).0 % 2 == lane_of_0).collect();
    for n in &same_lane {
        world.write(*n, Some(1)).await;
    }
    until("both partitions of the lane are paused", || async { drain.told.lock().unwrap().paused.len() == 2 }).await;
    let delivered = drain.told.lock().unwrap().delivered - delivered_at_first;
    assert!(delivered < same_lane.len() / 2, "{delivered} of {}", same_lane.len());
    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    assert!(drain.told.lock().unwrap().paused.is_empty());
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
}

/// The rows that the database holds by now.
async fn written(world: &Still, keys: i64) -> usize {
    world.rows(0..keys).await.values().filter(|row| **row != DatabaseRow::Absent).count()
}

#[tokio::test(start_paused = true)]
async fn all_replicas_follow_what_an_operator_sets_and_keep_it_while_it_cant_be_read() {
    let world = Still::still().await;
    let table = world.schema.table.clone();
    let set = async |rate| world.db.straight().set_rate(&table, rate).await.unwrap();
    for n in 0..2000 {
        world.write(n, Some(n)).await;
    }
    set(SetRate::new(0.01)).await;
    // What is configured would have it done in a second, and doesn't hold from the start.
    let replicas: Vec<_> = (0..3).map(|_| world.start(limited(2000.0))).collect();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(written(&world, 2000).await, 0, "the first row takes 100 s");

    set(SetRate::new(100.0)).await;
    sleep(Duration::from_secs(2)).await;
    let before = written(&world, 2000).await;
    sleep(Duration::from_secs(5)).await;
    let after = written(&world, 2000).await;
    assert!((485..=510).contains(&(after - before)), "{before}, then {after} rows");

    world.db.hides_rates.store(true, Ordering::SeqCst);
    set(SetRate::new(1000.0)).await;
    sleep(Duration::from_secs(5)).await;
    let meanwhile = written(&world, 2000).await - after;
    assert!((485..=510).contains(&meanwhile), "{meanwhile} rows: it goes on with what was known");
    world.db.hides_rates.store(false, Ordering::SeqCst);

    set(Some(SetRate::Unlimited)).await;
    sleep(Duration::from_secs(3)).await;
    assert!(world.is_clean().await);
    for n in 0..300 {
        world.write(n, Some(n + 1)).await;
    }
    set(None).await;
    world.until_clean().await;
    for replica in replicas {
        replica.stop().await;
    }
    world.assert_rows_are_as_written().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_cant_be_read_closes_its_own_table_and_only_for_who_never_knew_it() {
    let world = Still::still().await;
    let table = world.schema.table.clone();
    let other = TableRef { table: TableName::new("orders").unwrap(), ..table.clone() };
    let garble = |tables: &[&TableRef]| {
        *world.db.garbled_rates.lock().unwrap() = tables.iter().map(|table| (*table).clone()).collect();
    };
    let writes = async |from: i64| {
        for n in from..from + 500 {
            world.write(n, Some(n)).await;
        }
    };
    world.db.straight().set_rate(&table, SetRate::new(50.0)).await.unwrap();
    writes(0).await;
    garble(&[&other]);
    let first = world.start(limited(1e6));
    sleep(Duration::from_secs(6)).await;
    let before = written(&world, 2000).await;
    assert!((150..=260).contains(&before), "{before} rows: another table's limit is none of its business");

    garble(&[&other, &table]);
    sleep(Duration::from_secs(4)).await;
    let kept = written(&world, 2000).await - before;
    assert!((190..=210).contains(&kept), "{kept} rows: it goes on with what was known");
    first.stop().await;
    let before = written(&world, 2000).await;
    let second = world.start(limited(1e6));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(written(&world, 2000).await, before, "it may be anything");

    garble(&[]);
    world.until_clean().await;
    // Where there was nothing to know, what is configured goes on.
    world.db.straight().set_rate(&table, None).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    garble(&[&table]);
    writes(500).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(written(&world, 2000).await, 1000);
    second.stop().await;
    world.assert_rows_are_as_written().await;
}

#[tokio::test(start_paused = true)]
async fn the_tables_of_a_database_share_its_limit_and_replicas_come_and_go_under_it() {
    let world = Still::still().await;
    for n in 0..1000 {
        world.write(n, Some(n)).await;
    }
    let options = || {
        let mut options = limited(1e6);
        options.per_database.insert("main".into(), 100.0);
        options
    };
    let begun = tokio::time::Instant::now();
    let mut replicas: Vec<_> = (0..3).map(|_| world.start(options())).collect();
    let (mut samples, mut turn) = (Vec::new(), 0);
    while !world.is_clean().await {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(100)).await;
        samples.push((begun.elapsed(), written(&world, 1000).await));
        turn += 1;
        if turn % 10 == 0 {
            replicas.remove(0).stop().await;
            replicas.push(world.start(options()));
        }
    }
    let within_a_second = |at: usize| {
        let (from, before) = samples[at];
        samples[at..]
            .iter()
            .take_while(move |(to, _)| *to <= from + Duration::from_secs(1))
            .map(move |(_, n)| n - before)
    };
    let busiest = (0..samples.len()).flat_map(within_a_second).max().unwrap();
    assert!(busiest <= 105, "{busiest} rows in a second");
    assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
    for replica in replicas {
        replica.stop().await;
    }
    world.assert_rows_are_as_written().await;
}

/// Of two replicas one can't reach the database any more: it holds its own shards up, and no others.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_cut_off_from_the_database_takes_no_budget_from_others() {
    let world = Still::still().await;
    let mut other = world.over(world.log.clone(), Some(world.hot.clone())).await;
    other.db = Arc::new(BentDatabase::new(world.db.straight().clone()));
    let (healthy, cut_off) = (world.start(limited(100.0)), other.start(limited(100.0)));
    // Both have their share of the shards.
    sleep(Duration::from_secs(5)).await;
    other.db.cut_off.store(true, Ordering::SeqCst);
    for n in 0..6000 {
        world.write(n, Some(n)).await;
    }
    // At first it doesn't know, and its first attempts hold what they got.
    sleep(Duration::from_secs(12)).await;
    let before = written(&world, 6000).await;
    sleep(Duration::from_secs(10)).await;
    let meanwhile = written(&world, 6000).await - before;
    assert!((950..=1010).contains(&meanwhile), "{meanwhile} rows in 10 s");
    assert_eq!(other.db.rows_applied(), 0);

    other.db.cut_off.store(false, Ordering::SeqCst);
    world.db.straight().set_rate(&world.schema.table, Some(SetRate::Unlimited)).await.unwrap();
    world.until_clean().await;
    assert!(other.db.rows_applied() > 0);
    healthy.stop().await;
    cut_off.stop().await;
    world.assert_rows_are_as_written().await;
}
