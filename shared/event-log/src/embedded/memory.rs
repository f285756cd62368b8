//! The part of the log that is not drained, in memory; and which blobs of the file are still needed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use model::Topic;

use super::group::Group;
use crate::log::{LogError, LogRecord, Outgoing, Progress, TopicPartition};

/// What a record costs beside its bytes, about.
pub(super) const RECORD_OVERHEAD_BYTES: u64 = 64;

/// What key and payload take up in the count of undrained bytes.
pub(super) fn cost(key: &Bytes, payload: &Bytes) -> u64 {
    (key.len() + payload.len()) as u64 + RECORD_OVERHEAD_BYTES
}

#[derive(Debug, Default)]
struct Partition {
    /// The offset of the first record here.
    first: i64,
    records: VecDeque<(Bytes, Bytes)>,
    committed: Option<Progress>,
    /// The blobs that hold records of this partition that are not drained: the last offset in each, and its number.
    blobs: VecDeque<(i64, i64)>,
}

impl Partition {
    fn next(&self) -> i64 {
        self.first + self.records.len() as i64
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Topics and their numbers of partitions.
    pub(super) topics: BTreeMap<Topic, u16>,
    pub(super) group: Group,
    partitions: HashMap<TopicPartition, Partition>,
    used_bytes: u64,
    /// In how many partitions a blob still holds something.
    needed_blobs: HashMap<i64, usize>,
    drained_blobs: BTreeSet<i64>,
}

/// A part of the log that can't be as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Discontinuity {
    #[error("it holds records of {0}, which is no partition of the log")]
    UnknownPartition(String),
    #[error("it goes on with offset {found} of {partition}, where {expected} must come: a blob before it is gone")]
    Gap { partition: String, expected: i64, found: i64 },
}

