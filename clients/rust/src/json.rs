//! Rows from and to JSON text, by a table's columns.
//!
//! Numbers are never read into a double on their way: each column takes the text of its value as it stands, so
//! integers, decimals and the insides of JSON columns stay exactly what was written.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
    ser::{SerializeMap, Serializer},
};
use serde_json::value::RawValue;

use crate::{ColumnKind, Row, Table, Value};

/// JSON that is no row of the table, or a row that can't be written as JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not a JSON object.
    #[error("not a JSON object with a table's columns: {0}")]
    Syntax(String),
    /// The table has no such column.
    #[error("table {table} has no column {column}; it has {known}")]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The columns that it has.
        known: String,
    },
    /// A column's value does not fit its kind.
    #[error("column {column} {problem}")]
    Column {
        /// The column.
        column: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl Row {
    /// A row from a JSON object. By the kind of its column a value is
    ///
    /// - bool: `true`, `false`; integers: a whole number, or its digits as a string;
    /// - decimal: a number or a string, taken as it is written; double: a number;
    /// - string: a string; bytes: base64 in a string;
    /// - timestamp: a string with an offset, as `2026-11-21T05:06:07Z`;
    /// - datetime, date and time: a string as the API wants it;
    /// - json: any JSON but `null`;
    /// - and for every kind `null`, which is SQL NULL.
    ///
    /// # Errors
    /// [`JsonError`], naming the column.
    pub fn from_json(text: &str, table: &Table) -> Result<Self, JsonError> {
        let Object(columns) = serde_json::from_str(text).map_err(|error| JsonError::Syntax(error.to_string()))?;
        let mut row = Self::new();
        for (name, raw) in columns {
            let Some(column) = table.column(&name) else {
                let known = table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(JsonError::UnknownColumn { table: table.table.to_string(), column: name, known });
            };
            let wrong = |problem: String| JsonError::Column { column: column.name.clone(), problem };
            let value = value_from_json(raw.get(), column.kind).map_err(wrong)?;
            if row.insert(&column.name, value).is_some() {
                return Err(wrong("is named twice".into()));
            }
        }
        Ok(row)
    }

    /// The row as a JSON object, columns by name: integers and doubles as numbers, decimals, dates and times as
    /// strings, bytes as base64, JSON columns as the JSON that they hold.
    ///
    /// # Errors
    /// [`JsonError::Column`] for a double that is not finite, or a JSON column that holds none.
    pub fn to_json(&self) -> Result<String, JsonError> {
        let mut text = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut text);
        let written = serializer.serialize_map(Some(self.len())).map_err(|error| JsonError::Syntax(error.to_string()));
        let mut map = written?;
        for (name, value) in self.iter() {
            let wrong = |problem: String| JsonError::Column { column: name.to_owned(), problem };
            let raw = value_to_json(value).map_err(wrong)?;
            map.serialize_entry(name, &raw).map_err(|error| wrong(error.to_string()))?;
        }
        map.end().map_err(|error| JsonError::Syntax(error.to_string()))?;
        String::from_utf8(text).map_err(|error| JsonError::Syntax(error.to_string()))
    }
}

