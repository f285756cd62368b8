//! The records of the log in memory: topics, partitions, offsets, and how much of it waits to be drained.
//!
//! Dead letters wait for nobody: they are kept for ever, so they would fill the room of what waits once and for all. They
//! have a room of their own, as large: a log that is full of events takes the letters without which it would never empty.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use model::{DeadLetter, Topic};

use crate::log::{Committed, LogError, LogRecord, Outgoing, PublishError, TopicPartition};

/// What a record costs beside its bytes, about.
pub(crate) const RECORD_OVERHEAD_BYTES: u64 = 64;
/// A fence is taken also by a full log, up to here: without it a shard never opens, and the log never empties.
const FENCE_RESERVE_BYTES: u64 = 1 << 20;

/// What key and payload take up in the count of undrained bytes.
fn cost(key: &Bytes, payload: &Bytes) -> u64 {
    (key.len() + payload.len()) as u64 + RECORD_OVERHEAD_BYTES
}

/// What the log takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Undrained bytes at most, and as many of dead letters.
    pub(crate) log_bytes: u64,
    /// Key and payload of one record at most.
    pub(crate) message_bytes: usize,
}

impl Limits {
    /// Whether more fits beside what is there, and an eighth of the room stays free.
    pub(crate) fn have_room(&self, used: u64, records: usize, bytes: usize) -> bool {
        let more = bytes as u64 + records as u64 * RECORD_OVERHEAD_BYTES;
        // What does not fit into an empty log is not a matter of room.
        used == 0 || used.saturating_add(more) <= self.log_bytes / 8 * 7
    }
}

/// How many bytes are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Those that wait to be drained.
    pub(crate) undrained: u64,
    /// Those of dead letters.
    letters: u64,
}

impl Held {
    /// The bytes of what shares its room with the records of a topic.
    fn of(&mut self, topic: &Topic) -> &mut u64 {
        if topic.is_dead_letters() { &mut self.letters } else { &mut self.undrained }
    }

    /// Counts a record.
    pub(crate) fn add(&mut self, record: &Outgoing) {
        *self.of(&record.to.topic) += cost(&record.key, &record.payload);
    }
}

#[derive(Debug, Default)]
struct Partition {
    /// The offset of the first record here.
    first: i64,
    records: VecDeque<(Bytes, Bytes)>,
    committed: Option<Committed>,
}

impl Partition {
    fn next(&self) -> i64 {
        self.first + self.records.len() as i64
    }

    /// What the records from one offset to another cost.
    fn cost(&self, from: i64, to: i64) -> u64 {
        let place = |offset: i64| usize::try_from(offset - self.first).unwrap_or(0).min(self.records.len());
        self.records.range(place(from)..place(to).max(place(from))).map(|(key, payload)| cost(key, payload)).sum()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Topics and their numbers of partitions.
    pub(crate) topics: BTreeMap<Topic, u16>,
    partitions: BTreeMap<TopicPartition, Partition>,
    held: Held,
}

impl Records {
    pub(crate) fn has(&self, partition: &TopicPartition) -> bool {
        self.topics.get(&partition.topic).is_some_and(|count| partition.partition < *count)
    }

    pub(crate) fn held(&self) -> Held {
        self.held
    }

    pub(crate) fn undrained_bytes(&self) -> u64 {
        self.held.undrained
    }

    /// Checks that a topic has, or can be made with, so many partitions.
    pub(crate) fn check_topic(topic: &Topic, has: Option<u16>, wanted: u16) -> Result<(), LogError> {
        match has {
            Some(count) if count != wanted => Err(LogError::Unfit(format!(
                "topic {topic} has {count} partitions and must have {wanted}; set shards to the number that this \
                 installation was started with"
            ))),
            None if wanted == 0 => Err(LogError::Unfit(format!("topic {topic} needs a partition"))),
            _ => Ok(()),
        }
    }

    /// The first offset that is here, and the next one to come; `None`: no such partition.
    pub(crate) fn bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        if !self.has(partition) {
            return None;
        }
        Some(self.partitions.get(partition).map_or((0, 0), |p| (p.first, p.next())))
    }

    pub(crate) fn committed(&self, partition: &TopicPartition) -> Option<Committed> {
        self.partitions.get(partition)?.committed
    }

    /// Whether the commit goes on from what is committed, and is within the log.
    pub(crate) fn may_commit(&self, partition: &TopicPartition, new: Committed) -> bool {
        self.bounds(partition).is_some_and(|(_, next)| new.done.offset <= next)
            && self.committed(partition).is_none_or(|before| {
                new.done.offset > before.done.offset
                    || (new.done.offset == before.done.offset && new.window.offset > before.window.offset)
            })
    }