impl Memory {
    pub(super) fn has(&self, partition: &TopicPartition) -> bool {
        self.topics.get(&partition.topic).is_some_and(|count| partition.partition < *count)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// First and next offset; `None`: no such partition.
    pub(super) fn bounds(&self, partition: &TopicPartition) -> Option<(i64, i64)> {
        if !self.has(partition) {
            return None;
        }
        Some(self.partitions.get(partition).map_or((0, 0), |p| (p.first, p.next())))
    }

    pub(super) fn committed(&self, partition: &TopicPartition) -> Option<Progress> {
        self.partitions.get(partition)?.committed
    }

    /// Appends a record that was written to the blob. Answers its offset.
    pub(super) fn append(&mut self, record: &Outgoing, blob: i64) -> i64 {
        let partition = self.partitions.entry(record.to.clone()).or_default();
        let offset = partition.next();
        partition.records.push_back((record.key.clone(), record.payload.clone()));
        self.used_bytes += cost(&record.key, &record.payload);
        need(partition, &mut self.needed_blobs, blob, offset);
        offset
    }

    /// Takes a committed offset over: what lies below is dropped, and with it blobs become superfluous.
    pub(super) fn commit(&mut self, partition: &TopicPartition, progress: Progress) {
        let partition = self.partitions.entry(partition.clone()).or_default();
        partition.committed = Some(progress);
        while partition.first < progress.offset
            && let Some((key, payload)) = partition.records.pop_front()
        {
            partition.first += 1;
            self.used_bytes -= cost(&key, &payload);
        }
        while let Some((last, blob)) = partition.blobs.front().copied()
            && last < progress.offset
        {
            partition.blobs.pop_front();
            if let Some(open) = self.needed_blobs.get_mut(&blob) {
                *open -= 1;
                if *open == 0 {
                    self.needed_blobs.remove(&blob);
                    self.drained_blobs.insert(blob);
                }
            }
        }
    }

    /// Takes a committed offset from the file, before its records are.
    pub(super) fn restore_committed(&mut self, partition: TopicPartition, progress: Progress) {
        let partition = self.partitions.entry(partition).or_default();
        partition.committed = Some(progress);
        partition.first = progress.offset;
    }

    /// Takes the records of a blob from the file. What is drained already is left out, the rest must go on where
    /// the blobs before it ended.
    pub(super) fn restore_blob(&mut self, blob: i64, records: Vec<LogRecord>) -> Result<(), Discontinuity> {
        let mut needed = false;
        for record in records {
            let LogRecord { from, offset, key, payload } = record;
            let named = || format!("{}/{}", from.topic, from.partition);
            if !self.has(&from) {
                return Err(Discontinuity::UnknownPartition(named()));
            }
            let name = named();
            let partition = self.partitions.entry(from).or_default();
            if partition.committed.is_some_and(|committed| offset < committed.offset) {
                continue;
            }
            let expected = partition.next();
            if offset != expected {
                return Err(Discontinuity::Gap { partition: name, expected, found: offset });
            }
            self.used_bytes += cost(&key, &payload);
            partition.records.push_back((key, payload));
            need(partition, &mut self.needed_blobs, blob, offset);
            needed = true;
        }
        if !needed {
            self.drained_blobs.insert(blob);
        }
        Ok(())
    }

    /// Blobs that may be deleted, at most so many; never the newest one, by which a lost tail is noticed.
    pub(super) fn superfluous(&self, most: usize, newest: i64) -> Vec<i64> {
        self.drained_blobs.iter().copied().filter(|blob| *blob != newest).take(most).collect()
    }

    /// They are deleted.
    pub(super) fn deleted(&mut self, blobs: &[i64]) {
        for blob in blobs {
            self.drained_blobs.remove(blob);
        }
    }

    /// Copies records from `from` on up to `to`, as many as fit.
    pub(super) fn copy(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        room: &mut Room,
        into: &mut Vec<LogRecord>,
    ) -> Result<(), LogError> {
        let Some(held) = self.partitions.get(partition) else { return Ok(()) };
        if from < held.first {
            return Err(LogError::Unfit(format!(
                "{}/{} begins at offset {}: what was to be read from {from} is drained and deleted",
                partition.topic, partition.partition, held.first
            )));
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

fn need(partition: &mut Partition, needed: &mut HashMap<i64, usize>, blob: i64, offset: i64) {
    match partition.blobs.back_mut() {
        Some((last, of)) if *of == blob => *last = offset,
        _ => {
            partition.blobs.push_back((offset, blob));
            *needed.entry(blob).or_default() += 1;
        }
    }
}

/// What one delivery may still hold.
#[derive(Debug)]
pub(super) struct Room {
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
    fn take(&mut self, bytes: usize) -> bool {
        if self.is_used_up() {
            return false;
        }
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::Epoch;
    use proptest::prelude::*;

    use super::*;

    fn partition(number: u16) -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition: number }
    }

    fn memory() -> Memory {
        Memory { topics: BTreeMap::from([(Topic::new("orders").unwrap(), 3)]), ..Memory::default() }
    }

    fn outgoing(number: u16) -> Outgoing {
        Outgoing { to: partition(number), key: Bytes::from_static(b"key"), payload: Bytes::from_static(b"payload") }
    }

    fn record(number: u16, offset: i64) -> LogRecord {
        LogRecord { from: partition(number), offset, key: Bytes::new(), payload: Bytes::from_static(b"x") }
    }

    fn at(offset: i64) -> Progress {
        Progress { offset, epoch: Epoch(1) }
    }

    #[test]
    fn a_blob_is_superfluous_once_all_its_partitions_are_drained_past_it() {
        let mut memory = memory();
        memory.append(&outgoing(0), 1);
        memory.append(&outgoing(1), 1);
        memory.append(&outgoing(0), 2);
        memory.commit(&partition(0), at(2));
        assert_eq!(memory.superfluous(10, 3), [2]);
        memory.commit(&partition(1), at(1));
        assert_eq!(memory.superfluous(10, 3), [1, 2]);
        assert_eq!(memory.superfluous(10, 2), [1], "never the newest");
        memory.deleted(&[1]);
        assert_eq!(memory.superfluous(10, 3), [2]);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn a_missing_blob_is_noticed() {
        let mut memory = memory();
        memory.restore_committed(partition(0), at(5));
        memory.restore_blob(3, vec![record(0, 3), record(0, 4), record(0, 5)]).unwrap();
        assert_eq!(
            memory.restore_blob(5, vec![record(0, 7)]),
            Err(Discontinuity::Gap { partition: "orders/0".into(), expected: 6, found: 7 })
        );
        let mut first_gone = self::memory();
        assert!(first_gone.restore_blob(2, vec![record(1, 1)]).is_err());
        assert!(first_gone.restore_blob(2, vec![record(9, 0)]).is_err());
    }

    #[test]
    fn what_is_deleted_is_refused_to_readers() {
        let mut memory = memory();
        memory.append(&outgoing(0), 1);
        memory.append(&outgoing(0), 1);
        memory.commit(&partition(0), at(1));
        assert_eq!(memory.bounds(&partition(0)), Some((1, 2)));
        assert_eq!(memory.bounds(&partition(7)), None);
        let mut read = Vec::new();
        assert!(memory.copy(&partition(0), 0, 2, &mut Room::default(), &mut read).is_err());
        memory.copy(&partition(0), 1, 2, &mut Room::default(), &mut read).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].offset, 1);
    }

    #[test]
    fn a_record_larger_than_a_delivery_is_delivered_alone() {
        let mut room = Room { records: 10, bytes: 5 };
        assert!(room.take(100));
        assert!(!room.take(1));
    }

    proptest! {
        #[test]
        fn a_restart_finds_what_was_there(
            steps in prop::collection::vec((0u16..3, prop::bool::ANY, 1i64..6), 1..60)
        ) {
            // Blobs and commits as the file would keep them, deletions included.
            let mut live = memory();
            let mut blobs: BTreeMap<i64, Vec<LogRecord>> = BTreeMap::new();
            let mut committed: HashMap<TopicPartition, Progress> = HashMap::new();
            for (step, (p, append, n)) in steps.into_iter().enumerate() {
                if append {
                    let blob = step as i64 + 1;
                    for i in 0..n {
                        let to = (p + (i as u16)) % 3;
                        let offset = live.append(&outgoing(to), blob);
                        let Outgoing { to, key, payload } = outgoing(to);
                        blobs.entry(blob).or_default().push(LogRecord { from: to, offset, key, payload });
                    }
                } else {
                    let (first, next) = live.bounds(&partition(p)).unwrap();
                    let progress = at((first + n).min(next));
                    live.commit(&partition(p), progress);
                    committed.insert(partition(p), progress);
                    let newest = blobs.keys().last().copied().unwrap_or(0);
                    let superfluous = live.superfluous(2, newest);
                    for blob in &superfluous {
                        blobs.remove(blob);
                    }
                    live.deleted(&superfluous);
                }
            }
            let mut restored = memory();
            for (partition, progress) in committed {
                restored.restore_committed(partition, progress);
            }
            for (blob, records) in blobs {
                prop_assert_eq!(restored.restore_blob(blob, records), Ok(()));
            }
            prop_assert_eq!(restored.used_bytes(), live.used_bytes());
            for p in 0..3 {
                prop_assert_eq!(restored.bounds(&partition(p)), live.bounds(&partition(p)));
                prop_assert_eq!(restored.committed(&partition(p)), live.committed(&partition(p)));
            }
            prop_assert_eq!(&restored.needed_blobs, &live.needed_blobs);
        }
    }
}
