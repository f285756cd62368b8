//! Why a watch ended.

use event_log::LogError;
use hot_store::HotStoreError;
use model::{TableRef, Violation};

use crate::{Part, StoreError};

/// Why a watch ended. What it told by then is right, and it can be resumed from the last token that it told, unless that is
/// said to be of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The table is not enabled, or not any more.
    #[error("table {0} is not enabled")]
    TableNotEnabled(TableRef),
    /// The table does not have such columns.
    #[error("the table does not accept the {part}: {}", list(.violations))]
    Invalid {
        /// Where they are named.
        part: Part,
        /// What is wrong with each.
        violations: Vec<Violation>,
    },
    /// One of the keys is none of the table.
    #[error("the table does not accept key {at}: {}", list(.violations))]
    InvalidKey {
        /// Which.
        at: usize,
        /// What is wrong with it.
        violations: Vec<Violation>,
    },
    /// The token is of a watch of something else.
    #[error("{0}")]
    OtherToken(String),
    /// The log does not have what comes after the token.
    #[error("{0}: read the table anew, and watch from now on")]
    Expired(String),
    /// The primary key has other columns than it had when an event was written.
    #[error(
        "the primary key of table {0} is not that of its changes any more: read the table anew, and watch from now on"
    )]
    OtherKey(TableRef),
    /// This replica has as many watches as it takes.
    #[error("this replica has {0} watches, as many as it takes: try again, or another replica")]
    TooMany(usize),
    /// The event log can't be reached.
    #[error("the event log can't be reached: {0}")]
    LogDown(String),
    /// The event log holds what can't be passed over.
    #[error("the event log can't be read: {0}")]
    LogUnfit(String),
    /// The hot store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This replica ends.
    #[error("this replica is stopping: go on at another one")]
    Stopping,
    /// Whoever asked takes no answers.
    #[error("whoever watches does not take what is told")]
    NobodyListens,
}

impl From<HotStoreError> for WatchError {
    fn from(error: HotStoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<LogError> for WatchError {
    fn from(error: LogError) -> Self {
        match error {
            // A broker that has just started may know no topic yet.
            LogError::Unavailable(_) | LogError::NoSuchTopic(_) => Self::LogDown(error.to_string()),
            LogError::Unfit(_) | LogError::Fatal(_) => Self::LogUnfit(error.to_string()),
        }
    }
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}
