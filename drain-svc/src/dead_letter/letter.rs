//! What is given up, and the letters that are written about it.

use std::time::{Duration, SystemTime};

use event_log::{LogRecord, Outgoing, TopicPartition};
use hot_store::{RecordId, Stamp};
use jiff::Timestamp;
use model::{
    DeadLetter, DeadLetterBody, DeadLetterCause, DeadLetterRecord, KeyBytes, Namespace, Shard, TableRef, Topic,
};
use tokio::time::Instant;

use crate::gather::{Generation, Reason, Refused, Ticket};

/// What will not reach the database.
pub(crate) enum Undeliverable {
    /// Versions of a key that the database refused ([`Ticket::refused`]). The older ones have landed, or there are none.
    Refused { shard: Shard, ticket: Ticket },
    /// A record that nobody can read.
    Unreadable { generation: Generation, record: LogRecord, reason: Reason, met: Instant },
}

/// From whom a letter is, and of which table.
pub(super) struct Sender<'a> {
    pub(super) table: &'a TableRef,
    pub(super) topic: &'a Topic,
    /// Where the letters go.
    pub(super) letters: &'a Topic,
    pub(super) replica: &'a str,
}

impl Sender<'_> {
    /// The record of a letter.
    pub(super) fn outgoing(&self, shard: Shard, letter: DeadLetter) -> Outgoing {
        let key = letter.key.as_bytes().clone();
        let body = DeadLetterBody::Letter(letter);
        let payload = DeadLetterRecord { table: self.table.clone(), shard, body }.encode();
        Outgoing { to: TopicPartition { topic: self.letters.clone(), partition: shard.0 }, key, payload }
    }
}

impl Undeliverable {
    pub(super) fn shard(&self) -> Shard {
        match self {
            Self::Refused { shard, .. } => *shard,
            Self::Unreadable { record, .. } => Shard(record.from.partition),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        match self {
            Self::Refused { ticket, .. } => ticket.generation,
            Self::Unreadable { generation, .. } => *generation,
        }
    }

    /// The offsets of all records that are done with it.
    pub(super) fn offsets(&self) -> Vec<i64> {
        match self {
            Self::Refused { ticket, .. } => ticket.records.iter().map(|(_, offset)| *offset).collect(),
            Self::Unreadable { record, .. } => vec![record.offset],
        }
    }

    pub(super) fn causes(&self) -> Vec<DeadLetterCause> {
        match self {
            Self::Refused { ticket, .. } => ticket.refused.iter().map(|refused| refused.reason.cause).collect(),
            Self::Unreadable { reason, .. } => vec![reason.cause],
        }
    }

    /// What the hot store is to park.
    pub(super) fn stamps(&self, namespace: &Namespace) -> Vec<Stamp> {
        let Self::Refused { ticket, .. } = self else { return Vec::new() };
        let record = RecordId { namespace: namespace.clone(), key: ticket.key.clone() };
        ticket.refused.iter().map(|it| Stamp { record: record.clone(), version: it.version }).collect()
    }

    /// Its letters: one for each version.
    pub(super) fn letters(&self, from: &Sender<'_>) -> Vec<DeadLetter> {
        let now = Instant::now();
        match self {
            Self::Refused { ticket, .. } => {
                let letter = |refused: &Refused| DeadLetter {
                    offset: refused.origin.offset,
                    payload: refused.origin.payload.clone(),
                    version: Some(refused.version),
                    attempts: refused.attempts,
                    ..letter(from, &ticket.key, &refused.reason, now.saturating_duration_since(refused.first_refused))
                };
                ticket.refused.iter().map(letter).collect()
            }
            Self::Unreadable { record, reason, met, .. } => {
                let key = KeyBytes::from_stored(record.key.clone());
                vec![DeadLetter {
                    offset: record.offset,
                    payload: record.payload.clone(),
                    ..letter(from, &key, reason, now.saturating_duration_since(*met))
                }]
            }
        }
    }
}

/// What all letters have in common.
fn letter(from: &Sender<'_>, key: &KeyBytes, reason: &Reason, refused_for: Duration) -> DeadLetter {
    // For people who read it: nothing follows from it.
    let now = SystemTime::now();
    let at = |time: SystemTime| Timestamp::try_from(time).unwrap_or_default();
    DeadLetter {
        topic: from.topic.clone(),
        offset: 0,
        key: key.clone(),
        payload: Default::default(),
        version: None,
        cause: reason.cause,
        code: DeadLetter::text(&reason.code),
        message: DeadLetter::text(&reason.message),
        attempts: 0,
        first_refused_at: at(now.checked_sub(refused_for).unwrap_or(now)),
        dead_lettered_at: at(now),
        replica: DeadLetter::text(from.replica),
        is_cut: false,
    }
}
