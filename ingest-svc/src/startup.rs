//! What is checked and made ready before the first request is taken.

use database::{Database, DatabaseError};
use event_log::{EventPublisher, LogError, LogReader};
use hot_store::{HotStore, HotStoreError};

use crate::Core;

/// Why the service can't start. Those of the stores may go away by themselves, the others need a hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The installation has another number of shards.
    #[error(
        "this installation has {stored} shards, the configuration says {configured}: set `shards: {stored}`; the number can't be changed by configuration"
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
    /// The log could not be asked, or is not fit for use.
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

/// Prepares the databases, compares the number of shards, checks the hot store's and the topics' settings, and
/// loads the enabled tables. Does no harm when it is repeated.
///
/// # Errors
/// See [`StartError`].
pub async fn prepare<H, L, D>(core: &Core<H, L, D>) -> Result<(), StartError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    for (name, database) in core.directory.databases() {
        tracing::debug!(database = %name, "preparing");
        database.prepare().await?;
    }
    let stored = core.directory.catalog_database()?.shard_count(core.shards).await?;
    if stored != u32::from(core.shards.get()) {
        return Err(StartError::ShardCount { stored, configured: core.shards.get() });
    }
    let settings = core.hot.settings().await?;
    for warning in &settings.warned {
        tracing::warn!(warning, "the hot store's settings weaken a promise");
    }
    if !settings.refused.is_empty() {
        return Err(StartError::HotStoreUnfit(settings.refused));
    }
    core.directory.refresh(true).await?;
    for table in core.directory.all() {
        let topic = &table.settings.topic;
        let letters = topic.dead_letters().map_err(|error| LogError::Unfit(error.to_string()))?;
        for topic in [topic, &letters] {
            core.log.ensure_topic(topic, core.shards.get(), core.options.tables.log).await?;
        }
    }
    Ok(())
}
