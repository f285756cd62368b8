//! Page tokens: where a find goes on, opaque to clients, good for their own query only.

use std::fmt::Write as _;

use bytes::Bytes;
use hot_store::FoundInShard;
use model::{IndexId, Key, KeyBytes, Shard, TableIndex, Version};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Where a page begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cursor {
    /// Among what the database did not have yet, behind this key.
    Lacking(Option<KeyBytes>),
    /// Among the database's rows, behind this key.
    Stored(Option<Key>),
}

/// When the first page was looked up: what was dirty then, and is unchanged, was met before the rows of the database are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The newest version that each shard had given.
    clocks: Vec<Version>,
    /// The sum of the shards' epochs, which rises with every opening.
    epochs: u64,
}

impl Start {
    /// All shards, in their order.
    pub(super) fn of(found: &[FoundInShard]) -> Self {
        Self { clocks: found.iter().map(|shard| shard.clock).collect(), epochs: epochs(found) }
    }

    /// Whether a dirty or parked image of this version stood in the shard then.
    pub(super) fn has(&self, shard: Shard, version: Version, now: &[FoundInShard]) -> bool {
        let clock = self.clocks.get(usize::from(shard.0));
        clock.is_some_and(|clock| version <= *clock) && self.epochs == epochs(now)
    }

    /// The highest clock, and how far each is behind it: seven bits a byte, the lowest first.
    fn encode(&self, bytes: &mut Vec<u8>) {
        let highest = self.clocks.iter().max().map_or(0, |clock| clock.get());
        bytes.extend(self.epochs.to_be_bytes());
        bytes.extend(highest.to_be_bytes());
        bytes.extend(u16::try_from(self.clocks.len()).unwrap_or(u16::MAX).to_be_bytes());
        for clock in &self.clocks {
            let mut behind = highest - clock.get();
            while behind > 0x7f {
                bytes.push(0x80 | (behind & 0x7f) as u8);
                behind >>= 7;
            }
            bytes.push(behind as u8);
        }
    }

    /// And what follows.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (epochs, rest) = bytes.split_first_chunk::<8>()?;
        let (highest, rest) = rest.split_first_chunk::<8>()?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let highest = u64::from_be_bytes(*highest);
        let mut clocks = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (mut behind, mut shift) = (0_u64, 0);
            loop {
                let (&byte, after) = rest.split_first()?;
                rest = after;
                behind |= u64::from(byte & 0x7f).checked_shl(shift)?;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            clocks.push(Version::new(highest.checked_sub(behind)?)?);
        }
        Some((Self { clocks, epochs: u64::from_be_bytes(*epochs) }, rest))
    }
}

fn epochs(found: &[FoundInShard]) -> u64 {
    found.iter().map(|shard| u64::from(shard.epoch.0)).sum()
}

/// A page of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    /// `None`: this is the first.
    pub(super) start: Option<Start>,
    pub(super) cursor: Cursor,
}

impl Default for Page {
    fn default() -> Self {
        Self { start: None, cursor: Cursor::Lacking(None) }
    }
}

const LACKING: u8 = b'l';
const STORED: u8 = b's';
const SUM: usize = 8;

impl Page {
    /// The token of a page of the query that has this seal.
    pub(super) fn to_token(&self, index: &TableIndex, seal: &[u8]) -> String {
        let (kind, key) = match &self.cursor {
            Cursor::Lacking(after) => (LACKING, after.clone()),
            Cursor::Stored(after) => (STORED, after.as_ref().map(Key::to_bytes)),
        };
        let mut bytes = vec![kind];
        self.start.clone().unwrap_or(Start { clocks: Vec::new(), epochs: 0 }).encode(&mut bytes);
        bytes.push(u8::from(key.is_some()));
        bytes.extend(key.iter().flat_map(|key| key.as_bytes().iter().copied()));
        bytes.extend(sum(&bytes, index.id(), seal).to_be_bytes());
        bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut token, byte| {
            let _ = write!(token, "{byte:02x}");
            token
        })
    }

    /// What a token says; `None` if it is of another query, of another schema, or none of ours.
    pub(super) fn of_token(token: &str, index: &TableIndex, seal: &[u8]) -> Option<Self> {
        let digits = token.as_bytes();
        if !digits.len().is_multiple_of(2) || digits.iter().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect::<Option<_>>()?;
        let (said, told) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
        if told != sum(said, index.id(), seal).to_be_bytes() {
            return None;
        }
        let (kind, rest) = said.split_first()?;
        let (start, rest) = Start::decode(rest)?;
        let (has_key, key) = rest.split_first()?;
        let key = (*has_key == 1).then(|| KeyBytes::from_stored(Bytes::copy_from_slice(key)));
        let cursor = match *kind {
            LACKING => Cursor::Lacking(key),
            STORED => Cursor::Stored(key.map(|key| key.decode()).transpose().ok()?),
            _ => return None,
        };
        Some(Self { start: Some(start), cursor })
    }
}

/// What shows that a token was changed, or is of another query.
fn sum(said: &[u8], index: IndexId, seal: &[u8]) -> u64 {
    xxh3_64_with_seed(&[said, seal].concat(), index.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_start_reads_back_and_no_bytes_make_it_panic(
            clocks in prop::collection::vec(0..1_u64 << 53, 0..80), epochs: u64, bytes: Vec<u8>,
        ) {
            let clocks: Vec<Version> = clocks.into_iter().filter_map(Version::new).collect();
            let (start, mut encoded) = (Start { clocks, epochs }, Vec::new());
            start.encode(&mut encoded);
            encoded.push(7);
            prop_assert_eq!(Start::decode(&encoded), Some((start, &[7][..])));
            let _ = Start::decode(&bytes);
        }
    }
}
