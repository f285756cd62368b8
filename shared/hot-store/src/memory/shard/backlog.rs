//! What the database does not have.

use model::{Epoch, Namespace, Version};

use super::{
    Now, ShardState,
    slots::{Entry, Held},
};
use crate::{Backlog, Dirty, DirtyRecord, HotStoreError, RecordId, memory::versions::ByVersion};

/// The dirty records of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    behind: ByVersion,
    bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, behind: Version, record: &RecordId, bytes: usize) {
        self.behind.insert(behind, record.clone());
        self.bytes += bytes as u64;
    }

    pub(super) fn take(&mut self, behind: Version, record: &RecordId, bytes: usize) {
        self.behind.remove(behind, record);
        self.bytes -= bytes as u64;
    }
}

impl ShardState {
    pub(in crate::memory) fn dirty(
        &self,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        let set = match which {
            Dirty::Unqueued => &self.unqueued,
            Dirty::All => &self.dirty,
        };
        let mut found: Vec<DirtyRecord> = Vec::new();
        for (version, record) in set.above(after) {
            if found.len() >= limit && found.last().is_none_or(|last| last.version != version) {
                break;
            }
            if let Some(Entry { held: Held::Image(stored), .. }) = self.entries.get(record) {
                found.push(DirtyRecord { record: record.clone(), version, image: self.decode(stored)? });
            }
        }
        Ok((self.epoch, found))
    }

    pub(in crate::memory) fn backlog(&mut self, now: Now, namespaces: &[Namespace]) -> (Epoch, Vec<Backlog>) {
        let oldest = |tally: &Tally| tally.behind.oldest();
        if namespaces.iter().any(|table| self.backlogs.get(table).and_then(oldest).is_none()) {
            // Not one more: the next write still gets the store's own time, if that has gone on.
            self.clock = self.clock.max(Version::new(now.micros).unwrap_or(Version::MAX));
        }
        let backlogs = namespaces.iter().map(|table| {
            let none = Tally::default();
            let tally = self.backlogs.get(table).unwrap_or(&none);
            let parked = self.parked.get(table);
            let oldest = oldest(tally);
            Backlog {
                records: tally.behind.len(),
                bytes: tally.bytes,
                oldest,
                horizon: oldest.map_or(self.clock, Version::before),
                parked: parked.map_or(0, ByVersion::len),
                lowest_parked: parked.and_then(ByVersion::oldest),
            }
        });
        let backlogs = backlogs.collect();
        (self.epoch, backlogs)
    }
}