    /// Whether the log takes the record, if so much is held.
    pub(crate) fn admit(&self, record: &Outgoing, mut held: Held, limits: &Limits) -> Result<(), PublishError> {
        let bytes = record.key.len() + record.payload.len();
        let letter = if record.to.topic.is_dead_letters() { DeadLetter::MAX_OVERHEAD_BYTES } else { 0 };
        if bytes > limits.message_bytes + letter {
            return Err(PublishError::TooLarge { bytes });
        }
        if !self.has(&record.to) {
            let TopicPartition { topic, partition } = &record.to;
            return Err(PublishError::Refused(format!("there is no partition {partition} of topic {topic}")));
        }
        let reserve = if record.key.is_empty() { FENCE_RESERVE_BYTES } else { 0 };
        let used = *held.of(&record.to.topic);
        if used.saturating_add(cost(&record.key, &record.payload)) > limits.log_bytes.saturating_add(reserve) {
            let what = if record.to.topic.is_dead_letters() { "are dead letters" } else { "wait to be drained" };
            return Err(PublishError::Refused(format!("it is full: {used} of {} bytes {what}", limits.log_bytes)));
        }
        Ok(())
    }

    /// Appends a record. Answers its offset.
    pub(crate) fn append(&mut self, record: &Outgoing) -> i64 {
        let partition = self.partitions.entry(record.to.clone()).or_default();
        let offset = partition.next();
        partition.records.push_back((record.key.clone(), record.payload.clone()));
        self.held.add(record);
        offset
    }

    /// Takes a committed offset over. The records stay until [`Records::forget`].
    pub(crate) fn commit(&mut self, partition: &TopicPartition, committed: Committed) {
        let held = self.held.of(&partition.topic);
        let partition = self.partitions.entry(partition.clone()).or_default();
        let before = partition.committed.map_or(partition.first, |committed| committed.done.offset);
        *held -= partition.cost(before, committed.done.offset);
        partition.committed = Some(committed);
    }

    /// Drops the records below an offset that are drained.
    pub(crate) fn forget(&mut self, partition: &TopicPartition, below: i64) {
        let Some(partition) = self.partitions.get_mut(partition) else { return };
        let drained = partition.committed.map_or(partition.first, |committed| committed.done.offset);
        while partition.first < below.min(drained) && partition.records.pop_front().is_some() {
            partition.first += 1;
        }
    }

    /// Loses the last records of a partition, as many as that and not what is drained.
    #[cfg(feature = "memory")]
    pub(crate) fn lose_last(&mut self, partition: &TopicPartition, many: usize) {
        let held = self.held.of(&partition.topic);
        let Some(partition) = self.partitions.get_mut(partition) else { return };
        let drained = partition.committed.map_or(partition.first, |committed| committed.done.offset);
        for _ in 0..many {
            if partition.next() > drained
                && let Some((key, payload)) = partition.records.pop_back()
            {
                *held -= cost(&key, &payload);
            }
        }
    }

    /// Takes a committed offset from where it was kept, before its records are.
    #[cfg(feature = "embedded")]
    pub(crate) fn restore_committed(&mut self, partition: TopicPartition, committed: Committed) {
        let partition = self.partitions.entry(partition).or_default();
        partition.committed = Some(committed);
        partition.first = committed.done.offset;
    }

    /// Takes a record that is not drained from where it was kept. Answers the offset that must come if it is another.
    #[cfg(feature = "embedded")]
    pub(crate) fn restore(&mut self, record: LogRecord) -> Result<(), i64> {
        let held = self.held.of(&record.from.topic);
        let partition = self.partitions.entry(record.from).or_default();
        let expected = partition.next();
        if record.offset != expected {
            return Err(expected);
        }
        *held += cost(&record.key, &record.payload);
        partition.records.push_back((record.key, record.payload));
        Ok(())
    }

    /// Copies records from `from` on up to `to`, as many as fit.
    pub(crate) fn copy(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        room: &mut Room,
        into: &mut Vec<LogRecord>,
    ) -> Result<(), LogError> {
        let Some(held) = self.partitions.get(partition) else { return Ok(()) };
        if from < held.first {
            return Err(deleted(partition, held.first, from));
        }
        let skip = usize::try_from(from - held.first).unwrap_or(usize::MAX);
        for (offset, (key, payload)) in (from..to).zip(held.records.iter().skip(skip)) {
            if !room.take(key.len() + payload.len()) {
                break;
            }
            into.push(LogRecord { from: partition.clone(), offset, key: key.clone(), payload: payload.clone() });
        }
        Ok(())
    }
}

/// What was to be read is not there any more.
pub(crate) fn deleted(partition: &TopicPartition, first: i64, from: i64) -> LogError {
    let TopicPartition { topic, partition } = partition;
    LogError::Unfit(format!(
        "{topic}/{partition} begins at offset {first}: what was to be read from {from} is drained and deleted"
    ))
}

/// What one delivery may still hold.
#[derive(Debug)]
pub(crate) struct Room {
    records: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { records: 500, bytes: 4 << 20 }
    }
}

