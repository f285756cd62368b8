//! The demo's rows in the types of the table, so that what was acknowledged, what was read and what the database holds
//! can be compared field by field.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use model::{Chance, ColumnName, ColumnType, Moment, Row, TableSchema, Value, ValueKind};

use super::payments::Columns;

/// A whole row of the table: every column present, each value in its column's own form.
pub(crate) fn whole_row(schema: &TableSchema, columns: &Columns) -> Result<Row> {
    let named = columns.iter().map(|(name, value)| {
        let column = schema.column(name).with_context(|| format!("the table has no column {name}"))?;
        Ok((ColumnName::new(name)?, typed(&column.ty, value).with_context(|| format!("column {name}"))?))
    });
    let named = named.collect::<Result<Row>>()?;
    let moment = Moment { now: Timestamp::now(), chance: &Chance::from_os() };
    schema.accept_row(named, moment).map_err(|wrong| anyhow::anyhow!("the demo's row is refused: {wrong:?}"))
}

fn typed(ty: &ColumnType, value: &serde_json::Value) -> Result<Value> {
    use serde_json::Value as Json;
    Ok(match (ty.kind(), value) {
        (_, Json::Null) => Value::Null,
        (ValueKind::Json, value) => Value::Json(value.to_string()),
        (ValueKind::Text, Json::String(text)) => Value::Text(text.clone()),
        (ValueKind::Decimal, Json::String(text)) => Value::Decimal(text.clone()),
        (ValueKind::DateTime, Json::String(text)) => Value::DateTime(text.parse()?),
        (kind, _) => bail!("the demo has no {kind} columns"),
    })
}

/// Whether two rows say the same. JSON is compared by what it says: a database may keep it in another order.
pub(crate) fn same(a: &Row, b: &Row) -> bool {
    a.len() == b.len()
        && a.iter().zip(b.iter()).all(|((name, left), (other, right))| name == other && same_value(left, right))
}

/// As [`same`], for rows as the client gets them.
pub(crate) fn same_read(a: &shock_absorber_client::Row, b: &shock_absorber_client::Row) -> bool {
    use shock_absorber_client::Value;
    let equal = |left: &Value, right: &Value| match (left, right) {
        (Value::Json(a), Value::Json(b)) => same_json(a, b),
        (a, b) => a == b,
    };
    a.len() == b.len() && a.iter().all(|(name, left)| b.get(name).is_some_and(|right| equal(left, right)))
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Json(a), Value::Json(b)) => same_json(a, b),
        (a, b) => a == b,
    }
}

fn same_json(a: &str, b: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    parsed(a).is_some_and(|a| parsed(b) == Some(a))
}
