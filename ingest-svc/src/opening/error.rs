//! Why a shard could not be opened this time.

use database::DatabaseError;
use event_log::{LogError, PublishError};
use hot_store::HotStoreError;
use model::{CodecError, DatabaseName, Epoch, Topic};

use crate::dead_letters::DeadLetterError;

/// Why a shard could not be opened this time. It stays closed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// The hot store did not do what it was asked; [`HotStoreError::Superseded`] if another replica took over.
    #[error(transparent)]
    HotStore(#[from] HotStoreError),
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The dead letters could not be read.
    #[error(transparent)]
    Letters(#[from] DeadLetterError),
    /// The fence was not acknowledged.
    #[error("the fence was not put into topic {topic}: {error}")]
    Fence {
        /// The topic.
        topic: Topic,
        /// The log's answer.
        error: PublishError,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A table is enabled whose database is not configured.
    #[error("no database named {0} is configured, but a table of it is enabled")]
    NoDatabase(DatabaseName),
    /// The log holds an event of a later release.
    #[error("topic {topic}, offset {offset}: {error}")]
    Event {
        /// The topic.
        topic: Topic,
        /// Where.
        offset: i64,
        /// What is wrong with it.
        error: CodecError,
    },
    /// The log or a database knows a higher epoch than the one that was drawn, as after the database that counts them
    /// was restored from a backup: the next attempt draws a higher one.
    #[error("the shard was in epoch {found} already, the epoch drawn for the opening is {drawn}")]
    Outrun {
        /// The epoch that is known.
        found: Epoch,
        /// The epoch drawn.
        drawn: Epoch,
    },
    /// The log gave its answers in another number than it was asked.
    #[error("the event log answered {got} of {asked} questions")]
    Incomplete {
        /// Questions.
        asked: usize,
        /// Answers.
        got: usize,
    },
}
