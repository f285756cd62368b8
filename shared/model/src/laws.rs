//! What must hold of any bytes whatsoever. The tests below run it on chance's bytes and on those that `fuzz/corpus` keeps,
//! the fuzzer of `fuzz/` on what it makes up. A law panics where it is broken.

use bytes::Bytes;

use crate::{
    Collation, Column, ColumnDefault, ColumnName, ColumnType, Content, DeadLetterBody, DeadLetterRecord, Equality,
    Event, EventBody, Fingerprint, Image, Key, KeyBytes, Operation, Repertoire, Row, Value, codec, json_document,
    jsonb,
};

/// What decodes as an event is encoded as something that decodes as the same one.
pub fn event(input: &[u8]) {
    let Ok(event) = Event::decode(Bytes::copy_from_slice(input)) else { return };
    let kept = event.encode();
    // By their bytes, for NaN is not equal to itself.
    assert_eq!(Event::decode(kept.clone()).map(|event| event.encode()), Ok(kept));
    if let EventBody::Mutations(mutations) = event.body {
        for mutation in mutations {
            key_of(&mutation.key);
            image_of(&mutation.image);
        }
    }
}

/// The same of what the hot store keeps of a record.
pub fn image(input: &[u8]) {
    if let Ok(image) = Image::decode(Bytes::copy_from_slice(input)) {
        image_of(&image);
    }
}

fn image_of(image: &Image) {
    let kept = image.encode();
    assert_eq!(Image::decode(kept.clone()).map(|image| image.encode()), Ok(kept));
}

/// A key has one form in bytes: what is read from it gives it again, and no other key has it.
pub fn key(input: &[u8]) {
    if let Ok(key) = KeyBytes::from_stored(Bytes::copy_from_slice(input)).decode() {
        key_of(&key);
    }
}

fn key_of(key: &Key) {
    let bytes = key.to_bytes();
    let again = bytes.decode().map(|again| (again.0.len(), again.to_bytes()));
    assert_eq!(again, Ok((key.0.len(), bytes.clone())));
    // Where one value ends and the next one begins is told by the bytes, wherever the key is cut.
    for at in [1.min(key.0.len()), key.0.len() / 2] {
        let (front, back) = key.0.split_at(at);
        let [front, back] = [front, back].map(|part| Key(part.to_vec()).to_bytes());
        assert_eq!([&front.as_bytes()[..], back.as_bytes()].concat(), bytes.as_bytes()[..]);
    }
    let all: Vec<usize> = (0..key.0.len()).collect();
    assert_eq!(key.group_bytes(&all), bytes.as_bytes()[..]);
}

/// What decodes as a dead letter is encoded as something that decodes as the same one, and so is what is left when it is
/// cut.
pub fn dead_letter(input: &[u8]) {
    let Ok(record) = DeadLetterRecord::decode(Bytes::copy_from_slice(input)) else { return };
    let stays = |record: &DeadLetterRecord| {
        let kept = record.encode();
        assert_eq!(DeadLetterRecord::decode(kept.clone()).map(|record| record.encode()), Ok(kept));
    };
    stays(&record);
    if let DeadLetterBody::Letter(letter) = &record.body {
        let cut = letter.clone().cut();
        assert!(cut.is_cut && cut.payload.len() <= letter.payload.len());
        assert_eq!((&cut.topic, cut.offset, cut.version), (&letter.topic, letter.offset, letter.version));
        stays(&DeadLetterRecord { body: DeadLetterBody::Letter(cut), ..record });
    }
}

/// A document in the form of a database stays as it is there, is JSON, and says the same.
pub fn json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for canonical in [jsonb::canonical, json_document::canonical] {
        let Ok(kept) = canonical(text) else { continue };
        assert_eq!(canonical(&kept).as_deref(), Ok(kept.as_str()), "{text}");
        // Which reads no deeper, and no number beyond a double.
        if let (Ok(given), Ok(kept)) = (serde_json::from_str(text), serde_json::from_str(&kept)) {
            assert!(says_the_same(&given, &kept), "{text} became {kept}");
        } else if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() < 100 {
            serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }
}

