//! Typed values, as they travel from the client to the database.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use jiff::{Timestamp, civil};

/// One column's value. Integers never pass through a double, decimals never through a binary fraction.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL; an absent column is not NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int64(i64),
    /// An unsigned integer.
    Uint64(u64),
    /// A double; finite.
    Double(f64),
    /// A decimal in plain notation, `-?digits(.digits)?`, no exponent.
    Decimal(String),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// An instant.
    Timestamp(Timestamp),
    /// A civil date and time, without a zone.
    DateTime(civil::DateTime),
    /// A civil date.
    Date(civil::Date),
    /// A time of day or a span, as MySQL's TIME: signed, may exceed 24 h.
    Time(TimeOfDay),
    /// A JSON document as text.
    Json(String),
}

/// What kind of value something is or should be; for messages and for choosing a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the variant of `Value` of the same name")]
pub enum ValueKind {
    Null,
    Bool,
    Int64,
    Uint64,
    Double,
    Decimal,
    Text,
    Bytes,
    Timestamp,
    DateTime,
    Date,
    Time,
    Json,
}

impl Value {
    /// The kind of this value.
    pub fn kind(&self) -> ValueKind {
        match self {
            Value::Null => ValueKind::Null,
            Value::Bool(_) => ValueKind::Bool,
            Value::Int64(_) => ValueKind::Int64,
            Value::Uint64(_) => ValueKind::Uint64,
            Value::Double(_) => ValueKind::Double,
            Value::Decimal(_) => ValueKind::Decimal,
            Value::Text(_) => ValueKind::Text,
            Value::Bytes(_) => ValueKind::Bytes,
            Value::Timestamp(_) => ValueKind::Timestamp,
            Value::DateTime(_) => ValueKind::DateTime,
            Value::Date(_) => ValueKind::Date,
            Value::Time(_) => ValueKind::Time,
            Value::Json(_) => ValueKind::Json,
        }
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueKind::Null => "null",
            ValueKind::Bool => "bool",
            ValueKind::Int64 => "int64",
            ValueKind::Uint64 => "uint64",
            ValueKind::Double => "double",
            ValueKind::Decimal => "decimal",
            ValueKind::Text => "string",
            ValueKind::Bytes => "bytes",
            ValueKind::Timestamp => "timestamp",
            ValueKind::DateTime => "datetime",
            ValueKind::Date => "date",
            ValueKind::Time => "time",
            ValueKind::Json => "json",
        })
    }
}

/// A signed time in microseconds, written `[-]HH:MM:SS[.ffffff]`; hours may exceed 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay {
    /// Microseconds since midnight, or the length of the span.
    pub micros: i64,
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abs = self.micros.unsigned_abs();
        let (seconds, micros) = (abs / 1_000_000, abs % 1_000_000);
        let sign = if self.micros < 0 { "-" } else { "" };
        write!(f, "{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        if micros > 0 { write!(f, ".{micros:06}") } else { Ok(()) }
    }
}

/// Text that is no time of the form `[-]HH:MM:SS[.ffffff]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form [-]HH:MM:SS[.ffffff]")]
pub struct InvalidTime;

impl FromStr for TimeOfDay {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let digits = |part: &str, max: usize| -> Result<i64, InvalidTime> {
            if part.is_empty() || part.len() > max || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidTime);
            }
            part.parse().map_err(|_| InvalidTime)
        };
        let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        let mut parts = rest.split(':');
        let (Some(hours), Some(minutes), Some(seconds), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidTime);
        };
        let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
        let micros = digits(fraction, 6)? * 10_i64.pow(6 - fraction.len() as u32);
        let (hours, minutes, seconds) = (digits(hours, 6)?, digits(minutes, 2)?, digits(seconds, 2)?);
        if minutes > 59 || seconds > 59 {
            return Err(InvalidTime);
        }
        Ok(Self { micros: sign * (((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_reads_back_as_it_was_written(micros in -3_020_399_000_000_i64..=3_020_399_000_000) {
            let time = TimeOfDay { micros };
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "12", "12:00", "12:60:00", "a:b:c", "1:2:3:4", "12:00:00.", "12:00:00.1234567"] {
            assert_eq!(text.parse::<TimeOfDay>(), Err(InvalidTime), "{text}");
        }
        assert_eq!("838:59:59".parse::<TimeOfDay>().map(|t| t.to_string()), Ok("838:59:59".to_owned()));
    }
}
