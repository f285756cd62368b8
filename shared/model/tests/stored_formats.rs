//! The stored formats: golden bytes of every released layout, and that what is written reads back.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use jiff::{Timestamp, civil};
use model::{
    CodecError, ColumnName, Content, DatabaseName, DeadLetter, DeadLetterBody, DeadLetterCause, DeadLetterPurge,
    DeadLetterRecord, Epoch, Event, EventBody, Fence, Fingerprint, Image, Key, KeyBytes, MAX_KEY_BYTES, Mutation,
    Operation, Request, RequestDigest, RequestId, RequestNote, Row, Shard, TableName, TableRef, TimeOfDay, Topic,
    Value, Version,
};
use proptest::prelude::*;

fn every_value() -> Vec<(&'static str, Value)> {
    vec![
        ("a_null", Value::Null),
        ("b_bool", Value::Bool(true)),
        ("c_int", Value::Int64(-9_007_199_254_740_993)),
        ("d_uint", Value::Uint64(u64::MAX)),
        ("e_double", Value::Double(0.1)),
        ("f_decimal", Value::Decimal("-12345678901234567890.123456789".into())),
        ("g_text", Value::Text("कखग 👋".into())),
        ("h_bytes", Value::Bytes(Bytes::from_static(&[0, 255, 1]))),
        ("i_timestamp", Value::Timestamp("2026-11-21T10:20:30.123456Z".parse::<Timestamp>().unwrap())),
        ("j_datetime", Value::DateTime(civil::date(2026, 11, 21).at(10, 20, 30, 123_456_000))),
        ("k_date", Value::Date(civil::date(2026, 11, 21))),
        ("l_time", Value::Time(TimeOfDay { micros: -3_020_399_000_000 })),
        ("m_json", Value::Json("{\"b\": 1, \"a\": 12345678901234567890}".into())),
    ]
}

fn image() -> Image {
    let row: Row = every_value().into_iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value)).collect();
    Image {
        content: Content::Row(row),
        operation: Operation::Update,
        fingerprint: Fingerprint(0x0123_4567_89ab_cdef),
        request: Some(Request { id: RequestId::new("request-1").unwrap(), digest: RequestDigest::of(b"asked for") }),
        since: Version::new(1_795_231_081_800_300),
    }
}

fn key() -> Key {
    Key(vec![Value::Text("north".into()), Value::Int64(7)])
}

fn mutation(image: Image) -> Event {
    let table = TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() };
    let mutation = Mutation { table, key: key(), version: Version::new(1_795_231_081_800_301).unwrap(), image };
    Event { shard: Shard(17), epoch: Epoch(3), body: EventBody::Mutations(vec![mutation]) }
}

fn tombstone() -> Image {
    Image {
        content: Content::Tombstone,
        operation: Operation::Delete,
        fingerprint: Fingerprint(1),
        request: None,
        since: None,
    }
}

fn fence() -> Event {
    Event { shard: Shard(17), epoch: Epoch(4), body: EventBody::Fence(Fence { opener: "ingest-0".into() }) }
}

fn requests(key: Option<Key>) -> Event {
    let note = |id: &str, version| RequestNote {
        table: TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() },
        key: key.clone(),
        request: Request { id: RequestId::new(id).unwrap(), digest: RequestDigest::of(b"asked for") },
        version: Version::new(version).unwrap(),
    };
    let notes = vec![note("request-1", 1_795_231_081_800_301), note("request-2", 7)];
    Event { shard: Shard(17), epoch: Epoch(3), body: EventBody::Requests(notes) }
}

fn payments() -> TableRef {
    TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() }
}

fn letter(cause: DeadLetterCause, version: Option<Version>) -> DeadLetterRecord {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let letter = DeadLetter {
        topic: Topic::new("shock-absorber.main.payments").unwrap(),
        offset: 4_294_967_297,
        key: Key(vec![Value::Text("north".into()), Value::Int64(7)]).to_bytes(),
        payload: mutation(image()).encode(),
        version,
        cause,
        code: "22001/1406".into(),
        message: "a value is too long for its column".into(),
        attempts: 8,
        first_refused_at: at("2026-11-21T10:20:30.123456Z"),
        dead_lettered_at: at("2026-11-21T10:30:30.5Z"),
        replica: "drain-0".into(),
        is_cut: false,
    };
    DeadLetterRecord { table: payments(), shard: Shard(17), body: DeadLetterBody::Letter(letter) }
}

