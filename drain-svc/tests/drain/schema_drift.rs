//! A table is altered, dropped, made again while it is drained.

use std::time::Duration;

use database::DatabaseRow;
use tokio::time::sleep;

use crate::world::{World, options, until};

/// Alters the table as somebody else does.
async fn alter(world: &World, sql: &str) {
    world.db.straight().run_script(sql).await.unwrap();
}

async fn tried(world: &World) -> usize {
    world.db.attempts().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_lost_a_column_is_paused_and_goes_on_when_it_is_back_and_nothing_is_given_up() {
    let world = World::new().await;
    for n in 0..50 {
        world.write(n, Some(n)).await;
    }
    let drain = world.start(options());
    world.until_clean().await;
    for (drop, restore) in [
        ("ALTER TABLE payments DROP COLUMN amount", "ALTER TABLE payments ADD COLUMN amount BIGINT"),
        ("ALTER TABLE payments RENAME COLUMN amount TO sum", "ALTER TABLE payments RENAME COLUMN sum TO amount"),
        ("ALTER TABLE payments RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO payments"),
    ] {
        alter(&world, drop).await;
        let before = tried(&world).await;
        for n in 0..100 {
            world.write(n, Some(n + 1)).await;
        }
        until("it is tried", || async { tried(&world).await > before + 4 }).await;
        // Not one row after the other as fast as can be: now and then, as after any failure.
        let (lanes, often) = (2, options().retry_max / 2);
        let before = tried(&world).await;
        sleep(Duration::from_secs(2)).await;
        let meanwhile = tried(&world).await - before;
        let most = lanes * (Duration::from_secs(2).as_millis() / often.as_millis()) as usize;
        assert!(meanwhile <= most, "{meanwhile} attempts in 2 s after {drop}");
        assert_eq!(world.letters().await, [], "{drop}");
        alter(&world, restore).await;
        world.until_clean().await;
        assert_eq!(world.letters().await, [], "{drop}");
        world.assert_rows_are_as_written().await;
    }
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_dropped_is_written_again_once_it_is_made_again() {
    let world = World::new().await;
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    alter(&world, "DROP TABLE payments").await;
    for n in 10..60 {
        world.write(n, Some(n)).await;
    }
    until("it is tried", || async { tried(&world).await > 4 }).await;
    // Without the column that our versions were in: they go to the ledger.
    alter(&world, "CREATE TABLE payments (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NULL)").await;
    world.until_clean().await;
    assert_eq!(world.letters().await, []);
    drain.stop().await;
    world.assert_all_committed().await;
    let schema =
        database::Database::introspect(world.db.straight(), &world.schema.table.database, &world.schema.table.table);
    let schema = schema.await.unwrap();
    let keys: Vec<_> = (10..60).map(crate::db::id).collect();
    let rows = database::Database::read(world.db.straight(), &schema, &keys).await.unwrap();
    assert!(rows.iter().all(|row| matches!(row, DatabaseRow::Present { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_an_altered_table_does_not_take_is_a_dead_letter_and_the_others_land() {
    let world = World::new().await;
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    alter(&world, "DROP TABLE payments").await;
    let create = "CREATE TABLE payments (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NULL CHECK (amount < 1000))";
    alter(&world, create).await;
    for n in 10..60 {
        world.write(n, Some(if n == 33 { 4000 } else { n })).await;
    }
    until("it is given up", || async { world.letters().await.len() == 1 }).await;
    until("the others are in", || async {
        let schema = &world.schema;
        let count = |row: &DatabaseRow| matches!(row, DatabaseRow::Present { .. });
        let keys: Vec<_> = (10..60).map(crate::db::id).collect();
        let mut ledger = schema.clone();
        ledger.guard = model::VersionGuard::Ledger;
        let rows = database::Database::read(world.db.straight(), &ledger, &keys).await.unwrap();
        rows.iter().filter(|row| count(row)).count() == 49
    })
    .await;
    assert_eq!(world.letters().await[0].cause, model::DeadLetterCause::Permanent);
    drain.stop().await;
    world.assert_all_committed().await;
}
