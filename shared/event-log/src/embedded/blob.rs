//! What one group commit is in bytes: a protobuf message with a checksum beside it.

use bytes::Bytes;
use model::Topic;
use prost::Message;

use crate::log::{LogRecord, Outgoing, TopicPartition};

/// The layout of a blob.
const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct GroupCommit {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, repeated, tag = "2")]
    runs: Vec<Run>,
}

/// Records of one partition, one after the other.
#[derive(Clone, PartialEq, Message)]
struct Run {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(uint32, tag = "2")]
    partition: u32,
    #[prost(int64, tag = "3")]
    first_offset: i64,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    payload: Bytes,
}

/// Why a blob can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlobError {
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is no group commit: {0}")]
    Malformed(String),
    #[error("it has format {0}, which this version does not know")]
    Format(u32),
}

/// The checksum of a blob covers its number too, so that one blob can't stand in for another.
pub(super) fn checksum(sequence: i64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Encodes records whose offsets were given already. Runs stand in the order of their first record.
pub(super) fn encode<'a>(records: impl IntoIterator<Item = (&'a Outgoing, i64)>) -> Vec<u8> {
    let mut runs: Vec<Run> = Vec::new();
    let mut of_partition: std::collections::HashMap<&TopicPartition, usize> = std::collections::HashMap::new();
    for (record, offset) in records {
        let index = *of_partition.entry(&record.to).or_insert_with(|| {
            runs.push(Run {
                topic: record.to.topic.as_str().to_owned(),
                partition: u32::from(record.to.partition),
                first_offset: offset,
                entries: Vec::new(),
            });
            runs.len() - 1
        });
        if let Some(run) = runs.get_mut(index) {
            run.entries.push(Entry { key: record.key.clone(), payload: record.payload.clone() });
        }
    }
    GroupCommit { format: FORMAT, runs }.encode_to_vec()
}

/// Checks and decodes a blob.
pub(super) fn decode(sequence: i64, stored_checksum: u32, body: &[u8]) -> Result<Vec<LogRecord>, BlobError> {
    if checksum(sequence, body) != stored_checksum {
        return Err(BlobError::Checksum);
    }
    // From a slice every key and payload is a copy of its own: none keeps the whole blob in memory.
    let commit = GroupCommit::decode(body).map_err(|error| BlobError::Malformed(error.to_string()))?;
    if commit.format != FORMAT {
        return Err(BlobError::Format(commit.format));
    }
    let mut records = Vec::new();
    for run in commit.runs {
        let malformed = |problem: String| BlobError::Malformed(problem);
        let topic = Topic::new(&run.topic).map_err(|error| malformed(error.to_string()))?;
        let partition = u16::try_from(run.partition).map_err(|error| malformed(error.to_string()))?;
        let from = TopicPartition { topic, partition };
        for (at, entry) in (0..).zip(run.entries) {
            let offset = run.first_offset.checked_add(at);
            let offset = offset.ok_or_else(|| malformed("its offsets have no end".to_owned()))?;
            records.push(LogRecord { from: from.clone(), offset, key: entry.key, payload: entry.payload });
        }
    }
    Ok(records)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outgoing(partition: u16, key: &[u8], payload: &[u8]) -> Outgoing {
        Outgoing {
            to: TopicPartition { topic: Topic::new("orders").unwrap(), partition },
            key: Bytes::copy_from_slice(key),
            payload: Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn golden_bytes_of_format_1() {
        let records = [outgoing(3, b"k", b"one"), outgoing(0, b"", b"two"), outgoing(3, b"k", b"three")];
        let body = encode(records.iter().zip([7, 0, 8]));
        let golden = concat!(
            "0801",
            "12220a066f726465727310031807",
            "22080a016b12036f6e65",
            "220a0a016b12057468726565",
            "120f0a066f7264657273",
            "2205120374776f",
        );
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(checksum(1, &body), 0x248e4694);
        let offsets: Vec<_> =
            decode(1, 0x248e4694, &body).unwrap().iter().map(|r| (r.from.partition, r.offset)).collect();
        assert_eq!(offsets, [(3, 7), (3, 8), (0, 0)]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_in_order_per_partition(
            records in prop::collection::vec((0u16..4, prop::collection::vec(any::<u8>(), 0..6),
                prop::collection::vec(any::<u8>(), 0..40)), 0..40),
            sequence in 1i64..1000,
        ) {
            let records: Vec<Outgoing> = records.iter().map(|(p, k, v)| outgoing(*p, k, v)).collect();
            let mut next = [10i64, 20, 30, 40];
            let offsets: Vec<i64> = records.iter().map(|record| {
                let slot = &mut next[usize::from(record.to.partition)];
                *slot += 1;
                *slot - 1
            }).collect();
            let body = encode(records.iter().zip(offsets.iter().copied()));
            let decoded = decode(sequence, checksum(sequence, &body), &body).unwrap();
            prop_assert_eq!(decoded.len(), records.len());
            for partition in 0..4 {
                let sent: Vec<_> = records.iter().zip(&offsets).filter(|(r, _)| r.to.partition == partition)
                    .map(|(r, o)| (*o, r.key.clone(), r.payload.clone())).collect();
                let got: Vec<_> = decoded.iter().filter(|r| r.from.partition == partition)
                    .map(|r| (r.offset, r.key.clone(), r.payload.clone())).collect();
                prop_assert_eq!(sent, got);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(
            payload in prop::collection::vec(any::<u8>(), 1..60), bit in 0usize..10_000, sequence in 1i64..1000,
        ) {
            let record = outgoing(1, b"key", &payload);
            let mut body = encode([(&record, 5)]);
            let sum = checksum(sequence, &body);
            let bit = bit % (body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(sequence, sum, &body), Err(BlobError::Checksum));
        }
    }

    #[test]
    fn offsets_end_somewhere() {
        let record = outgoing(1, b"key", b"value");
        let body = encode([(&record, i64::MAX), (&record, 0)]);
        assert!(matches!(decode(1, checksum(1, &body), &body), Err(BlobError::Malformed(_))));
    }

    #[test]
    fn a_blob_does_not_pass_for_another_one() {
        let record = outgoing(1, b"key", b"value");
        let body = encode([(&record, 5)]);
        assert_eq!(decode(2, checksum(1, &body), &body), Err(BlobError::Checksum));
    }
}
