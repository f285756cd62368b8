//! Why nothing could be said of dead letters.

use event_log::LogError;
use hot_store::HotStoreError;
use model::{InvalidName, TableRef};

use super::LetterName;
use crate::StoreError;

/// Why nothing could be said of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// The catalog does not know the table.
    #[error("table {0} was never enabled, so it has no dead letters")]
    NoSuchTable(TableRef),
    /// There is no letter of that name.
    #[error("table {} has no dead letter {}: `dlq list` shows those there are", .0.table, .0.id)]
    NotFound(LetterName),
    /// The event log can't be reached.
    #[error("the dead letters can't be read, since the event log can't be reached: {0}")]
    LogDown(String),
    /// The event log is not fit for them.
    #[error("the dead letters can't be read: {0}")]
    LogUnfit(String),
    /// The hot store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever asked takes no answers.
    #[error("whoever asked for dead letters does not take them")]
    NobodyListens,
}

impl From<HotStoreError> for DeadLetterError {
    fn from(error: HotStoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<LogError> for DeadLetterError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(problem) => Self::LogDown(problem),
            other => Self::LogUnfit(other.to_string()),
        }
    }
}

impl From<InvalidName> for DeadLetterError {
    fn from(error: InvalidName) -> Self {
        Self::LogUnfit(error.to_string())
    }
}
