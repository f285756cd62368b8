//! What must not be found when a table is enabled for the first time: a topic with leftovers of another installation.

use database::{CatalogEntry, Database};
use event_log::{EventPublisher, LogReader, TopicPartition};
use hot_store::HotStore;
use model::Shard;

use super::TableError;
use crate::Core;

/// Checks that a topic can be taken into use: each partition is fresh, or drained to its end under an epoch that is
/// not above its shard's. Undrained events would overtake new writes, a fence of a higher epoch would void them.
pub(super) async fn check<H, L, D>(core: &Core<H, L, D>, entry: &CatalogEntry) -> Result<(), TableError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let topic = &entry.settings.topic;
    let partitions: Vec<_> =
        core.shards.all().map(|shard| TopicPartition { topic: topic.clone(), partition: shard.0 }).collect();
    let bounds = core.log.bounds(&partitions).await?;
    let committed = core.log.committed(&partitions).await?;
    for ((partition, (_, high)), done) in partitions.iter().zip(bounds).zip(committed) {
        if high == 0 {
            continue;
        }
        let shard = Shard(partition.partition);
        let epoch = core.hot.header(shard).await?.epoch;
        if done.is_none_or(|committed| committed.done.offset < high || committed.done.epoch > epoch) {
            return Err(TableError::TopicInUse { table: entry.table.clone(), topic: topic.clone(), shard });
        }
    }
    Ok(())
}
