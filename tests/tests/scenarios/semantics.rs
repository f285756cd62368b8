//! What a client may rely on: newest reads, preconditions, validation, batches, levels.

use std::time::Duration;

use anyhow::{Result, ensure};
use shock_absorber_client::{AckLevel, Acknowledge, Precondition, Reason, Row, Value, Write};
use shock_absorber_tests::System;

use super::payments::{assert_refused, drained, key, payment, read_status, status};

pub(crate) async fn reads_see_the_newest_write_before_the_drain(system: &mut System) -> Result<()> {
    let client = &system.client;
    for n in 0..20 {
        client.create("payments", payment(&format!("p{n}"), "10.00")).await?;
    }
    for n in 0..20 {
        let id = format!("p{n}");
        client.update("payments", key(&id), status("PENDING")).await?;
        client.update("payments", key(&id), status("SUCCESS")).await?;
        assert_eq!(read_status(system, &id).await?.as_deref(), Some("SUCCESS"));
    }
    client.delete("payments", key("p7")).await?;
    assert_eq!(read_status(system, "p7").await?, None);
    client.create("payments", payment("p7", "11.00")).await?;
    assert_eq!(read_status(system, "p7").await?.as_deref(), Some("INITIATED"), "the default that the schema names");
    let found = client.get_columns("payments", key("p7"), &["amount", "error_code"]).await?.row;
    assert_eq!(found, Row::new().set("amount", Value::Decimal("11.00".into())).set("error_code", Value::Null));
    let rows = system.number("SELECT COUNT(*) FROM payments").await?;
    ensure!(rows < 20, "the drain was to be slow, but the database has {rows} rows already: this shows nothing");
    Ok(())
}

pub(crate) async fn preconditions_hold_for_hot_and_cold_records(system: &mut System) -> Result<()> {
    let client = &system.client;
    let first = client.create("payments", payment("p1", "1.00")).await?;
    assert_refused(client.create("payments", payment("p1", "2.00")).await, Reason::AlreadyExists);
    assert_refused(client.update("payments", key("nobody"), status("X")).await, Reason::NotFound);
    let put = |etag: &str| Write::put("payments", payment("p1", "3.00")).only_if(Precondition::Etag(etag.into()));
    let second = client.write(&put(&first.etag)).await?;
    assert_refused(client.write(&put(&first.etag)).await, Reason::EtagMismatch);
    assert_eq!(client.get("payments", key("p1")).await?.etag, second.etag);
    let must_exist = Write::put("payments", payment("nobody", "1.00")).only_if(Precondition::Exists(true));
    assert_refused(client.write(&must_exist).await, Reason::NotFound);
    let must_not = Write::put("payments", payment("p1", "1.00")).only_if(Precondition::Exists(false));
    assert_refused(client.write(&must_not).await, Reason::AlreadyExists);
    // Cold: in the database only.
    drained(system, "SELECT COUNT(*) FROM payments WHERE id = 'p1' AND amount = 3", 1).await?;
    cold_row(system, "cold").await?;
    assert_refused(client.create("payments", payment("cold", "1.00")).await, Reason::AlreadyExists);
    client.update("payments", key("cold"), status("CHANGED")).await?;
    assert_eq!(read_status(system, "cold").await?.as_deref(), Some("CHANGED"));
    Ok(())
}

/// A row that somebody else wrote.
pub(crate) async fn cold_row(system: &System, id: &str) -> Result<()> {
    let columns = "id, amount, currency, payer_upi, payee_upi, tenant, customer, leg, action, created_at, updated_at";
    let values =
        "7.50, 'INR', 'a@upi', 'b@upi', 'north', 'c-1', 'DEBIT', 'PAY', '2025-01-01 00:00:00', '2025-01-01 00:00:00'";
    Ok(system.database.run_script(&format!("INSERT INTO payments ({columns}) VALUES ('{id}', {values});")).await?)
}

