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
use opentelemetry::{global, metrics::Gauge};
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
    let silent: Gauge<u64> = global::meter("shock_absorber.ingest")
        .u64_gauge("shock_absorber.ingest.silent_partitions")
        .with_description("partitions whose end the event log does not tell; an opening would read more of them")
        .build();
    let mut ticks = interval(core.options.checkpoint_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checkpoints = Checkpoints::default();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        checkpoints.write(&core).await;
        silent.record(checkpoints.silent.len() as u64, &[]);
    }
}

/// Writes one checkpoint into every open shard, and says into how many; see [`Checkpoints::write`].
pub async fn write<H, L, D>(core: &Core<H, L, D>) -> usize
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    Checkpoints::default().write(core).await
}

/// Writes checkpoints, and remembers what it has written.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// The last points of each partition that the store has taken.
    written: BTreeMap<TopicPartition, LogPoint>,
    /// How often in a row a partition has not told its end.
    silent: BTreeMap<TopicPartition, u32>,
}

/// The end of a partition, or why it is not known.
type Answer = (TopicPartition, Result<i64, LogError>);

/// A broker that has just started may say that it does not know a topic: only so many answers in a row are believed.
const BELIEVED: u32 = 10;

impl Checkpoints {
    /// Writes a checkpoint into every open shard, and says into how many.
    ///
    /// First the epochs, then the log's ends, then the checkpoints, each under its epoch: the fence of an epoch was in
    /// every partition before a shard opened in it, so that epoch is in force at an end that was read while it lasted.
    ///
    /// The points of a checkpoint hold each by itself, and an earlier one goes on to hold: it only makes an opening read
    /// more. So a partition that does not tell its end keeps its last point and no other partition from a new one.
    pub async fn write<H, L, D>(&mut self, core: &Core<H, L, D>) -> usize
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
        self.written.retain(|at, _| topics.contains(&at.topic));
        let partitions: Vec<_> = open
            .iter()
            .flat_map(|(shard, _)| topics.iter().map(|t| TopicPartition { topic: t.clone(), partition: shard.0 }))
            .collect();
        if partitions.is_empty() {
            return 0;
        }
        let mut ends = core.log.bounds_of_each(&partitions).await;
        ends.resize(partitions.len(), Err(LogError::Unavailable("no answer came back".into())));
        if planted::is(Bug::CheckpointAhead) {
            ends.iter_mut().flatten().for_each(|(_, end)| *end += 2);
        }
        self.notice(&partitions, &ends);
        let mut answers: BTreeMap<Shard, Vec<Answer>> = BTreeMap::new();
        for (at, bounds) in partitions.into_iter().zip(ends) {
            answers.entry(Shard(at.partition)).or_default().push((at, bounds.map(|(_, end)| end)));
        }
        let checkpoints: Vec<_> = open
            .into_iter()
            .filter_map(|(shard, epoch)| {
                let points = self.points(epoch, answers.remove(&shard).unwrap_or_default())?;
                Some((shard, epoch, points))
            })
            .collect();
        let written: Vec<_> = stream::iter(checkpoints)
            .map(|(shard, epoch, points)| async move {
                match core.hot.checkpoint(shard, epoch, Checkpoint(points.clone())).await {
                    Ok(()) => Some((shard, points)),
                    // Closed meanwhile: it will be opened from the checkpoint before this one.
                    Err(HotStoreError::Closed { .. }) => None,
                    Err(error) => {
                        tracing::warn!(%shard, %error, "a checkpoint could not be written; the last one stays");
                        None
                    }
                }
            })
            .buffer_unordered(at_once)
            .filter_map(|written| async move { written })
            .collect()
            .await;
        let shards = written.len();
        // Only now: a shard that was closed meanwhile may have another epoch in force at these ends.
        for (shard, points) in written {
            for (topic, point) in points {
                self.written.insert(TopicPartition { topic, partition: shard.0 }, point);
            }
        }
        shards
    }

    /// The points of a shard. `None`: of a partition there is neither an end nor an earlier point of this epoch; without
    /// one it would count as younger than the checkpoint, so the one that the store has stays.
    fn points(&self, epoch: Epoch, answers: Vec<Answer>) -> Option<BTreeMap<Topic, LogPoint>> {
        let mut points = BTreeMap::new();
        for (at, end) in answers {
            let point = match (end, self.written.get(&at)) {
                (Ok(offset), _) => LogPoint { offset, epoch },
                // One of an earlier epoch may be what the opening in between did not believe, the log having lost its end.
                (Err(_), Some(earlier)) if earlier.epoch == epoch => *earlier,
                // It will be younger than the checkpoint, if it is ever made.
                (Err(LogError::NoSuchTopic(_)), _) if self.silent.get(&at) >= Some(&BELIEVED) => continue,
                (Err(_), _) => return None,
            };
            points.insert(at.topic, point);
        }
        Some(points)
    }

    /// Says once, and not every second, what does not answer.
    fn notice(&mut self, partitions: &[TopicPartition], ends: &[Result<(i64, i64), LogError>]) {
        let before = std::mem::take(&mut self.silent);
        for (at, end) in partitions.iter().zip(ends) {
            let TopicPartition { topic, partition } = at;
            match end {
                Ok(_) if before.contains_key(at) => {
                    tracing::info!(%topic, partition, "the partition tells its end again")
                }
                Ok(_) => {}
                Err(error) => {
                    let times = before.get(at).copied().unwrap_or(0);
                    if times == 0 {
                        tracing::warn!(%topic, partition, %error,
                            "the partition does not tell its end; its last checkpoint stays, and an opening would read more");
                    }
                    self.silent.insert(at.clone(), times.saturating_add(1));
                }
            }
        }
    }
}
