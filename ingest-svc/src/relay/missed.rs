//! What the drain must have missed: dirty records whose event lies behind the offset that it has committed.
//!
//! An offset is committed only after the record was marked clean. So what is dirty there lost its mark: with the tail
//! of the hot store's history, where the checkpoint that survived is younger than the write but older than the mark; or
//! the log has deleted the event before it was drained. Without this rule such a record would stay dirty for ever, and
//! the horizon with it.
//!
//! A mark of ours names a shard's clock, and then the end of one table's partition: what had been queued of the table's
//! versions up to that clock lies before that end. Once nothing before it will be drained any more, in the same epoch,
//! nothing of the table up to that clock should be dirty but what was unqueued then, and to produce that again does no
//! harm either. Each table has its own marks, so that one whose drain stands still holds up no other.

use std::collections::BTreeMap;

use database::Database;
use event_log::{Committed, EventPublisher, LogError, LogReader, TopicPartition};
use futures::{StreamExt as _, stream};
use hot_store::{Dirty, DirtyRecord, HotStore, ShardHeader};
use model::{Epoch, Namespace, Shard, Topic, Version};

use super::{Span, Swept, sweep_shard};
use crate::Core;

/// A moment of a table in a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    namespace: Namespace,
    epoch: Epoch,
    clock: Version,
    /// Where the partition ended a little later.
    end: i64,
}

/// The marks by the partition of their table in their shard.
pub(super) type Marks = BTreeMap<TopicPartition, Mark>;

/// A table that has dirty records in a shard.
#[derive(Debug, Clone)]
struct Held {
    namespace: Namespace,
    epoch: Epoch,
    /// The shard's clock before anything else was asked.
    clock: Version,
    /// No dirty record is older.
    oldest: Version,
}

impl Held {
    fn mark(&self, end: i64) -> Mark {
        Mark { namespace: self.namespace.clone(), epoch: self.epoch, clock: self.clock, end }
    }

    fn is_marked_by(&self, mark: &Mark) -> bool {
        self.namespace == mark.namespace && self.epoch == mark.epoch
    }
}

/// How far a partition is.
struct Standing {
    partition: TopicPartition,
    /// Nothing below will be drained any more.
    done: i64,
    end: i64,
}

/// Produces again what was missed up to the marks that the drain has passed, and sets new marks where there is none.
pub(super) async fn sweep<H, L, D>(
    core: &Core<H, L, D>,
    open: &BTreeMap<Shard, ShardHeader>,
    marks: &mut Marks,
) -> Swept
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let held = held(core, open).await;
    // A table that has nothing dirty, or is not in the catalog any more, needs no mark; nor does another epoch.
    marks.retain(|at, mark| held.get(at).is_some_and(|held| held.is_marked_by(mark)));
    let mut missed: BTreeMap<Shard, BTreeMap<Namespace, Span>> = BTreeMap::new();
    for Standing { partition, done, end } in standings(core, held.keys()).await {
        let Some(held) = held.get(&partition) else { continue };
        match marks.get(&partition) {
            // The log that the mark was set in is gone, or its tail: that end may never be reached.
            Some(mark) if end < mark.end => {}
            Some(mark) if done < mark.end => continue,
            // It is replaced when that was produced again, by the next sweep: its end must lie behind that.
            Some(mark) if held.oldest <= mark.clock => {
                let span = Span { after: held.oldest.before(), up_to: mark.clock };
                missed.entry(Shard(partition.partition)).or_default().insert(held.namespace.clone(), span);
                continue;
            }
            _ => {}
        }
        marks.insert(partition, held.mark(end));
    }
    let sweeps: Vec<_> = stream::iter(missed)
        .map(|(shard, spans)| async move {
            let mut swept = Swept::default();
            let is_due = |record: &DirtyRecord| {
                spans.get(&record.record.namespace).is_some_and(|span| span.holds(record.version))
            };
            let result = match spans.values().copied().reduce(Span::with) {
                Some(span) => sweep_shard(core, shard, Dirty::All, span, &mut swept, is_due).await,
                None => Ok(()),
            };
            (shard, spans, result, swept)
        })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await;
    let mut total = Swept::default();
    for (shard, spans, result, swept) in sweeps {
        total.add(swept);
        match result {
            Ok(()) => marks.retain(|at, mark| at.partition != shard.0 || !spans.contains_key(&mark.namespace)),
            Err(error) => {
                tracing::warn!(%shard, %error, "the relay could not produce again what was missed; it will try again")
            }
        }
    }
    total
}