impl Room {
    /// A record larger than all room fits into an untouched one.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        if self.is_used_up() {
            return false;
        }
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::Epoch;

    use super::*;
    use crate::log::Progress;

    fn partition(number: u16) -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition: number }
    }

    fn records() -> Records {
        Records { topics: BTreeMap::from([(Topic::new("orders").unwrap(), 3)]), ..Records::default() }
    }

    fn outgoing(number: u16) -> Outgoing {
        Outgoing { to: partition(number), key: Bytes::from_static(b"key"), payload: Bytes::from_static(b"payload") }
    }

    fn committed(done: i64, window: i64) -> Committed {
        let at = |offset| Progress { offset, epoch: Epoch(1) };
        Committed { done: at(done), window: at(window) }
    }

    #[test]
    fn what_is_drained_counts_no_more_and_is_kept_until_it_is_forgotten() {
        let mut records = records();
        for _ in 0..4 {
            records.append(&outgoing(0));
        }
        let one = records.undrained_bytes() / 4;
        records.commit(&partition(0), committed(3, 1));
        assert_eq!(records.undrained_bytes(), one);
        assert_eq!(records.bounds(&partition(0)), Some((0, 4)));
        records.forget(&partition(0), 1);
        assert_eq!(records.bounds(&partition(0)), Some((1, 4)));
        records.commit(&partition(0), committed(4, 3));
        assert_eq!(records.undrained_bytes(), 0);
        records.append(&outgoing(0));
        records.forget(&partition(0), 100);
        assert_eq!(records.bounds(&partition(0)), Some((4, 5)), "what is not drained stays");
        assert_eq!(records.bounds(&partition(7)), None);
        let mut read = Vec::new();
        assert!(records.copy(&partition(0), 3, 5, &mut Room::default(), &mut read).is_err());
        records.copy(&partition(0), 4, 5, &mut Room::default(), &mut read).unwrap();
        assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn dead_letters_take_no_room_from_what_waits_and_a_full_log_takes_them() {
        let mut records = records();
        let letters = Topic::new("orders").unwrap().dead_letters().unwrap();
        records.topics.insert(letters.clone(), 3);
        let letter = || Outgoing { to: TopicPartition { topic: letters.clone(), partition: 0 }, ..outgoing(0) };
        let one = cost(&outgoing(0).key, &outgoing(0).payload);
        let limits = Limits { log_bytes: 2 * one, message_bytes: 100 };
        for _ in 0..2 {
            records.append(&letter());
        }
        assert_eq!(records.undrained_bytes(), 0);
        let full = records.admit(&letter(), records.held(), &limits).unwrap_err().to_string();
        assert!(full.contains("dead letters"), "{full}");
        for _ in 0..2 {
            records.admit(&outgoing(0), records.held(), &limits).unwrap();
            records.append(&outgoing(0));
        }
        let full = records.admit(&outgoing(0), records.held(), &limits).unwrap_err().to_string();
        assert!(full.contains("drained"), "{full}");
        let mut records = Records { held: Held { letters: 0, ..records.held }, ..records };
        records.admit(&letter(), records.held(), &limits).unwrap();
        records.append(&letter());
        records.commit(&partition(0), committed(2, 2));
        assert_eq!((records.undrained_bytes(), records.held().letters), (0, one));
    }

    #[test]
    fn a_commit_goes_on_and_stays_within_the_log() {
        let mut records = records();
        for _ in 0..4 {
            records.append(&outgoing(0));
        }
        records.commit(&partition(0), committed(3, 1));
        assert!(!records.may_commit(&partition(0), committed(2, 1)));
        assert!(!records.may_commit(&partition(0), committed(3, 1)));
        assert!(records.may_commit(&partition(0), committed(3, 2)));
        assert!(records.may_commit(&partition(0), committed(4, 1)));
        assert!(!records.may_commit(&partition(0), committed(5, 1)));
        assert!(!records.may_commit(&partition(9), committed(0, 0)));
    }

    #[cfg(feature = "memory")]
    #[test]
    fn the_end_can_be_lost_but_not_what_is_drained() {
        let mut records = records();
        for _ in 0..4 {
            records.append(&outgoing(0));
        }
        records.commit(&partition(0), committed(2, 0));
        let of_one = records.undrained_bytes() / 2;
        records.lose_last(&partition(0), 1);
        assert_eq!((records.bounds(&partition(0)), records.undrained_bytes()), (Some((0, 3)), of_one));
        records.lose_last(&partition(0), 10);
        assert_eq!((records.bounds(&partition(0)), records.undrained_bytes()), (Some((0, 2)), 0));
        assert_eq!(records.append(&outgoing(0)), 2);
    }

    #[test]
    fn a_record_larger_than_a_delivery_is_delivered_alone() {
        let mut room = Room { records: 10, bytes: 5 };
        assert!(room.take(100));
        assert!(!room.take(1));
    }
}
