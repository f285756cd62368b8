#![allow(clippy::unwrap_used)]

use jiff::civil;
use proptest::prelude::*;

use super::*;
use crate::{DatabaseName, TableName, TableRef, TimeOfDay, VersionGuard};

fn column(name: &str, ty: ColumnType) -> Column {
    Column {
        name: ColumnName::new(name).unwrap(),
        ty,
        nullable: false,
        default: ColumnDefault::None,
        on_update_now: false,
    }
}

fn payments() -> TableSchema {
    let table = TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() };
    let columns = vec![
        column("tenant", ColumnType::Text { max_chars: Some(8), max_bytes: None }),
        column("id", ColumnType::Int { bits: 32 }),
        column("amount", ColumnType::Decimal { precision: 6, scale: 2 }),
        Column { nullable: true, ..column("note", ColumnType::Text { max_chars: None, max_bytes: Some(10) }) },
        Column {
            default: ColumnDefault::Constant(Value::Text("NEW".into())),
            ..column("status", ColumnType::Text { max_chars: None, max_bytes: None })
        },
        Column {
            default: ColumnDefault::CurrentTimestamp,
            on_update_now: true,
            ..column("updated_at", ColumnType::DateTime { fraction: 3 })
        },
    ];
    TableSchema {
        table,
        columns,
        key_columns: vec![0, 1],
        group: vec![0, 1],
        has_secondary_unique: false,
        guard: VersionGuard::Column,
    }
}

fn row(columns: &[(&str, Value)]) -> Row {
    columns.iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value.clone())).collect()
}

fn text(s: &str) -> Value {
    Value::Text(s.into())
}

fn now() -> Timestamp {
    "2026-11-21T10:20:30.123456Z".parse().unwrap()
}

fn reasons(wrong: Vec<Violation>) -> Vec<(String, ViolationReason)> {
    wrong.into_iter().map(|v| (v.column, v.reason)).collect()
}

#[test]
fn a_row_gets_its_defaults_and_every_column() {
    let named = row(&[("tenant", text("north")), ("id", Value::Uint64(7)), ("amount", Value::Decimal("012.5".into()))]);
    let whole = payments().accept_row(named, Moment { now: now(), chance: &Chance::seeded(1) }).unwrap();
    let expected = row(&[
        ("tenant", text("north")),
        ("id", Value::Int64(7)),
        ("amount", Value::Decimal("12.50".into())),
        ("note", Value::Null),
        ("status", text("NEW")),
        ("updated_at", Value::DateTime(civil::date(2026, 11, 21).at(10, 20, 30, 123_000_000))),
    ]);
    assert_eq!(whole, expected);
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let named = row(&[
        ("tenant", text("far too long")),
        ("amount", Value::Double(1.5)),
        ("note", text("more than ten bytes")),
        ("status", Value::Null),
        ("colour", text("red")),
    ]);
    let wrong = reasons(payments().accept_row(named, Moment { now: now(), chance: &Chance::seeded(1) }).unwrap_err());
    let expected = [
        ("colour", ViolationReason::UnknownColumn),
        ("tenant", ViolationReason::OutOfRange),
        ("id", ViolationReason::MissingKey),
        ("amount", ViolationReason::WrongType),
        ("note", ViolationReason::OutOfRange),
        ("status", ViolationReason::NotNullable),
    ];
    assert_eq!(wrong, expected.map(|(c, r)| (c.to_owned(), r)));
}

#[test]
fn a_missing_column_without_default_is_refused() {
    let named = row(&[("tenant", text("north")), ("id", Value::Int64(7))]);
    assert_eq!(
        reasons(payments().accept_row(named, Moment { now: now(), chance: &Chance::seeded(1) }).unwrap_err()),
        [("amount".to_owned(), ViolationReason::MissingColumn)]
    );
}

