//! What is written into the group's committed offsets: the offset of the next record and, as metadata, the epoch in
//! force there and the request window. The only place where offsets of ours become offsets of Kafka's, and back.

use std::str::FromStr;

use model::{Epoch, Topic};
use rdkafka::{Offset, TopicPartitionList, error::KafkaError};

use super::client::failed;
use crate::log::{Committed, LogError, Progress, TopicPartition};

fn to_text(committed: Committed) -> String {
    let Committed { done, window } = committed;
    format!("epoch={};window={}:{}", done.epoch, window.offset, window.epoch)
}

/// The first releases wrote no window: nobody has counted on one.
fn from_text(offset: i64, text: &str) -> Option<Committed> {
    let (epoch, window) = match text.split_once(';') {
        Some((epoch, window)) => (epoch, Some(window)),
        None => (text, None),
    };
    let done = Progress { offset, epoch: Epoch(number(epoch.strip_prefix("epoch=")?)?) };
    let window = match window {
        Some(window) => {
            let (offset, epoch) = window.strip_prefix("window=")?.split_once(':')?;
            Progress { offset: number(offset)?, epoch: Epoch(number(epoch)?) }
        }
        None => done,
    };
    (window.offset <= done.offset).then_some(Committed { done, window })
}

fn number<N: FromStr>(digits: &str) -> Option<N> {
    // `parse` would also take a sign.
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// A list of partitions without offsets.
pub(super) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(partition.topic.as_str(), i32::from(partition.partition));
    }
    list
}

/// A list to be committed. Kafka's committed offset is that of the next record to be read, which is what
/// [`Progress::offset`] is: nothing is added.
pub(super) fn commit_list(progress: &[(TopicPartition, Committed)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(progress.len());
    for (partition, committed) in progress {
        let mut element = list.add_partition(partition.topic.as_str(), i32::from(partition.partition));
        element.set_offset(Offset::Offset(committed.done.offset))?;
        element.set_metadata(to_text(*committed));
    }
    Ok(list)
}

/// The partitions of a list; those that can't be ours are left out.
pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .filter_map(|element| {
            Some(TopicPartition {
                topic: Topic::new(element.topic()).ok()?,
                partition: u16::try_from(element.partition()).ok()?,
            })
        })
        .collect()
}

/// Reads what the group has committed, in the order of `partitions`.
pub(super) fn committed_from(
    list: &TopicPartitionList,
    partitions: &[TopicPartition],
) -> Result<Vec<Option<Committed>>, LogError> {
    partitions.iter().map(|partition| one_from(list, partition)).collect()
}

fn one_from(list: &TopicPartitionList, partition: &TopicPartition) -> Result<Option<Committed>, LogError> {
    let TopicPartition { topic, partition } = partition;
    let Some(element) = list.find_partition(topic.as_str(), i32::from(*partition)) else {
        return Err(LogError::Unavailable(format!("no committed offset came back for {topic}/{partition}")));
    };
    element.error().map_err(|error| failed(&format!("the committed offset of {topic}/{partition}"), &error))?;
    match element.offset() {
        Offset::Offset(offset) => committed(offset, element.metadata()).map(Some).ok_or_else(|| {
            LogError::Unfit(format!(
                "the committed offset {offset} of {topic}/{partition} does not name the epoch in force there; \
                 somebody else has committed it. Stop the drain and delete the group's offsets for the topic \
                 (kafka-consumer-groups --delete-offsets), so that it is drained again from the beginning"
            ))
        }),
        _ => Ok(None),
    }
}

fn committed(offset: i64, metadata: &str) -> Option<Committed> {
    // At the very beginning no fence was met yet, whoever says so.
    if offset == 0 && metadata.is_empty() {
        return Some(Committed { done: Progress::BEGINNING, window: Progress::BEGINNING });
    }
    from_text(offset, metadata)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition() -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition: 7 }
    }

    proptest! {
        #[test]
        fn what_is_committed_is_what_is_read(offset in 0i64..i64::MAX, epoch: u32, back: u32, window_epoch: u32) {
            let window = Progress { offset: (offset - i64::from(back)).max(0), epoch: Epoch(window_epoch) };
            let committed = Committed { done: Progress { offset, epoch: Epoch(epoch) }, window };
            let list = commit_list(&[(partition(), committed)]).unwrap();
            prop_assert_eq!(committed_from(&list, &[partition()]), Ok(vec![Some(committed)]));
        }
    }

    #[test]
    fn the_stored_texts_are_what_they_have_always_been() {
        let at = |offset, epoch| Progress { offset, epoch: Epoch(epoch) };
        let committed = Committed { done: at(70, 3), window: at(50, 2) };
        assert_eq!(to_text(committed), "epoch=3;window=50:2");
        assert_eq!(from_text(70, "epoch=3;window=50:2"), Some(committed));
        assert_eq!(from_text(70, "epoch=3"), Some(Committed { done: at(70, 3), window: at(70, 3) }));
        for bad in [
            "",
            "3",
            "epoch=",
            "epoch=+3",
            "epoch=-1",
            "epoch= 3",
            "epoch=4294967296",
            "epoch=3;",
            "epoch=3;window=",
            "epoch=3;window=5",
            "epoch=3;window=-5:1",
            "epoch=3;window=5:+1",
            "epoch=3;window=71:3",
        ] {
            assert_eq!(from_text(70, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_offset_without_an_epoch_is_refused_unless_it_is_the_beginning() {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("orders", 7, Offset::Offset(12)).unwrap();
        let Err(LogError::Unfit(message)) = committed_from(&list, &[partition()]) else { panic!("accepted") };
        assert!(message.contains("orders/7"), "{message}");

        let mut list = TopicPartitionList::new();
        list.add_partition_offset("orders", 7, Offset::Offset(0)).unwrap();
        let beginning = Committed { done: Progress::BEGINNING, window: Progress::BEGINNING };
        assert_eq!(committed_from(&list, &[partition()]), Ok(vec![Some(beginning)]));
    }

    #[test]
    fn nothing_committed_is_none() {
        assert_eq!(committed_from(&list(&[partition()]), &[partition()]), Ok(vec![None]));
    }
}
