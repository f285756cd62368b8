//! What lies in a dead-letter topic.

use bytes::Bytes;
use jiff::Timestamp;

use crate::{KeyBytes, Shard, TableRef, Topic, Version};

/// One record of a dead-letter topic, which has the partitions of the table's own topic.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterRecord {
    /// The table.
    pub table: TableRef,
    /// The shard; equals the partition in which the record lies, and in which the event lay.
    pub shard: Shard,
    /// What it says.
    pub body: DeadLetterBody,
}

/// What a record of a dead-letter topic says.
#[derive(Debug, Clone, PartialEq)]
pub enum DeadLetterBody {
    /// An event was given up.
    Letter(DeadLetter),
    /// A dead-lettered record was given up by an operator.
    Purge(DeadLetterPurge),
}

/// An event that will not reach the database, as it was and why.
///
/// The same event may have several letters: one is written again whenever nobody knows whether it was. They agree in
/// all that names the event, and differ in times and attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The topic in which it lay.
    pub topic: Topic,
    /// Its offset there. An event that was produced twice has two, so with a version it is the key and the version that
    /// name it.
    pub offset: i64,
    /// The log record's key, byte for byte: of an event that can be decoded, the record's canonical key.
    pub key: KeyBytes,
    /// The log record's payload, byte for byte: of an event that can be decoded, what [`Event::decode`] takes.
    ///
    /// [`Event::decode`]: crate::Event::decode
    pub payload: Bytes,
    /// The version of the write; `None` if the payload does not tell. Only a letter with a version has a parked record.
    pub version: Option<Version>,
    /// Why it was given up.
    pub cause: DeadLetterCause,
    /// The database's own code (SQLSTATE/number); empty if no database refused it.
    pub code: String,
    /// What is wrong, in words, without any value of the row.
    pub message: String,
    /// How many transactions with it failed.
    pub attempts: u32,
    /// When it was refused first.
    pub first_refused_at: Timestamp,
    /// When the letter was written.
    pub dead_lettered_at: Timestamp,
    /// The drain replica that wrote it.
    pub replica: String,
    /// The topic takes no record so large: see [`DeadLetter::cut`].
    pub is_cut: bool,
}

impl DeadLetter {
    /// The most bytes that each of its texts may have.
    pub const MAX_TEXT_BYTES: usize = 512;
    /// By how much its record may be larger than the payload of its event, without the record's own key.
    pub const MAX_OVERHEAD_BYTES: usize = 4096;

    /// So much is left of key and payload where they were cut and can't be decoded anyway.
    const MAX_CUT_BYTES: usize = 512;

    /// Without what makes it larger than its topic takes. Of an event the payload goes: half of it might decode as
    /// another one. Of bytes that are none, and so have no version, the beginning of key and payload stays, for people.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.is_cut = true;
        match self.cause {
            DeadLetterCause::Undecodable => self.payload.truncate(Self::MAX_CUT_BYTES),
            _ => self.payload.clear(),
        }
        if self.version.is_none() && self.key.as_bytes().len() > Self::MAX_CUT_BYTES {
            self.key = KeyBytes::from_stored(self.key.as_bytes().slice(..Self::MAX_CUT_BYTES));
        }
        let told = format!("(cut: the event is too large for a dead letter, see its offset) {}", self.message);
        self.message = Self::text(&told);
        self
    }

    /// A text cut to what a letter has room for.
    pub fn text(text: &str) -> String {
        let end = (0..=Self::MAX_TEXT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text[..end.unwrap_or(0)].to_owned()
    }
}

/// Why an event was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadLetterCause {
    /// Its bytes are no event.
    Undecodable,
    /// It lay in another partition than that of its shard.
    Misplaced,
    /// The row can never be written: too long, out of range, a check constraint.
    Permanent,
    /// Another row stood in its way for too long: a parent that is missing, a unique value that is taken.
    Dependent,
    /// A create that was checked in the hot store only, and the database has an older row.
    Since,
    /// One that only a later release knows, by the number that it is stored as.
    Later(i32),
}

impl DeadLetterCause {
    /// All that this release knows.
    pub const ALL: [Self; 5] = [Self::Undecodable, Self::Misplaced, Self::Permanent, Self::Dependent, Self::Since];

    /// Its name in metrics, filters and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::Misplaced => "misplaced",
            Self::Permanent => "permanent",
            Self::Dependent => "dependent",
            Self::Since => "since",
            Self::Later(_) => "unknown",
        }
    }
}

/// A letter that an operator gave up: its record is no longer parked, and no opening parks it again.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterPurge {
    /// The key of the letter.
    pub key: KeyBytes,
    /// The version of the letter.
    pub version: Option<Version>,
    /// The offset of the letter; what names one without a version.
    pub offset: i64,
    /// When.
    pub purged_at: Timestamp,
}
