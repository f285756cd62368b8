//! The third step of a write: into the event log, and the mark that it is there.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogReader, Outgoing, PublishError, TopicPartition};
use futures::{StreamExt as _, stream};
use hot_store::{HotStore, Stamp};
use model::{Epoch, Shard};
use planted::Bug;
use tokio::time::timeout;

use super::{WriteError, store::Stored};
use crate::Core;

/// Puts stored writes, which have events, into the log and marks them queued under the epoch in which they were written. Only what was
/// marked so may be acknowledged as QUEUED: a shard that was opened again meanwhile may have voided the event.
pub(super) async fn queue<H, L, D>(core: &Core<H, L, D>, stored: &[Stored]) -> Vec<Result<(), WriteError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    if stored.is_empty() {
        return Vec::new();
    }
    let mut results = vec![Ok(()); stored.len()];
    let published = publish(core, stored.iter().filter_map(to_record).collect()).await;
    let mut marks: BTreeMap<(Shard, Epoch), Vec<usize>> = BTreeMap::new();
    for (at, write) in stored.iter().enumerate() {
        match published.get(at) {
            Some(Err(PublishError::Unknown(_))) if planted::is(Bug::UnknownIsDone) => {
                marks.entry((write.shard, write.epoch)).or_default().push(at);
            }
            Some(Ok(_)) => marks.entry((write.shard, write.epoch)).or_default().push(at),
            Some(Err(error)) => results[at] = Err(unknown(&error.to_string())),
            None => results[at] = Err(unknown("the event log gave no answer for it")),
        }
    }
    let marked: Vec<_> = stream::iter(marks)
        .map(|((shard, epoch), places)| async move {
            let stamp = |at: &usize| Stamp { record: stored[*at].record.clone(), version: stored[*at].version };
            let stamps = places.iter().map(stamp).collect();
            (core.hot.mark_queued(shard, epoch, stamps).await, places)
        })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await;
    for (answer, places) in marked {
        match answer {
            Err(error) => places.iter().for_each(|&at| results[at] = Err(unknown(&error.to_string()))),
            Ok(marks) => {
                for (nth, &at) in places.iter().enumerate() {
                    if marks.get(nth) != Some(&true) {
                        results[at] = Err(unknown("the hot store no longer knows it"));
                    }
                }
            }
        }
    }
    results
}

async fn publish<H, L, D>(core: &Core<H, L, D>, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>>
where
    L: EventPublisher,
{
    let count = records.len();
    if planted::is(Bug::AckBeforeLog) {
        let log = core.log.clone();
        core.tasks.spawn(async move { drop(log.publish(records).await) });
        return vec![Ok(0); count];
    }
    match timeout(core.options.publish_timeout, core.log.publish(records)).await {
        Ok(published) => published,
        Err(_) => vec![Err(PublishError::Unknown("there was no answer in time".to_owned())); count],
    }
}

fn to_record(write: &Stored) -> Option<Outgoing> {
    Some(Outgoing {
        to: TopicPartition { topic: write.topic.clone(), partition: write.shard.0 },
        key: write.record.key.as_bytes().clone(),
        payload: write.event.clone()?,
    })
}

/// The write is in the hot store, from where the relay will bring it into the log if it is still there.
fn unknown(problem: &str) -> WriteError {
    WriteError::OutcomeUnknown(format!(
        "it was stored, and will be queued later unless the hot store loses it: {problem}"
    ))
}
