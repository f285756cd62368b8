//! Records that the database refused for good.

use model::{Epoch, Namespace, Version};
use planted::Bug;

use super::{
    Now, ShardState,
    slots::{Entry, Held, Standing, StoredImage},
};
use crate::{HotStoreError, ParkOutcome, ParkedRecord, Stamp};

impl ShardState {
    pub(in crate::memory) fn park(&mut self, now: Now, stamp: &Stamp) -> ParkOutcome {
        let Stamp { record, version } = stamp;
        let Some(held) = self.held_image(now, record).cloned() else { return ParkOutcome::Gone };
        if held.version < *version {
            return ParkOutcome::Gone;
        }
        if held.version > *version || held.standing == Standing::Clean {
            return ParkOutcome::Superseded;
        }
        let expires = planted::is(Bug::ParkedExpires).then(|| now.instant + TTL_OF_A_PLANTED_BUG);
        self.put(record, Held::Image(StoredImage { standing: Standing::Parked, ..held }), expires);
        ParkOutcome::Parked
    }

    pub(in crate::memory) fn parked(
        &self,
        namespace: &Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        let mut found: Vec<ParkedRecord> = Vec::new();
        for (version, record) in self.parked.get(namespace).iter().flat_map(|parked| parked.above(after)) {
            if found.len() >= limit && found.last().is_none_or(|last| last.version != version) {
                break;
            }
            if let Some(Entry { held: Held::Image(stored), .. }) = self.entries.get(record) {
                found.push(ParkedRecord { record: record.clone(), version, image: self.decode(stored)? });
            }
        }
        Ok((self.epoch, found))
    }

    pub(in crate::memory) fn purge_parked(&mut self, now: Now, stamp: &Stamp) -> bool {
        let held = self.held_image(now, &stamp.record);
        let is_parked = held.is_some_and(|it| it.standing == Standing::Parked && it.version == stamp.version);
        if is_parked {
            self.remove(&stamp.record);
            self.unindex(&stamp.record);
        }
        is_parked
    }
}

/// See [`Bug::ParkedExpires`].
const TTL_OF_A_PLANTED_BUG: std::time::Duration = std::time::Duration::from_secs(1);
