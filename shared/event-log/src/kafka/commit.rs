//! What is written into the group's committed offsets: the offset of the next record and, as metadata, the epoch in
//! force there. The only place where offsets of ours become offsets of Kafka's, and back.

use model::{Epoch, Topic};
use rdkafka::{Offset, TopicPartitionList, error::KafkaError};

use super::client::failed;
use crate::log::{LogError, Progress, TopicPartition};

fn to_text(epoch: Epoch) -> String {
    format!("epoch={epoch}")
}

fn from_text(text: &str) -> Option<Epoch> {
    let digits = text.strip_prefix("epoch=")?;
    // `parse` would also take a plus sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Epoch)
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
pub(super) fn commit_list(progress: &[(TopicPartition, Progress)]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(progress.len());
    for (partition, progress) in progress {
        let mut element = list.add_partition(partition.topic.as_str(), i32::from(partition.partition));
        element.set_offset(Offset::Offset(progress.offset))?;
        element.set_metadata(to_text(progress.epoch));
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
) -> Result<Vec<Option<Progress>>, LogError> {
    partitions.iter().map(|partition| one_from(list, partition)).collect()
}

fn one_from(list: &TopicPartitionList, partition: &TopicPartition) -> Result<Option<Progress>, LogError> {
    let TopicPartition { topic, partition } = partition;
    let Some(element) = list.find_partition(topic.as_str(), i32::from(*partition)) else {
        return Err(LogError::Unavailable(format!("no committed offset came back for {topic}/{partition}")));
    };
    element.error().map_err(|error| failed(&format!("the committed offset of {topic}/{partition}"), &error))?;
    match element.offset() {
        Offset::Offset(offset) => progress(offset, element.metadata()).map(Some).ok_or_else(|| {
            LogError::Unfit(format!(
                "the committed offset {offset} of {topic}/{partition} does not name the epoch in force there; \
                 somebody else has committed it. Stop the drain and delete the group's offsets for the topic \
                 (kafka-consumer-groups --delete-offsets), so that it is drained again from the beginning"
            ))
        }),
        _ => Ok(None),
    }
}

fn progress(offset: i64, metadata: &str) -> Option<Progress> {
    // At the very beginning no fence was met yet, whoever says so.
    if offset == 0 && metadata.is_empty() {
        return Some(Progress { offset, epoch: Epoch::ZERO });
    }
    Some(Progress { offset, epoch: from_text(metadata)? })
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
        fn what_is_committed_is_what_is_read(offset in 0i64..i64::MAX, epoch: u32) {
            let progress = Progress { offset, epoch: Epoch(epoch) };
            let list = commit_list(&[(partition(), progress)]).unwrap();
            prop_assert_eq!(committed_from(&list, &[partition()]), Ok(vec![Some(progress)]));
        }
    }

    #[test]
    fn the_stored_text_is_what_it_has_always_been() {
        assert_eq!(to_text(Epoch(3)), "epoch=3");
        assert_eq!(from_text("epoch=3"), Some(Epoch(3)));
        for bad in ["", "3", "epoch=", "epoch=+3", "epoch=-1", "epoch= 3", "epoch=4294967296"] {
            assert_eq!(from_text(bad), None, "{bad:?}");
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
        let beginning = Progress { offset: 0, epoch: Epoch::ZERO };
        assert_eq!(committed_from(&list, &[partition()]), Ok(vec![Some(beginning)]));
    }

    #[test]
    fn nothing_committed_is_none() {
        assert_eq!(committed_from(&list(&[partition()]), &[partition()]), Ok(vec![None]));
    }
}
