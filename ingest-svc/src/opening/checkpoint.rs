//! Checkpoints: from where each shard must be read again if the hot store loses the tail of its history.
//!
//! An event is in the store before it is in the log. So what the log held *before* the checkpoint was written is in
//! the store that holds the checkpoint.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogError, LogReader, TopicPartition};
use futures::{StreamExt as _, stream};
use hot_store::{Checkpoint, HotStore, HotStoreError, LogPoint};
use model::{Epoch, Shard, Topic};
use planted::Bug;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Core;

/// Writes checkpoints every `checkpoint_interval`, until `shutdown`.
pub async fn run<H, L, D>(core: Arc<Core<H, L, D>>, shutdown: CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut ticks = interval(core.options.checkpoint_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = write(&core).await {
            tracing::warn!(%error, "no checkpoint could be taken; the last one stays, and an opening would read more");
        }
    }
}

/// Writes a checkpoint into every open shard, and says into how many.
///
/// First the epochs, then the log's ends, then the checkpoints, each under its epoch: the fence of an epoch was in
/// every partition before a shard opened in it, so that epoch is in force at an end that was read while it lasted.
///
/// # Errors
/// If the log can't be asked.
pub async fn write<H, L, D>(core: &Core<H, L, D>) -> Result<usize, LogError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let at_once = core.options.shards_at_once.max(1);
    let open: Vec<(Shard, Epoch)> = stream::iter(core.shards.all())
        .map(|shard| async move {
            let header = core.hot.header(shard).await.ok()?;
            header.open.then_some((shard, header.epoch))
        })
        .buffer_unordered(at_once)
        .filter_map(|open| async move { open })
        .collect()
        .await;
    let topics: Vec<Topic> = core.directory.all().iter().map(|table| table.settings.topic.clone()).collect();
    let partitions: Vec<_> = open
        .iter()
        .flat_map(|(shard, _)| topics.iter().map(|t| TopicPartition { topic: t.clone(), partition: shard.0 }))
        .collect();
    if partitions.is_empty() {
        return Ok(0);
    }
    let mut bounds = core.log.bounds(&partitions).await?;
    if planted::is(Bug::CheckpointAhead) {
        bounds.iter_mut().for_each(|(_, end)| *end += 2);
    }
    let mut ends: BTreeMap<Shard, Vec<(Topic, i64)>> = BTreeMap::new();
    for (at, (_, end)) in partitions.into_iter().zip(bounds) {
        ends.entry(Shard(at.partition)).or_default().push((at.topic, end));
    }
    let written = stream::iter(open)
        .map(|(shard, epoch)| {
            let point = |(topic, offset): (Topic, i64)| (topic, LogPoint { offset, epoch });
            let points = ends.remove(&shard).unwrap_or_default().into_iter().map(point).collect();
            async move {
                match core.hot.checkpoint(shard, epoch, Checkpoint(points)).await {
                    Ok(()) => true,
                    // Closed meanwhile: it will be opened from the checkpoint before this one.
                    Err(HotStoreError::Closed { .. }) => false,
                    Err(error) => {
                        tracing::warn!(%shard, %error, "a checkpoint could not be written; the last one stays");
                        false
                    }
                }
            }
        })
        .buffer_unordered(at_once)
        .filter(|written| std::future::ready(*written))
        .count()
        .await;
    Ok(written)
}