/// The members of an object in their order, twice if they are there twice.
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// `raw` is valid JSON without white space around it.
fn value_from_json(raw: &str, kind: ColumnKind) -> Result<Value, String> {
    if raw == "null" {
        return Ok(Value::Null);
    }
    let string = || serde_json::from_str::<String>(raw).ok();
    let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let needs = |what: &str| format!("is a {} column: give {what}", name(kind));
    match kind {
        ColumnKind::Bool => match raw {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(needs("true or false")),
        },
        ColumnKind::Int64 | ColumnKind::Uint64 => {
            let quoted = string();
            let digits = quoted.as_deref().unwrap_or(raw);
            match (digits.parse::<i64>(), digits.parse::<u64>()) {
                (_, Ok(n)) if kind == ColumnKind::Uint64 => Ok(Value::Uint64(n)),
                (Ok(n), _) => Ok(Value::Int64(n)),
                (_, Ok(n)) => Ok(Value::Uint64(n)),
                _ => Err(needs("a whole number of 64 bits")),
            }
        }
        ColumnKind::Double => match raw.parse::<f64>() {
            Ok(x) if is_number && x.is_finite() => Ok(Value::Double(x)),
            _ => Err(needs("a number within the range of a double")),
        },
        ColumnKind::Decimal => {
            let text = if is_number { Some(raw.to_owned()) } else { string() };
            match text {
                Some(text) if !text.contains(['e', 'E']) => Ok(Value::Decimal(text)),
                _ => Err(needs("a number without exponent, or a string with one")),
            }
        }
        ColumnKind::String => string().map(Value::Text).ok_or_else(|| needs("a string")),
        ColumnKind::Bytes => {
            let bytes = string().and_then(|text| BASE64.decode(text).ok());
            bytes.map(Value::Bytes).ok_or_else(|| needs("a string with base64"))
        }
        ColumnKind::Timestamp => {
            let at = string().and_then(|text| text.parse::<Timestamp>().ok());
            at.map(Value::Timestamp).ok_or_else(|| needs("a string as \"2026-11-21T05:06:07Z\", with an offset"))
        }
        ColumnKind::Datetime => {
            string().map(Value::DateTime).ok_or_else(|| needs("a string as \"2026-11-21T05:06:07.5\""))
        }
        ColumnKind::Date => string().map(Value::Date).ok_or_else(|| needs("a string as \"2026-11-21\"")),
        ColumnKind::Time => string().map(Value::Time).ok_or_else(|| needs("a string as \"05:06:07.5\"")),
        ColumnKind::Json => Ok(Value::Json(raw.to_owned())),
        ColumnKind::Unspecified => Err("is of a kind that this client does not know: use a newer one".into()),
    }
}

fn name(kind: ColumnKind) -> String {
    kind.as_str_name().trim_start_matches("COLUMN_KIND_").to_lowercase()
}

