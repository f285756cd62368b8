//! What is checked and made ready before the first record is read.

use database::{Database, DatabaseError, TableDirectory};
use event_log::LogError;
use hot_store::{HotStore, HotStoreError};
use model::ShardCount;

/// Why a drain can't start. Those of the stores may go away by themselves, the others need a hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The installation has another number of shards.
    #[error(
        "this installation has {stored} shards, the configuration says {configured}: set `shards: {stored}`; the \
         number can't be changed by configuration"
    )]
    ShardCount {
        /// The number that records were hashed with.
        stored: u32,
        /// The configured one.
        configured: u16,
    },
    /// The hot store is set up in a way that would break a promise.
    #[error("the hot store is not fit for use: {}", .0.join("; "))]
    HotStoreUnfit(Vec<String>),
    /// The hot store could not be asked.
    #[error(transparent)]
    HotStore(#[from] HotStoreError),
    /// The log is not fit for use.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A database could not be asked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl StartError {
    /// Whether trying again may help without anybody's hand.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ShardCount { .. } | Self::HotStoreUnfit(_) => false,
            Self::HotStore(error) => !matches!(error, HotStoreError::Corrupt { .. }),
            Self::Log(error) => matches!(error, LogError::Unavailable(_)),
            Self::Database(error) => error.class().may_pass(),
        }
    }
}

/// Makes our own tables in each database, compares the number of shards, checks the hot store's settings. Does no
/// harm when it is repeated.
///
/// # Errors
/// See [`StartError`].
pub async fn prepare<H: HotStore, D: Database>(
    hot: &H,
    directory: &TableDirectory<D>,
    shards: ShardCount,
) -> Result<(), StartError> {
    for (name, database) in directory.databases() {
        tracing::debug!(database = %name, "preparing");
        database.prepare().await?;
    }
    let stored = directory.catalog_database()?.shard_count(shards).await?;
    if stored != u32::from(shards.get()) {
        return Err(StartError::ShardCount { stored, configured: shards.get() });
    }
    let settings = hot.settings().await?;
    for warning in &settings.warned {
        tracing::warn!(warning, "the hot store's settings weaken a promise");
    }
    if !settings.refused.is_empty() {
        return Err(StartError::HotStoreUnfit(settings.refused));
    }
    Ok(())
}
