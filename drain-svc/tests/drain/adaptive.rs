//! The limit follows how the database fares.

use std::time::Duration;

use drain_svc::{Bounds, DrainOptions};
use hot_store::Budget as _;
use model::DatabaseName;
use tokio::time::{Instant, sleep};

use crate::{
    core::Core,
    world::{Running, Still, options},
};

const BOUNDS: Bounds = Bounds { min: 10.0, max: 200.0 };
const USUAL: Duration = Duration::from_millis(10);

fn adaptive() -> DrainOptions {
    let mut options = options();
    options.adaptive.insert(DatabaseName::new("main").unwrap(), BOUNDS);
    options
}

async fn backlog(rows: i64) -> Still {
    let world = Still::still().await;
    world.db.takes(USUAL);
    for n in 0..rows {
        world.write(n, Some(n)).await;
    }
    world
}

/// Rows per second over so many seconds.
async fn rate(world: &Still, seconds: u64) -> f64 {
    let before = world.db.rows_applied();
    sleep(Duration::from_secs(seconds)).await;
    (world.db.rows_applied() - before) as f64 / seconds as f64
}

#[tokio::test(start_paused = true)]
async fn it_begins_low_rises_while_all_is_well_gives_way_to_trouble_and_is_back_within_30_seconds() {
    let world = backlog(12_000).await;
    let running: Vec<_> = (0..3).map(|_| world.start(adaptive())).collect();
    sleep(Duration::from_secs(2)).await;
    let first = rate(&world, 3).await;
    assert!(first <= 60.0, "{first} rows/s at first");
    sleep(Duration::from_secs(25)).await;
    let full = rate(&world, 5).await;
    assert!((190.0..=210.0).contains(&full), "{full} rows/s when all is well");

    world.db.takes(4 * USUAL);
    sleep(Duration::from_secs(12)).await;
    let slow = rate(&world, 10).await;
    assert!((8.0..=12.0).contains(&slow), "{slow} rows/s of a slow database");
    world.db.takes(USUAL);
    sleep(Duration::from_secs(30)).await;
    let back = rate(&world, 5).await;
    assert!((190.0..=210.0).contains(&back), "{back} rows/s afterwards");

    // One of many replicas is enough to find trouble, and one answer that is lost costs half of it once.
    world.db.lose_next_answer.store(true, std::sync::atomic::Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    let lost = world.hot.agreed("main").await.unwrap().limit.unwrap().per_second;
    assert!((95.0..=125.0).contains(&lost), "{lost} rows/s after a lost answer");

    // What a second sees is the highest limit and one batch, whatever it has been through.
    let attempts = world.db.attempts();
    let second = |from: Instant| {
        let within = |a: &&crate::db::Attempt| a.at >= from && a.at < from + Duration::from_secs(1);
        attempts.iter().filter(within).map(|a| a.changes.len()).sum::<usize>()
    };
    let worst = attempts.iter().map(|attempt| second(attempt.at)).max().unwrap();
    assert!(worst <= 210, "{worst} rows in a second");
    for replica in running {
        replica.stop().await;
    }
}

/// Others who keep a core busy, two at a time, and writes of ours that take half of it when they may.
const OTHERS: usize = 2;
const QUERY: Duration = Duration::from_millis(4);
const OF_A_ROW: Duration = Duration::from_micros(2500);

async fn beside_others(rows: i64) -> (Still, Core) {
    let (world, core) = (backlog(rows).await, Core::new());
    world.db.takes(Duration::from_millis(2));
    world.db.shares(&core, OF_A_ROW);
    (world, core)
}

/// What others' queries take beside drains with these options, as a multiple of what they take alone, and how fast ours
/// are meanwhile; 10 s after they came, for 20 s.
async fn others_beside(world: &Still, core: &Core, options: DrainOptions) -> (f64, f64, Vec<Running>) {
    let alone = core.others(OTHERS, QUERY);
    let begun = Instant::now();
    sleep(Duration::from_secs(3)).await;
    let idle = alone.p99(begun);
    drop(alone);

    let running: Vec<_> = (0..3).map(|_| world.start(options.clone())).collect();
    sleep(Duration::from_secs(30)).await;
    let full = rate(world, 5).await;
    assert!((190.0..=210.0).contains(&full), "{full} rows/s when nobody else is there");
    let others = core.others(OTHERS, QUERY);
    sleep(Duration::from_secs(10)).await;
    let begun = Instant::now();
    let ours = rate(world, 20).await;
    (others.p99(begun).as_secs_f64() / idle.as_secs_f64(), ours, running)
}

#[tokio::test(start_paused = true)]
async fn others_hardly_feel_one_that_gives_way_and_feel_one_that_does_not() {
    let (world, core) = beside_others(14_000).await;
    let (slower, ours, running) = others_beside(&world, &core, adaptive()).await;
    assert!(slower <= 1.5, "{slower} times as long as alone");
    assert!(ours <= 40.0, "{ours} rows/s beside them");
    // It is back once they are gone.
    sleep(Duration::from_secs(30)).await;
    let back = rate(&world, 5).await;
    assert!((190.0..=210.0).contains(&back), "{back} rows/s afterwards");
    for replica in running {
        replica.stop().await;
    }

    let (world, core) = beside_others(14_000).await;
    let mut fixed = options();
    fixed.per_database.insert("main".into(), BOUNDS.max);
    let (slower, ours, running) = others_beside(&world, &core, fixed).await;
    assert!(slower > 1.5, "{slower} times as long as alone");
    assert!(ours > 100.0, "{ours} rows/s beside them");
    for replica in running {
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_is_slower_for_hours_is_given_minutes_at_the_lowest_limit_and_then_what_it_bears() {
    let world = backlog(20_000).await;
    let mut options = options();
    options.adaptive.insert(DatabaseName::new("main").unwrap(), Bounds { min: 5.0, max: 50.0 });
    let running: Vec<_> = (0..2).map(|_| world.start(options.clone())).collect();
    sleep(Duration::from_secs(60)).await;
    world.db.takes(USUAL * 17 / 10);
    sleep(Duration::from_secs(30)).await;
    let lowest = rate(&world, 60).await;
    assert!((4.0..=6.0).contains(&lowest), "{lowest} rows/s at first");
    sleep(Duration::from_secs(300)).await;
    for minute in 0..3 {
        let later = rate(&world, 60).await;
        assert!((47.0..=52.0).contains(&later), "{later} rows/s, {minute} minutes later");
    }
    for replica in running {
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_of_all_limits_counts() {
    let world = backlog(4_000).await;
    let mut both = adaptive();
    both.default_table.rows_per_second = Some(50.0);
    let replica = world.start(both);
    sleep(Duration::from_secs(30)).await;
    let of_table = rate(&world, 5).await;
    assert!((47.0..=52.0).contains(&of_table), "{of_table} rows/s");
    assert_eq!(world.hot.agreed("main").await.unwrap().limit.unwrap().per_second, BOUNDS.max);
    replica.stop().await;

    let mut fixed = adaptive();
    fixed.per_database.insert("main".into(), 100.0);
    let replica = world.start(fixed);
    sleep(Duration::from_secs(10)).await;
    let of_database = rate(&world, 5).await;
    assert!((97.0..=105.0).contains(&of_database), "{of_database} rows/s");
    replica.stop().await;
}

#[tokio::test(start_paused = true)]
async fn batches_become_smaller_while_transactions_are_slow_or_fail_and_larger_again_afterwards() {
    let world = backlog(12_000).await;
    let mut sizes = options();
    sizes.default_table.min_batch_rows = 10;
    sizes.default_table.batch_target = Duration::from_millis(50);
    let replica = world.start(sizes);
    let largest_of_late = async || {
        let before = world.db.attempts().len();
        crate::world::until("some are written", || async { world.db.attempts().len() >= before + 20 }).await;
        world.db.attempts()[before + 10..].iter().map(|attempt| attempt.changes.len()).max().unwrap()
    };
    crate::world::until("it writes", || async { world.db.rows_applied() > 2000 }).await;
    assert_eq!(largest_of_late().await, 100);
    world.db.takes(Duration::from_millis(60));
    assert_eq!(largest_of_late().await, 10);
    world.db.takes(USUAL);
    crate::world::until("it goes on", || async { world.db.rows_applied() > 7000 }).await;
    assert_eq!(largest_of_late().await, 100);
    world.db.lose_next_answer.store(true, std::sync::atomic::Ordering::SeqCst);
    let before = world.db.attempts().len();
    crate::world::until("it goes on", || async { world.db.attempts().len() >= before + 5 }).await;
    assert!(world.db.attempts()[before + 2..before + 5].iter().all(|attempt| attempt.changes.len() <= 70));
    replica.stop().await;
}
