//! Values and rows between the API and the model. Nothing is rounded, shifted or guessed: what has no exact
//! counterpart is an error that names its field.

use bytes::Bytes;
use jiff::{Timestamp, civil};
use model::{ColumnName, Row, TimeOfDay, Value};
use proto::{
    Reason,
    v1::{self, value::Kind},
};

use super::failure::FieldProblem;

/// The columns of a row that a client sent, where `field` is its path in the request.
pub(super) fn row_from_proto(row: Option<v1::Row>, field: &str) -> Result<Row, Vec<FieldProblem>> {
    let Some(row) = row else { return Err(vec![FieldProblem::invalid(field, "must be set")]) };
    let mut wrong = Vec::new();
    let mut columns = Row::default();
    for (name, value) in row.columns {
        let field = || format!("{field}.columns[{name:?}]");
        match (ColumnName::new(&name), from_proto(value)) {
            (Ok(name), Ok(value)) => drop(columns.insert(name, value)),
            (Err(error), _) => {
                wrong.push(FieldProblem::new(
                    field(),
                    Reason::UnknownColumn,
                    format!("names no column: {}", error.problem),
                ));
            }
            (_, Err(problem)) => wrong.push(FieldProblem::invalid(field(), problem)),
        }
    }
    if wrong.is_empty() {
        return Ok(columns);
    }
    // The columns came out of a hash map.
    wrong.sort_by(|a, b| a.field.cmp(&b.field));
    Err(wrong)
}

/// A value that a client sent in that field.
pub(super) fn value_from_proto(value: Option<v1::Value>, field: &str) -> Result<Value, Vec<FieldProblem>> {
    let invalid = |problem: String| vec![FieldProblem::invalid(field, problem)];
    from_proto(value.ok_or_else(|| invalid("must be set".to_owned()))?).map_err(invalid)
}

/// A row for a client.
pub(super) fn row_to_proto(row: Row) -> v1::Row {
    let columns = row.into_iter().map(|(name, value)| (name.as_str().to_owned(), to_proto(value))).collect();
    v1::Row { columns }
}

pub(crate) fn from_proto(value: v1::Value) -> Result<Value, String> {
    Ok(match value.kind.ok_or("holds no value; NULL is null_value")? {
        Kind::NullValue(_) => Value::Null,
        Kind::BoolValue(b) => Value::Bool(b),
        Kind::Int64Value(n) => Value::Int64(n),
        Kind::Uint64Value(n) => Value::Uint64(n),
        Kind::DoubleValue(x) => Value::Double(x),
        Kind::DecimalValue(text) => Value::Decimal(text),
        Kind::StringValue(text) => Value::Text(text),
        Kind::BytesValue(bytes) => Value::Bytes(Bytes::from(bytes)),
        Kind::TimestampValue(at) => Value::Timestamp(timestamp_from_proto(at)?),
        Kind::DatetimeValue(text) => Value::DateTime(datetime(&text)?),
        Kind::DateValue(text) => Value::Date(date(&text)?),
        Kind::TimeValue(text) => Value::Time(text.parse::<TimeOfDay>().map_err(|error| error.to_string())?),
        Kind::JsonValue(text) => Value::Json(text),
    })
}

pub(crate) fn to_proto(value: Value) -> v1::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(v1::NullValue::Unspecified.into()),
        Value::Bool(b) => Kind::BoolValue(b),
        Value::Int64(n) => Kind::Int64Value(n),
        Value::Uint64(n) => Kind::Uint64Value(n),
        Value::Double(x) => Kind::DoubleValue(x),
        Value::Decimal(text) => Kind::DecimalValue(text),
        Value::Text(text) => Kind::StringValue(text),
        Value::Bytes(bytes) => Kind::BytesValue(bytes.into()),
        Value::Timestamp(at) => Kind::TimestampValue(timestamp_to_proto(at)),
        Value::DateTime(at) => Kind::DatetimeValue(at.to_string()),
        Value::Date(day) => Kind::DateValue(day.to_string()),
        Value::Time(time) => Kind::TimeValue(time.to_string()),
        Value::Json(text) => Kind::JsonValue(text),
    };
    v1::Value { kind: Some(kind) }
}

/// The API counts nanoseconds forward from the second, also before 1970. Microseconds are the finest that is kept.
pub(super) fn timestamp_from_proto(at: prost_types::Timestamp) -> Result<Timestamp, String> {
    if !(0..1_000_000_000).contains(&at.nanos) {
        return Err("has nanos outside 0 to 999999999".into());
    }
    if at.nanos % 1000 != 0 {
        return Err("is finer than a microsecond, which no column holds: nanos must be a multiple of 1000".into());
    }
    Timestamp::new(at.seconds, at.nanos).map_err(|_| "is outside the years that can be written".into())
}

