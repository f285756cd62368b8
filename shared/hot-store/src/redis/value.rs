//! The layout of a record's value: one string, of which the scripts read no more than the head.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: `I` row, `T` tombstone, `P` and `Q` the same of a parked record, `L` lease, `A` remembered absence |
//! | 16 | version, in decimal digits |
//! | 10 | epoch in which it was stored |
//! | 16 | `since` ([`model::Image::since`]); 0: none. It counts while the record is dirty or parked |
//! | rest | of rows and tombstones the encoded image (without `since`), of `L` the token |
//!
//! That a record is dirty is not said here but by its place in the dirty set, so that a mark needs no rewrite. That it is
//! parked is said here, so that no read and no write has to ask for it.

use bytes::Bytes;
use model::{CodecError, Content, Epoch, Image, Version};

use crate::{Slot, Stage};

const VERSION_AT: usize = 1;
const EPOCH_AT: usize = 17;
const SINCE_AT: usize = 27;
pub(super) const PAYLOAD_AT: usize = 43;

/// What stands before the payload; the scripts have their own (`head_of`).
pub(super) fn head(kind: &str, version: Version, epoch: Epoch, since: Version) -> String {
    format!("{kind}{:016}{:010}{:016}", version.get(), epoch.0, since.get())
}

/// What stands before the digest in a request's value; the scripts have their own (`request_value`).
pub(super) fn request_head(version: Version, epoch: Epoch) -> String {
    format!("{:016}{:010}", version.get(), epoch.0)
}

/// The kind of an image.
pub(super) fn kind_of(image: &Image) -> &'static str {
    match image.content {
        Content::Row(_) => "I",
        Content::Tombstone => "T",
    }
}

/// The kind of an image that is parked.
pub(super) fn parked_kind_of(image: &Image) -> &'static str {
    match image.content {
        Content::Row(_) => "P",
        Content::Tombstone => "Q",
    }
}

/// What stands behind the head.
pub(super) fn payload_of(mut image: Image) -> Bytes {
    image.since = None;
    image.encode()
}

/// Which values count: what was stored before is as if it were not there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    /// The shard's epoch: leases and absences of an earlier one are void.
    pub(super) epoch: Epoch,
    /// Images of an earlier epoch than this are void.
    pub(super) lowest: Epoch,
}

/// What a value holds.
pub(super) fn slot_of(value: Option<Bytes>, dirty: bool, valid: Validity) -> Result<Slot, String> {
    let Some(value) = value else { return Ok(Slot::Empty) };
    let digits = |from: usize, to: usize| -> Result<u64, String> {
        let field = value.get(from..to).and_then(|field| std::str::from_utf8(field).ok());
        field.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("bytes {from} to {to} are no number"))
    };
    let version = |from: usize, to: usize| -> Result<Version, String> {
        Version::new(digits(from, to)?).ok_or_else(|| "a version exceeds 53 bits".to_owned())
    };
    let epoch = Epoch(u32::try_from(digits(EPOCH_AT, SINCE_AT)?).map_err(|_| "the epoch exceeds 32 bits".to_owned())?);
    match value.first() {
        Some(b'I' | b'T' | b'P' | b'Q') if epoch < valid.lowest => Ok(Slot::Empty),
        Some(b'L' | b'A') if epoch < valid.epoch => Ok(Slot::Empty),
        Some(b'L') => Ok(Slot::Leased),
        Some(b'A') => Ok(Slot::Absent),
        Some(kind @ (b'I' | b'T' | b'P' | b'Q')) => {
            let stage = match kind {
                b'P' | b'Q' => Stage::Parked,
                _ if dirty => Stage::Dirty,
                _ => Stage::Clean,
            };
            let since = version(SINCE_AT, PAYLOAD_AT)?;
            let mut image = Image::decode(value.slice(PAYLOAD_AT..)).map_err(|e| e.to_string())?;
            image.since = (stage != Stage::Clean && since > Version::ZERO).then_some(since);
            Ok(Slot::Image { version: version(VERSION_AT, EPOCH_AT)?, image, stage })
        }
        _ => Err("the value is of no known kind: was it written by a later release?".to_owned()),
    }
}

