//! Cells as the server sends them, in its binary form, in the types in which [`super::dialect`] asks for them.

use bytes::Bytes;
use model::{Column, ColumnDefault, ColumnName, ColumnType, TimeOfDay, Value};

use crate::relational::temporal::{parse_date, parse_datetime, parse_timestamp};

/// The value as the column would accept it.
fn in_its_type(ty: &ColumnType, value: Value) -> Result<Value, String> {
    let name = ColumnName::new("c").map_err(|error| error.to_string())?;
    let column = Column { name, ty: ty.clone(), nullable: false, default: ColumnDefault::None, on_update_now: false };
    column.accept(value).map_err(|violation| violation.problem)
}

/// A cell that is not NULL as its column's type says, or why that is not possible.
pub(super) fn value(cell: &[u8], ty: &ColumnType) -> Result<Value, String> {
    let wrong = || Err(format!("came as {} bytes that are no {}", cell.len(), ty.kind()));
    let text = || std::str::from_utf8(cell).map_err(|error| error.to_string());
    let beyond = |what: &str| {
        format!("holds a {what} that is infinite or outside the years 1 to 9999: correct it in the database")
    };
    Ok(match ty {
        ColumnType::Bool => match cell {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return wrong(),
        },
        ColumnType::Int { .. } | ColumnType::Uint { .. } => match cell {
            [a, b] => Value::Int64(i16::from_be_bytes([*a, *b]).into()),
            [a, b, c, d] => Value::Int64(i32::from_be_bytes([*a, *b, *c, *d]).into()),
            _ => match cell.try_into() {
                Ok(bytes) => Value::Int64(i64::from_be_bytes(bytes)),
                Err(_) => return wrong(),
            },
        },
        ColumnType::Double | ColumnType::Real => match cell.try_into().map(f64::from_be_bytes) {
            Ok(number) if number.is_finite() => Value::Double(number),
            Ok(_) => return Err("holds NaN or an infinite number: correct it in the database".to_owned()),
            Err(_) => return wrong(),
        },
        ColumnType::Decimal { .. } | ColumnType::Numeric => match text()? {
            "NaN" | "Infinity" | "-Infinity" => {
                return Err("holds NaN or an infinite number: correct it in the database".to_owned());
            }
            digits => Value::Decimal(digits.to_owned()),
        },
        ColumnType::Text { .. }
        | ColumnType::Characters { .. }
        | ColumnType::Collated { .. }
        | ColumnType::Padded { .. }
        | ColumnType::Uuid
        | ColumnType::Enum { .. }
        | ColumnType::Inet
        | ColumnType::Cidr => Value::Text(text()?.to_owned()),
        // Elements are in the forms that writes have them in, but for a few, such as an instant's.
        ColumnType::Array { .. } => in_its_type(ty, Value::Json(text()?.to_owned()))
            .map_err(|problem| format!("holds an array that {problem}: correct it in the database"))?,
        ColumnType::Json | ColumnType::Jsonb => Value::Json(text()?.to_owned()),
        ColumnType::Bytes { .. } => Value::Bytes(Bytes::copy_from_slice(cell)),
        ColumnType::Timestamp { .. } => Value::Timestamp(parse_timestamp(text()?).ok_or_else(|| beyond("timestamp"))?),
        ColumnType::DateTime { .. } => Value::DateTime(parse_datetime(text()?).ok_or_else(|| beyond("timestamp"))?),
        ColumnType::Date => Value::Date(parse_date(text()?).ok_or_else(|| beyond("date"))?),
        ColumnType::Time { .. } | ColumnType::TimeOfDay { .. } => {
            Value::Time(text()?.parse::<TimeOfDay>().map_err(|error| error.to_string())?)
        }
        ty => return Err(format!("is introspected as {ty:?}, which no column of PostgreSQL is")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_instant_as_the_server_writes_it() {
        let at = |text: &str| value(text.as_bytes(), &ColumnType::Timestamp { fraction: 6 });
        let expected = Value::Timestamp("2024-02-03T04:05:06.5Z".parse().unwrap());
        assert_eq!(at("2024-02-03 04:05:06.5+00"), Ok(expected));
        assert_eq!(at("0001-01-01 00:00:00+00"), Ok(Value::Timestamp("0001-01-01T00:00:00Z".parse().unwrap())));
        for beyond in ["infinity", "-infinity", "0044-03-15 00:00:00+00 BC", "10000-01-01 00:00:00+00"] {
            assert!(at(beyond).unwrap_err().contains("infinite or outside"), "{beyond}");
        }
        let civil = |text: &str| value(text.as_bytes(), &ColumnType::DateTime { fraction: 6 });
        for beyond in ["infinity", "0044-03-15 00:00:00 BC", "10000-01-01 00:00:00"] {
            assert!(civil(beyond).unwrap_err().contains("infinite or outside"), "{beyond}");
        }
        let date = |text: &str| value(text.as_bytes(), &ColumnType::Date);
        for beyond in ["infinity", "0044-03-15 BC", "10000-01-01"] {
            assert!(date(beyond).unwrap_err().contains("infinite or outside"), "{beyond}");
        }
    }

    #[test]
    fn an_array_is_read_as_it_is_accepted() {
        let of = |element, text: &str| {
            value(text.as_bytes(), &ColumnType::Array { element: Box::new(element), name: String::new() })
        };
        let json = |text: &str| Ok(Value::Json(text.to_owned()));
        assert_eq!(of(ColumnType::Int { bits: 32 }, "[1,null]"), json("[1, null]"));
        let instant = ColumnType::Timestamp { fraction: 6 };
        assert_eq!(of(instant.clone(), r#"["2024-01-01T00:00:00+00:00"]"#), json(r#"["2024-01-01T00:00:00Z"]"#));
        // Of two dimensions, and not from 1 on.
        for wrong in ["[[1]]", ""] {
            assert!(of(ColumnType::Int { bits: 32 }, wrong).unwrap_err().contains("one dimension"), "{wrong}");
        }
        assert!(of(instant, r#"["infinity"]"#).unwrap_err().contains("infinity"));
    }

    #[test]
    fn what_is_no_number_is_said() {
        assert!(value(&f64::NAN.to_be_bytes(), &ColumnType::Double).is_err());
        assert!(value(b"NaN", &ColumnType::Numeric).is_err());
        assert!(value(b"-Infinity", &ColumnType::Decimal { precision: 5, scale: 2 }).is_err());
        assert!(value(&[1, 2, 3], &ColumnType::Int { bits: 64 }).is_err());
        assert_eq!(value(&[255, 255], &ColumnType::Int { bits: 16 }), Ok(Value::Int64(-1)));
    }
}