pub(super) fn timestamp_to_proto(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

fn datetime(text: &str) -> Result<civil::DateTime, String> {
    let problem = || "is not a date and time of the form YYYY-MM-DDTHH:MM:SS[.ffffff]".to_owned();
    model::civil::datetime(text).ok_or_else(problem)
}

fn date(text: &str) -> Result<civil::Date, String> {
    model::civil::date(text).ok_or_else(|| "is not a date of the form YYYY-MM-DD".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn any_civil() -> impl Strategy<Value = civil::DateTime> {
        (0_i16..=9999, 1_i8..=12, 1_i8..=28, 0_i8..24, 0_i8..60, 0_i8..60, 0_i32..1_000_000)
            .prop_map(|(y, mo, d, h, mi, s, micros)| civil::date(y, mo, d).at(h, mi, s, micros * 1000))
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int64),
            any::<u64>().prop_map(Value::Uint64),
            prop::num::f64::NORMAL.prop_map(Value::Double),
            "-?[0-9]{1,40}(\\.[0-9]{1,30})?".prop_map(Value::Decimal),
            ".*".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
            (-377_705_023_201_000_000_i64..253_402_207_200_000_000)
                .prop_map(|micros| Value::Timestamp(Timestamp::from_microsecond(micros).unwrap())),
            any_civil().prop_map(Value::DateTime),
            any_civil().prop_map(|at| Value::Date(at.date())),
            (-3_020_399_000_000_i64..=3_020_399_000_000).prop_map(|micros| Value::Time(TimeOfDay { micros })),
            Just(Value::Json(r#"{"b": 1.10, "a": 18446744073709551616}"#.into())),
        ]
    }

    proptest! {
        #[test]
        fn a_value_passes_through_the_api_unchanged(value in any_value()) {
            prop_assert_eq!(from_proto(to_proto(value.clone())), Ok(value));
        }

        #[test]
        fn a_datetime_that_is_read_is_printed_as_it_was_but_for_zeros_at_its_end(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,7})?Z?",
        ) {
            if let Ok(at) = datetime(&text) {
                let trimmed = match text.split_once('.') {
                    Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
                    None => &text,
                };
                prop_assert_eq!(at.to_string(), trimmed);
            }
        }
    }

    fn sent(kind: Kind) -> Result<Value, String> {
        from_proto(v1::Value { kind: Some(kind) })
    }

    #[test]
    fn an_unset_value_is_no_null() {
        assert!(from_proto(v1::Value { kind: None }).unwrap_err().contains("null_value"));
    }

    #[test]
    fn a_timestamp_is_taken_exactly_or_not_at_all() {
        let at = |seconds, nanos| sent(Kind::TimestampValue(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(at(-1, 999_999_000), Ok(Value::Timestamp(Timestamp::from_microsecond(-1).unwrap())));
        for (seconds, nanos) in [(0, 1), (0, 999), (0, -1000), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)] {
            assert!(at(seconds, nanos).is_err(), "{seconds} s and {nanos} ns");
        }
    }

    #[test]
    fn dates_and_times_of_another_form_are_refused() {
        for text in [
            "2026-11-21",
            "2026-11-21 05:06:07",
            "2026-11-21T05:06",
            "2026-11-21T05:06:07Z",
            "2026-11-21T05:06:07+05:30",
            "2026-11-21T05:06:07.",
            "2026-11-21T05:06:07.1234567",
            "2026-11-21T05:06:60",
            "2026-11-21T24:00:00",
            "2026-02-29T00:00:00",
            "+002026-11-21T05:06:07",
            "2026-11-2éT05:06:07",
            "",
        ] {
            assert!(sent(Kind::DatetimeValue(text.into())).is_err(), "{text}");
        }
        for text in ["2026-1-1", "20261121", "2026-W47-6", "2026-02-30", "2026-11-21T00:00:00", ""] {
            assert!(sent(Kind::DateValue(text.into())).is_err(), "{text}");
        }
        for text in ["1:2", "25", "00:60:00", "00:00:00.1234567", "+01:00:00", ""] {
            assert!(sent(Kind::TimeValue(text.into())).is_err(), "{text}");
        }
        assert!(sent(Kind::TimeValue("-838:59:59.5".into())).is_ok());
    }

    #[test]
    fn every_problem_of_a_row_is_named_with_its_field() {
        let value = |kind| v1::Value { kind: Some(kind) };
        let row = v1::Row {
            columns: [
                ("id".to_owned(), value(Kind::Int64Value(1))),
                ("day".to_owned(), value(Kind::DateValue("today".into()))),
                ("a \"b\"".to_owned(), v1::Value { kind: None }),
                (String::new(), value(Kind::Int64Value(1))),
            ]
            .into(),
        };
        let wrong = row_from_proto(Some(row), "items[3].put.row").unwrap_err();
        let fields: Vec<&str> = wrong.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                r#"items[3].put.row.columns[""]"#,
                r#"items[3].put.row.columns["a \"b\""]"#,
                r#"items[3].put.row.columns["day"]"#
            ]
        );
        assert_eq!(row_from_proto(None, "row").unwrap_err()[0].field, "row");
    }
}
