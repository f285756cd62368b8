//! What a record of the log asks for.

use database::Change;
use event_log::LogRecord;
use model::{CodecError, DeadLetterCause, Epoch, Event, EventBody, Shard, TableRef};

use crate::gather::Reason;

/// A record that was understood.
#[derive(Debug, PartialEq)]
pub(crate) enum Intake {
    /// Puts this epoch in force.
    Fence(Epoch),
    /// Of an epoch that is over: done as it comes.
    Void,
    /// Of requests: nothing to write, done as it comes.
    Requests,
    /// To be written.
    Change(Change),
}

/// A record that can't be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("it says that it belongs to shard {0}, another partition: was the number of partitions changed?")]
    Misplaced(Shard),
    #[error("it is for table {0}, which has another topic: enable that table with this topic, or this table again")]
    OtherTable(TableRef),
    #[error("its topic belongs to no enabled table: enable the table again")]
    NoTable,
    #[error("it holds {0} mutations that must be applied together, which this release can't do: upgrade this process")]
    Compound(usize),
}

impl Unreadable {
    /// Why it is given up, if nothing will ever make it readable. What a later release can read, or a table that is
    /// enabled again can take, holds its partition until then.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let cause = match self {
            Self::Codec(CodecError::Malformed { .. }) => DeadLetterCause::Undecodable,
            Self::Misplaced(_) => DeadLetterCause::Misplaced,
            Self::Codec(CodecError::TooNew { .. } | CodecError::UnknownKind { .. })
            | Self::OtherTable(_)
            | Self::NoTable
            | Self::Compound(_) => {
                return None;
            }
        };
        // What is wrong with the bytes may be told with a value that was in them.
        let message = match self {
            Self::Codec(CodecError::Malformed { what, .. }) => format!("the bytes are not a stored {what}"),
            other => other.to_string(),
        };
        Some(Reason { cause, code: String::new(), message })
    }
}

/// Reads a record of the topic of `table`, where `in_force` is in force.
pub(crate) fn read(record: &LogRecord, table: &TableRef, in_force: Epoch) -> Result<Intake, Unreadable> {
    let event = Event::decode(record.payload.clone())?;
    if event.shard.0 != record.from.partition {
        return Err(Unreadable::Misplaced(event.shard));
    }
    let mut mutations = match event.body {
        EventBody::Fence(_) => return Ok(Intake::Fence(event.epoch)),
        // Only openings need them, of whatever epoch they are.
        EventBody::Requests(_) => return Ok(Intake::Requests),
        EventBody::Mutations(_) if event.epoch.is_void_under(in_force) && !planted::is(planted::Bug::ApplyVoid) => {
            return Ok(Intake::Void);
        }
        EventBody::Mutations(mutations) => mutations,
    };
    match (mutations.pop(), mutations.len()) {
        (Some(mutation), 0) if mutation.table == *table => Ok(Intake::Change(Change {
            shard: event.shard,
            key: mutation.key,
            version: mutation.version,
            image: mutation.image,
        })),
        (Some(mutation), 0) => Err(Unreadable::OtherTable(mutation.table)),
        (_, others) => Err(Unreadable::Compound(others + 1)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use event_log::TopicPartition;
    use model::{
        Content, DatabaseName, Fence, Fingerprint, Image, Key, Mutation, Operation, Request, RequestDigest, RequestId,
        RequestNote, TableName, Topic, Value, Version,
    };

    use super::*;

    fn table(name: &str) -> TableRef {
        TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new(name).unwrap() }
    }

    fn mutation(name: &str) -> Mutation {
        Mutation {
            table: table(name),
            key: Key(vec![Value::Int64(1)]),
            version: Version::new(5).unwrap(),
            image: Image {
                content: Content::Tombstone,
                operation: Operation::Delete,
                fingerprint: Fingerprint(0),
                request: None,
                since: None,
            },
        }
    }

    fn record(payload: Bytes) -> LogRecord {
        let from = TopicPartition { topic: Topic::new("t").unwrap(), partition: 3 };
        LogRecord { from, offset: 7, key: Bytes::new(), payload }
    }

    fn event(shard: u16, epoch: u32, body: EventBody) -> LogRecord {
        record(Event { shard: Shard(shard), epoch: Epoch(epoch), body }.encode())
    }

    fn taken(record: &LogRecord) -> Result<Intake, Unreadable> {
        read(record, &table("payments"), Epoch(2))
    }

    #[test]
    fn a_mutation_of_the_epoch_in_force_is_a_change_and_one_of_an_earlier_epoch_is_void() {
        let body = EventBody::Mutations(vec![mutation("payments")]);
        let Mutation { key, version, image, .. } = mutation("payments");
        let change = Change { shard: Shard(3), key, version, image };
        assert_eq!(taken(&event(3, 2, body.clone())), Ok(Intake::Change(change)));
        assert_eq!(taken(&event(3, 1, body)), Ok(Intake::Void));
    }

    #[test]
    fn a_fence_names_its_epoch_whatever_is_in_force() {
        let fence = || EventBody::Fence(Fence { opener: "a".into() });
        assert_eq!(taken(&event(3, 9, fence())), Ok(Intake::Fence(Epoch(9))));
        assert_eq!(taken(&event(3, 1, fence())), Ok(Intake::Fence(Epoch(1))));
    }

    #[test]
    fn requests_are_nothing_to_write_whatever_is_in_force() {
        let digest = RequestDigest::of(b"");
        let request = Request { id: RequestId::new("r").unwrap(), digest };
        let note = RequestNote { table: table("payments"), key: None, request, version: Version::new(5).unwrap() };
        for epoch in [1, 2, 3] {
            let noted = event(3, epoch, EventBody::Requests(vec![note.clone()]));
            assert_eq!(taken(&noted), Ok(Intake::Requests));
        }
    }

    #[test]
    fn only_what_nothing_will_make_readable_is_given_up() {
        let one = |name| EventBody::Mutations(vec![mutation(name)]);
        let two = EventBody::Mutations(vec![mutation("payments"), mutation("payments")]);
        let reason = |record: &LogRecord| taken(record).unwrap_err().reason().map(|reason| reason.cause);
        assert_eq!(reason(&record(Bytes::from_static(b"\xff"))), Some(DeadLetterCause::Undecodable));
        assert_eq!(reason(&event(4, 2, one("payments"))), Some(DeadLetterCause::Misplaced));
        assert_eq!(reason(&event(3, 2, one("orders"))), None);
        assert_eq!(reason(&event(3, 2, two)), None);
        let mut later = event(3, 2, one("payments")).payload.to_vec();
        assert_eq!(later[..2], [0x08, 0x01]);
        later[1] = 2;
        assert_eq!(reason(&record(Bytes::from(later))), None, "an upgrade can read it");
        assert_eq!(Unreadable::NoTable.reason(), None);
    }

    #[test]
    fn what_can_not_be_applied_is_never_taken_for_done() {
        let one = |name| EventBody::Mutations(vec![mutation(name)]);
        let two = EventBody::Mutations(vec![mutation("payments"), mutation("payments")]);
        assert!(matches!(taken(&record(Bytes::from_static(b"\xff"))), Err(Unreadable::Codec(_))));
        assert_eq!(taken(&event(4, 2, one("payments"))), Err(Unreadable::Misplaced(Shard(4))));
        assert_eq!(taken(&event(3, 2, one("orders"))), Err(Unreadable::OtherTable(table("orders"))));
        assert_eq!(taken(&event(3, 2, two)), Err(Unreadable::Compound(2)));
    }
}
