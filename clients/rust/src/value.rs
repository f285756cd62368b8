//! Typed values and their form in the API.

use jiff::{Timestamp, civil};
use proto::v1::{self, value::Kind};

/// One column's value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// SQL NULL; not the same as a column that is left out.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int64(i64),
    /// An unsigned integer.
    Uint64(u64),
    /// A double.
    Double(f64),
    /// A decimal in plain notation, `-?digits(.digits)?`.
    Decimal(String),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An instant, in whole microseconds.
    Timestamp(Timestamp),
    /// A civil date and time without a zone, `YYYY-MM-DDTHH:MM:SS[.ffffff]`.
    DateTime(String),
    /// A civil date, `YYYY-MM-DD`.
    Date(String),
    /// A time of day or a span, `[-]HH:MM:SS[.ffffff]`; may exceed 24 hours.
    Time(String),
    /// JSON as text.
    Json(String),
}

/// A value in an answer that this client can't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No kind is set: the server is newer than this client.
    #[error("the value is of a kind that this client does not know; use a newer client")]
    UnknownKind,
    /// A timestamp outside the years -9999 to 9999.
    #[error("the timestamp is out of range")]
    TimestampRange,
}

impl Value {
    /// A decimal, from its text in plain notation.
    pub fn decimal(text: impl Into<String>) -> Self {
        Self::Decimal(text.into())
    }

    /// A JSON document, from its text.
    pub fn json(text: impl Into<String>) -> Self {
        Self::Json(text.into())
    }

    /// A civil date and time, from `YYYY-MM-DDTHH:MM:SS[.ffffff]`.
    pub fn datetime(text: impl Into<String>) -> Self {
        Self::DateTime(text.into())
    }

    /// A civil date, from `YYYY-MM-DD`.
    pub fn date(text: impl Into<String>) -> Self {
        Self::Date(text.into())
    }

    /// A time, from `[-]HH:MM:SS[.ffffff]`.
    pub fn time(text: impl Into<String>) -> Self {
        Self::Time(text.into())
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The integer, if it is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int64(n) => Some(*n),
            Self::Uint64(n) => i64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The text of a string, decimal, date, time or JSON.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Decimal(text)
            | Self::Text(text)
            | Self::DateTime(text)
            | Self::Date(text)
            | Self::Time(text)
            | Self::Json(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes of what has no fixed size.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            other => other.as_str().map_or(0, str::len),
        }
    }

    pub(crate) fn to_proto(&self) -> v1::Value {
        let kind = match self {
            Self::Null => Kind::NullValue(v1::NullValue::Unspecified.into()),
            Self::Bool(b) => Kind::BoolValue(*b),
            Self::Int64(n) => Kind::Int64Value(*n),
            Self::Uint64(n) => Kind::Uint64Value(*n),
            Self::Double(x) => Kind::DoubleValue(*x),
            Self::Decimal(text) => Kind::DecimalValue(text.clone()),
            Self::Text(text) => Kind::StringValue(text.clone()),
            Self::Bytes(bytes) => Kind::BytesValue(bytes.clone()),
            Self::Timestamp(at) => Kind::TimestampValue(timestamp_to_proto(*at)),
            Self::DateTime(text) => Kind::DatetimeValue(text.clone()),
            Self::Date(text) => Kind::DateValue(text.clone()),
            Self::Time(text) => Kind::TimeValue(text.clone()),
            Self::Json(text) => Kind::JsonValue(text.clone()),
        };
        v1::Value { kind: Some(kind) }
    }

    pub(crate) fn from_proto(value: v1::Value) -> Result<Self, ValueError> {
        Ok(match value.kind.ok_or(ValueError::UnknownKind)? {
            Kind::NullValue(_) => Self::Null,
            Kind::BoolValue(b) => Self::Bool(b),
            Kind::Int64Value(n) => Self::Int64(n),
            Kind::Uint64Value(n) => Self::Uint64(n),
            Kind::DoubleValue(x) => Self::Double(x),
            Kind::DecimalValue(text) => Self::Decimal(text),
            Kind::StringValue(text) => Self::Text(text),
            Kind::BytesValue(bytes) => Self::Bytes(bytes),
            Kind::TimestampValue(at) => {
                Self::Timestamp(Timestamp::new(at.seconds, at.nanos).map_err(|_| ValueError::TimestampRange)?)
            }
            Kind::DatetimeValue(text) => Self::DateTime(text),
            Kind::DateValue(text) => Self::Date(text),
            Kind::TimeValue(text) => Self::Time(text),
            Kind::JsonValue(text) => Self::Json(text),
        })
    }
}

/// The API's form counts the nanoseconds forward from the second, also before 1970.
fn timestamp_to_proto(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        prost_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
    } else {
        prost_types::Timestamp { seconds, nanos }
    }
}

macro_rules! from {
    ($($type:ty => |$value:ident| $to:expr;)*) => {
        $(impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $to
            }
        })*
    };
}

from! {
    bool => |b| Self::Bool(b);
    i8 => |n| Self::Int64(n.into());
    i16 => |n| Self::Int64(n.into());
    i32 => |n| Self::Int64(n.into());
    i64 => |n| Self::Int64(n);
    u8 => |n| Self::Uint64(n.into());
    u16 => |n| Self::Uint64(n.into());
    u32 => |n| Self::Uint64(n.into());
    u64 => |n| Self::Uint64(n);
    f32 => |x| Self::Double(x.into());
    f64 => |x| Self::Double(x);
    &str => |text| Self::Text(text.to_owned());
    String => |text| Self::Text(text);
    &[u8] => |bytes| Self::Bytes(bytes.to_owned());
    Vec<u8> => |bytes| Self::Bytes(bytes);
    Timestamp => |at| Self::Timestamp(at);
    civil::DateTime => |at| Self::DateTime(at.to_string());
    civil::Date => |at| Self::Date(at.to_string());
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int64),
            any::<u64>().prop_map(Value::Uint64),
            (-1e300..1e300).prop_map(Value::Double),
            ".*".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
            (-377_705_023_201_000_000_i64..253_402_207_200_000_000)
                .prop_map(|micros| Value::Timestamp(Timestamp::from_microsecond(micros).unwrap())),
            "-?[0-9]{1,20}".prop_map(Value::Decimal),
        ]
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was_sent(value in any_value()) {
            prop_assert_eq!(Value::from_proto(value.to_proto()), Ok(value));
        }

        #[test]
        fn nanoseconds_are_never_negative_in_the_api(micros in -377_705_023_201_000_000_i64..253_402_207_200_000_000) {
            let sent = timestamp_to_proto(Timestamp::from_microsecond(micros).unwrap());
            prop_assert!((0..1_000_000_000).contains(&sent.nanos));
        }
    }

    #[test]
    fn a_value_of_a_later_api_is_not_taken_for_null() {
        assert_eq!(Value::from_proto(v1::Value { kind: None }), Err(ValueError::UnknownKind));
    }

    #[test]
    fn rust_values_become_the_kind_that_says_what_they_are() {
        assert_eq!(Value::from(7_i32), Value::Int64(7));
        assert_eq!(Value::from(7_u8), Value::Uint64(7));
        assert_eq!(Value::from(None::<&str>), Value::Null);
        assert_eq!(Value::from(civil::date(2026, 11, 21)), Value::date("2026-11-21"));
        assert_eq!(Value::from(civil::date(2026, 11, 21).at(5, 6, 7, 0)), Value::datetime("2026-11-21T05:06:07"));
    }
}
