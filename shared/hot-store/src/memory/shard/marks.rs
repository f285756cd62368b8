//! Reads and marks.

use std::{cmp::Ordering, time::Duration};

use model::Epoch;
use planted::Bug;

use super::{
    Now, ShardState,
    slots::{Held, Standing, StoredImage},
};
use crate::{Answer, Clean, CleanOutcome, Eviction, HotStoreError, RecordId, Stamp};

impl ShardState {
    pub(in crate::memory) fn read(&self, now: Now, records: &[RecordId]) -> Result<Answer, HotStoreError> {
        let slots = records.iter().map(|record| self.slot(now, record)).collect::<Result<_, _>>()?;
        Ok(Answer { epoch: self.epoch, removed: self.removed, slots })
    }

    /// The first of these records that together have no more than `max_bytes`, which shrinks; with `always` one at least.
    pub(in crate::memory) fn read_within(
        &self,
        now: Now,
        records: &[RecordId],
        max_bytes: &mut u64,
        always: bool,
    ) -> Result<Answer, HotStoreError> {
        let mut fit = 0;
        for record in records {
            let bytes = self.held_image(now, record).map_or(0, |stored| stored.payload.len() as u64);
            if bytes > *max_bytes && !(always && fit == 0) {
                break;
            }
            *max_bytes = max_bytes.saturating_sub(bytes);
            fit += 1;
        }
        self.read(now, &records[..fit])
    }

    pub(in crate::memory) fn mark_queued(
        &mut self,
        now: Now,
        epoch: Epoch,
        stamps: &[Stamp],
    ) -> Result<Vec<bool>, HotStoreError> {
        if planted::is(Bug::AckAcrossEpoch) {
            self.check_open()?
        } else {
            self.check_open_in(epoch)?
        }
        let marked = stamps.iter().map(|Stamp { record, version }| {
            let held = self.held_image(now, record).map(|stored| stored.version);
            let Some(held) = held.filter(|held| held >= version) else { return false };
            if held == *version || planted::is(Bug::RelayClearsNewerMark) {
                self.unqueued.remove(held, record);
            }
            true
        });
        Ok(marked.collect())
    }

    pub(in crate::memory) fn evict(&mut self, now: Now, record: &RecordId) -> Eviction {
        match self.held(now, record) {
            None => return Eviction::NotHeld,
            Some(Held::Image(stored)) => match stored.standing {
                Standing::Dirty { .. } if !planted::is(Bug::EvictDropsDirty) => return Eviction::Undrained,
                Standing::Parked => return Eviction::Parked,
                Standing::Dirty { .. } | Standing::Clean => self.removed += 1,
            },
            Some(Held::Lease(_) | Held::Absent) => {}
        }
        self.remove(record);
        Eviction::Evicted
    }

    pub(in crate::memory) fn mark_clean(&mut self, now: Now, clean: Clean, ttl: Duration) -> CleanOutcome {
        let Clean { record, version, newer } = clean;
        let deadline = Some(now.instant + ttl);
        let Some(held) = self.held_image(now, &record).cloned() else {
            // A lease is broken and a remembered absence forgotten: the database has just said something newer.
            self.remove(&record);
            self.unindex(&record);
            return CleanOutcome::Gone;
        };
        let order = if planted::is(Bug::CleanWithoutComparing) { Ordering::Equal } else { version.cmp(&held.version) };
        if order != Ordering::Less {
            self.unindex(&record);
        }
        match (order, newer) {
            (Ordering::Less, _) => {
                self.set_behind(&record, |behind| behind.max(version.next(0)));
                CleanOutcome::Newer
            }
            (Ordering::Equal, _) => {
                self.put(&record, Held::Image(StoredImage { standing: Standing::Clean, ..held }), deadline);
                CleanOutcome::Cleaned
            }
            (Ordering::Greater, Some(image)) => {
                self.put(&record, Held::Image(StoredImage::clean(version, image)), deadline);
                CleanOutcome::Cleaned
            }
            // Lower than what the database holds, and nobody says what that is: the next read asks the database.
            (Ordering::Greater, None) => {
                self.remove(&record);
                self.removed += 1;
                CleanOutcome::Gone
            }
        }
    }
}
