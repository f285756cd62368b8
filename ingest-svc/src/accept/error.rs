//! Why a write was not accepted.

use hot_store::HotStoreError;
use model::{RequestId, TableRef, Violation};

use super::{AckLevel, StreamEnd};
use crate::{Part, StoreError};

/// Why a write was not accepted. All but [`WriteError::OutcomeUnknown`], [`WriteError::LevelNotReached`] and
/// [`WriteError::DeadLettered`] mean that nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The table would refuse these columns.
    #[error("the table does not accept the {part}: {}", list(.violations))]
    Invalid {
        /// Where they stand in the request.
        part: Part,
        /// What is wrong with them.
        violations: Vec<Violation>,
    },
    /// The write contradicts itself.
    #[error("{0}")]
    Unsupported(String),
    /// The table is not written through us.
    #[error("table {0} is not enabled: enable it first")]
    TableNotEnabled(TableRef),
    /// The event would be larger than the log takes.
    #[error("the record would have {bytes} bytes in the event log, which takes {max} at most")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// There is such a record.
    #[error("table {0} has such a record already")]
    AlreadyExists(TableRef),
    /// There is no such record.
    #[error("table {0} has no such record")]
    NotFound(TableRef),
    /// The record is another one than the etag names.
    #[error("the record of table {0} is not the one that the etag names: read it again")]
    Aborted(TableRef),
    /// The request id is that of another write.
    #[error("the request id {} was used for another write a short time ago: give each write its own", .0.as_str())]
    RequestIdReused(RequestId),
    /// Others wrote the record each time between reading and writing it.
    #[error("others wrote the record of table {table} during each of {attempts} attempts to update it: try again")]
    Conflict {
        /// The table.
        table: TableRef,
        /// How often it was tried.
        attempts: u32,
    },
    /// The event log is known to be away; the write was refused before anything was touched.
    #[error("the event log can't be reached, so QUEUED can't be promised: try again, or ask for LOGGED")]
    LogDown,
    /// Too much of the table waits for the database; the write was refused before anything was touched.
    #[error(
        "table {table} takes no more for now: {problem}, which is past its cap; try again when the drain has caught up"
    )]
    BacklogFull {
        /// The table.
        table: TableRef,
        /// What there is too much of.
        problem: String,
    },
    /// An operator has the table drained down; the write was refused before anything was touched.
    #[error(
        "table {0} takes no writes for now: an operator has it drained down, for maintenance as a rule; reads go on, and writes when that has ended"
    )]
    DrainingDown(TableRef),
    /// Too many of the table's records are parked; the write was refused before anything was touched.
    #[error(
        "table {table} takes no writes but to parked records: the database has refused {parked} records for good, as many as `max_parked_records` allows; an operator replays or purges them (`shock-absorber dlq list {table}`)"
    )]
    ParkedFull {
        /// The table.
        table: TableRef,
        /// How many are parked.
        parked: u64,
    },
    /// The event log's queue is full; the write was refused before anything was touched.
    #[error("more is on its way to the event log than it takes at once: try again, or ask for LOGGED")]
    LogQueueFull,
    /// The stream that it is part of ends, and it was not begun.
    #[error("the stream ends, and this write was not begun: {0}")]
    NotBegun(StreamEnd),
    /// The write may have taken effect, or may do so later.
    #[error("the outcome of the write is unknown: {0}")]
    OutcomeUnknown(String),
    /// The write took effect, but not yet at the level that was required.
    #[error("the write is {reached} and won't be lost, but it was not {required} in time")]
    LevelNotReached {
        /// What was required.
        required: AckLevel,
        /// What was reached.
        reached: AckLevel,
    },
    /// The write took effect, but the database refused it for good.
    #[error(
        "the write is QUEUED and is read, but the database refuses it for good: it is among the dead letters, where an operator replays or purges it"
    )]
    DeadLettered,
    /// A store could not serve the write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// What a failed write into the hot store means: unlike any other call it may not be repeated when nobody knows
    /// whether it took effect.
    pub(super) fn of_write(error: HotStoreError) -> Self {
        match error {
            HotStoreError::Unknown(problem) => {
                Self::OutcomeUnknown(format!("the hot store did not answer the write: {problem}"))
            }
            other => Self::Store(other.into()),
        }
    }
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}
