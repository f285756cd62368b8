//! The event of a write before the hot store has given it a version.

use bytes::Bytes;
use model::{Epoch, Event, EventBody, Image, Key, KeyBytes, Mutation, Shard, TableRef, Version};

/// What an envelope with one mutation adds to image, key values and names at most: tags, lengths, shard, epoch,
/// version, layout, and the `since` that the store may add.
const ENVELOPE_BYTES: usize = 96;

/// The event of a write, but for what the hot store assigns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) table: TableRef,
    pub(super) shard: Shard,
    pub(super) key: Key,
    pub(super) image: Image,
}

impl Draft {
    /// The most bytes that the sealed event can have; cheap, and exact but for the envelope.
    pub(super) fn bytes_at_most(&self, key: &KeyBytes) -> usize {
        let names = self.table.database.as_str().len() + self.table.table.as_str().len();
        // Each value of the key has at most five bytes more in the event than in the canonical key.
        ENVELOPE_BYTES + names + key.as_bytes().len() + 5 * self.key.0.len() + self.image.encode().len()
    }

    /// The bytes of the event.
    pub(super) fn seal(mut self, version: Version, epoch: Epoch, since: Option<Version>) -> Bytes {
        self.image.since = since;
        let mutation = Mutation { table: self.table, key: self.key, version, image: self.image };
        Event { shard: self.shard, epoch, body: EventBody::Mutations(vec![mutation]) }.encode()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use model::{
        ColumnName, Content, DatabaseName, Fingerprint, Operation, Request, RequestDigest, RequestId, TableName, Value,
    };
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Int64),
            any::<u64>().prop_map(Value::Uint64),
            ".{0,200}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..3000).prop_map(|b| Value::Bytes(b.into())),
        ]
    }

    proptest! {
        #[test]
        fn no_event_is_larger_than_was_foreseen_nor_much_smaller(
            key in prop::collection::vec(value(), 1..5),
            columns in prop::collection::vec(("[a-z]{1,64}", value()), 0..10),
            id in prop::option::of("[!-~]{1,128}"),
            shard: u16,
        ) {
            let columns = columns.into_iter().map(|(n, v)| (ColumnName::new(n).unwrap(), v)).collect();
            let draft = Draft {
                table: TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("t").unwrap() },
                shard: Shard(shard),
                key: Key(key),
                image: Image {
                    content: Content::Row(columns),
                    operation: Operation::Put,
                    fingerprint: Fingerprint(u64::MAX),
                    request: id.map(|id| Request { id: RequestId::new(&id).unwrap(), digest: RequestDigest::of(b"") }),
                    since: None,
                },
            };
            let foreseen = draft.bytes_at_most(&draft.key.to_bytes());
            let bytes = draft.seal(Version::MAX, Epoch(u32::MAX), Some(Version::MAX)).len();
            prop_assert!(bytes <= foreseen, "{bytes} > {foreseen}");
            prop_assert!(foreseen - bytes <= 128, "{bytes} << {foreseen}");
        }
    }
}