fn purge(version: Option<Version>) -> DeadLetterRecord {
    let purge = DeadLetterPurge {
        key: Key(vec![Value::Text("north".into()), Value::Int64(7)]).to_bytes(),
        version,
        offset: 4_294_967_297,
        purged_at: "2026-11-22T10:20:30.123456Z".parse().unwrap(),
    };
    DeadLetterRecord { table: payments(), shard: Shard(17), body: DeadLetterBody::Purge(purge) }
}

/// Compares with `fixtures/NAME.hex`. A new layout gets a new file; a file that is there never changes.
fn assert_golden(name: &str, bytes: &[u8]) {
    let path = format!("{}/fixtures/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    if std::env::var_os("WRITE_FIXTURES").is_some() && !std::path::Path::new(&path).exists() {
        std::fs::write(&path, format!("{hex}\n")).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap().trim(),
        hex,
        "{name} is laid out in another way than it was released"
    );
}

/// The bytes of `fixtures/NAME.hex`.
fn released(name: &str) -> Bytes {
    let hex = std::fs::read_to_string(format!("{}/fixtures/{name}.hex", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let digits = hex.trim().as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect::<Vec<u8>>().into()
}

#[test]
fn golden_bytes() {
    assert_golden("event-v1-mutation-digest", &mutation(image()).encode());
    assert_golden("event-v1-delete", &mutation(tombstone()).encode());
    assert_golden("event-v1-fence", &fence().encode());
    assert_golden("event-v1-requests-key", &requests(Some(key())).encode());
    assert_golden("image-v1-digest", &image().encode());
    assert_golden("image-v1-tombstone", &tombstone().encode());
    let version = Version::new(1_795_231_081_800_301);
    assert_golden("dead-letter-v1", &letter(DeadLetterCause::Permanent, version).encode());
    assert_golden("dead-letter-v1-purge", &purge(version).encode());
    let values = every_value().into_iter().map(|(_, value)| value).collect();
    assert_golden("key-v1", Key(values).to_bytes().as_bytes());
}

/// One event says one thing: what a reader of one kind would miss of the other must not be taken for done.
#[test]
fn an_event_of_two_kinds_is_refused() {
    // Messages of Protocol Buffers merge by being put one behind the other.
    let merged = |a: Event, b: Event| Bytes::from([a.encode(), b.encode()].concat());
    for (a, b) in [(fence(), requests(None)), (mutation(image()), requests(Some(key()))), (fence(), mutation(image()))]
    {
        assert!(matches!(Event::decode(merged(a, b)), Err(CodecError::Malformed { what: "event", .. })));
    }
}

/// Who does not know what it says must wait for who does, and not go on without it.
#[test]
fn an_event_of_a_kind_that_is_not_known_is_of_a_later_release() {
    // Layout, shard, epoch; and field 15, which nobody knows yet.
    let bare = [0x08, 1, 0x10, 3, 0x18, 2];
    for bytes in [bare.to_vec(), [&bare[..], &[0x7a, 1, b'x']].concat()] {
        let refused = Event::decode(Bytes::from(bytes));
        assert_eq!(refused, Err(CodecError::UnknownKind { what: "event" }));
    }
}

#[test]
fn a_note_without_a_request_is_refused() {
    let mut notes = requests(None);
    let EventBody::Requests(inside) = &mut notes.body else { panic!() };
    inside.truncate(1);
    let mut bytes = notes.encode().to_vec();
    let at = bytes.windows(9).position(|part| part == b"request-1").unwrap();
    // The id becomes a field that nobody knows.
    assert_eq!(bytes[at - 2], 0x1a);
    bytes[at - 2] = 0x7a;
    assert!(matches!(Event::decode(Bytes::from(bytes)), Err(CodecError::Malformed { what: "request", .. })));
}

/// A request id without a digest: nothing can be told from it, so it is as if there were none.
#[test]
fn what_was_stored_before_requests_had_a_digest_can_be_read() {
    let earlier = Image { request: None, ..image() };
    assert_eq!(Image::decode(released("image-v1")), Ok(earlier.clone()));
    assert_eq!(Event::decode(released("event-v1-mutation")), Ok(mutation(earlier)));
}

#[test]
fn a_note_of_before_it_named_its_record_can_be_read() {
    assert_eq!(Event::decode(released("event-v1-requests")), Ok(requests(None)));
}

#[test]
fn a_digest_of_another_length_is_refused() {
    let mut short = image().encode().to_vec();
    // The digest is the last field: tag (two bytes), length, 16 bytes.
    assert_eq!(short[short.len() - 17], 16);
    short.pop();
    let at = short.len() - 16;
    short[at] = 15;
    assert!(matches!(Image::decode(Bytes::from(short)), Err(CodecError::Malformed { what: "request digest", .. })));
}

#[test]
fn what_is_written_reads_back() {
    for event in [mutation(image()), mutation(tombstone()), fence(), requests(None), requests(Some(key()))] {
        assert_eq!(Event::decode(event.encode()), Ok(event));
    }
    assert_eq!(Image::decode(image().encode()), Ok(image()));
    let key = Key(every_value().into_iter().map(|(_, value)| value).collect());
    assert_eq!(key.to_bytes().decode(), Ok(key));
}

#[test]
fn every_dead_letter_reads_back_and_keeps_the_event_as_it_was() {
    for version in [None, Version::new(1_795_231_081_800_301)] {
        for cause in DeadLetterCause::ALL {
            let written = letter(cause, version);
            assert_eq!(DeadLetterRecord::decode(written.encode()), Ok(written));
        }
        assert_eq!(DeadLetterRecord::decode(purge(version).encode()), Ok(purge(version)));
    }
    let mut undecodable = letter(DeadLetterCause::Undecodable, None);
    let DeadLetterBody::Letter(inside) = &mut undecodable.body else { panic!() };
    inside.payload = Bytes::from_static(&[0xff; 3]);
    inside.key = KeyBytes::from_stored(Bytes::new());
    assert_eq!(DeadLetterRecord::decode(undecodable.encode()), Ok(undecodable));
}

/// Or a record that the log has taken could not be dead-lettered.
#[test]
fn a_letter_is_larger_than_its_event_by_no_more_than_is_kept_free_for_it() {
    let widest = |character: char, count: usize| character.to_string().repeat(count);
    let mut largest = letter(DeadLetterCause::Dependent, Some(Version::MAX));
    largest.table.database = DatabaseName::new(widest('d', 63)).unwrap();
    largest.table.table = TableName::new(widest('\u{1f44b}', 64)).unwrap();
    largest.shard = Shard(u16::MAX);
    let DeadLetterBody::Letter(inside) = &mut largest.body else { panic!() };
    inside.topic = Topic::new(widest('t', 249)).unwrap();
    inside.offset = i64::MAX;
    inside.key = KeyBytes::from_stored(vec![1; MAX_KEY_BYTES].into());
    inside.attempts = u32::MAX;
    for text in [&mut inside.code, &mut inside.message, &mut inside.replica] {
        // Three bytes each, so that the bound falls within a character.
        *text = DeadLetter::text(&widest('\u{0915}', 5000));
        assert_eq!(text.len(), DeadLetter::MAX_TEXT_BYTES / 3 * 3);
    }
    let payload = inside.payload.len();
    assert!(largest.encode().len() - payload <= DeadLetter::MAX_OVERHEAD_BYTES);
    assert_eq!(DeadLetter::text("short"), "short");
}

#[test]
fn a_letter_that_is_cut_says_so_and_never_decodes_as_another_event() {
    for cause in DeadLetterCause::ALL {
        let version = Version::new(7).filter(|_| cause != DeadLetterCause::Undecodable);
        let mut large = letter(cause, version);
        let DeadLetterBody::Letter(inside) = &mut large.body else { panic!() };
        inside.payload = vec![0xff; 1 << 20].into();
        if version.is_none() {
            inside.key = KeyBytes::from_stored(vec![0xff; 1 << 20].into());
        }
        inside.message = "no ".repeat(DeadLetter::MAX_TEXT_BYTES);
        let whole = inside.clone();
        let cut = whole.clone().cut();
        assert!(cut.is_cut && cut.message.starts_with("(cut: ") && cut.message.len() <= DeadLetter::MAX_TEXT_BYTES);
        assert_eq!((&cut.topic, cut.offset, cut.version), (&whole.topic, whole.offset, whole.version));
        assert_eq!(version.is_some(), cut.key == whole.key, "where a version names it, so does its key");
        assert_eq!(cut.payload.is_empty(), cause != DeadLetterCause::Undecodable);
        let cut = DeadLetterRecord { body: DeadLetterBody::Letter(cut), ..large };
        assert!(cut.encode().len() <= DeadLetter::MAX_OVERHEAD_BYTES);
        assert_eq!(DeadLetterRecord::decode(cut.encode()), Ok(cut));
    }
}

/// Records wait for it: it is listed, replayed, and parked again after a loss of the hot store.
#[test]
fn a_dead_letter_whose_cause_only_a_later_release_knows_is_read() {
    let later = letter(DeadLetterCause::Later(99), Version::new(7));
    assert_eq!(DeadLetterRecord::decode(later.encode()), Ok(later));
    assert!(DeadLetterCause::ALL.iter().all(|known| known.name() != DeadLetterCause::Later(99).name()));
}

/// What an operator gave up must not be taken for a letter, nor the other way round.
#[test]
fn a_dead_letter_that_says_two_things_none_or_something_later_is_refused() {
    let (letter, purge) = (letter(DeadLetterCause::Since, None), purge(None));
    let merged = Bytes::from([letter.encode(), purge.encode()].concat());
    let neither = Bytes::from_static(&[0x08, 0x01, 0x12, 1, b'a', 0x1a, 1, b'b']);
    for bytes in [merged, neither, Bytes::from_static(b"junk"), Bytes::new()] {
        assert!(matches!(DeadLetterRecord::decode(bytes), Err(CodecError::Malformed { what: "dead letter", .. })));
    }
    let mut later = letter.encode().to_vec();
    assert_eq!(later[..2], [0x08, 0x01]);
    later[1] = 2;
    let refused = DeadLetterRecord::decode(Bytes::from(later));
    assert_eq!(refused, Err(CodecError::TooNew { what: "dead letter", found: 2 }));
}

#[test]
fn the_topic_of_the_dead_letters_is_named_after_the_events() {
    let topic = Topic::new("shock-absorber.main.payments").unwrap();
    let dead_letters = topic.dead_letters().unwrap();
    assert_eq!(dead_letters.as_str(), "shock-absorber.main.payments.dlq");
    assert!(dead_letters.is_dead_letters() && !topic.is_dead_letters());
    assert!(Topic::new("t".repeat(246)).unwrap().dead_letters().is_err(), "longer than Kafka takes");
}

#[test]
fn what_is_not_ours_or_too_new_is_refused() {
    for junk in [&b""[..], b"junk", &[0xff; 40]] {
        assert!(matches!(Event::decode(Bytes::copy_from_slice(junk)), Err(CodecError::Malformed { .. })));
    }
    // Field 1, the layout, is the first of an image: 2 instead of 1.
    let mut later = image().encode().to_vec();
    assert_eq!(later[..2], [0x08, 0x01]);
    later[1] = 2;
    assert_eq!(Image::decode(Bytes::from(later)), Err(CodecError::TooNew { what: "image", found: 2 }));
}

fn key_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int64),
        any::<u64>().prop_map(Value::Uint64),
        ".{0,6}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..6).prop_map(|b| Value::Bytes(Bytes::from(b))),
    ]
}

proptest! {
    /// Two keys are the same key exactly if their bytes are equal.
    #[test]
    fn keys_are_as_different_as_their_bytes(a in prop::collection::vec(key_value(), 1..4), b in prop::collection::vec(key_value(), 1..4)) {
        prop_assert_eq!(Key(a.clone()).to_bytes() == Key(b.clone()).to_bytes(), a == b);
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = (Event::decode(bytes.clone()), Image::decode(bytes.clone()), DeadLetterRecord::decode(bytes.clone()));
        let _ = KeyBytes::from_stored(bytes).decode();
    }
}
