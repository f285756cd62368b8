//! Why a call to the hot store did not do what it was asked.

use model::Shard;

/// A call that failed as a whole. Outcomes that a caller expects (a precondition that fails) are not errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HotStoreError {
    /// The shard is not open for the store's live incarnation: the store was restarted, or is new. Nothing was done.
    #[error(
        "shard {shard} is closed: the hot store was restarted and the shard has not been opened since; an ingest replica opens it by reading the log"
    )]
    Closed {
        /// The shard.
        shard: Shard,
    },
    /// Another opener has taken the shard over, or the store was restarted meanwhile. Nothing was done.
    #[error("the opening of shard {shard} was taken over by another replica")]
    Superseded {
        /// The shard.
        shard: Shard,
    },
    /// The write came to the store too long after it was asked for. Nothing was done.
    #[error(
        "the write reached the hot store too late: by then an attempt to repeat it may have taken effect and be forgotten"
    )]
    Late,
    /// The store is out of memory. Nothing was done.
    #[error("the hot store is full: raise its memory, or wait until the drain has emptied it")]
    Full,
    /// The store could not be asked. Nothing was done.
    #[error("the hot store can't be reached: {0}")]
    Unavailable(String),
    /// The store was asked and did not answer in time: the call may or may not have taken effect.
    #[error("the hot store did not answer: {0}; the outcome is unknown")]
    Unknown(String),
    /// What lies in the store is not what this release wrote.
    #[error("shard {shard} holds something that can't be read: {problem}")]
    Corrupt {
        /// The shard.
        shard: Shard,
        /// What is wrong with it.
        problem: String,
    },
}
