//! What the store keeps so that a shard can be opened again after a restart of the store.

use std::collections::BTreeMap;

use model::{Epoch, Image, Namespace, Request, Topic, Version};

use crate::RecordId;

/// An offset from which a partition can be read, and the epoch that is in force there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPoint {
    /// The offset of the next event to read.
    pub offset: i64,
    /// The epoch in force just before it.
    pub epoch: Epoch,
}

/// From where each of the shard's partitions must be read again if the store loses the tail of its history: an
/// event is in the store before it is in the log, so what the log held when the checkpoint was read is in the store
/// that holds the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint(pub BTreeMap<Topic, LogPoint>);

/// Names one attempt to open a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpeningToken(pub String);

/// From where an opening reads. Kept in the header, so that a successor resumes from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpeningStart {
    /// Per topic.
    pub points: BTreeMap<Topic, LogPoint>,
    /// The store held nothing that could be trusted (no checkpoint, or one that the log no longer reaches): every
    /// record of an earlier epoch counts as nothing. What the database did not have is set aside
    /// ([`crate::HotStore::set_aside`]), for the opener to look at; the rest is dropped.
    pub discard: bool,
}

/// A record that the database did not have when an opening discarded what the store held.
#[derive(Debug, Clone, PartialEq)]
pub struct SetAside {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: Version,
    /// The lowest version of the record that the database may lack.
    pub behind: Version,
    /// Its image.
    pub image: Image,
}

/// Some of what a discard has set aside.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SetAsidePage {
    /// Those that can be read.
    pub records: Vec<SetAside>,
    /// How many can't. They are logged, and stay aside.
    pub unreadable: u64,
    /// No more are there.
    pub is_last: bool,
}

/// What a new opener finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The epoch in the header; 0 if there is none.
    pub epoch: Epoch,
    /// The surviving checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The start that an earlier opener stored *under the live incarnation*; it is to be resumed from.
    pub resumed: Option<OpeningStart>,
}

/// What an opening puts back: a record if the store holds nothing, a lower version, a lease or a remembered absence.
/// In any case what was set aside of the record is gone then, but for [`Restore::Behind`].
#[derive(Debug, Clone, PartialEq)]
pub enum Restore {
    /// An event of the log: dirty, and already queued.
    Dirty {
        /// The record.
        record: RecordId,
        /// The event's version.
        version: Version,
        /// The lowest version of the record that the database may lack: this one's, or that of an older event. What the
        /// store knows to be lower stays.
        behind: Version,
        /// The event's image.
        image: Image,
    },
    /// A dead letter: parked, over whatever is lower. Over a lower version that is dirty it is put back as dirty too: the
    /// database may lack that one, and will refuse this one again.
    Parked {
        /// The record.
        record: RecordId,
        /// The letter's version.
        version: Version,
        /// The letter's image.
        image: Image,
    },
    /// What was set aside, and is newer than what the database has: dirty, and not known to be in the log.
    Unqueued {
        /// The record.
        record: RecordId,
        /// Its version.
        version: Version,
        /// The lowest version of the record that the database may lack. What the store knows to be lower stays.
        behind: Version,
        /// Its image.
        image: Image,
    },
    /// The row (or tombstone) of the database is at least as new as the event: it stands in the hot store as clean, over any lower version.
    Clean {
        /// The record.
        record: RecordId,
        /// The row's version.
        version: Version,
        /// The row or tombstone.
        image: Image,
    },
    /// The database has neither row nor tombstone, and the event is at or below the purge horizon: an image at or
    /// below `horizon` is removed.
    Gone {
        /// The record.
        record: RecordId,
        /// The purge horizon.
        horizon: Version,
    },
    /// A version of the record that only a note in the log names: if the record is dirty, the database may lack what
    /// that version wrote, as it may lack what took its place. What the store knows to be lower stays.
    Behind {
        /// The record.
        record: RecordId,
        /// The version that the note names.
        version: Version,
    },
    /// A request that an event of the log names; not over one of the same id with a higher version.
    Request {
        /// The table's namespace.
        namespace: Namespace,
        /// The request.
        request: Request,
        /// The event's version.
        version: Version,
    },
}
