//! Rows that hand a unique value on, faster than they are drained.

use std::{ops::Range, time::Duration};

use database::{
    Database,
    memory::{MemoryDatabase, MemoryTable},
};
use drain_svc::DrainOptions;
use model::{ColumnType, DeadLetterCause, TableName};
use tokio::time::{Instant, sleep};

use crate::world::{Group, Still, World, options, until_within};

const PATIENCE: Duration = Duration::from_secs(600);

fn patient() -> DrainOptions {
    DrainOptions { dependent_patience: PATIENCE, ..options() }
}

/// From now on no two rows have the same amount.
fn make_amounts_unique(database: &MemoryDatabase) {
    let column = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
    let table = MemoryTable::new(vec![column("id"), column("amount")]);
    database.define_table(TableName::new("payments").unwrap(), MemoryTable { unique: vec![vec![1]], ..table });
}

/// Each of the rows takes the amount of the one before it, the first that of the last; only that steps out of the way.
async fn rotate<L: Group, D: Database>(world: &World<L, D>, rows: Range<i64>, aside: i64) {
    let amounts: Vec<Option<i64>> = rows.clone().map(|row| world.written.lock().unwrap()[&row].1).collect();
    let last = rows.end - 1;
    world.write(last, Some(aside)).await;
    // Who has just left its amount is followed by the next.
    let mut left = amounts[amounts.len() - 1];
    for (row, own) in rows.clone().zip(&amounts).take(amounts.len() - 1) {
        world.write(row, left).await;
        left = *own;
    }
    world.write(last, left).await;
}

async fn first_rows<L: Group, D: Database>(world: &World<L, D>) {
    for row in 0..8 {
        world.write(row, Some(row)).await;
    }
    let drain = world.start(patient());
    world.until_clean().await;
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_swap_a_unique_value_all_land_though_only_their_newest_versions_are_drained() {
    let world = Still::still().await;
    make_amounts_unique(world.db.straight());
    first_rows(&world).await;
    for (from, aside) in [(0, 100), (2, 200), (4, 300)] {
        world.write(from, Some(aside)).await;
        world.write(from + 1, Some(from)).await;
        world.write(from, Some(from + 1)).await;
    }
    let begun = Instant::now();
    let drain = world.start(patient());
    world.until_clean().await;
    assert!(begun.elapsed() < PATIENCE / 10, "it took {:?}", begun.elapsed());
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
    assert!(world.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn so_they_do_where_the_patience_is_over_before_anything_else_is_tried() {
    let world = Still::still().await;
    make_amounts_unique(world.db.straight());
    first_rows(&world).await;
    world.write(0, Some(100)).await;
    world.write(1, Some(0)).await;
    world.write(0, Some(1)).await;
    let drain = world.start(DrainOptions { dependent_patience: Duration::ZERO, ..options() });
    world.until_clean().await;
    drain.stop().await;
    world.assert_rows_are_as_written().await;
    assert!(world.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_rows_over_all_shards_hands_its_values_on_in_a_relational_database() {
    let world = World::new().await;
    world.db.straight().run_script("CREATE UNIQUE INDEX amounts ON payments (amount)").await.unwrap();
    first_rows(&world).await;
    rotate(&world, 0..4, 100).await;
    // Deleted and made anew, with what another one has had.
    world.write(4, None).await;
    world.write(5, Some(4)).await;
    world.write(4, Some(5)).await;
    let drain = world.start(patient());
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
    assert!(world.letters().await.is_empty());
}

/// Each time a version lands that is older, and gives nothing free: neither does that renew the patience for ever, nor
/// whoever writes faster than refused versions are tried.
#[tokio::test(start_paused = true)]
async fn a_row_that_is_written_again_and_again_is_waited_for_no_longer_than_twice_though_older_versions_land() {
    let patience = Duration::from_secs(20);
    for pause in [patience / 2, Duration::from_millis(100), Duration::from_millis(4)] {
        let world = Still::still().await;
        make_amounts_unique(world.db.straight());
        first_rows(&world).await;
        let drain = world.start(DrainOptions { dependent_patience: patience, ..options() });
        let begun = Instant::now();
        for amount in 100.. {
            // What another row has for good.
            world.write(0, Some(amount)).await;
            world.write(0, Some(1)).await;
            if !world.letters().await.is_empty() {
                break;
            }
            assert!(begun.elapsed() < patience * 3, "{pause:?}: it is waited for anew each time");
            sleep(pause).await;
        }
        assert!(begun.elapsed() >= patience, "{pause:?}: {:?}", begun.elapsed());
        until_within(patience * 5, "all is written or given up", || world.is_clean()).await;
        drain.stop().await;
        world.assert_all_committed().await;
        let letters = world.letters().await;
        assert!(letters.iter().all(|letter| letter.cause == DeadLetterCause::Dependent), "{letters:?}");
    }
}