/// Whether a value holds an image of a later release: it can't be read here, and elsewhere it can.
pub(super) fn is_too_new(value: &Bytes) -> bool {
    let image = value.get(PAYLOAD_AT..).map(|_| Image::decode(value.slice(PAYLOAD_AT..)));
    matches!(image, Some(Err(CodecError::TooNew { .. })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{ColumnName, Fingerprint, Operation, Request, RequestDigest, RequestId, Row, Value};
    use proptest::prelude::*;

    use super::*;

    const VALID: Validity = Validity { epoch: Epoch(3), lowest: Epoch(2) };

    fn image() -> Image {
        let row: Row = [
            (ColumnName::new("id").unwrap(), Value::Int64(-7)),
            (ColumnName::new("amount").unwrap(), Value::Decimal("12.50".to_owned())),
        ]
        .into_iter()
        .collect();
        Image {
            content: Content::Row(row),
            operation: Operation::Create,
            fingerprint: Fingerprint(0x0123_4567_89ab_cdef),
            request: Some(Request {
                id: RequestId::new("request-1").unwrap(),
                digest: RequestDigest::of(b"asked for"),
            }),
            since: Some(Version::new(8_000_000_000_000_001).unwrap()),
        }
    }

    /// The fixture is what the released scripts left in a real Redis (`tests/redis/main.rs` compares them).
    #[test]
    fn the_released_layout_can_be_read() {
        let stored = Bytes::from_static(include_bytes!("../../fixtures/redis-value-v1-image-digest.bin"));
        let version = Version::new(8_000_000_000_000_001).unwrap();
        assert_eq!(
            slot_of(Some(stored.clone()), true, VALID),
            Ok(Slot::Image { version, image: image(), stage: Stage::Dirty })
        );
        let clean = Image { since: None, ..image() };
        assert_eq!(
            slot_of(Some(stored.clone()), false, VALID),
            Ok(Slot::Image { version, image: clean.clone(), stage: Stage::Clean })
        );
        assert_eq!(stored.slice(PAYLOAD_AT..), payload_of(clean));

        // From before requests had a digest.
        let earlier = Bytes::from_static(include_bytes!("../../fixtures/redis-value-v1-image.bin"));
        let image = Image { request: None, ..image() };
        assert_eq!(slot_of(Some(earlier), true, VALID), Ok(Slot::Image { version, image, stage: Stage::Dirty }));
    }

    /// What `park.lua` makes of the fixture: the first byte becomes another.
    #[test]
    fn a_parked_image_is_read_with_its_since_whatever_the_dirty_set_says() {
        let mut stored = include_bytes!("../../fixtures/redis-value-v1-image-digest.bin").to_vec();
        stored[0] = b'P';
        let version = Version::new(8_000_000_000_000_001).unwrap();
        for dirty in [false, true] {
            let slot = slot_of(Some(Bytes::from(stored.clone())), dirty, VALID);
            assert_eq!(slot, Ok(Slot::Image { version, image: image(), stage: Stage::Parked }));
        }
        let later = Validity { lowest: Epoch(9), ..VALID };
        assert_eq!(slot_of(Some(Bytes::from(stored)), false, later), Ok(Slot::Empty));
    }

    #[test]
    fn what_an_opening_voided_counts_as_nothing() {
        let value = |kind: char, epoch: u32| {
            let mut value = format!("{kind}{:016}{epoch:010}{:016}", 5, 0).into_bytes();
            value.extend_from_slice(&payload_of(image()));
            Some(Bytes::from(value))
        };
        assert!(matches!(slot_of(value('I', 2), false, VALID), Ok(Slot::Image { .. })));
        assert_eq!(slot_of(value('I', 1), true, VALID), Ok(Slot::Empty));
        assert_eq!(slot_of(value('L', 3), false, VALID), Ok(Slot::Leased));
        assert_eq!(slot_of(value('L', 2), false, VALID), Ok(Slot::Empty));
        assert_eq!(slot_of(value('A', 3), false, VALID), Ok(Slot::Absent));
        assert_eq!(slot_of(value('A', 2), false, VALID), Ok(Slot::Empty));
        assert!(slot_of(value('Z', 3), false, VALID).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), kind in "[ITPQLA]?[0-9]{0,50}") {
            let _ = slot_of(Some(Bytes::from(bytes)), true, VALID);
            let _ = slot_of(Some(Bytes::from(kind.into_bytes())), true, VALID);
        }
    }
}
