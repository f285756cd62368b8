//! Rows of the example table.

use std::time::Duration;

use anyhow::Result;
use shock_absorber_client::{ClientError, Reason, Row, Value};
use shock_absorber_tests::{System, eventually};

/// How long a drain may take, at most, in scenarios that wait for one.
pub(crate) const DRAINED_WITHIN: Duration = Duration::from_secs(90);

/// A payment with this id.
pub(crate) fn payment(id: &str, amount: &str) -> Row {
    Row::new()
        .set("id", id)
        .set("amount", Value::Decimal(amount.into()))
        .set("currency", "INR")
        .set("payer_upi", "a@upi")
        .set("payee_upi", "b@upi")
        .set("tenant", "north")
        .set("customer", "c-1")
        .set("leg", "DEBIT")
        .set("action", "PAY")
        .set("payer", Value::Json(r#"{"name": "Łukasz 👋"}"#.into()))
        .set("created_at", Value::DateTime("2026-01-01T10:00:00.000001".into()))
        .set("updated_at", Value::DateTime("2026-01-01T10:00:00".into()))
}

/// The key of a payment.
pub(crate) fn key(id: &str) -> Row {
    Row::new().set("id", id)
}

/// A new status.
pub(crate) fn status(status: &str) -> Row {
    Row::new().set("status", status)
}

/// The status of a payment as a read sees it; `None`: there is no such payment.
pub(crate) async fn read_status(system: &System, id: &str) -> Result<Option<String>> {
    match system.client.get("payments", key(id)).await {
        Ok(found) => Ok(found.row.get("status").map(|value| match value {
            Value::Text(text) => text.clone(),
            other => format!("{other:?}"),
        })),
        Err(error) if error.is(Reason::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a query gives this number.
pub(crate) async fn drained(system: &System, sql: &str, expected: i64) -> Result<()> {
    eventually(&format!("{expected} from {sql}"), DRAINED_WITHIN, || async {
        Ok((system.number(sql).await? == expected).then_some(()))
    })
    .await
}

/// Asserts that a call was refused for this reason.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, ClientError>, reason: Reason) {
    match result {
        Err(error) => assert!(error.is(reason), "{error}"),
        Ok(done) => panic!("expected {reason:?}, but it was done: {done:?}"),
    }
}
