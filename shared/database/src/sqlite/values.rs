//! Values as SQLite keeps them. No I/O.
//!
//! SQLite gives every column an affinity by its declared type, and DECIMAL, BOOLEAN, DATE, DATETIME, TIMESTAMP, TIME
//! and JSON have all the same one: NUMERIC. Text that looks like a number is turned into an integer or a double there,
//! and a double keeps 15 digits. What it would spoil is bound as a blob, which no affinity touches, and read as text
//! again.

use bytes::Bytes;
use model::{ColumnType, TimeOfDay, Value};

use crate::relational::{
    statement::Param,
    temporal::{datetime_text, parse_date, parse_datetime, parse_timestamp, timestamp_text},
};

/// Digits that a double gives back.
const EXACT_DIGITS: usize = 15;

/// What SQLite holds in a cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stored {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// Columns that are read through `CAST(... AS TEXT)`, whatever they are kept as.
pub(super) fn is_read_as_text(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::Decimal { .. }
            | ColumnType::Json
            | ColumnType::Timestamp { .. }
            | ColumnType::DateTime { .. }
            | ColumnType::Date
            | ColumnType::Time { .. }
    )
}

/// A value as it is bound.
pub(super) fn param(value: &Value) -> Param<'_> {
    match value {
        Value::Null => Param::Null,
        Value::Bool(truth) => Param::Int((*truth).into()),
        Value::Int64(number) => Param::Int(*number),
        Value::Uint64(number) => Param::Uint(*number),
        Value::Double(number) => Param::Double(*number),
        Value::Decimal(text) if significant_digits(text) > EXACT_DIGITS => Param::from(text.as_bytes()),
        Value::Json(text) if looks_like_a_number(text) => Param::from(text.as_bytes()),
        Value::Decimal(text) | Value::Json(text) | Value::Text(text) => Param::from(text.as_str()),
        Value::Bytes(bytes) => Param::from(bytes.as_ref()),
        Value::Timestamp(at) => timestamp_text(*at).into(),
        Value::DateTime(at) => datetime_text(*at).into(),
        Value::Date(at) => at.to_string().into(),
        Value::Time(at) => at.to_string().into(),
    }
}

fn significant_digits(decimal: &str) -> usize {
    decimal.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count()
}

fn looks_like_a_number(text: &str) -> bool {
    text.trim_start().starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'))
}

/// A cell as its column's type says, or why that is not possible. Somebody else may have written it: other forms are
/// taken where they are exact.
pub(super) fn value(stored: Stored, ty: &ColumnType) -> Result<Value, String> {
    let wrong = |what: &str| Err(format!("holds {what} that is no {}: correct it in the database", ty.kind()));
    Ok(match (ty.stored_as(), stored) {
        (_, Stored::Null) => Value::Null,
        (ColumnType::Bool, Stored::Integer(0)) => Value::Bool(false),
        (ColumnType::Bool, Stored::Integer(1)) => Value::Bool(true),
        (ColumnType::Int { .. }, Stored::Integer(number)) => Value::Int64(number),
        (ColumnType::Uint { .. }, Stored::Integer(number)) => match u64::try_from(number) {
            Ok(number) => Value::Uint64(number),
            Err(_) => return wrong("a negative number"),
        },
        (ColumnType::Double, Stored::Real(number)) => Value::Double(number),
        (ColumnType::Double, Stored::Integer(number)) => Value::Double(number as f64),
        (ColumnType::Text { .. }, Stored::Text(text)) => Value::Text(text),
        (ColumnType::Bytes { .. }, Stored::Blob(bytes)) => Value::Bytes(Bytes::from(bytes)),
        (ColumnType::Bytes { .. }, Stored::Text(text)) => Value::Bytes(Bytes::from(text)),
        (ColumnType::Json, Stored::Text(text)) => Value::Json(text),
        (ColumnType::Decimal { scale, .. }, Stored::Text(text)) => match plain_decimal(&text, usize::from(*scale)) {
            Some(text) => Value::Decimal(text),
            None => return wrong("a value"),
        },
        (_, Stored::Text(text)) => {
            let parsed = match ty {
                ColumnType::Timestamp { .. } => parse_timestamp(&text).map(Value::Timestamp),
                ColumnType::DateTime { .. } => parse_datetime(&text).map(Value::DateTime),
                ColumnType::Date => parse_date(&text).map(Value::Date),
                ColumnType::Time { .. } => parse_time(&text).map(Value::Time),
                _ => None,
            };
            match parsed {
                Some(value) => value,
                None => return wrong("text"),
            }
        }
        (_, Stored::Integer(_)) => return wrong("an integer"),
        (_, Stored::Real(_)) => return wrong("a real number"),
        (_, Stored::Blob(_)) => return wrong("a blob"),
    })
}

