//! What columns of MySQL and MariaDB get that a write doesn't name, from what `information_schema` says. No I/O.
//!
//! What can't be read there exactly is left to the database: then a write must name the column.

use bytes::Bytes;
use model::{Column, ColumnDefault, ColumnName, ColumnType, Value, ValueKind};

use super::types::{Described, Flavour};
use crate::relational::temporal::{parse_date, parse_datetime, parse_timestamp};

pub(super) fn column_default(described: &Described, ty: &ColumnType, flavour: Flavour) -> ColumnDefault {
    let Some(text) = &described.default else { return ColumnDefault::None };
    if flavour.is_mariadb {
        // MariaDB gives the source text of the default.
        if text.eq_ignore_ascii_case("null") {
            return ColumnDefault::None;
        }
        let is_literal = |text: &String| text.parse::<f64>().is_ok() || text.starts_with("b'");
        return match literals(text).as_deref() {
            Some([literal]) => constant(ty, literal),
            _ if is_literal(text) => constant(ty, text),
            _ => expression(ty, text),
        };
    }
    // MySQL gives the value of a constant, and marks expressions.
    if described.extra.to_ascii_lowercase().contains("default_generated") {
        return expression(ty, text);
    }
    match ty {
        // It is shown as it was written, in the time zone of whoever wrote it; bytes are shown up to the first zero.
        ColumnType::EpochTimestamp { .. } | ColumnType::Bytes { .. } | ColumnType::PaddedBytes { .. } => {
            ColumnDefault::Expression
        }
        _ => constant(ty, text),
    }
}

