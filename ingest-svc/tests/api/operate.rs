//! How it goes, what operators stop, and what they let go on.

use std::time::Duration;

use hot_store::{HotStore as _, ReplicaReport, TableReport, TableState as Told, memory::Survives};
use shock_absorber_client::{Client, Code, HoldKind, Reason, Status, TableLimit, TableRef, TableState, TableStatus};
use tokio::time::{Instant, sleep};

use crate::world::{World, id, payment};

fn payments() -> TableRef {
    TableRef::from("payments")
}

fn orders() -> TableRef {
    TableRef::from("orders")
}

fn of<'a>(status: &'a Status, table: &str) -> &'a TableStatus {
    status.tables.iter().find(|status| status.table.as_ref().unwrap().table == table).unwrap()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(90), "it never came to this: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn assert_refused(client: &Client, table: &str) {
    let row = if table == "orders" { shock_absorber_client::Row::new().set("id", 1) } else { payment("new", 1) };
    let error = client.put(table, row).await.unwrap_err();
    assert!(error.is(Reason::DrainingDown) && error.code() == Code::Unavailable, "{error}");
    assert!(error.to_string().contains("drained down"), "{error}");
    assert!(error.retry_after().is_some_and(|delay| delay >= Duration::from_secs(1)), "{error:?}");
}

#[tokio::test]
async fn status_tells_what_waits_and_what_is_not_known() {
    let world = World::new().await;
    let client = world.client();
    for n in 0..7 {
        client.put("payments", payment(&n.to_string(), n)).await.unwrap();
    }
    let status = client.status(None).await.unwrap();
    assert_eq!((status.shards, status.shards_open, status.tables.len()), (4, 4, 1));
    let told = of(&status, "payments");
    assert_eq!((told.backlog.as_ref().unwrap().records, told.enabled), (7, true));
    assert_eq!((told.rows_per_second, told.limit.is_none(), told.state()), (None, true, TableState::Unspecified));
    assert!(status.unknown[0].contains("no drain replica"), "{:?}", status.unknown);

    let table = TableReport {
        database: "main".into(),
        table: "payments".into(),
        partitions: vec![(0, 3)],
        rows_per_second: 3.5,
        limit: Some(50.0),
        state: Told::Running,
        ..TableReport::default()
    };
    let report =
        ReplicaReport { replica: "d".into(), incarnation: "1".into(), tables: vec![table], ..Default::default() };
    world.core.hot.report(&report).await.unwrap();
    let status = client.status(Some(&payments())).await.unwrap();
    let told = of(&status, "payments");
    assert_eq!((told.rows_per_second, told.state()), (Some(3.5), TableState::Running));
    assert_eq!(told.limit, Some(TableLimit::LimitRowsPerSecond(50.0)));
    assert_eq!(told.empty_in.as_ref().map(|empty| empty.seconds), Some(2));
    assert_eq!((status.unknown.len(), status.replicas[0].replica.as_str()), (0, "d"));
    assert_eq!(status.replicas[0].tables[0].partitions.len(), 1);
}

#[tokio::test]
async fn a_pause_is_shown_with_who_and_why_and_writes_are_accepted() {
    let world = World::new().await;
    let client = world.client();
    let hold = client.pause(Some(&payments()), "schema\nchange", "ann").await.unwrap();
    assert_eq!((hold.kind(), hold.reason.as_str(), hold.by.as_str()), (HoldKind::Pause, "schemachange", "ann"));
    client.pause(None, "all", "bob").await.unwrap();
    client.put("payments", payment("a", 1)).await.unwrap();
    let status = client.status(None).await.unwrap();
    let told = of(&status, "payments");
    assert_eq!((told.state(), told.holds.len(), status.holds.len()), (TableState::Paused, 2, 1));
    assert_eq!(told.why, "bob: all");

    let resumed = client.resume(None).await.unwrap();
    assert!(resumed.was_held && resumed.still.len() == 1, "{resumed:?}");
    assert!(!client.resume(None).await.unwrap().was_held);
    assert_eq!(of(&client.status(None).await.unwrap(), "payments").why, "ann: schemachange");
    let resumed = client.resume(Some(&payments())).await.unwrap();
    assert!(resumed.was_held && resumed.still.is_empty());

    let unknown = client.pause(Some(&orders()), "", "").await.unwrap_err();
    assert!(unknown.is(Reason::TableNotEnabled), "{unknown}");
}