/// A time, with or without seconds.
fn parse_time(text: &str) -> Option<TimeOfDay> {
    text.parse().or_else(|_| format!("{text}:00").parse()).ok()
}

/// A number as SQLite prints it (`12`, `12.5`, `1.25e-07`) in plain notation with exactly `scale` digits after the
/// point; `None` if it is no number or has more digits.
pub(super) fn plain_decimal(text: &str, scale: usize) -> Option<String> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|e: &i32| e.abs() < 400)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    // Where the point stands in `digits`.
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let digit =
        |at: i32| usize::try_from(at).ok().and_then(|at| digits.as_bytes().get(at)).map_or('0', |b| char::from(*b));
    let last = point + i32::try_from(scale).ok()?;
    let count = i32::try_from(digits.len()).ok()?;
    if (last.max(0)..count).any(|at| digit(at) != '0') || (last < 0 && digits.bytes().any(|b| b != b'0')) {
        return None;
    }
    let whole: String = (0..point.max(0)).map(digit).collect();
    let whole = whole.trim_start_matches('0');
    let fraction: String = (point..last).map(digit).collect();
    let zero = whole.is_empty() && fraction.bytes().all(|b| b == b'0');
    let sign = if negative && !zero { "-" } else { "" };
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plain_decimal_stays_as_it_is(whole in 0u64..u64::MAX, fraction in 0u32..1_000_000, negative in any::<bool>()) {
            let sign = if negative && (whole, fraction) != (0, 0) { "-" } else { "" };
            let text = format!("{sign}{whole}.{fraction:06}");
            prop_assert_eq!(plain_decimal(&text, 6), Some(text));
        }
    }

    #[test]
    fn numbers_as_sqlite_prints_them() {
        for (text, scale, expected) in [
            ("12", 2, Some("12.00")),
            ("12.5", 2, Some("12.50")),
            ("-0.0", 2, Some("0.00")),
            ("0.05", 2, Some("0.05")),
            ("1.25e-07", 9, Some("0.000000125")),
            ("1.5e+20", 0, Some("150000000000000000000")),
            ("1.0e+3", 1, Some("1000.0")),
            ("12.345", 2, None),
            ("1e-3", 2, None),
            ("5e-3", 0, None),
            ("abc", 2, None),
            ("", 2, None),
            ("Inf", 2, None),
            ("1e999", 2, None),
        ] {
            assert_eq!(plain_decimal(text, scale).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_time_needs_no_seconds() {
        assert_eq!(parse_time("12:30").map(|time| time.to_string()), Some("12:30:00".to_owned()));
        assert_eq!(parse_time("noon"), None);
    }

    #[test]
    fn what_numeric_affinity_would_spoil_is_bound_as_a_blob() {
        let is_blob = |value: Value| matches!(param(&value), Param::Bytes(_));
        assert!(!is_blob(Value::Decimal("0000123456789.012345".to_owned())));
        assert!(is_blob(Value::Decimal("12345678901234567.89".to_owned())));
        assert!(is_blob(Value::Json("1.50".to_owned())));
        assert!(!is_blob(Value::Json("{\"a\":1}".to_owned())));
    }

    #[test]
    fn a_cell_of_another_kind_is_named_not_guessed() {
        let int = ColumnType::Int { bits: 64 };
        for (stored, ty) in [
            (Stored::Text("abc".to_owned()), int.clone()),
            (Stored::Real(1.5), int),
            (Stored::Integer(7), ColumnType::Bool),
            (Stored::Integer(-1), ColumnType::Uint { bits: 63 }),
            (Stored::Text("soon".to_owned()), ColumnType::DateTime { fraction: 6 }),
        ] {
            assert!(value(stored.clone(), &ty).is_err(), "{stored:?} as {ty:?}");
        }
    }
}
