//! Tables that an operator has stopped.

use std::{sync::atomic::Ordering, time::Duration};

use database::{Database as _, Hold, HoldKind, HoldScope};
use hot_store::{Budget as _, Grant, HotStore as _, Permit, PermitId, TableState};
use jiff::Timestamp;
use tokio::time::sleep;

use crate::world::{Still, limited, options};

fn pause(scope: HoldScope) -> Hold {
    let since = Timestamp::from_microsecond(1_700_000_000_000_000).unwrap();
    Hold { scope, kind: HoldKind::Pause, reason: "upgrade".into(), by: "ann".into(), since }
}

async fn set(world: &Still, scope: HoldScope) {
    world.db.straight().set_hold(&pause(scope)).await.unwrap();
}

async fn lift(world: &Still, scope: HoldScope) {
    let now = Timestamp::from_microsecond(1_700_000_000_000_000).unwrap();
    assert!(world.db.straight().lift_hold(&scope, HoldKind::Pause, now).await.unwrap().0);
}

/// With and without a limit: nothing is written from two seconds after it was asked for, by no replica, until it is let go
/// on; restarts do not change that, and the horizon goes on.
#[tokio::test(start_paused = true)]
async fn a_paused_table_is_not_written_across_restarts_until_it_is_resumed() {
    for limit in [None, Some(50.0)] {
        let world = Still::still().await;
        let table = HoldScope::Table(world.schema.table.clone());
        let with = || limit.map_or_else(options, limited);
        let mut replicas: Vec<_> = (0..2).map(|_| world.start(with())).collect();
        for n in 0..100 {
            world.write(n, Some(n)).await;
        }
        world.until_clean().await;
        for scope in [table.clone(), HoldScope::Everything] {
            set(&world, scope.clone()).await;
            sleep(Duration::from_secs(2)).await;
            let before = world.db.rows_applied();
            for n in 0..400 {
                world.write(n, Some(n + 1000)).await;
            }
            sleep(Duration::from_secs(20)).await;
            for replica in replicas.drain(..) {
                replica.stop().await;
            }
            replicas.extend((0..3).map(|_| world.start(with())));
            sleep(Duration::from_secs(20)).await;
            assert_eq!(world.db.rows_applied(), before, "{scope:?}");
            let seen = world.hot.reports().await.unwrap();
            let tables = seen.iter().flat_map(|seen| &seen.report.tables);
            assert!(tables.clone().all(|table| table.state == TableState::Paused && table.why == "ann: upgrade"));
            assert_eq!(tables.filter(|table| !table.partitions.is_empty()).count(), 3, "partitions stay with replicas");

            lift(&world, scope).await;
            world.until_clean().await;
        }
        for replica in replicas {
            replica.stop().await;
        }
        world.assert_rows_are_as_written().await;
    }
}

/// What waits for a permit while it is paused keeps none from others.
#[tokio::test(start_paused = true)]
async fn a_paused_table_holds_no_permit() {
    let world = Still::still().await;
    let replica = world.start(limited(50.0));
    // The store knows the limit from then on.
    world.write(1000, Some(1)).await;
    world.until_clean().await;
    set(&world, HoldScope::Everything).await;
    sleep(Duration::from_secs(2)).await;
    for n in 0..100 {
        world.write(n, Some(n)).await;
    }
    sleep(Duration::from_secs(15)).await;
    let limit = hot_store::Limit {
        name: format!("rows:{}", world.schema.table.table),
        unit: hot_store::Unit::Rows,
        per_second: 50.0,
        unfinished: Some(2),
    };
    let limits = hot_store::Limits { database: "main".into(), limits: vec![limit] };
    for id in [1, 2] {
        sleep(Duration::from_secs(1)).await;
        let granted = world.hot.take(&limits, Permit { id: PermitId(id), rows: 1 }, &[]).await.unwrap();
        assert!(matches!(granted, Grant::Now(_)), "{granted:?}");
    }
    replica.stop().await;
}

/// Who can't read what operators have stopped goes on as it was: paused, or not.
#[tokio::test(start_paused = true)]
async fn while_nobody_knows_what_is_paused_the_last_known_holds_and_before_that_nothing_is_written() {
    let world = Still::still().await;
    set(&world, HoldScope::Everything).await;
    let first = world.start(options());
    sleep(Duration::from_secs(3)).await;
    world.db.hides_rates.store(true, Ordering::SeqCst);
    lift(&world, HoldScope::Everything).await;
    world.write(1, Some(1)).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.db.rows_applied(), 0);
    first.stop().await;
    let second = world.start(options());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.db.rows_applied(), 0, "a replica that knows nothing yet writes nothing");
    world.db.hides_rates.store(false, Ordering::SeqCst);
    world.until_clean().await;
    second.stop().await;
}
