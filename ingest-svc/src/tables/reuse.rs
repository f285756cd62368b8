//! What must not be left behind when a table is disabled, or found when one is enabled.
//!
//! A disabled table has no drain. What the hot store or its topic still held would be missing in the database, and
//! an event of an earlier installation could void, or overtake, those of this one.

use std::collections::HashMap;

use database::{CatalogEntry, Database, EnabledTable};
use event_log::{EventPublisher, LogReader, LogRecord, Progress, TopicPartition};
use hot_store::{Dirty, HotStore, RecordId, ShardHeader, Slot};
use model::{Epoch, Event, EventBody, KeyBytes, Namespace, Shard, Version};

use super::TableError;
use crate::{Core, StoreError};

/// Records looked at in one call.
const PAGE: usize = 512;

/// Checks that a topic can be taken into use: that it is fresh, or drained, or that the hot store holds all that is
/// undrained, as after a table was disabled and enabled again. A fence of a higher epoch than the shard's would void
/// whatever is written now.
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
    if bounds.iter().all(|(_, high)| *high == 0) {
        return Ok(());
    }
    let committed = core.log.committed(&partitions).await?;
    for ((partition, (low, high)), done) in partitions.iter().zip(bounds).zip(committed) {
        if high == 0 {
            continue;
        }
        let shard = Shard(partition.partition);
        let header = core.hot.header(shard).await?;
        if !header.open {
            // Only of an open shard it is known what it holds.
            return Err(TableError::Store(StoreError::Closed { shard }));
        }
        let from = done.unwrap_or(Progress { offset: low, epoch: Epoch::ZERO });
        let stretch = Undrained { partition, from: Progress { offset: from.offset.max(low), ..from }, to: high };
        if !stretch.is_harmless(core, &entry.settings.namespace, &header).await? {
            return Err(TableError::TopicInUse { table: entry.table.clone(), topic: topic.clone(), shard });
        }
    }
    Ok(())
}

/// What nobody has drained of a partition.
struct Undrained<'a> {
    partition: &'a TopicPartition,
    from: Progress,
    to: i64,
}

impl Undrained<'_> {
    async fn is_harmless<H, L, D>(
        &self,
        core: &Core<H, L, D>,
        namespace: &Namespace,
        header: &ShardHeader,
    ) -> Result<bool, TableError>
    where
        H: HotStore,
        L: EventPublisher + LogReader,
        D: Database,
    {
        let shard = Shard(self.partition.partition);
        let mut in_force = self.from.epoch;
        let mut next = self.from.offset;
        while next < self.to {
            let mut newest: HashMap<KeyBytes, Version> = HashMap::new();
            let mut is_readable = true;
            let from = next;
            let mut each = |record: LogRecord| {
                next = record.offset + 1;
                match Event::decode(record.payload) {
                    Ok(event) => note(event, &mut in_force, &mut newest),
                    Err(_) => is_readable = false,
                }
                is_readable && newest.len() < PAGE
            };
            core.log.read(self.partition, from, self.to, &mut each).await?;
            if !is_readable || !holds(core, shard, namespace, newest).await? {
                return Ok(false);
            }
            if next == from {
                break;
            }
        }
        Ok(in_force <= header.epoch)
    }
}

fn note(event: Event, in_force: &mut Epoch, newest: &mut HashMap<KeyBytes, Version>) {
    match event.body {
        EventBody::Fence(_) => *in_force = (*in_force).max(event.epoch),
        EventBody::Mutations(_) if event.epoch.is_void_under(*in_force) => {}
        EventBody::Mutations(mutations) => {
            for mutation in mutations {
                let version = newest.entry(mutation.key.to_bytes()).or_default();
                *version = (*version).max(mutation.version);
            }
        }
    }
}

/// Whether the hot store holds these or newer versions of all these records.
async fn holds<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    namespace: &Namespace,
    versions: HashMap<KeyBytes, Version>,
) -> Result<bool, TableError>
where
    H: HotStore,
{
    if versions.is_empty() {
        return Ok(true);
    }
    let (keys, versions): (Vec<_>, Vec<_>) = versions.into_iter().unzip();
    let records = keys.into_iter().map(|key| RecordId { namespace: namespace.clone(), key }).collect();
    let answer = core.hot.read(shard, records).await?;
    Ok(answer
        .slots
        .iter()
        .zip(versions)
        .all(|(slot, undrained)| matches!(slot, Slot::Image { version, .. } if *version >= undrained)))
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
