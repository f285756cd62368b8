//! How records are kept: whatever puts or removes one comes through here, so that the dirty sets, the tallies, the
//! deadlines and the bytes always agree with what is there.

use bytes::Bytes;
use model::{Content, Image, Version};
use tokio::time::Instant;

use super::{Deadline, Expiring, Now, ShardState};
use crate::{HotStoreError, LeaseToken, RecordId, Slot, Stage};

/// How an image stands to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The database does not have it.
    Dirty {
        /// The lowest version of the record that the database may lack.
        behind: Version,
    },
    /// The database refused it for good.
    Parked,
    /// The database has it.
    Clean,
}

/// An image as it is kept: encoded, so that its size is known and both backends store the same bytes.
#[derive(Debug, Clone)]
pub(super) struct StoredImage {
    pub(super) version: Version,
    pub(super) since: Option<Version>,
    pub(super) tombstone: bool,
    pub(super) standing: Standing,
    pub(super) payload: Bytes,
}

impl StoredImage {
    pub(super) fn new(version: Version, since: Option<Version>, standing: Standing, mut image: Image) -> Self {
        image.since = None;
        let tombstone = image.content == Content::Tombstone;
        Self { version, since, tombstone, standing, payload: image.encode() }
    }

    /// As the database has it.
    pub(super) fn clean(version: Version, image: Image) -> Self {
        Self::new(version, None, Standing::Clean, image)
    }

    /// Of a dirty image: the lowest version of the record that the database may lack.
    pub(super) fn behind(&self) -> Option<Version> {
        match self.standing {
            Standing::Dirty { behind } => Some(behind),
            Standing::Parked | Standing::Clean => None,
        }
    }

    fn stage(&self) -> Stage {
        match self.standing {
            Standing::Dirty { .. } => Stage::Dirty,
            Standing::Parked => Stage::Parked,
            Standing::Clean => Stage::Clean,
        }
    }
}

/// What stands in a record's place.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Image(StoredImage),
    Lease(LeaseToken),
    Absent,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) held: Held,
    deadline: Option<Deadline>,
}

impl ShardState {
    pub(super) fn held(&self, now: Now, record: &RecordId) -> Option<&Held> {
        let entry = self.entries.get(record)?;
        let expired = entry.deadline.is_some_and(|(deadline, _)| deadline <= now.instant);
        (!expired).then_some(&entry.held)
    }

    pub(super) fn held_image(&self, now: Now, record: &RecordId) -> Option<&StoredImage> {
        match self.held(now, record)? {
            Held::Image(stored) => Some(stored),
            Held::Lease(_) | Held::Absent => None,
        }
    }

    pub(super) fn slot(&self, now: Now, record: &RecordId) -> Result<Slot, HotStoreError> {
        Ok(match self.held(now, record) {
            None => Slot::Empty,
            Some(Held::Absent) => Slot::Absent,
            Some(Held::Lease(_)) => Slot::Leased,
            Some(Held::Image(stored)) => {
                Slot::Image { version: stored.version, image: self.decode(stored)?, stage: stored.stage() }
            }
        })
    }

    pub(super) fn decode(&self, stored: &StoredImage) -> Result<Image, HotStoreError> {
        let mut image = self.decode_with_since(stored)?;
        image.since = image.since.filter(|_| stored.standing != Standing::Clean);
        Ok(image)
    }

    /// As it was written.
    pub(super) fn decode_with_since(&self, stored: &StoredImage) -> Result<Image, HotStoreError> {
        let image = Image::decode(stored.payload.clone());
        let image = image.map_err(|e| HotStoreError::Corrupt { shard: self.shard, problem: e.to_string() })?;
        Ok(Image { since: stored.since, ..image })
    }

    /// Puts it in the record's place. A dirty image is queued until [`ShardState::unqueued`] has it.
    pub(super) fn put(&mut self, record: &RecordId, held: Held, deadline: Option<Instant>) {
        self.remove(record);
        if let Held::Image(StoredImage { version, standing, payload, .. }) = &held {
            match standing {
                Standing::Dirty { behind } => {
                    self.dirty.insert(*version, record.clone());
                    self.backlogs.entry(record.namespace.clone()).or_default().add(*behind, record, payload.len());
                }
                Standing::Parked => {
                    self.parked.entry(record.namespace.clone()).or_default().insert(*version, record.clone());
                }
                Standing::Clean => {}
            }
        }
        let deadline = deadline.map(|at| self.deadline(at));
        if let Some(at) = deadline {
            self.deadlines.insert(at, Expiring::Record(record.clone()));
        }
        self.bytes += weight(record, &held);
        self.entries.insert(record.clone(), Entry { held, deadline });
    }

    pub(super) fn remove(&mut self, record: &RecordId) {
        let Some(entry) = self.entries.remove(record) else { return };
        self.bytes -= weight(record, &entry.held);
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&at);
        }
        if let Held::Image(StoredImage { version, standing, payload, .. }) = &entry.held {
            match standing {
                Standing::Dirty { behind } => {
                    self.dirty.remove(*version, record);
                    self.unqueued.remove(*version, record);
                    if let Some(tally) = self.backlogs.get_mut(&record.namespace) {
                        tally.take(*behind, record, payload.len());
                    }
                }
                Standing::Parked => {
                    if let Some(parked) = self.parked.get_mut(&record.namespace) {
                        parked.remove(*version, record);
                    }
                }
                Standing::Clean => {}
            }
        }
    }

    /// Changes up to where the database is behind with a dirty record, which stays in its sets.
    pub(super) fn set_behind(&mut self, record: &RecordId, change: impl FnOnce(Version) -> Version) {
        let Some(Entry { held: Held::Image(stored), .. }) = self.entries.get_mut(record) else { return };
        let Standing::Dirty { behind } = &mut stored.standing else { return };
        let before = *behind;
        let after = change(before);
        *behind = after;
        let bytes = stored.payload.len();
        if let Some(tally) = self.backlogs.get_mut(&record.namespace) {
            tally.take(before, record, bytes);
            tally.add(after, record, bytes);
        }
    }

    /// All that is held, in the order of the records.
    pub(super) fn records(&self, which: impl Fn(&Held) -> bool) -> Vec<RecordId> {
        let found = self.entries.iter().filter(|(_, entry)| which(&entry.held));
        let mut found: Vec<RecordId> = found.map(|(record, _)| record.clone()).collect();
        found.sort_unstable();
        found
    }
}

/// What an entry counts for: the bytes that grow with the data.
fn weight(record: &RecordId, held: &Held) -> u64 {
    match held {
        Held::Image(stored) => image_weight(record, stored),
        Held::Lease(_) | Held::Absent => name_weight(record),
    }
}

/// What an image counts for.
pub(super) fn image_weight(record: &RecordId, stored: &StoredImage) -> u64 {
    name_weight(record) + stored.payload.len() as u64
}

fn name_weight(record: &RecordId) -> u64 {
    (record.key.as_bytes().len() + record.namespace.as_str().len()) as u64
}
