//! The fence of an opening: what was produced under earlier epochs and lands behind it is void.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use event_log::{EventPublisher, Outgoing, PublishError, TopicPartition};
use model::{Epoch, Event, EventBody, Fence, Shard, Topic};
use tokio::time::timeout;

use super::OpeningError;

/// Appends the fence to the shard's partition of every topic, and returns where it lies in each.
pub(super) async fn append<L: EventPublisher>(
    log: &L,
    topics: &[Topic],
    shard: Shard,
    epoch: Epoch,
    opener: &str,
    within: Duration,
) -> Result<BTreeMap<Topic, i64>, OpeningError> {
    let event = Event { shard, epoch, body: EventBody::Fence(Fence { opener: opener.to_owned() }) };
    let payload = event.encode();
    let to_partition = |topic: &Topic| Outgoing {
        to: TopicPartition { topic: topic.clone(), partition: shard.0 },
        key: Bytes::new(),
        payload: payload.clone(),
    };
    let unanswered = || vec![Err(PublishError::Unknown("no answer in time".to_owned())); topics.len()];
    let published = timeout(within, log.publish(topics.iter().map(to_partition).collect())).await;
    let answers = published.unwrap_or_else(|_| unanswered());
    if answers.len() < topics.len() {
        return Err(OpeningError::Incomplete { asked: topics.len(), got: answers.len() });
    }
    let place = |(topic, answer): (&Topic, Result<i64, _>)| match answer {
        Ok(offset) => Ok((topic.clone(), offset)),
        Err(error) => Err(OpeningError::Fence { topic: topic.clone(), error }),
    };
    topics.iter().zip(answers).map(place).collect()
}
