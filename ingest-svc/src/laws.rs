//! What must hold of any bytes whatsoever that a client sends; see the laws of `model`. A law panics where it is broken.

use model::{ColumnName, Content, Fingerprint, Image, Operation, Row};
use prost::Message as _;
use proto::v1;

use crate::{
    Etag, Token,
    grpc::value::{from_proto, to_proto},
};

/// A value that is taken is answered as it was sent, and so it is after it was stored.
pub fn value(input: &[u8]) {
    let Ok(sent) = v1::Value::decode(input) else { return };
    let (Ok(value), Ok(name)) = (from_proto(sent.clone()), ColumnName::new("c")) else { return };
    let answered = to_proto(value.clone());
    let row: Row = [(name, value)].into_iter().collect();
    let image = Image {
        content: Content::Row(row),
        operation: Operation::Put,
        fingerprint: Fingerprint(0),
        request: None,
        since: None,
    };
    let stored = Image::decode(image.encode()).map(|image| image.content);
    let Ok(Content::Row(row)) = stored else { panic!("{sent:?} was stored as {stored:?}") };
    let stored: Vec<v1::Value> = row.into_iter().map(|(_, value)| to_proto(value)).collect();
    // By their bytes, for NaN is not equal to itself.
    let bytes = |value: &v1::Value| value.encode_to_vec();
    assert_eq!(stored.iter().map(bytes).collect::<Vec<_>>(), [bytes(&answered)], "{sent:?}");
    let again = from_proto(answered.clone()).map(|value| bytes(&to_proto(value)));
    assert_eq!(again, Ok(bytes(&answered)), "{sent:?} was answered as {answered:?}");
    assert!(bytes(&as_answered(sent.clone())) == bytes(&answered), "{sent:?} was answered as {answered:?}");
}

/// A fraction of a second is answered with the digits that it needs; all else as it was sent.
fn as_answered(sent: v1::Value) -> v1::Value {
    use v1::value::Kind::{DatetimeValue, NullValue, TimeValue};
    let fraction = |text: String, digits: fn(&str) -> String| match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        Some((whole, fraction)) => format!("{whole}.{}", digits(fraction)),
        None => text,
    };
    let kind = sent.kind.map(|kind| match kind {
        NullValue(_) => NullValue(v1::NullValue::Unspecified.into()),
        DatetimeValue(text) => DatetimeValue(fraction(text, |digits| digits.trim_end_matches('0').to_owned())),
        TimeValue(text) => {
            let text = fraction(text, |digits| format!("{digits:0<6}"));
            TimeValue(with_two_digits(&text))
        }
        kind => kind,
    });
    v1::Value { kind }
}

/// A time whose parts have two digits each, and more only where they are needed; a zero has no sign.
fn with_two_digits(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, String::new()), |(w, f)| (w, format!(".{f}")));
    let parts: Vec<String> = whole.split(':').map(|part| format!("{:0>2}", part.trim_start_matches('0'))).collect();
    let is_zero = rest.bytes().all(|byte| !(b'1'..=b'9').contains(&byte));
    format!("{}{}{fraction}", if is_zero { "" } else { sign }, parts.join(":"))
}

/// A token or an etag that is taken is the one that would be printed.
pub fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(token.to_string(), text);
    }
    if let Ok(etag) = text.parse::<Etag>() {
        assert_eq!(etag.to_string(), text);
    }
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::v1::value::Kind;

    use super::*;

    #[test]
    fn they_hold_of_all_that_is_kept() {
        replay::replay("..", "value", value);
        replay::replay("..", "token", token);
    }

    proptest! {
        #[test]
        fn they_hold_of_whatever_chance_makes(input in prop::collection::vec(any::<u8>(), 0..100), text: String) {
            value(&input);
            token(&input);
            token(text.as_bytes());
        }

        #[test]
        fn a_value_is_answered_as_it_was_sent(
            time in "-?[0-9]{1,7}:[0-9]{1,2}:[0-9]{1,2}(\\.[0-9]{0,7})?",
            at in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,7})?",
            seconds: i64, nanos: i32,
        ) {
            let instant = prost_types::Timestamp { seconds: seconds % 300_000_000_000, nanos: nanos / 1000 * 1000 };
            for kind in [Kind::TimeValue(time), Kind::DatetimeValue(at), Kind::TimestampValue(instant)] {
                value(&v1::Value { kind: Some(kind) }.encode_to_vec());
            }
        }
    }
}
