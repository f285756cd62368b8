//! What the drain must have missed: dirty records whose event lies behind the offset that it has committed.
//!
//! An offset is committed only after the record was marked clean. So what is dirty there lost its mark: with the tail
//! of the hot store's history, where the checkpoint that survived is younger than the write but older than the mark.
//! Without this rule such a record would stay dirty for ever, and the horizon with it.
//!
//! A mark of ours names the shard's clock, and then the log's ends: what had been queued of all versions up to that
//! clock lies before those ends. Once the drain has committed up to them, in the same epoch, nothing up to that clock
//! should be dirty but what was unqueued then, and to produce that again does no harm either.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogError, LogReader, TopicPartition};
use futures::{StreamExt as _, stream};
use hot_store::{Dirty, HotStore, ShardHeader};
use model::{Epoch, Shard, Version};

use super::{Swept, sweep_shard};
use crate::Core;

/// A moment of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: Epoch,
    clock: Version,
    /// Where each of the shard's partitions ended a little later.
    ends: BTreeMap<TopicPartition, i64>,
}

/// Produces again what was missed up to the marks that the drain has passed, and sets new marks where there is none.
pub(super) async fn sweep<H, L, D>(
    core: &Core<H, L, D>,
    open: &BTreeMap<Shard, ShardHeader>,
    marks: &mut BTreeMap<Shard, Mark>,
) -> Swept
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    marks.retain(|shard, mark| open.get(shard).is_some_and(|header| header.epoch == mark.epoch && header.dirty > 0));
    let mut total = Swept::default();
    let passed = match passed(core, marks).await {
        Ok(passed) => passed,
        Err(error) => {
            tracing::warn!(%error, "can't see how far the log is drained");
            return total;
        }
    };
    let sweeps: Vec<_> = stream::iter(passed)
        .map(|(shard, up_to)| async move {
            let mut swept = Swept::default();
            let result = sweep_shard(core, shard, Dirty::All, up_to, &mut swept).await;
            (shard, result, swept)
        })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await;
    for (shard, result, swept) in sweeps {
        total.add(swept);
        match result {
            Ok(()) => drop(marks.remove(&shard)),
            Err(error) => {
                tracing::warn!(%shard, %error, "the relay could not produce again what was missed; it will try again")
            }
        }
    }
    if let Err(error) = set(core, open, marks).await {
        tracing::warn!(%error, "can't see where the log ends");
    }
    total
}

/// The shards whose mark the drain has passed, and up to which version.
async fn passed<H, L, D>(core: &Core<H, L, D>, marks: &BTreeMap<Shard, Mark>) -> Result<Vec<(Shard, Version)>, LogError>
where
    L: LogReader,
{
    let partitions: Vec<TopicPartition> = marks.values().flat_map(|mark| mark.ends.keys().cloned()).collect();
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = core.log.committed(&partitions).await?;
    let done = |committed: Option<event_log::Committed>| committed.map_or(0, |committed| committed.done.offset);
    let done: BTreeMap<TopicPartition, i64> = partitions.into_iter().zip(committed.into_iter().map(done)).collect();
    let is_passed = |mark: &Mark| mark.ends.iter().all(|(at, end)| done.get(at).is_some_and(|done| done >= end));
    Ok(marks.iter().filter(|(_, mark)| is_passed(mark)).map(|(shard, mark)| (*shard, mark.clock)).collect())
}

/// Marks where each shard stands that has none: the clock was read before, the ends are read now.
async fn set<H, L, D>(
    core: &Core<H, L, D>,
    open: &BTreeMap<Shard, ShardHeader>,
    marks: &mut BTreeMap<Shard, Mark>,
) -> Result<(), LogError>
where
    L: LogReader,
    D: Database,
{
    let tables = core.directory.all();
    let mut fresh: BTreeMap<Shard, Mark> = open
        .iter()
        .filter(|(shard, header)| header.dirty > 0 && !marks.contains_key(shard))
        .map(|(shard, header)| (*shard, Mark { epoch: header.epoch, clock: header.clock, ends: BTreeMap::new() }))
        .collect();
    let partitions: Vec<TopicPartition> = fresh
        .keys()
        .flat_map(|shard| {
            let at = |table: &std::sync::Arc<database::CatalogTable>| TopicPartition {
                topic: table.settings.topic.clone(),
                partition: shard.0,
            };
            tables.iter().map(at)
        })
        .collect();
    if partitions.is_empty() {
        return Ok(());
    }
    let bounds = core.log.bounds(&partitions).await?;
    for (at, (_, end)) in partitions.into_iter().zip(bounds) {
        if let Some(mark) = fresh.get_mut(&Shard(at.partition)) {
            mark.ends.insert(at, end);
        }
    }
    marks.extend(fresh);
    Ok(())
}
