//! Where a watch is, as text: opaque to clients, and the same for every replica.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{DatabaseName, Epoch, TableName, TableRef, Topic};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64;

/// The layout that this release writes, and the only one that it reads.
const LAYOUT: u8 = 1;

/// Where a watch is in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: u16,
    /// The offset of the next record.
    pub(super) offset: i64,
    /// The epoch in force just before it.
    pub(super) epoch: Epoch,
}

/// A record that the watch has seen, by which the log is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) partition: u16,
    pub(super) offset: i64,
    pub(super) digest: u64,
}

/// Where a watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchToken {
    pub(super) table: TableRef,
    pub(super) topic: Topic,
    /// The number of shards, and so of partitions.
    pub(super) shards: u16,
    /// By partition, in their order.
    pub(super) places: Vec<Place>,
    pub(super) witness: Option<Witness>,
}

/// Text that is no token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token that a watch has told")]
pub struct InvalidWatchToken;

#[derive(Clone, PartialEq, prost::Message)]
struct StoredToken {
    #[prost(string, tag = "1")]
    database: String,
    #[prost(string, tag = "2")]
    table: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(uint32, tag = "4")]
    shards: u32,
    /// Empty: all, in their order.
    #[prost(uint32, repeated, tag = "5")]
    partitions: Vec<u32>,
    #[prost(int64, repeated, tag = "6")]
    offsets: Vec<i64>,
    #[prost(uint32, repeated, tag = "7")]
    epochs: Vec<u32>,
    #[prost(message, optional, tag = "8")]
    witness: Option<StoredWitness>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredWitness {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(int64, tag = "2")]
    offset: i64,
    #[prost(fixed64, tag = "3")]
    digest: u64,
}

impl fmt::Display for WatchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = &self.places;
        let is_all = places.len() == usize::from(self.shards);
        let partitions = if is_all { Vec::new() } else { places.iter().map(|place| place.partition.into()).collect() };
        let witness =
            |Witness { partition, offset, digest }| StoredWitness { partition: u32::from(partition), offset, digest };
        let stored = StoredToken {
            database: self.table.database.as_str().to_owned(),
            table: self.table.table.as_str().to_owned(),
            topic: self.topic.as_str().to_owned(),
            shards: self.shards.into(),
            partitions,
            offsets: places.iter().map(|place| place.offset).collect(),
            epochs: places.iter().map(|place| place.epoch.0).collect(),
            witness: self.witness.map(witness),
        };
        let body = stored.encode_to_vec();
        let mut bytes = Vec::with_capacity(body.len() + 9);
        bytes.push(LAYOUT);
        bytes.extend(xxh3_64(&body).to_le_bytes());
        bytes.extend(body);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for WatchToken {
    type Err = InvalidWatchToken;

    fn from_str(text: &str) -> Result<Self, InvalidWatchToken> {
        Self::parse(text).ok_or(InvalidWatchToken)
    }
}

impl WatchToken {
    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (layout, rest) = bytes.split_first()?;
        let (digest, body) = rest.split_first_chunk()?;
        if *layout != LAYOUT || *digest != xxh3_64(body).to_le_bytes() {
            return None;
        }
        let stored = StoredToken::decode(body).ok()?;
        let shards = u16::try_from(stored.shards).ok()?;
        let partitions: Vec<u16> = if stored.partitions.is_empty() {
            (0..shards).collect()
        } else {
            stored.partitions.into_iter().map(|partition| u16::try_from(partition).ok()).collect::<Option<_>>()?
        };
        let is_in_order = partitions.is_sorted_by(|a, b| a < b) && partitions.last().is_some_and(|last| *last < shards);
        if !is_in_order || stored.offsets.len() != partitions.len() || stored.epochs.len() != partitions.len() {
            return None;
        }
        let place = |((partition, offset), epoch)| Place { partition, offset, epoch: Epoch(epoch) };
        let places: Vec<_> = partitions.into_iter().zip(stored.offsets).zip(stored.epochs).map(place).collect();
        if places.iter().any(|place| place.offset < 0) {
            return None;
        }
        let witness = |StoredWitness { partition, offset, digest }| {
            let partition = u16::try_from(partition).ok().filter(|partition| *partition < shards)?;
            (offset >= 0).then_some(Witness { partition, offset, digest })
        };
        let witness = match stored.witness {
            Some(stored) => Some(witness(stored)?),
            None => None,
        };
        let table =
            TableRef { database: DatabaseName::new(stored.database).ok()?, table: TableName::new(stored.table).ok()? };
        Some(Self { table, topic: Topic::new(stored.topic).ok()?, shards, places, witness })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn token(shards: u16, places: Vec<Place>, witness: Option<Witness>) -> WatchToken {
        WatchToken {
            table: TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("t-ü").unwrap() },
            topic: Topic::new("shock-absorber.t").unwrap(),
            shards,
            places,
            witness,
        }
    }

    fn place(partition: u16, offset: i64, epoch: u32) -> Place {
        Place { partition, offset, epoch: Epoch(epoch) }
    }

    proptest! {
        #[test]
        fn a_token_reads_back_as_it_was_printed_and_not_if_it_was_tampered_with(
            offsets in prop::collection::btree_map(0..200_u16, (0..i64::MAX, any::<u32>()), 1..200),
            is_all: bool,
            witness in prop::option::of((0..200_u16, 0..i64::MAX, any::<u64>())),
            at: prop::sample::Index,
        ) {
            let places: Vec<_> = offsets.into_iter().map(|(n, (offset, epoch))| place(n, offset, epoch)).collect();
            let (shards, places) = if is_all {
                let all = (0..).zip(&places).map(|(n, of)| Place { partition: n, ..*of }).collect();
                (places.len() as u16, all)
            } else {
                (201, places)
            };
            let witness = witness.map(|(partition, offset, digest)| Witness { partition: partition % shards, offset, digest });
            let token = token(shards, places, witness);
            let text = token.to_string();
            prop_assert_eq!(text.parse(), Ok(token));
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(String::from_utf8(bytes).unwrap().parse::<WatchToken>(), Err(InvalidWatchToken));
        }

        #[test]
        fn other_text_is_refused(text in ".{0,200}") {
            prop_assert_eq!(text.parse::<WatchToken>(), Err(InvalidWatchToken));
        }
    }

    #[test]
    fn the_tokens_of_released_layouts_are_read() {
        let one = token(4, vec![place(0, 7, 2), place(3, 9, 1)], Some(Witness { partition: 3, offset: 8, digest: 5 }));
        let printed = "Ab1Vt0-81URACgRtYWluEgR0LcO8GhBzaG9jay1hYnNvcmJlci50IAQqAgADMgIHCToCAgFCDQgDEAgZBQAAAAAAAAA";
        assert_eq!(one.to_string(), printed);
        assert_eq!(printed.parse(), Ok(one));
    }

    #[test]
    fn a_token_of_all_partitions_has_about_ten_characters_for_each() {
        let places = (0..64).map(|n| place(n, 1_000_000_000, 20)).collect();
        let text =
            token(64, places, Some(Witness { partition: 3, offset: 1_000_000_000, digest: u64::MAX })).to_string();
        assert!(text.len() < 640, "{}", text.len());
    }
}