#[tokio::test]
async fn a_table_that_is_drained_down_takes_no_writes_and_is_ready_when_nothing_waits() {
    let world = World::new().await;
    let client = world.client();
    client.enable_table("orders").await.unwrap();
    client.put("payments", payment("a", 1)).await.unwrap();
    assert!(!client.drain_down(Some(&orders())).await.unwrap().ready, "nobody has asked for it");

    client.start_drain_down(Some(&orders()), "upgrade", "ann").await.unwrap();
    let down = client.drain_down(Some(&orders())).await.unwrap();
    assert!(down.ready && down.refusing == 4 && down.hold.is_some(), "{down:?}");
    assert_refused(&client, "orders").await;
    client.put("payments", payment("b", 1)).await.unwrap();
    assert!(!client.drain_down(None).await.unwrap().ready, "that is another wish");

    client.start_drain_down(None, "all", "bob").await.unwrap();
    let down = client.drain_down(Some(&payments())).await.unwrap();
    assert!(!down.ready && down.refusing == 4 && down.records == 2, "{down:?}");
    assert_refused(&client, "payments").await;
    // Each is told of its own: that of everything may end before.
    assert!(down.hold.is_some_and(|hold| hold.table.is_none()));
    let own = client.drain_down(Some(&orders())).await.unwrap().hold.and_then(|hold| hold.table);
    assert_eq!(own.map(|table| table.table), Some("orders".to_owned()));
    assert_eq!(client.get("payments", id("b")).await.unwrap().row.len(), 4);
    // What the drains hold counts as well, and what is paused is named.
    let table = TableReport { database: "main".into(), table: "orders".into(), gathered: 3, ..Default::default() };
    let report = ReplicaReport { incarnation: "1".into(), tables: vec![table], ..Default::default() };
    world.core.hot.report(&report).await.unwrap();
    client.pause(Some(&orders()), "", "").await.unwrap();
    let down = client.drain_down(Some(&orders())).await.unwrap();
    assert!(!down.ready && down.gathered == 3 && down.paused.len() == 1, "{down:?}");
    world.core.hot.withdraw_report("1").await.unwrap();
    assert!(client.drain_down(Some(&orders())).await.unwrap().ready);

    let ended = client.end_drain_down(None).await.unwrap();
    assert!(ended.was_held && ended.still.len() == 2, "{ended:?}");
    client.put("payments", payment("c", 1)).await.unwrap();
    assert_refused(&client, "orders").await;
    client.end_drain_down(Some(&orders())).await.unwrap();
    client.put("orders", shock_absorber_client::Row::new().set("id", 1)).await.unwrap();
}

/// Whatever the hot store loses: no write comes in between its restart and the moment when somebody looks again.
#[tokio::test]
async fn a_hot_store_that_forgets_everything_takes_no_write_of_what_is_drained_down() {
    let world = World::new().await;
    let client = world.client();
    client.put("payments", payment("a", 1)).await.unwrap();
    client.start_drain_down(None, "upgrade", "ann").await.unwrap();
    assert_refused(&client, "payments").await;
    for _ in 0..3 {
        world.core.hot.restart(Survives::Nothing);
        loop {
            match client.put("payments", payment("b", 2)).await {
                Err(error) if error.is(Reason::ShardClosed) => sleep(Duration::from_millis(2)).await,
                Err(error) if error.is(Reason::DrainingDown) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    until("all shards are open", async || client.status(None).await.unwrap().shards_open == 4).await;
    let down = client.drain_down(None).await.unwrap();
    assert!(!down.ready && down.refusing == 4 && down.records == 1, "{down:?}");
    client.end_drain_down(None).await.unwrap();
    client.put("payments", payment("b", 2)).await.unwrap();
}

/// Another replica has asked for it, and went before it could tell any shard.
#[tokio::test]
async fn every_replica_sees_to_it_that_shards_know_what_is_stopped() {
    use database::{Database as _, Hold, HoldKind, HoldScope};
    let world = World::new().await;
    let client = world.client();
    let catalog = world.core.directory.catalog_database().unwrap();
    let since = jiff::Timestamp::now();
    let hold = Hold {
        scope: HoldScope::Everything,
        kind: HoldKind::DrainDown,
        reason: String::new(),
        by: String::new(),
        since,
    };
    catalog.set_hold(&hold).await.unwrap();
    until("all shards refuse", async || client.drain_down(None).await.unwrap().refusing == 4).await;
    assert_refused(&client, "payments").await;
    catalog.lift_hold(&HoldScope::Everything, HoldKind::DrainDown, since).await.unwrap();
    until("writes are taken", async || client.put("payments", payment("a", 1)).await.is_ok()).await;
}

/// A catalog from a backup knows less than the hot store.
#[tokio::test]
async fn an_end_lets_writes_in_also_where_the_catalog_knows_of_no_drain_down() {
    let world = World::new().await;
    let client = world.client();
    client.start_drain_down(None, "", "").await.unwrap();
    world.sql("DELETE FROM _sa_hold; DELETE FROM _sa_meta WHERE name = 'hold_revision'").await;
    assert_refused(&client, "payments").await;
    assert!(!client.end_drain_down(None).await.unwrap().was_held);
    client.put("payments", payment("a", 1)).await.unwrap();
}
