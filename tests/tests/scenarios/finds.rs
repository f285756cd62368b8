//! Finding records by a declared field, wherever they are.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Find, Found, Row, TableRef, Value};
use shock_absorber_tests::System;
use tokio::time::sleep;

use super::payments::drained;

const ORDERS: &str = "orders";
/// Within which all replicas follow an operator.
const FOLLOWED: Duration = Duration::from_secs(2);

fn order(id: i64, customer: i64) -> Row {
    Row::new().set("id", id).set("customer", customer)
}

fn key(id: i64) -> Row {
    Row::new().set("id", id)
}

fn id(row: &Row) -> Result<i64> {
    match row.get("id") {
        Some(Value::Int64(id)) => Ok(*id),
        other => anyhow::bail!("{other:?} is no id"),
    }
}

fn ids(found: &[Found]) -> Result<Vec<i64>> {
    let mut ids = found.iter().map(|found| id(&found.row)).collect::<Result<Vec<_>>>()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Checks that a customer has these orders, at once and page by page, and that each is what a read of it gives.
async fn has(system: &System, customer: i64, expected: &[i64]) -> Result<()> {
    let find = Find::new(ORDERS, "customer", customer);
    let page = system.client.find(&find).await?;
    ensure!(page.next.is_none() && ids(&page.records)? == expected, "customer {customer}: {page:?}, not {expected:?}");
    for found in &page.records {
        let read = system.client.get(ORDERS, key(id(&found.row)?)).await?;
        ensure!((&read.row, read.version) == (&found.row, found.version), "{found:?} was found, {read:?} is read");
    }
    let first = system.client.find(&find.clone().limit(2)).await?;
    ensure!(first.records.len() <= 2 && (first.next.is_some() || expected.len() <= 2), "{first:?}");
    let paged = system.client.find_all(find.limit(2)).await?;
    ensure!(ids(&paged)? == expected, "customer {customer}, in pages of two: {paged:?}, not {expected:?}");
    Ok(())
}

pub(crate) async fn records_are_found_by_a_field_wherever_they_are(system: &mut System) -> Result<()> {
    let orders = TableRef::from(ORDERS);
    system.client.enable_table_with(ORDERS, &["customer"]).await?;
    has(system, 1, &[]).await?;
    for n in 0..10 {
        system.client.create(ORDERS, order(n, n % 2)).await?;
    }
    drained(system, "SELECT COUNT(*) FROM orders", 10).await?;
    has(system, 1, &[1, 3, 5, 7, 9]).await?;

    // From here on the database has what it has.
    system.client.pause(Some(&orders), "only the hot store is to know", "the scenario").await?;
    sleep(FOLLOWED).await;
    for n in 10..16 {
        system.client.create(ORDERS, order(n, n % 2)).await?;
    }
    system.client.update(ORDERS, key(1), Row::new().set("customer", 2)).await?;
    system.client.update(ORDERS, key(2), Row::new().set("customer", 1)).await?;
    system.client.delete(ORDERS, key(3)).await?;
    // Away and back again, and never in the database.
    system.client.update(ORDERS, key(5), Row::new().set("customer", 2)).await?;
    system.client.update(ORDERS, key(5), Row::new().set("customer", 1)).await?;
    system.client.delete(ORDERS, key(11)).await?;
    let expected: [(i64, &[i64]); 3] = [(0, &[0, 4, 6, 8, 10, 12, 14]), (1, &[2, 5, 7, 9, 13, 15]), (2, &[1])];
    for (customer, expected) in expected {
        has(system, customer, expected).await?;
    }
    assert_eq!(system.number("SELECT COUNT(*) FROM orders WHERE customer = 1").await?, 5, "it was paused");
    what_an_operator_finds(system).await?;

    // The embedded hot store is filled again and has no index then.
    system.kill_and_restart().await?;
    for (customer, expected) in expected {
        has(system, customer, expected).await?;
    }
    system.client.resume(Some(&orders)).await?;
    drained(system, "SELECT COUNT(*) FROM orders", 14).await?;
    for (customer, expected) in expected {
        let count = format!("SELECT COUNT(*) FROM orders WHERE customer = {customer}");
        drained(system, &count, i64::try_from(expected.len())?).await?;
        has(system, customer, expected).await?;
    }
    Ok(())
}

async fn what_an_operator_finds(system: &System) -> Result<()> {
    let told = system.operator(&["find", ORDERS, "customer", "1", "--json"]).await?.json()?;
    let mut found = told.iter().map(|line| line["row"]["id"].as_i64()).collect::<Option<Vec<_>>>().context("no ids")?;
    found.sort_unstable();
    assert_eq!(found, [2, 5, 7, 9, 13, 15]);
    ensure!(told.iter().all(|line| line["etag"].is_string() && line["version"].is_u64()), "{told:?}");
    let some = system.operator(&["find", ORDERS, "customer", "1", "--limit", "4"]).await?;
    ensure!(some.code == 0 && some.out.lines().count() == 4 && some.err.contains("--limit"), "{some:?}");
    let none = system.operator(&["find", ORDERS, "id", "1"]).await?;
    ensure!(none.code != 0 && none.err.contains("FIELD_NOT_INDEXED"), "{none:?}");
    Ok(())
}