pub(crate) async fn bad_input_is_refused_and_changes_nothing(system: &mut System) -> Result<()> {
    let client = &system.client;
    let good = || payment("bad", "1.00");
    for (row, reason, field) in [
        (good().set("colour", "red"), Reason::UnknownColumn, r#"row.columns["colour"]"#),
        (good().set("amount", 1.5), Reason::WrongType, r#"row.columns["amount"]"#),
        (good().set("amount", Value::Decimal("1.234".into())), Reason::OutOfRange, r#"row.columns["amount"]"#),
        (good().set("currency", Value::Null), Reason::NotNullable, r#"row.columns["currency"]"#),
        (good().set("currency", "rupees"), Reason::OutOfRange, r#"row.columns["currency"]"#),
        (good().set("payer", Value::Json("{".into())), Reason::OutOfRange, r#"row.columns["payer"]"#),
        (Row::new().set("amount", Value::Decimal("1.00".into())), Reason::MissingKey, r#"row.columns["id"]"#),
        (Row::new().set("id", "bad"), Reason::MissingColumn, r#"row.columns["amount"]"#),
    ] {
        let error = client.put("payments", row).await.err();
        let error = error.ok_or_else(|| anyhow::anyhow!("{field} was accepted"))?;
        let problems = error.server().map(|server| server.fields.as_slice()).unwrap_or_default();
        ensure!(
            problems.iter().any(|problem| problem.field == field && problem.reason == reason.as_str()),
            "{reason:?} of {field} is not among {problems:?}"
        );
    }
    assert_refused(client.put("nowhere", good()).await, Reason::TableNotEnabled);
    assert_refused(client.get("payments", good()).await, Reason::UnknownColumn);
    let moved = client.update("payments", key("bad"), Row::new().set("id", "other")).await;
    assert_refused(moved, Reason::KeyChanged);
    assert_eq!(read_status(system, "bad").await?, None);
    assert_eq!(system.number("SELECT COUNT(*) FROM payments").await?, 0);
    Ok(())
}

pub(crate) async fn a_batch_keeps_order_per_key_and_answers_per_item(system: &mut System) -> Result<()> {
    let writes = vec![
        Write::create("payments", payment("b1", "1.00")),
        Write::update("payments", key("b1"), status("PENDING")),
        Write::put("payments", payment("b2", "2.00").set("colour", "red")),
        Write::update("payments", key("b1"), status("SUCCESS")),
        Write::create("payments", payment("b1", "9.00")),
        Write::create("payments", payment("b3", "3.00")),
        Write::delete("payments", key("b3")),
        Write::put("entries", Row::new().set("tenant", "north").set("n", 1).set("amount", Value::Decimal("5".into()))),
    ];
    let results = system.client.batch_write(&writes).await;
    let reasons: Vec<_> = results.iter().map(|r| r.as_ref().err().and_then(|e| e.reason())).collect();
    let (unknown, exists) = (Some(Reason::UnknownColumn.as_str()), Some(Reason::AlreadyExists.as_str()));
    assert_eq!(reasons, [None, None, unknown, None, exists, None, None, None], "{results:?}");
    assert_eq!(read_status(system, "b1").await?.as_deref(), Some("SUCCESS"));
    assert_eq!(read_status(system, "b2").await?, None);
    assert_eq!(read_status(system, "b3").await?, None);
    drained(system, "SELECT COUNT(*) FROM payments WHERE id = 'b1' AND status = 'SUCCESS' AND amount = 1", 1).await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE tenant = 'north' AND n = 1 AND amount = 5", 1).await?;
    assert_eq!(system.number("SELECT COUNT(*) FROM payments").await?, 1);
    Ok(())
}

pub(crate) async fn applied_means_that_the_database_has_it(system: &mut System) -> Result<()> {
    let applied = Acknowledge::required(AckLevel::Applied);
    let accepted = system.client.acknowledging(applied).write(&Write::put("payments", payment("a1", "1.00"))).await?;
    assert_eq!(accepted.reached, Some(AckLevel::Applied));
    assert_eq!(system.number("SELECT COUNT(*) FROM payments WHERE id = 'a1'").await?, 1);
    let preferred = Acknowledge::required(AckLevel::Queued).preferring(AckLevel::Applied, Duration::from_secs(12));
    let accepted = system.client.acknowledging(preferred).write(&Write::delete("payments", key("a1"))).await?;
    assert_eq!(accepted.reached, Some(AckLevel::Applied));
    assert_eq!(system.number("SELECT COUNT(*) FROM payments WHERE id = 'a1'").await?, 0);
    Ok(())
}
