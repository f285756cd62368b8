//! What must not be left behind when a table is disabled, or found when one is enabled.
//!
//! A disabled table has no drain. What the hot store or its topic still held would be missing in the database, and
//! an event of an earlier installation could void, or overtake, those of this one.

use database::{Database, EnabledTable};
use event_log::{EventPublisher, LogReader, TopicPartition};
use hot_store::{Dirty, HotStore};
use model::{Namespace, Shard, TableRef, Topic, Version};

use super::TableError;
use crate::Core;

/// Records looked at in one call.
const PAGE: usize = 512;

/// Checks that the topic is fresh, or drained to its end under an epoch that is not above that of its shard.
pub(super) async fn check<H, L, D>(core: &Core<H, L, D>, table: &TableRef, topic: &Topic) -> Result<(), TableError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let partitions: Vec<_> =
        core.shards.all().map(|shard| TopicPartition { topic: topic.clone(), partition: shard.0 }).collect();
    let bounds = core.log.bounds(&partitions).await?;
    if bounds.iter().all(|(_, high)| *high == 0) {
        return Ok(());
    }
    let committed = core.log.committed(&partitions).await?;
    for ((shard, (_, high)), done) in core.shards.all().zip(bounds).zip(committed) {
        if high == 0 {
            continue;
        }
        let header = core.hot.header(shard).await?;
        if done.is_none_or(|done| done.offset < high || (header.open && done.epoch > header.epoch)) {
            return Err(TableError::TopicInUse { table: table.clone(), topic: topic.clone(), shard });
        }
    }
    Ok(())
}

/// Checks that nothing of the table waits for the drain.
pub(super) async fn check_drained<H, L, D>(core: &Core<H, L, D>, table: &EnabledTable) -> Result<(), TableError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    for shard in core.shards.all() {
        if holds_dirty(core, shard, &table.settings.namespace).await? {
            return Err(TableError::Undrained { table: table.schema.table.clone(), shard });
        }
    }
    Ok(())
}

async fn holds_dirty<H, L, D>(core: &Core<H, L, D>, shard: Shard, namespace: &Namespace) -> Result<bool, TableError>
where
    H: HotStore,
{
    let mut after = Version::ZERO;
    loop {
        let (_, page) = core.hot.dirty(shard, Dirty::All, after, PAGE).await?;
        if page.iter().any(|dirty| dirty.record.namespace == *namespace) {
            return Ok(true);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.version,
            _ => return Ok(false),
        }
    }
}