#[test]
fn changes_hold_only_what_changes_and_what_the_table_changes_itself() {
    let schema = payments();
    let key = schema.accept_key(&row(&[("tenant", text("north")), ("id", Value::Int64(7))])).unwrap();
    let changes =
        schema.accept_changes(&key, row(&[("status", text("PAID")), ("id", Value::Int64(7))]), now()).unwrap();
    assert_eq!(changes.len(), 2);
    assert_eq!(changes.get("status"), Some(&text("PAID")));
    assert!(changes.get("updated_at").is_some());
    let moved = schema.accept_changes(&key, row(&[("id", Value::Int64(8))]), now()).unwrap_err();
    assert_eq!(reasons(moved), [("id".to_owned(), ViolationReason::KeyChanged)]);
}

#[test]
fn a_key_is_complete_and_nothing_but_a_key() {
    let schema = payments();
    let wrong = schema.accept_key(&row(&[("tenant", Value::Null), ("amount", Value::Int64(1))])).unwrap_err();
    let expected = [
        ("amount", ViolationReason::UnknownColumn),
        ("tenant", ViolationReason::MissingKey),
        ("id", ViolationReason::MissingKey),
    ];
    assert_eq!(reasons(wrong), expected.map(|(c, r)| (c.to_owned(), r)));
}

#[test]
fn a_selection_names_columns_that_exist() {
    let wrong = payments().accept_selection(&["status".into(), "colour".into()]).unwrap_err();
    assert_eq!(reasons(wrong), [("colour".to_owned(), ViolationReason::UnknownColumn)]);
}

#[test]
fn integers_stay_within_their_width() {
    let small = column("n", ColumnType::Int { bits: 8 });
    assert!(small.accept(Value::Int64(127)).is_ok() && small.accept(Value::Int64(-128)).is_ok());
    assert!(small.accept(Value::Int64(128)).is_err() && small.accept(Value::Uint64(u64::MAX)).is_err());
    let large = column("n", ColumnType::Uint { bits: 64 });
    assert_eq!(large.accept(Value::Uint64(u64::MAX)), Ok(Value::Uint64(u64::MAX)));
    assert!(large.accept(Value::Int64(-1)).is_err());
}

#[test]
fn decimals_take_their_columns_form_or_are_refused() {
    let amount = column("amount", ColumnType::Decimal { precision: 6, scale: 2 });
    let accept = |s: &str| amount.accept(Value::Decimal(s.into())).map(|v| format!("{v:?}"));
    for (given, kept) in
        [("1", "1.00"), ("-0.0", "0.00"), ("0009999.99", "9999.99"), ("-1.5", "-1.50"), ("1.500", "1.50")]
    {
        assert_eq!(accept(given), Ok(format!("Decimal({kept:?})")), "{given}");
    }
    for given in ["", "-", ".5", "1.", "1e3", "1.555", "10000", "٣", "+1", " 1"] {
        assert_eq!(accept(given).map_err(|v| v.reason), Err(ViolationReason::OutOfRange), "{given}");
    }
}

#[test]
fn times_json_and_doubles_are_checked() {
    let seconds = column("t", ColumnType::Timestamp { fraction: 0 });
    assert!(seconds.accept(Value::Timestamp(now())).is_err());
    let time = column("t", ColumnType::Time { fraction: 6 });
    assert!(time.accept(Value::Time(TimeOfDay { micros: 3_020_399_000_000 })).is_ok());
    assert!(time.accept(Value::Time(TimeOfDay { micros: -3_020_399_000_001 })).is_err());
    let json = column("j", ColumnType::Json);
    assert!(json.accept(Value::Json("{\"n\": 12345678901234567890}".into())).is_ok());
    assert!(json.accept(Value::Json("{n}".into())).is_err());
    assert!(column("x", ColumnType::Double).accept(Value::Double(f64::NAN)).is_err());
}

proptest! {
    /// What was accepted is in the column's own form: accepting it again changes nothing.
    #[test]
    fn accepting_twice_is_accepting_once(whole in 0u64..10_000, fraction in 0u32..100, negative: bool) {
        let amount = column("amount", ColumnType::Decimal { precision: 6, scale: 2 });
        let sign = if negative { "-" } else { "" };
        let once = amount.accept(Value::Decimal(format!("{sign}{whole}.{fraction:02}"))).unwrap();
        prop_assert_eq!(amount.accept(once.clone()), Ok(once));
    }
}
