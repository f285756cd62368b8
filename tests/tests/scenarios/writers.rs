//! Others who write to the same rows, as docs/WRITERS.md tells of them.

use anyhow::{Context as _, Result};
use shock_absorber_client::{AckLevel, Acknowledge, Eviction, Precondition, Row, Value, Write};
use shock_absorber_tests::{System, eventually};

use super::payments::{DRAINED_WITHIN, key, payment, read_status, status};

/// Payments with this status and this error code in the database.
async fn rows(system: &System, status: &str, code: &str) -> Result<i64> {
    system.number(&format!("SELECT COUNT(*) FROM payments WHERE status = '{status}' AND error_code = '{code}'")).await
}

/// Makes it be forgotten, as soon as it is known to be drained.
async fn forget(system: &System) -> Result<()> {
    eventually("eviction", DRAINED_WITHIN, || async {
        let evicted = system.client.evict("payments", &[key("ours")]).await?;
        Ok(matches!(evicted[..], [Ok(Eviction::Evicted | Eviction::NotHeld)]).then_some(()))
    })
    .await
}

async fn etag(system: &System) -> Result<String> {
    Ok(system.client.get("payments", key("ours")).await?.etag)
}

pub(crate) async fn etags_do_not_notice_what_others_change(system: &mut System) -> Result<()> {
    let client = system.client.acknowledging(Acknowledge::required(AckLevel::Applied));
    client.create("payments", payment("ours", "1.00")).await?;
    let before = etag(system).await?;
    system.database.run_script("UPDATE payments SET status = 'CHANGED' WHERE id = 'ours';").await?;
    forget(system).await?;
    // It is another row, and has the same etag: by this a writer would know that nothing has changed.
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("CHANGED"));
    assert_eq!(etag(system).await?, before);
    let write = Write::update("payments", key("ours"), status("SUCCESS")).only_if(Precondition::Etag(before.clone()));
    client.write(&write).await.context("the etag was to be the same")?;
    assert_ne!(etag(system).await?, before, "what is written through us does change it");
    Ok(())
}

pub(crate) async fn the_drain_writes_whole_rows_over_what_others_changed(system: &mut System) -> Result<()> {
    let client = system.client.acknowledging(Acknowledge::required(AckLevel::Applied));
    client.create("payments", payment("ours", "1.00").set("error_code", "U1")).await?;
    assert_eq!(rows(system, "INITIATED", "U1").await?, 1);
    // They change one column while the row is hot, we another: theirs is what it was before.
    let theirs = "UPDATE payments SET error_code = 'THEIRS' WHERE id = 'ours';";
    system.database.run_script(theirs).await?;
    client.update("payments", key("ours"), status("PENDING")).await?;
    assert_eq!(rows(system, "PENDING", "U1").await?, 1);

    // What was read after they had committed is not lost.
    system.database.run_script(theirs).await?;
    forget(system).await?;
    client.update("payments", key("ours"), status("SUCCESS")).await?;
    assert_eq!(rows(system, "SUCCESS", "THEIRS").await?, 1);
    Ok(())
}

/// `trigger`, in the database's own words, sets the status of the payment that a new entry notes to BOOKED.
pub(crate) async fn what_a_trigger_of_theirs_changes_is_theirs(system: &mut System, trigger: &str) -> Result<()> {
    system.database.run_script(trigger).await?;
    let client = system.client.acknowledging(Acknowledge::required(AckLevel::Applied));
    client.create("payments", payment("ours", "1.00").set("error_code", "U1")).await?;
    let entry = Row::new().set("tenant", "north").set("amount", Value::Decimal("5.00".into())).set("note", "ours");
    client.put("entries", entry.clone().set("n", 1)).await?;
    assert_eq!(rows(system, "BOOKED", "U1").await?, 1, "our drain has fired it");
    // The record is hot as it was, and our next write of it takes back what the trigger did.
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("INITIATED"));
    client.update("payments", key("ours"), Row::new().set("error_code", "U2")).await?;
    assert_eq!(rows(system, "INITIATED", "U2").await?, 1);

    client.put("entries", entry.set("n", 2)).await?;
    forget(system).await?;
    assert_eq!(read_status(system, "ours").await?.as_deref(), Some("BOOKED"));
    client.update("payments", key("ours"), Row::new().set("error_code", "U3")).await?;
    assert_eq!(rows(system, "BOOKED", "U3").await?, 1);
    Ok(())
}
