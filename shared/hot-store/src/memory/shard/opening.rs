//! The calls that open the shard.

use std::time::Duration;

use model::{Epoch, Image, Version};

use super::{
    Now, ShardState,
    requests::RequestTerms,
    slots::{Held, Standing, StoredImage},
};
use crate::{Checkpoint, Claim, Clean, HotStoreError, OpeningStart, OpeningToken, RecordId, Restore};

/// An opening under way.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    token: OpeningToken,
    /// The incarnation in which the shard was claimed.
    incarnation: u64,
    /// The start that was stored, by this opener or one before.
    start: Option<OpeningStart>,
    /// The epoch that this opener stored.
    epoch: Option<Epoch>,
}

impl ShardState {
    pub(in crate::memory) fn claim(&mut self, token: &OpeningToken) -> Option<Claim> {
        if self.check_open().is_ok() {
            return None;
        }
        let resumed = self.opening.take().filter(|earlier| earlier.incarnation == self.live).and_then(|it| it.start);
        self.opening =
            Some(Opening { token: token.clone(), incarnation: self.live, start: resumed.clone(), epoch: None });
        Some(Claim { epoch: self.epoch, checkpoint: self.checkpoint.clone(), resumed })
    }

    pub(in crate::memory) fn begin_opening(
        &mut self,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> Result<(), HotStoreError> {
        let (shard, in_header) = (self.shard, self.epoch);
        let opening = self.opening(token)?;
        if epoch <= in_header {
            let problem = format!("epoch {epoch} was drawn to open it, but its header has epoch {in_header} already");
            return Err(HotStoreError::Corrupt { shard, problem });
        }
        // Who resumes an opening that discarded has dropped nothing but what that one already put back: it stays.
        let resumes = opening.start.as_ref().is_some_and(|earlier| earlier.discard);
        let discard = start.discard && !resumes;
        opening.epoch = Some(epoch);
        opening.start = Some(start);
        for record in self.records(|held| discard || !matches!(held, Held::Image(_))) {
            if discard {
                self.put_aside(&record);
            }
            self.remove(&record);
        }
        if discard {
            // It is not believed after the next restart either: by then the log may have grown past it.
            self.checkpoint = None;
        }
        Ok(())
    }

    pub(in crate::memory) fn restore(
        &mut self,
        now: Now,
        token: &OpeningToken,
        restores: Vec<Restore>,
        ttl: Duration,
        terms: RequestTerms,
    ) -> Result<(), HotStoreError> {
        let epoch = self.check_begun(token)?;
        for restore in restores {
            self.put_back(now, epoch, restore, ttl, terms);
        }
        Ok(())
    }

    fn put_back(&mut self, now: Now, epoch: Epoch, restore: Restore, ttl: Duration, terms: RequestTerms) {
        match restore {
            Restore::Dirty { record, version, behind, image } => {
                self.put_dirty_back(now, &record, version, behind, image);
            }
            Restore::Unqueued { record, version, behind, image } => {
                if self.put_dirty_back(now, &record, version, behind, image) {
                    self.unqueued.insert(version, record);
                }
            }
            Restore::Parked { record, version, image } => {
                self.take_from_aside(&record);
                let held = self.held_image(now, &record);
                if held.is_none_or(|held| held.version < version) {
                    // The database may lack a lower one that is dirty, and the horizon must not pass that.
                    let behind = held.and_then(StoredImage::behind);
                    let standing = behind.map_or(Standing::Parked, |behind| Standing::Dirty { behind });
                    let since = image.since;
                    self.put(&record, Held::Image(StoredImage::new(version, since, standing, image)), None);
                }
            }
            Restore::Clean { record, version, image } => {
                self.take_from_aside(&record);
                if self.held_image(now, &record).is_none_or(|held| held.version < version) {
                    let deadline = Some(now.instant + ttl);
                    self.put(&record, Held::Image(StoredImage::clean(version, image)), deadline);
                } else {
                    // Of an equal version the mark that it is clean was lost: nobody else would bring it back.
                    self.mark_clean(now, Clean { record, version, newer: None }, ttl);
                }
            }
            Restore::Gone { record, horizon } => {
                self.take_from_aside(&record);
                if self.held_image(now, &record).is_some_and(|held| held.version <= horizon) {
                    self.remove(&record);
                }
            }
            Restore::Behind { record, version } => self.set_behind(&record, |there| there.min(version)),
            Restore::Request { namespace, request, version } => {
                self.put_request(now, &namespace, &request, version, epoch, terms);
            }
        }
    }

    /// Whether it stands there now.
    fn put_dirty_back(&mut self, now: Now, record: &RecordId, version: Version, behind: Version, image: Image) -> bool {
        self.take_from_aside(record);
        let held = self.held_image(now, record);
        let behind = held.and_then(StoredImage::behind).map_or(behind, |there| there.min(behind));
        if held.is_some_and(|held| held.version >= version) {
            self.set_behind(record, |_| behind);
            return false;
        }
        let (since, standing) = (image.since, Standing::Dirty { behind });
        self.put(record, Held::Image(StoredImage::new(version, since, standing, image)), None);
        true
    }

    pub(in crate::memory) fn finish_opening(
        &mut self,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> Result<(), HotStoreError> {
        self.epoch = self.check_begun(token)?;
        self.clock = self.clock.max(clock);
        self.checkpoint = Some(checkpoint);
        self.open_for = Some(self.live);
        self.opening = None;
        Ok(())
    }

    pub(super) fn check_begun(&mut self, token: &OpeningToken) -> Result<Epoch, HotStoreError> {
        let superseded = HotStoreError::Superseded { shard: self.shard };
        self.opening(token)?.epoch.ok_or(superseded)
    }

    fn opening(&mut self, token: &OpeningToken) -> Result<&mut Opening, HotStoreError> {
        match &mut self.opening {
            Some(opening) if opening.token == *token && opening.incarnation == self.live => Ok(opening),
            _ => Err(HotStoreError::Superseded { shard: self.shard }),
        }
    }
}