/// Numbers as doubles, but for the last bits, which this parser may read wrongly.
fn says_the_same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-14 + f64::MIN_POSITIVE,
            _ => false,
        },
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| says_the_same(a, b)),
        (Object(a), Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| says_the_same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// What a column accepts it accepts again as it keeps it, unchanged; and stored it is read as it was.
///
/// The first byte says which column, the rest is a value as it is stored.
pub fn accept(input: &[u8]) {
    let Some((which, stored)) = input.split_first() else { return };
    let Ok(name) = ColumnName::new("c") else { return };
    let Ok(value) = codec::decode_value(stored) else { return };
    let types = types();
    let ty = types[usize::from(*which) % types.len()].clone();
    let column = Column { name: name.clone(), ty, nullable: true, default: ColumnDefault::None, on_update_now: false };
    let Ok(kept) = column.accept(value) else { return };
    assert!(kept.is_null() || kept.kind() == column.ty.kind(), "{kept:?} in {:?}", column.ty);
    let same = |a: &Value, b: &Value| codec::encode_key([a]) == codec::encode_key([b]);
    let again = column.accept(kept.clone()).unwrap_or_else(|problem| panic!("{kept:?} in {:?}: {problem}", column.ty));
    assert!(same(&again, &kept), "{kept:?} became {again:?} in {:?}", column.ty);
    // One text stands in keys for all that are equal, and for itself.
    if let Some(form) = column.ty.key_form(&kept) {
        assert!(column.ty.key_form(&form).is_some_and(|again| same(&again, &form)), "{form:?} in {:?}", column.ty);
    }
    let row: Row = [(name, kept.clone())].into_iter().collect();
    let image = Image {
        content: Content::Row(row),
        operation: Operation::Put,
        fingerprint: Fingerprint(0),
        request: None,
        since: None,
    };
    let stored = Image::decode(image.encode()).map(|image| image.content);
    let Ok(Content::Row(row)) = stored else { panic!("{kept:?} in {:?} was stored as {stored:?}", column.ty) };
    assert!(row.get("c").is_some_and(|stored| same(stored, &kept)), "{kept:?} was stored as {row:?}");
}

/// One of each, with bounds that a short input can meet and miss.
fn types() -> Vec<ColumnType> {
    vec![
        ColumnType::Bool,
        ColumnType::Int { bits: 8 },
        ColumnType::Int { bits: 64 },
        ColumnType::Uint { bits: 24 },
        ColumnType::Uint { bits: 64 },
        ColumnType::Double,
        ColumnType::Real,
        ColumnType::Decimal { precision: 5, scale: 2 },
        ColumnType::Decimal { precision: 65, scale: 30 },
        ColumnType::Numeric,
        ColumnType::Text { max_chars: Some(3), max_bytes: None },
        ColumnType::Text { max_chars: None, max_bytes: Some(5) },
        ColumnType::Characters { max_chars: Some(3) },
        ColumnType::Padded { chars: 4 },
        ColumnType::Bytes { max_bytes: Some(4) },
        ColumnType::Timestamp { fraction: 3 },
        ColumnType::Timestamp { fraction: 6 },
        ColumnType::DateTime { fraction: 0 },
        ColumnType::DateTime { fraction: 6 },
        ColumnType::Date,
        ColumnType::Time { fraction: 2 },
        ColumnType::TimeOfDay { fraction: 6 },
        ColumnType::Json,
        ColumnType::Jsonb,
        ColumnType::Uuid,
        ColumnType::Enum { labels: ["a", "", "b,c"].map(str::to_owned).to_vec() },
        ColumnType::Inet,
        ColumnType::Inet4,
        ColumnType::Inet6,
        ColumnType::JsonDocument,
        ColumnType::JsonText { max_depth: 3 },
        text(Repertoire::Bmp, Equality::IgnoringCase, true, false),
        text(Repertoire::Latin1, Equality::ExactInAscii, false, true),
        text(Repertoire::Ascii, Equality::Exact, true, true),
        text(Repertoire::Unicode, Equality::Unknown, false, false),
        ColumnType::PaddedBytes { bytes: 4 },
        ColumnType::Set { labels: ["a", "b", "B c"].map(str::to_owned).to_vec() },
        ColumnType::Year,
        ColumnType::EpochTimestamp { fraction: 3, last_second: i64::from(i32::MAX) },
        ColumnType::NonNegative(Box::new(ColumnType::Decimal { precision: 5, scale: 2 })),
        ColumnType::NonNegative(Box::new(ColumnType::SignlessZero(Box::new(ColumnType::Real)))),
        ColumnType::SignlessZero(Box::new(ColumnType::Double)),
        text(Repertoire::WithoutNul, Equality::Unknown, false, false),
        ColumnType::Cidr,
        array(ColumnType::Int { bits: 16 }),
        array(ColumnType::Real),
        array(ColumnType::Decimal { precision: 5, scale: 2 }),
        array(ColumnType::Padded { chars: 2 }),
        array(ColumnType::Bytes { max_bytes: None }),
        array(ColumnType::Timestamp { fraction: 3 }),
        array(ColumnType::TimeOfDay { fraction: 6 }),
        array(ColumnType::Inet),
    ]
}

fn array(element: ColumnType) -> ColumnType {
    ColumnType::Array { element: Box::new(element), name: "t".to_owned() }
}

fn text(repertoire: Repertoire, equality: Equality, pads: bool, is_trimmed: bool) -> ColumnType {
    let collation = Collation { equality, pads };
    ColumnType::Collated { repertoire, collation, max_chars: Some(4), max_bytes: Some(8), is_trimmed }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Law = fn(&[u8]);

    const LAWS: [(&str, Law); 6] = [
        ("event", event),
        ("image", image),
        ("key", key),
        ("dead_letter", dead_letter),
        ("json", json),
        ("accept", accept),
    ];

    #[test]
    fn they_hold_of_all_that_is_kept() {
        for (target, law) in LAWS {
            super::replay::replay("../..", target, law);
        }
    }

    proptest! {
        #[test]
        fn they_hold_of_whatever_chance_makes(input in prop::collection::vec(any::<u8>(), 0..100)) {
            for (_, law) in LAWS {
                law(&input);
            }
        }

        #[test]
        fn they_hold_of_values(which: u8, text in "\\PC{0,20}", number: i64) {
            let micros = number % 5_000_000_000_000;
            let double = f64::from_bits(number.cast_unsigned());
            for value in [
                Value::Text(text.clone()),
                Value::Decimal(text.clone()),
                Value::Decimal(format!("{}.{}", number / 1000, number.unsigned_abs() % 1000)),
                Value::Json(text.clone()),
                Value::Bytes(Bytes::from(text)),
                Value::Int64(number),
                Value::Int64(number % 1000),
                Value::Uint64(number.cast_unsigned()),
                Value::Double(double),
                Value::Time(crate::TimeOfDay { micros }),
            ] {
                let stored = codec::encode_value(&value);
                accept(&[&[which][..], &stored].concat());
                key_of(&Key(vec![value.clone(), Value::Null, value]));
            }
        }

        #[test]
        fn they_hold_of_documents(text in r#"[\[\]{}",:0-9eE.+\-a\\un tfrls]{0,40}"#) {
            json(text.as_bytes());
        }
    }
}