/// The tables of the catalog that have dirty records, by shard.
async fn held<H, L, D>(core: &Core<H, L, D>, open: &BTreeMap<Shard, ShardHeader>) -> BTreeMap<TopicPartition, Held>
where
    H: HotStore,
    D: Database,
{
    let tables: Vec<(Topic, Namespace)> =
        core.directory.all().iter().map(|t| (t.settings.topic.clone(), t.settings.namespace.clone())).collect();
    if tables.is_empty() {
        return BTreeMap::new();
    }
    let namespaces: Vec<Namespace> = tables.iter().map(|(_, namespace)| namespace.clone()).collect();
    let dirty: Vec<(Shard, Epoch, Version)> = open
        .iter()
        .filter(|(_, header)| header.dirty > 0)
        .map(|(shard, header)| (*shard, header.epoch, header.clock))
        .collect();
    let answers: Vec<_> = stream::iter(dirty)
        .map(|(shard, epoch, clock)| {
            let namespaces = namespaces.clone();
            async move { (shard, epoch, clock, core.hot.backlog(shard, namespaces).await) }
        })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await;
    let mut held = BTreeMap::new();
    for (shard, epoch, clock, answer) in answers {
        match answer {
            Ok((now, backlogs)) if now == epoch => {
                for ((topic, namespace), backlog) in tables.iter().zip(backlogs) {
                    let Some(oldest) = backlog.oldest else { continue };
                    let at = TopicPartition { topic: topic.clone(), partition: shard.0 };
                    held.insert(at, Held { namespace: namespace.clone(), epoch, clock, oldest });
                }
            }
            // It was opened anew meanwhile: the next sweep sees that too.
            Ok(_) => {}
            Err(error) => tracing::warn!(%shard, %error, "the relay can't see what is dirty; it will try again"),
        }
    }
    held
}

/// How far the partitions are. Each topic is asked for by itself: one that can't be asked for holds up no other.
async fn standings<H, L, D>(core: &Core<H, L, D>, partitions: impl Iterator<Item = &TopicPartition>) -> Vec<Standing>
where
    L: LogReader,
{
    let mut topics: BTreeMap<Topic, Vec<TopicPartition>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(partition.topic.clone()).or_default().push(partition.clone());
    }
    let answers: Vec<_> = stream::iter(topics)
        .map(|(topic, partitions)| async move { (topic, standings_in_topic(core, partitions).await) })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await;
    let mut standings = Vec::new();
    for (topic, answer) in answers {
        match answer {
            Ok(answer) => standings.extend(answer),
            Err(error) => tracing::warn!(%topic, %error, "can't see how far the topic is drained"),
        }
    }
    standings
}

async fn standings_in_topic<H, L, D>(
    core: &Core<H, L, D>,
    partitions: Vec<TopicPartition>,
) -> Result<Vec<Standing>, LogError>
where
    L: LogReader,
{
    let committed = core.log.committed(&partitions).await?;
    let bounds = core.log.bounds(&partitions).await?;
    let standing = |((partition, committed), (first, end)): ((_, Option<Committed>), _)| {
        // What was deleted won't be drained; and what is committed beyond the end was committed of another log.
        let committed = committed.map(|committed| committed.done.offset).filter(|offset| *offset <= end);
        Standing { partition, done: committed.map_or(first, |offset| offset.max(first)), end }
    };
    Ok(partitions.into_iter().zip(committed).zip(bounds).map(standing).collect())
}