fn value_to_json(value: &Value) -> Result<Box<RawValue>, String> {
    let text = |text: &str| serde_json::value::to_raw_value(text).map_err(|error| error.to_string());
    match value {
        Value::Double(x) if !x.is_finite() => Err("holds a double that JSON does not know".into()),
        Value::Null => serde_json::value::to_raw_value(&()).map_err(|error| error.to_string()),
        Value::Bool(b) => serde_json::value::to_raw_value(b).map_err(|error| error.to_string()),
        Value::Int64(n) => serde_json::value::to_raw_value(n).map_err(|error| error.to_string()),
        Value::Uint64(n) => serde_json::value::to_raw_value(n).map_err(|error| error.to_string()),
        Value::Double(x) => serde_json::value::to_raw_value(x).map_err(|error| error.to_string()),
        Value::Decimal(s) | Value::Text(s) | Value::DateTime(s) | Value::Date(s) | Value::Time(s) => text(s),
        Value::Bytes(bytes) => text(&BASE64.encode(bytes)),
        Value::Timestamp(at) => text(&at.to_string()),
        Value::Json(json) => RawValue::from_string(json.clone()).map_err(|error| format!("holds no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::{Column, TableRef};

    const KINDS: [(&str, ColumnKind); 12] = [
        ("b", ColumnKind::Bool),
        ("i", ColumnKind::Int64),
        ("u", ColumnKind::Uint64),
        ("x", ColumnKind::Double),
        ("d", ColumnKind::Decimal),
        ("s", ColumnKind::String),
        ("raw", ColumnKind::Bytes),
        ("ts", ColumnKind::Timestamp),
        ("dt", ColumnKind::Datetime),
        ("day", ColumnKind::Date),
        ("t", ColumnKind::Time),
        ("j", ColumnKind::Json),
    ];

    fn table() -> Table {
        let column = |(name, kind): (&str, ColumnKind)| Column {
            name: name.to_owned(),
            kind,
            nullable: true,
            has_default: false,
        };
        Table {
            table: TableRef::from("main.t"),
            enabled: true,
            columns: KINDS.map(column).into(),
            primary_key: vec!["i".into()],
            topic: String::new(),
            unsupported_reason: String::new(),
            rate: crate::Rate::Configured,
            unreadable_rate: None,
            indexed_fields: Vec::new(),
        }
    }

    fn one(column: &str, json: &str) -> Result<Value, JsonError> {
        let row = Row::from_json(&format!("{{\"{column}\": {json}}}"), &table())?;
        Ok(row.get(column).unwrap().clone())
    }

    #[test]
    fn no_number_passes_through_a_double() {
        assert_eq!(one("i", "9007199254740993"), Ok(Value::Int64(9_007_199_254_740_993)));
        assert_eq!(one("i", "-9223372036854775808"), Ok(Value::Int64(i64::MIN)));
        assert_eq!(one("u", "18446744073709551615"), Ok(Value::Uint64(u64::MAX)));
        assert_eq!(one("u", "\"18446744073709551615\""), Ok(Value::Uint64(u64::MAX)));
        assert_eq!(one("d", "0.10"), Ok(Value::decimal("0.10")));
        assert_eq!(one("d", "12345678901234567890.123456789"), Ok(Value::decimal("12345678901234567890.123456789")));
        assert_eq!(one("d", "\"0.10\""), Ok(Value::decimal("0.10")));
        let json = r#"{"z": 1.10, "a": 18446744073709551616}"#;
        assert_eq!(one("j", json), Ok(Value::json(json)));
    }

    #[test]
    fn null_is_null_in_every_column() {
        for (name, _) in KINDS {
            assert_eq!(one(name, "null"), Ok(Value::Null), "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_column_s_name() {
        for (column, json) in [
            ("b", "1"),
            ("i", "1.0"),
            ("i", "1e3"),
            ("i", "true"),
            ("u", "18446744073709551616"),
            ("x", "\"1\""),
            ("x", "1e999"),
            ("d", "1e3"),
            ("d", "true"),
            ("s", "1"),
            ("raw", "\"*\""),
            ("ts", "\"2026-11-21T05:06:07\""),
            ("ts", "1"),
            ("dt", "1"),
        ] {
            match one(column, json) {
                Err(JsonError::Column { column: named, .. }) => assert_eq!(named, column),
                other => panic!("{column} = {json}: {other:?}"),
            }
        }
        let unknown = Row::from_json(r#"{"nope": 1}"#, &table()).unwrap_err().to_string();
        assert!(unknown.contains("nope") && unknown.contains("main.t") && unknown.contains("day"), "{unknown}");
        assert!(matches!(Row::from_json(r#"{"i": 1, "i": 2}"#, &table()), Err(JsonError::Column { .. })));
        assert!(matches!(Row::from_json("[1]", &table()), Err(JsonError::Syntax(_))));
        assert!(matches!(Row::from_json("{} x", &table()), Err(JsonError::Syntax(_))));
    }

    proptest! {
        #[test]
        fn a_row_reads_back_from_its_json(
            b: bool, i: i64, u: u64, x in -1e300..1e300_f64, d in "-?[0-9]{1,30}(\\.[0-9]{1,10})?", s in ".*",
            raw in prop::collection::vec(any::<u8>(), 0..40), ts in -60_000_000_000_000_000_i64..200_000_000_000_000_000,
        ) {
            let row = Row::new()
                .set("b", b)
                .set("i", i)
                .set("u", u)
                .set("x", x)
                .set("d", Value::Decimal(d))
                .set("s", s)
                .set("raw", raw)
                .set("ts", Timestamp::from_microsecond(ts).unwrap())
                .set("dt", Value::datetime("2026-11-21T05:06:07.5"))
                .set("day", None::<i64>)
                .set("j", Value::json(r#"{"b":[1.10,2],"a":null}"#));
            let json = row.to_json().unwrap();
            prop_assert_eq!(Row::from_json(&json, &table()), Ok(row));
        }
    }
}
