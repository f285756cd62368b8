//! A payment with all that a real one has: what is measured with.

use shock_absorber_client::{Row, Value};

/// Makes the table.
pub const TABLE: &str = include_str!("../../cli/sql/payments.sql");

/// The nth payment: some 700 bytes as an image.
pub fn payment(id: String, nth: u32) -> Row {
    let json = |text: String| Value::Json(text);
    let at = format!("2026-01-01T{:02}:{:02}:{:02}.{:06}", nth / 3600 % 24, nth / 60 % 60, nth % 60, nth % 1_000_000);
    Row::new()
        .set("id", id)
        .set("amount", Value::Decimal(format!("{}.{:02}", nth % 50_000, nth % 100)))
        .set("currency", "INR")
        .set("payer_upi", format!("customer{}@upi", nth % 4000))
        .set("payee_upi", format!("shop{}@upi", nth % 50))
        .set("tenant", ["north", "south", "east", "west"][nth as usize % 4])
        .set("customer", format!("c-{}", nth % 4000))
        .set("leg", "DEBIT")
        .set("action", "PAY")
        .set("status", "INITIATED")
        .set("payer", json(format!(r#"{{"name": "Łukasz 👋", "account": {}}}"#, 10_u64.pow(15) + u64::from(nth))))
        .set("payees", json(r#"[{"share": 60}, {"share": 40}]"#.to_owned()))
        .set("meta", json(format!(r#"{{"device": "android", "attempt": 1, "nth": {nth}}}"#)))
        .set("resp_meta", json(format!(r#"{{"rrn": {}}}"#, 10_u64.pow(11) + u64::from(nth))))
        .set("created_at", Value::DateTime(at.clone()))
        .set("updated_at", Value::DateTime(at))
}
