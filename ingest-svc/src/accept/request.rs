//! What a client asks for, and what it learns.

use std::{fmt, time::Duration};

use model::{RequestId, Row, TableRef};

use crate::{Etag, Token};

/// A write, with its columns as the client named them.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A record that must not exist yet.
    Create {
        /// Its columns.
        row: Row,
    },
    /// A record, whole, whether it exists or not.
    Put {
        /// Its columns.
        row: Row,
        /// What must hold.
        precondition: Option<Require>,
    },
    /// Some columns of a record that must exist.
    Update {
        /// The columns of its key.
        key: Row,
        /// The columns to change.
        changes: Row,
        /// What must hold besides.
        precondition: Option<Require>,
    },
    /// The end of a record; of one that does not exist, too.
    Delete {
        /// The columns of its key.
        key: Row,
        /// What must hold.
        precondition: Option<Require>,
    },
}

/// What must hold for a write to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Require {
    /// There is such a record, or there is none.
    Exists(bool),
    /// It is still this version of it.
    Etag(Etag),
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteRequest {
    /// The table.
    pub table: TableRef,
    /// The write.
    pub change: Change,
    /// The client's id of it, carried into the event.
    pub request_id: Option<RequestId>,
}

/// How safe a write is when it is acknowledged. Each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// In the hot store.
    Logged,
    /// In the event log.
    Queued,
    /// In the database.
    Applied,
}

impl AckLevel {
    /// The name in the API, without its prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logged => "LOGGED",
            Self::Queued => "QUEUED",
            Self::Applied => "APPLIED",
        }
    }
}

impl fmt::Display for AckLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which acknowledgement a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledge {
    /// Without this one the write fails; `None`: the table's default.
    pub required: Option<AckLevel>,
    /// A higher one that is waited for.
    pub preferred: Option<AckLevel>,
    /// How long it is waited for, at most [`Acknowledge::MAX_WAIT`].
    pub wait: Duration,
}

impl Acknowledge {
    /// Nobody is waited for longer.
    pub const MAX_WAIT: Duration = Duration::from_secs(30);
    /// How long a client waits that requires APPLIED and does not say how long.
    pub const DEFAULT_APPLIED_WAIT: Duration = Duration::from_secs(5);

    /// Requires a level, and nothing more.
    pub fn required(level: AckLevel) -> Self {
        Self { required: Some(level), preferred: None, wait: Duration::ZERO }
    }

    /// What it means for a write to a table with that default.
    pub(super) fn for_table(self, default: AckLevel) -> Wish {
        let required = self.required.unwrap_or(default);
        let patience = if required == AckLevel::Applied && self.wait.is_zero() {
            Self::DEFAULT_APPLIED_WAIT
        } else {
            self.wait.min(Self::MAX_WAIT)
        };
        Wish { required, target: self.preferred.map_or(required, |preferred| preferred.max(required)), patience }
    }
}

impl Default for Acknowledge {
    /// What a client gets that does not say: the table's default.
    fn default() -> Self {
        Self { required: None, preferred: None, wait: Duration::ZERO }
    }
}

/// What one write is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Without this level it fails.
    pub(super) required: AckLevel,
    /// The highest level that is tried for.
    pub(super) target: AckLevel,
    /// How long the target is waited for.
    pub(super) patience: Duration,
}

/// An accepted write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The level that was reached, the required one at least.
    pub reached: AckLevel,
    /// Names the version that was written.
    pub etag: Etag,
    /// Names the write, for those who wait until the database has it.
    pub token: Token,
}
