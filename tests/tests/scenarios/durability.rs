//! Nothing is lost, nothing goes back, the limit holds.

use anyhow::{Result, ensure};
use shock_absorber_client::{Row, Value, Write};
use shock_absorber_tests::System;

use super::{
    payments::{drained, key, payment, read_status, status},
    semantics::cold_row,
};

const COUNT: &str = "SELECT COUNT(*) FROM payments";

pub(crate) async fn what_was_acknowledged_reaches_the_database(system: &mut System) -> Result<()> {
    let client = &system.client;
    for n in 0..60 {
        client.create("payments", payment(&format!("p{n}"), &format!("{n}.25"))).await?;
    }
    for n in (0..60).step_by(2) {
        client.update("payments", key(&format!("p{n}")), status("SUCCESS")).await?;
    }
    for n in (0..60).step_by(3) {
        client.delete("payments", key(&format!("p{n}"))).await?;
    }
    // In one question: on the way there each number is passed while others are not what they will be.
    let deleted: Vec<String> = (0..60).step_by(3).map(|n| format!("'p{n}'")).collect();
    let all = format!(
        "SELECT COUNT(*) FROM (SELECT 1 AS one) AS one WHERE (SELECT COUNT(*) FROM payments) = 40 \
         AND (SELECT COUNT(*) FROM payments WHERE status = 'SUCCESS') = 20 \
         AND (SELECT COUNT(*) FROM payments WHERE id IN ({})) = 0",
        deleted.join(", ")
    );
    drained(system, &all, 1).await?;
    let kept =
        "SELECT COUNT(*) FROM payments WHERE id = 'p1' AND amount = 1.25 AND created_at = '2026-01-01 10:00:00.000001'";
    assert_eq!(system.number(kept).await?, 1);
    // A composite key with a number in it.
    let entry = |n: i64| Row::new().set("tenant", "south").set("n", n).set("amount", Value::Decimal("1".into()));
    let entries: Vec<_> = (0..20).map(|n| Write::put("entries", entry(n - 10))).collect();
    for result in client.batch_write(&entries).await {
        result?;
    }
    drained(system, "SELECT COUNT(*) FROM entries WHERE tenant = 'south' AND n BETWEEN -10 AND 9", 20).await
}

pub(crate) async fn rows_that_were_there_before_us_are_read_changed_and_deleted(system: &mut System) -> Result<()> {
    for id in ["old1", "old2", "old3"] {
        cold_row(system, id).await?;
    }
    assert_eq!(read_status(system, "old1").await?.as_deref(), Some("INITIATED"));
    system.client.update("payments", key("old1"), status("PAID")).await?;
    system.client.delete("payments", key("old2")).await?;
    system.client.put("payments", payment("old3", "8.00")).await?;
    assert_eq!(read_status(system, "old2").await?, None);
    drained(system, "SELECT COUNT(*) FROM payments WHERE id = 'old1' AND status = 'PAID' AND amount = 7.5", 1).await?;
    drained(system, "SELECT COUNT(*) FROM payments WHERE id = 'old3' AND amount = 8", 1).await?;
    drained(system, COUNT, 2).await
}

pub(crate) async fn nothing_is_lost_when_everything_is_killed(system: &mut System) -> Result<()> {
    for round in 0..3 {
        for n in 0..40 {
            let id = format!("p{n}");
            match round {
                0 => drop(system.client.create("payments", payment(&id, "1.00")).await?),
                1 => drop(system.client.update("payments", key(&id), status("PENDING")).await?),
                _ if n % 4 == 0 => drop(system.client.delete("payments", key(&id)).await?),
                _ => drop(system.client.update("payments", key(&id), status("SUCCESS")).await?),
            }
        }
        system.kill_and_restart().await?;
        let expected = [Some("INITIATED"), Some("PENDING"), Some("SUCCESS")][round];
        assert_eq!(read_status(system, "p1").await?.as_deref(), expected);
    }
    assert_eq!(read_status(system, "p4").await?, None);
    drained(system, COUNT, 30).await?;
    drained(system, "SELECT COUNT(*) FROM payments WHERE status = 'SUCCESS'", 30).await
}

pub(crate) async fn the_limit_holds_and_writes_are_coalesced(system: &mut System) -> Result<()> {
    // Ten records are written fifty times each, much faster than the 200 rows per second that the database may get.
    for n in 0..50 {
        let writes: Vec<_> =
            (0..10).map(|p| Write::put("payments", payment(&format!("p{p}"), &format!("{n}.00")))).collect();
        for result in system.client.batch_write(&writes).await {
            result?;
        }
    }
    drained(system, "SELECT COUNT(*) FROM payments WHERE amount = 49", 10).await?;
    let mut written = 0.0;
    for service in &system.services {
        for line in service.metrics().await?.lines().filter(|l| l.starts_with("shock_absorber_drain_rows_written")) {
            written += line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    ensure!((10.0..=250.0).contains(&written), "500 writes of 10 records became {written} rows");
    Ok(())
}

pub(crate) async fn an_orderly_stop_leaves_nothing_behind(system: &mut System) -> Result<()> {
    let writes: Vec<_> = (0..100).map(|n| Write::put("payments", payment(&format!("p{n}"), "1.00"))).collect();
    for result in system.client.batch_write(&writes).await {
        result?;
    }
    for service in &mut system.services {
        let status = service.stop().await?;
        ensure!(status.success(), "it ended with {status}:\n{}", service.log());
    }
    for service in &mut system.services {
        service.restart().await?;
    }
    assert_eq!(read_status(system, "p42").await?.as_deref(), Some("INITIATED"));
    drained(system, COUNT, 100).await
}
