//! The third step of a write: into the event log, and the mark that it is there.

use std::collections::BTreeMap;

use bytes::Bytes;
use database::Database;
use event_log::{EventPublisher, LogReader, Outgoing, PublishError, TopicPartition};
use futures::{StreamExt as _, stream};
use hot_store::{HotStore, Stamp};
use model::{Epoch, Shard};
use planted::Bug;
use tokio::time::timeout;

use super::{WriteError, store::Stored};
use crate::Core;

/// Puts the events of stored writes and the notes of their requests into the log, and marks what has an event queued,
/// all under the epoch in which it was written. Only what was marked so may be acknowledged as QUEUED: a shard that was
/// opened again meanwhile may have voided the event. What has a note alone has nothing to mark, but the same is asked.
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
    let (places, records): (Vec<usize>, Vec<Outgoing>) = stored.iter().enumerate().flat_map(to_records).unzip();
    let published = publish(core, records).await;
    for (nth, at) in places.into_iter().enumerate() {
        match published.get(nth) {
            Some(Err(PublishError::Unknown(_))) if planted::is(Bug::UnknownIsDone) => {}
            Some(Ok(_)) => {}
            Some(Err(error)) => results[at] = Err(unknown(&error.to_string())),
            None => results[at] = Err(unknown("the event log gave no answer for it")),
        }
    }
    let mut marks: BTreeMap<(Shard, Epoch), Vec<usize>> = BTreeMap::new();
    for (at, write) in stored.iter().enumerate().filter(|(at, _)| results[*at].is_ok()) {
        marks.entry((write.shard, write.epoch)).or_default().push(at);
    }
    let marked: Vec<_> = stream::iter(marks)
        .map(|((shard, epoch), places)| async move {
            let with_event = places.iter().map(|&at| &stored[at]).filter(|write| write.event.is_some());
            let stamps =
                with_event.map(|write| Stamp { record: write.record.clone(), version: write.version }).collect();
            (core.hot.mark_queued(shard, epoch, stamps).await, places)
        })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await;
    for (answer, places) in marked {
        match answer {
            Err(error) => places.iter().for_each(|&at| results[at] = Err(unknown(&error.to_string()))),
            Ok(marks) => {
                let mut marks = marks.into_iter();
                for at in places {
                    if stored[at].event.is_some() && marks.next() != Some(true) {
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

fn to_records((at, write): (usize, &Stored)) -> impl Iterator<Item = (usize, Outgoing)> {
    let to_record = move |payload: &Bytes| Outgoing {
        to: TopicPartition { topic: write.topic.clone(), partition: write.shard.0 },
        key: write.record.key.as_bytes().clone(),
        payload: payload.clone(),
    };
    write.event.iter().chain(&write.note).map(move |payload| (at, to_record(payload)))
}

/// The write is in the hot store, from where the relay will bring it into the log if it is still there.
fn unknown(problem: &str) -> WriteError {
    WriteError::OutcomeUnknown(format!(
        "it was stored, and will be queued later unless the hot store loses it: {problem}"
    ))
}
