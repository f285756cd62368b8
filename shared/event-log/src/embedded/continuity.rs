//! Whether the blobs of a file follow each other without a gap.

use std::collections::BTreeMap;

use super::file::Restored;
use crate::log::{Committed, LogRecord, TopicPartition};

#[derive(Debug, Default, Clone, Copy)]
struct Place {
    /// The offset that must come next.
    expected: i64,
    /// From here on nothing is drained.
    undrained: i64,
}

/// Takes the blobs of a file in, in their order.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    partitions: BTreeMap<TopicPartition, Place>,
}

impl Continuity {
    /// What was committed: from its window on everything must be there.
    pub(super) fn begin(&mut self, partition: TopicPartition, committed: Committed) {
        let place = Place { expected: committed.window.offset, undrained: committed.done.offset };
        self.partitions.insert(partition, place);
    }

    /// Takes the records of a blob. What need not be kept is left out; the rest must go on where the blobs before it
    /// ended.
    pub(super) fn blob(&mut self, blob: i64, records: Vec<LogRecord>, restored: &mut Restored) -> Result<(), String> {
        for record in records {
            let named = || format!("{}/{}", record.from.topic, record.from.partition);
            if !restored.records.has(&record.from) {
                return Err(format!("it holds records of {}, which is no partition of the log", named()));
            }
            let place = self.partitions.entry(record.from.clone()).or_default();
            // Before the first that is kept a blob may hold others, which shared it.
            if record.offset < place.expected && record.offset < place.undrained {
                continue;
            }
            if record.offset != place.expected {
                return Err(format!(
                    "it goes on with offset {} of {}, where {} must come: a blob before it is gone",
                    record.offset,
                    named(),
                    place.expected
                ));
            }
            place.expected += 1;
            restored.blobs.hold(&record.from, record.offset, blob);
            if record.offset >= place.undrained {
                let name = named();
                let gap = |expected| format!("offset {expected} of {name} must come next");
                restored.records.restore(record).map_err(gap)?;
            }
        }
        Ok(())
    }

    /// All blobs were taken in.
    pub(super) fn end(&self) -> Result<(), String> {
        for (TopicPartition { topic, partition }, place) in &self.partitions {
            if place.expected < place.undrained {
                return Err(format!(
                    "the records of {topic}/{partition} from offset {} on, which are to be kept, are gone",
                    place.expected
                ));
            }
        }
        Ok(())
    }
}
