//! The words that everything else is said with: keys, versions, epochs, what was written.

use std::fmt;

/// Keys of the shard.
pub(crate) const KEYS: usize = 2;
/// Tables, and so partitions of the shard: one of each table's topic.
pub(crate) const TABLES: usize = 2;
/// Request ids.
pub(crate) const REQUESTS: usize = 2;

/// Which key; an index.
pub(crate) type Key = usize;
/// Which table, which is also which partition of the shard; an index.
pub(crate) type Table = usize;
/// The order of a shard's writes. 0 is a row that nobody wrote through us.
pub(crate) type Version = u8;
/// In which life of the hot store's shard something was produced.
pub(crate) type Epoch = u8;
/// Which start of the hot store. 0 is none.
pub(crate) type Incarnation = u8;
/// A place in a partition.
pub(crate) type Offset = u8;
/// One of two places of work: two openers, two readers, two drains that a partition passes between.
pub(crate) type Seat = usize;
/// Which client request of the scenario; an index.
pub(crate) type Op = usize;

/// What was written: a number that tells writes apart, or a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Content {
    /// Tells what was written, as a payload would.
    pub(crate) value: u8,
    /// Whether it was a delete.
    pub(crate) deleted: bool,
}

/// A record's after-image with all that an event says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mutation {
    pub(crate) key: Key,
    pub(crate) version: Version,
    pub(crate) content: Content,
    /// Set while the key rests on a create that looked at the hot store only: the version of that create.
    pub(crate) since: Option<Version>,
    /// What `since` would be if no rule were taken away. Only checks look at it.
    pub(crate) created: Option<Version>,
    pub(crate) request: Option<Request>,
}

/// A client's request id, and what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) id: usize,
    /// The payload, hashed.
    pub(crate) digest: u8,
    /// The version that the request got. It is the mutation's, unless the request was superseded before its own event
    /// was in the log.
    pub(crate) version: Version,
}

/// What somebody sees of a key: a version, and a value unless it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) value: Option<u8>,
}

impl Seen {
    pub(crate) fn of(version: Version, content: Content) -> Self {
        Self { version, value: (!content.deleted).then_some(content.value) }
    }

    /// Whether this is as new as `acked`: of the same version, it must be the same.
    pub(crate) fn is_fresh(self, acked: Seen) -> bool {
        self.version > acked.version || self == acked || acked.version == 0
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.content.deleted { "deleted" } else { "value" };
        write!(f, "key {} v{} ({what} {})", self.key, self.version, self.content.value)
    }
}
