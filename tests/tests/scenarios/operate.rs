//! What operators stop and let go on, and what they are told.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Client, Reason, Status, TableRef, TableState};
use shock_absorber_tests::{System, binary, eventually};
use tokio::time::sleep;

use super::payments::{assert_refused, drained, key, payment, read_status};

/// Within which all replicas follow an operator.
const FOLLOWED: Duration = Duration::from_secs(2);
const ALL: &str = "SELECT COUNT(*) FROM payments";

/// Calls the command line.
async fn shock_absorber(system: &System, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("shock-absorber")?);
    command.args(["--endpoint", &system.services[0].api_url()]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.success(), "{arguments:?} failed: {out}{err}");
    Ok(out)
}

async fn other_replica(system: &mut System) -> Result<Client> {
    if system.is_embedded() { Ok(system.client.clone()) } else { system.another_ingest().await }
}

async fn put(client: &Client, from: u32, to: u32) -> Result<()> {
    for n in from..to {
        client.put("payments", payment(&format!("p{n}"), "1.00")).await?;
    }
    Ok(())
}

/// Partitions of the table that replicas own.
fn owned(status: &Status) -> u32 {
    let tables = status.replicas.iter().flat_map(|replica| &replica.tables);
    let payments = tables.filter(|table| table.table.as_ref().is_some_and(|table| table.table == "payments"));
    payments.flat_map(|table| &table.partitions).map(|range| range.last - range.first + 1).sum()
}

pub(crate) async fn a_pause_holds_across_restarts_and_status_tells_of_it(system: &mut System) -> Result<()> {
    let payments = TableRef::from("payments");
    put(&system.client, 0, 10).await?;
    drained(system, ALL, 10).await?;
    shock_absorber(system, &["pause", "payments", "--reason", "schema change", "--by", "ann"]).await?;
    sleep(FOLLOWED).await;
    put(&system.client, 10, 40).await?;
    system.kill_and_restart().await?;
    let other = other_replica(system).await?;
    put(&other, 40, 60).await?;
    // Those of the killed drains fall free with their session.
    let told = eventually("the partitions are assigned all the same", Duration::from_secs(60), || async {
        let status = other.status(Some(&payments)).await?;
        Ok((status.unknown.is_empty() && owned(&status) == status.shards).then_some(status))
    })
    .await?;
    sleep(FOLLOWED).await;
    assert_eq!(system.number(ALL).await?, 10);
    assert_eq!(read_status(system, "p59").await?.as_deref(), Some("INITIATED"), "what waits is read");

    let table = told.tables.first().context("the table is not told of")?;
    assert_eq!((table.state(), table.why.as_str()), (TableState::Paused, "ann: schema change"));
    assert_eq!(table.backlog.as_ref().map(|backlog| backlog.records), Some(50));
    let json: serde_json::Value = serde_json::from_str(&shock_absorber(system, &["status", "--json"]).await?)?;
    let of = |name: &str| json["tables"].as_array().and_then(|all| all.iter().find(|t| t["table"] == name)).cloned();
    let table = of("main.payments").context("the table is not in the JSON")?;
    assert_eq!((&table["state"], &table["backlog"]["records"]), (&"paused".into(), &50.into()));
    let text = shock_absorber(system, &["status"]).await?;
    assert!(text.contains("main.payments: paused by ann") && text.contains("schema change"), "{text}");

    shock_absorber(system, &["resume", "payments"]).await?;
    drained(system, ALL, 60).await
}

pub(crate) async fn drained_down_means_that_nothing_comes_in_and_nothing_waits(system: &mut System) -> Result<()> {
    let other = other_replica(system).await?;
    put(&system.client, 0, 300).await?;
    let started = shock_absorber(system, &["drain-down", "--reason", "upgrade", "--by", "ann"]).await?;
    assert!(started.contains("takes no writes by ann"), "{started}");
    // Also by a replica that nobody has told.
    assert_refused(other.put("payments", payment("late", "1.00")).await, Reason::DrainingDown);
    let waited = shock_absorber(system, &["drain-down", "--wait", "--timeout", "60"]).await?;
    assert!(waited.contains("ready: no write comes in"), "{waited}");
    assert_eq!(system.number(ALL).await?, 300, "at the moment when it was told, not later");
    assert_eq!(other.get("payments", key("p299")).await?.row.get("id"), Some(&"p299".into()));

    // One table's is a wish of its own, though nothing takes writes already: that of everything may end before.
    let own = shock_absorber(system, &["drain-down", "payments", "--by", "bob", "--wait", "--timeout", "60"]).await?;
    assert!(own.contains("payments takes no writes by bob") && own.contains("ready: no write comes in"), "{own}");
    let known = shock_absorber(system, &["drain-down", "payments", "--by", "eve"]).await?;
    assert!(known.contains("by bob"), "who comes back takes nothing from what is known of it: {known}");
    let ended = shock_absorber(system, &["drain-down", "--end"]).await?;
    assert!(ended.contains("everything takes writes again") && ended.contains("still: "), "{ended}");
    assert_refused(other.put("payments", payment("late", "1.00")).await, Reason::DrainingDown);
    shock_absorber(system, &["drain-down", "--by", "ann"]).await?;
    shock_absorber(system, &["drain-down", "payments", "--end"]).await?;

    system.kill_and_restart().await?;
    for client in [&system.client, &other] {
        assert_refused(client.put("payments", payment("late", "1.00")).await, Reason::DrainingDown);
    }
    shock_absorber(system, &["drain-down", "--end"]).await?;
    put(&other, 300, 310).await?;
    drained(system, ALL, 310).await
}
