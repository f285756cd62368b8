//! Which blob of the file holds what, and which are still needed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::log::TopicPartition;

#[derive(Debug, Default)]
struct Blob {
    bytes: u64,
    /// In how many partitions it still holds something.
    open: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BlobIndex {
    /// The blobs that hold records of a partition that are to be kept: the last offset in each, and its number.
    partitions: BTreeMap<TopicPartition, VecDeque<(i64, i64)>>,
    blobs: BTreeMap<i64, Blob>,
    superfluous: BTreeSet<i64>,
    bytes: u64,
}

impl BlobIndex {
    /// There is such a blob; what it holds is told by [`BlobIndex::hold`].
    pub(super) fn add(&mut self, blob: i64, bytes: u64) {
        self.blobs.insert(blob, Blob { bytes, open: 0 });
        self.superfluous.insert(blob);
        self.bytes += bytes;
    }

    /// The blob holds this record, which is to be kept.
    pub(super) fn hold(&mut self, partition: &TopicPartition, offset: i64, blob: i64) {
        let of_partition = self.partitions.entry(partition.clone()).or_default();
        match of_partition.back_mut() {
            Some((last, of)) if *of == blob => *last = offset,
            _ => {
                of_partition.push_back((offset, blob));
                self.superfluous.remove(&blob);
                self.blobs.entry(blob).or_default().open += 1;
            }
        }
    }

    /// What lies below an offset need not be kept any more.
    pub(super) fn pass(&mut self, partition: &TopicPartition, below: i64) {
        let Some(of_partition) = self.partitions.get_mut(partition) else { return };
        while let Some((last, number)) = of_partition.front().copied()
            && last < below
        {
            of_partition.pop_front();
            if let Some(blob) = self.blobs.get_mut(&number) {
                blob.open -= 1;
                if blob.open == 0 {
                    self.superfluous.insert(number);
                }
            }
        }
    }

    /// The blob in which a partition goes on at an offset, or behind it.
    pub(super) fn find(&self, partition: &TopicPartition, from: i64) -> Option<i64> {
        let of_partition = self.partitions.get(partition)?;
        let place = of_partition.partition_point(|(last, _)| *last < from);
        of_partition.get(place).map(|(_, blob)| *blob)
    }

    /// Blobs that may be deleted, at most so many; never the newest one, by which a lost tail is noticed.
    pub(super) fn superfluous(&self, most: usize, newest: i64) -> Vec<i64> {
        self.superfluous.iter().copied().filter(|blob| *blob != newest).take(most).collect()
    }

    /// They are deleted.
    pub(super) fn deleted(&mut self, blobs: &[i64]) {
        for blob in blobs {
            self.superfluous.remove(blob);
            self.bytes -= self.blobs.remove(blob).map_or(0, |blob| blob.bytes);
        }
    }

    /// What all blobs take up.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::Topic;

    use super::*;

    fn partition(number: u16) -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition: number }
    }

    #[test]
    fn a_blob_is_superfluous_once_all_its_partitions_are_past_it() {
        let mut index = BlobIndex::default();
        index.add(1, 100);
        index.hold(&partition(0), 0, 1);
        index.hold(&partition(1), 0, 1);
        index.add(2, 50);
        index.hold(&partition(0), 1, 2);
        index.pass(&partition(0), 2);
        assert_eq!(index.superfluous(10, 3), [2]);
        index.pass(&partition(1), 1);
        assert_eq!(index.superfluous(10, 3), [1, 2]);
        assert_eq!(index.superfluous(10, 2), [1], "never the newest");
        index.deleted(&[1]);
        assert_eq!(index.superfluous(10, 3), [2]);
        assert_eq!(index.bytes(), 50);
        index.add(3, 7);
        assert_eq!(index.superfluous(10, 4), [2, 3], "nothing in it is to be kept");
    }

    #[test]
    fn the_blob_is_found_in_which_a_partition_goes_on() {
        let mut index = BlobIndex::default();
        for (blob, offsets) in [(4, 0..3), (6, 3..5), (7, 5..6)] {
            index.add(blob, 1);
            for offset in offsets {
                index.hold(&partition(0), offset, blob);
            }
        }
        let found: Vec<_> = (0..7).map(|offset| index.find(&partition(0), offset)).collect();
        assert_eq!(found, [Some(4), Some(4), Some(4), Some(6), Some(6), Some(7), None]);
        assert_eq!(index.find(&partition(1), 0), None);
        index.pass(&partition(0), 3);
        assert_eq!(index.find(&partition(0), 0), Some(6));
    }
}
