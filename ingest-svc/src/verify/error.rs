//! Why a verification ended before it was through.

use event_log::LogError;
use hot_store::HotStoreError;
use model::TableRef;

use crate::{StoreError, dead_letters::DeadLetterError};

/// Why a verification ended before it was through. What it told by then is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The catalog does not know the table.
    #[error("table {0} was never enabled: there is nothing to compare")]
    NoSuchTable(TableRef),
    /// This replica verifies as many tables as it does at once.
    #[error("this replica verifies {0} tables already: wait for one of them, or ask another replica")]
    Busy(usize),
    /// The event log can't be reached.
    #[error("the event log can't be reached: {0}")]
    LogDown(String),
    /// The event log holds what can't be passed over.
    #[error("the event log can't be read: {0}")]
    LogUnfit(String),
    /// The hot store or the database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This replica ends.
    #[error("this replica is stopping: ask another one")]
    Stopping,
    /// Whoever asked takes no answers.
    #[error("whoever asked does not take the answers")]
    NobodyListens,
}

impl VerifyError {
    /// Whether it may pass by itself.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::LogDown(_) => true,
            Self::Store(error) => matches!(
                error,
                StoreError::Closed { .. }
                    | StoreError::HotStoreDown(_)
                    | StoreError::DatabaseDown(_)
                    | StoreError::ColdReadsBusy
            ),
            Self::NoSuchTable(_) | Self::Busy(_) | Self::LogUnfit(_) | Self::Stopping | Self::NobodyListens => false,
        }
    }
}

impl From<HotStoreError> for VerifyError {
    fn from(error: HotStoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<LogError> for VerifyError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(problem) => Self::LogDown(problem),
            other => Self::LogUnfit(other.to_string()),
        }
    }
}

impl From<DeadLetterError> for VerifyError {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::Store(error) => Self::Store(error),
            DeadLetterError::LogDown(problem) => Self::LogDown(problem),
            DeadLetterError::NoSuchTable(table) => Self::NoSuchTable(table),
            error @ (DeadLetterError::NotFound(_) | DeadLetterError::LogUnfit(_) | DeadLetterError::NobodyListens) => {
                Self::LogUnfit(error.to_string())
            }
        }
    }
}
