//! Leases and fills.

use std::time::Duration;

use planted::Bug;

use super::{
    Now, ShardState,
    slots::{Held, StoredImage},
};
use crate::{Fill, HotStoreError, LeaseOutcome, LeaseToken, RecordId, Slot};

impl ShardState {
    pub(in crate::memory) fn lease(
        &mut self,
        now: Now,
        record: &RecordId,
        ttl: Duration,
    ) -> Result<LeaseOutcome, HotStoreError> {
        match self.slot(now, record)? {
            Slot::Empty => {
                self.leases_given += 1;
                let token = LeaseToken(format!("{}-{}", self.live, self.leases_given));
                self.put(record, Held::Lease(token.clone()), Some(now.instant + ttl));
                Ok(LeaseOutcome::Granted(token))
            }
            taken => Ok(LeaseOutcome::Taken(taken)),
        }
    }

    /// Fills a slot; with `room` false the lease is given up and nothing is stored.
    pub(in crate::memory) fn fill(
        &mut self,
        now: Now,
        record: &RecordId,
        token: &LeaseToken,
        fill: Fill,
        ttl: Duration,
        room: bool,
    ) -> bool {
        let stands = matches!(self.held(now, record), Some(Held::Lease(held)) if held == token);
        if !stands && !planted::is(Bug::FillWithoutLease) {
            return false;
        }
        let held = match fill {
            Fill::Nothing => {
                self.remove(record);
                return true;
            }
            _ if !room => {
                self.remove(record);
                return false;
            }
            Fill::Absent => Held::Absent,
            Fill::Image { version, image } => Held::Image(StoredImage::clean(version, image)),
        };
        self.put(record, held, Some(now.instant + ttl));
        true
    }
}