/// The texts of literals in single quotes with commas between them.
pub(super) fn literals(text: &str) -> Option<Vec<String>> {
    let (mut literals, mut chars) = (Vec::new(), text.chars().peekable());
    loop {
        if chars.next()? != '\'' {
            return None;
        }
        let mut plain = String::new();
        loop {
            match chars.next()? {
                '\'' if chars.peek() == Some(&'\'') => plain.extend(chars.next()),
                '\'' => break,
                '\\' => plain.push(match chars.next()? {
                    '0' => '\0',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'b' => '\u{8}',
                    'Z' => '\u{1a}',
                    other => other,
                }),
                other => plain.push(other),
            }
        }
        literals.push(plain);
        match chars.next() {
            None => return Some(literals),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// An expression of which we know what it gives.
fn expression(ty: &ColumnType, text: &str) -> ColumnDefault {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let (name, arguments) = lower.split_once('(').unwrap_or((&lower, ")"));
    let digits = arguments.strip_suffix(')').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let holds_time = matches!(ty.kind(), ValueKind::Timestamp | ValueKind::DateTime);
    match (name, digits) {
        ("current_timestamp" | "now" | "localtime" | "localtimestamp", Some(_))
            if holds_time || *ty == ColumnType::Date =>
        {
            return ColumnDefault::CurrentTimestamp;
        }
        ("curdate" | "current_date", Some("")) if *ty == ColumnType::Date => return ColumnDefault::CurrentTimestamp,
        _ => {}
    }
    let makes_uuid = match ty.kind() {
        ValueKind::Text => {
            lower == "uuid()" && accepted(ty, Value::Text("0".repeat(8) + "-0000-0000-0000-" + &"0".repeat(12)))
        }
        ValueKind::Bytes => lower == "uuid_to_bin(uuid())" && *ty == (ColumnType::PaddedBytes { bytes: 16 }),
        _ => false,
    };
    if makes_uuid {
        return ColumnDefault::Uuid;
    }
    // MySQL's JSON and TEXT have no other constants. Other characters than those of ASCII are shown wrongly there.
    let literal = text.strip_prefix("_utf8mb4\\'").and_then(|rest| rest.strip_suffix("\\'"));
    match literal.filter(|literal| literal.is_ascii() && !literal.contains('\\')) {
        Some(literal) => constant(ty, literal),
        None => ColumnDefault::Expression,
    }
}

fn accepted(ty: &ColumnType, value: Value) -> bool {
    accept(ty, value).is_some()
}

fn accept(ty: &ColumnType, value: Value) -> Option<Value> {
    let name = ColumnName::new("default").ok()?;
    let column = Column { name, ty: ty.clone(), nullable: false, default: ColumnDefault::None, on_update_now: false };
    column.accept(value).ok()
}

/// A constant in the column's type.
fn constant(ty: &ColumnType, text: &str) -> ColumnDefault {
    let value = match ty.kind() {
        ValueKind::Null => None,
        ValueKind::Bool => match text.parse::<i64>() {
            Ok(0) => Some(Value::Bool(false)),
            Ok(1) => Some(Value::Bool(true)),
            _ => None,
        },
        ValueKind::Int64 => text.parse().ok().map(Value::Int64),
        ValueKind::Uint64 => match text.strip_prefix("b'").and_then(|rest| rest.strip_suffix('\'')) {
            Some(bits) => u64::from_str_radix(bits, 2).ok().map(Value::Uint64),
            None => text.parse().ok().map(Value::Uint64),
        },
        ValueKind::Double => text.parse().ok().map(Value::Double),
        ValueKind::Decimal => Some(Value::Decimal(text.to_owned())),
        // The catalog of either server has no characters beyond U+FFFF and shows a question mark for each.
        ValueKind::Text | ValueKind::Json | ValueKind::Bytes if text.contains('?') => None,
        ValueKind::Text => Some(Value::Text(text.to_owned())),
        ValueKind::Json => Some(Value::Json(text.to_owned())),
        ValueKind::Bytes => text.is_ascii().then(|| Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))),
        ValueKind::Timestamp => parse_timestamp(text).map(Value::Timestamp),
        ValueKind::DateTime => parse_datetime(text).map(Value::DateTime),
        ValueKind::Date => parse_date(text).map(Value::Date),
        ValueKind::Time => text.parse().ok().map(Value::Time),
    };
    value.and_then(|value| accept(ty, value)).map_or(ColumnDefault::Expression, ColumnDefault::Constant)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn default_of(described: &Described, is_mariadb: bool) -> ColumnDefault {
        let flavour = Flavour { is_mariadb, last_second: i64::from(i32::MAX) };
        described.column(flavour).unwrap().default
    }

    fn described(column_type: &str, text: &str, extra: &str) -> Described {
        let data_type = column_type.split('(').next().unwrap().to_owned();
        let (column_type, extra, default) = (column_type.to_owned(), extra.to_owned(), Some(text.to_owned()));
        Described { name: "c".to_owned(), data_type, column_type, default, extra, ..Described::default() }
    }

    #[test]
    fn as_mariadb_gives_them() {
        let text = |t: &str| ColumnDefault::Constant(Value::Text(t.to_owned()));
        for (column_type, source, expected) in [
            ("varchar(9)", "'it''s'", text("it's")),
            ("varchar(9)", "'a\\\\b'", text("a\\b")),
            ("varchar(9)", "'NULL'", text("NULL")),
            ("varchar(9)", "NULL", ColumnDefault::None),
            ("varchar(9)", "'x?'", ColumnDefault::Expression),
            ("varchar(40)", "uuid()", ColumnDefault::Uuid),
            ("uuid", "uuid()", ColumnDefault::Uuid),
            ("varchar(40)", "'current_timestamp()'", text("current_timestamp()")),
            ("varchar(40)", "current_timestamp()", ColumnDefault::Expression),
            ("int", "-5", ColumnDefault::Constant(Value::Int64(-5))),
            ("int", "(1 + 1)", ColumnDefault::Expression),
            ("bit(5)", "b'101'", ColumnDefault::Constant(Value::Uint64(5))),
            ("year(4)", "2024", ColumnDefault::Constant(Value::Uint64(2024))),
            ("float", "0.1", ColumnDefault::Constant(Value::Double(f64::from(0.1_f32)))),
            ("enum('a','b')", "'b'", text("b")),
            ("datetime(6)", "current_timestamp(6)", ColumnDefault::CurrentTimestamp),
            ("datetime", "(current_timestamp() + interval 1 day)", ColumnDefault::Expression),
            ("date", "curdate()", ColumnDefault::CurrentTimestamp),
            ("time", "curtime()", ColumnDefault::Expression),
            ("timestamp", "'2023-12-31 19:00:00'", {
                ColumnDefault::Constant(Value::Timestamp("2023-12-31T19:00:00Z".parse().unwrap()))
            }),
        ] {
            let mut described = described(column_type, source, "");
            described.precision = (described.data_type == "bit").then_some(5);
            assert_eq!(default_of(&described, true), expected, "{column_type} {source}");
        }
    }

    #[test]
    fn as_mysql_gives_them() {
        let text = |t: &str| ColumnDefault::Constant(Value::Text(t.to_owned()));
        let generated = "DEFAULT_GENERATED";
        for (column_type, given, extra, expected) in [
            ("varchar(9)", "it's", "", text("it's")),
            ("varchar(9)", "NULL", "", text("NULL")),
            ("varchar(40)", "uuid()", "", text("uuid()")),
            ("varchar(40)", "uuid()", generated, ColumnDefault::Uuid),
            ("varchar(40)", "CURRENT_TIMESTAMP", "", text("CURRENT_TIMESTAMP")),
            ("tinyint(1)", "1", "", ColumnDefault::Constant(Value::Bool(true))),
            ("datetime(6)", "CURRENT_TIMESTAMP(6)", generated, ColumnDefault::CurrentTimestamp),
            ("datetime", "now()", generated, ColumnDefault::CurrentTimestamp),
            ("datetime", "(now() + interval 1 day)", generated, ColumnDefault::Expression),
            ("date", "curdate()", generated, ColumnDefault::CurrentTimestamp),
            ("timestamp", "2024-01-01 00:00:00", "", ColumnDefault::Expression),
            ("varbinary(4)", "0x6162", "", ColumnDefault::Expression),
            (
                "json",
                "_utf8mb4\\'{\"b\":1}\\'",
                generated,
                ColumnDefault::Constant(Value::Json("{\"b\": 1}".to_owned())),
            ),
            ("text", "_utf8mb4\\'Ã¤\\'", generated, ColumnDefault::Expression),
            ("json", "json_object()", generated, ColumnDefault::Expression),
        ] {
            assert_eq!(default_of(&described(column_type, given, extra), false), expected, "{column_type} {given}");
        }
        let updated = described("timestamp", "CURRENT_TIMESTAMP", "DEFAULT_GENERATED on update CURRENT_TIMESTAMP");
        let flavour = Flavour { is_mariadb: false, last_second: i64::from(i32::MAX) };
        assert!(updated.column(flavour).unwrap().on_update_now);
        let made = Described { max_bytes: Some(16), ..described("binary(16)", "uuid_to_bin(uuid())", generated) };
        assert_eq!(default_of(&made, false), ColumnDefault::Uuid);
    }

    #[test]
    fn a_decimal_default_has_the_columns_scale() {
        let mut amount = described("decimal(12,2)", "0", "");
        (amount.precision, amount.scale) = (Some(12), Some(2));
        assert_eq!(default_of(&amount, true), ColumnDefault::Constant(Value::Decimal("0.00".to_owned())));
    }

    #[test]
    fn literals_end_where_they_end() {
        let read = |text: &str| literals(text);
        assert_eq!(read("'a','it''s'"), Some(vec!["a".to_owned(), "it's".to_owned()]));
        assert_eq!(read("''"), Some(vec![String::new()]));
        for text in ["", "a", "'a", "'a'b", "'a',", "'a''", "'a\\"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
