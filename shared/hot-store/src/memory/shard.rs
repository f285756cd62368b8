//! One shard in memory: what it holds and what each call does to it. No locks and no clocks: the caller holds the
//! shard's lock and says what time it is.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use model::{Content, Epoch, Image, Shard, Version};
use tokio::time::Instant;

use super::versions::ByVersion;
use crate::{
    Answer, Checkpoint, Claim, Clean, CleanOutcome, Dirty, DirtyRecord, Fill, HotStoreError, LeaseOutcome, LeaseToken,
    OpeningStart, OpeningToken, Precondition, RecordId, Restore, ShardHeader, Slot, Stamp, Write, WriteOutcome,
};

/// What time it is, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For TTLs.
    pub(super) instant: Instant,
    /// Microseconds since 1970, for versions.
    pub(super) micros: u64,
}

/// An image as it is kept: encoded, so that its size is known and both backends store the same bytes.
#[derive(Debug, Clone)]
struct StoredImage {
    version: Version,
    since: Option<Version>,
    tombstone: bool,
    dirty: bool,
    payload: Bytes,
}

#[derive(Debug, Clone)]
enum Held {
    Image(StoredImage),
    Lease(LeaseToken),
    Absent,
}

#[derive(Debug, Clone)]
struct Entry {
    held: Held,
    deadline: Option<(Instant, u64)>,
}

/// An opening under way.
#[derive(Debug, Clone)]
struct Opening {
    token: OpeningToken,
    /// The incarnation in which the shard was claimed.
    incarnation: u64,
    /// The start that was stored, by this opener or one before.
    start: Option<OpeningStart>,
    /// The epoch that this opener stored.
    epoch: Option<Epoch>,
}

/// One shard. [`Clone`] takes a snapshot.
#[derive(Debug, Clone)]
pub(super) struct ShardState {
    shard: Shard,
    /// The incarnation of the store; one more after every restart.
    live: u64,
    /// The incarnation for which the shard is open.
    open_for: Option<u64>,
    epoch: Epoch,
    clock: Version,
    checkpoint: Option<Checkpoint>,
    opening: Option<Opening>,
    entries: HashMap<RecordId, Entry>,
    dirty: ByVersion,
    unqueued: ByVersion,
    /// What expires when. The number tells entries of one instant apart.
    deadlines: BTreeMap<(Instant, u64), RecordId>,
    deadlines_given: u64,
    leases_given: u64,
    bytes: u64,
}

impl ShardState {
    pub(super) fn new(shard: Shard) -> Self {
        Self {
            shard,
            live: 1,
            open_for: None,
            epoch: Epoch::ZERO,
            clock: Version::ZERO,
            checkpoint: None,
            opening: None,
            entries: HashMap::new(),
            dirty: ByVersion::default(),
            unqueued: ByVersion::default(),
            deadlines: BTreeMap::new(),
            deadlines_given: 0,
            leases_given: 0,
            bytes: 0,
        }
    }

    /// The bytes of keys and images.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The store was restarted and `survivor` is what is left of the shard.
    pub(super) fn restart_as(&mut self, survivor: ShardState) {
        let live = self.live + 1;
        *self = survivor;
        self.live = live;
    }

    /// Forgets at most `limit` expired entries.
    pub(super) fn expire(&mut self, now: Now, limit: usize) {
        for _ in 0..limit {
            match self.deadlines.first_entry() {
                Some(first) if first.key().0 <= now.instant => {
                    let record = first.get().clone();
                    self.remove(&record);
                }
                _ => return,
            }
        }
    }

    pub(super) fn check_open(&self) -> Result<(), HotStoreError> {
        if self.open_for == Some(self.live) { Ok(()) } else { Err(HotStoreError::Closed { shard: self.shard }) }
    }

    fn check_open_in(&self, epoch: Epoch) -> Result<(), HotStoreError> {
        self.check_open()?;
        if self.epoch == epoch { Ok(()) } else { Err(HotStoreError::Closed { shard: self.shard }) }
    }

    pub(super) fn write(&mut self, now: Now, write: Write) -> WriteOutcome {
        let Write { record, precondition, image } = write;
        let held = self.held(now, &record);
        if let Err(refused) = self.judge(precondition, held) {
            return refused;
        }
        // What the store knows of a dirty record, it knows for sure: only its own `since` goes on.
        let dirty_since = match held {
            Some(Held::Image(image)) if image.dirty => Some(image.since),
            _ => None,
        };
        let version = self.clock.next(now.micros);
        let since = dirty_since.unwrap_or((precondition == Precondition::AbsentFromStore).then_some(version));
        self.clock = version;
        self.put_image(&record, version, image, since, true, None);
        self.unqueued.insert(version, record);
        WriteOutcome::Stored { version, epoch: self.epoch, since }
    }

    fn judge(&self, precondition: Precondition, held: Option<&Held>) -> Result<(), WriteOutcome> {
        enum Known {
            Row(Version),
            Absent,
            Nothing,
        }
        let known = match held {
            Some(Held::Image(image)) if image.tombstone => Known::Absent,
            Some(Held::Image(image)) => Known::Row(image.version),
            Some(Held::Absent) => Known::Absent,
            Some(Held::Lease(_)) | None => Known::Nothing,
        };
        match (precondition, known) {
            (Precondition::None, _)
            | (Precondition::AbsentFromStore, Known::Absent | Known::Nothing)
            | (Precondition::Absent, Known::Absent)
            | (Precondition::Present, Known::Row(_)) => Ok(()),
            (Precondition::Absent | Precondition::AbsentFromStore, Known::Row(_)) => Err(WriteOutcome::Exists),
            (Precondition::Present | Precondition::At { .. }, Known::Absent) => Err(WriteOutcome::Missing),
            (Precondition::Absent | Precondition::Present | Precondition::At { .. }, Known::Nothing) => {
                Err(WriteOutcome::Cold)
            }
            (Precondition::At { version, epoch }, Known::Row(held)) => {
                if version == held && epoch == self.epoch {
                    Ok(())
                } else {
                    Err(WriteOutcome::Changed)
                }
            }
        }
    }

    pub(super) fn read(&self, now: Now, records: &[RecordId]) -> Result<Answer, HotStoreError> {
        let slots = records.iter().map(|record| self.slot(now, record)).collect::<Result<_, _>>()?;
        Ok(Answer { epoch: self.epoch, slots })
    }

    fn slot(&self, now: Now, record: &RecordId) -> Result<Slot, HotStoreError> {
        Ok(match self.held(now, record) {
            None => Slot::Empty,
            Some(Held::Absent) => Slot::Absent,
            Some(Held::Lease(_)) => Slot::Leased,
            Some(Held::Image(stored)) => {
                Slot::Image { version: stored.version, image: self.decode(stored)?, dirty: stored.dirty }
            }
        })
    }

    pub(super) fn mark_queued(&mut self, now: Now, epoch: Epoch, stamps: &[Stamp]) -> Result<Vec<bool>, HotStoreError> {
        self.check_open_in(epoch)?;
        let marked = stamps.iter().map(|stamp| match self.held(now, &stamp.record) {
            Some(Held::Image(stored)) if stored.version >= stamp.version => {
                if stored.version == stamp.version {
                    self.unqueued.remove(stamp.version, &stamp.record);
                }
                true
            }
            _ => false,
        });
        Ok(marked.collect())
    }

    pub(super) fn lease(&mut self, now: Now, record: &RecordId, ttl: Duration) -> Result<LeaseOutcome, HotStoreError> {
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
    pub(super) fn fill(
        &mut self,
        now: Now,
        record: &RecordId,
        token: &LeaseToken,
        fill: Fill,
        ttl: Duration,
        room: bool,
    ) -> bool {
        if !matches!(self.held(now, record), Some(Held::Lease(held)) if held == token) {
            return false;
        }
        let deadline = Some(now.instant + ttl);
        match fill {
            _ if !room => self.remove(record),
            Fill::Absent => self.put(record, Held::Absent, deadline),
            Fill::Image { version, image } => self.put_image(record, version, image, None, false, deadline),
        }
        room
    }

    pub(super) fn mark_clean(&mut self, now: Now, clean: Clean, ttl: Duration) -> CleanOutcome {
        let Clean { record, version, newer } = clean;
        let deadline = Some(now.instant + ttl);
        let held = match self.held(now, &record) {
            Some(Held::Image(stored)) => stored.clone(),
            // A lease is broken and a remembered absence forgotten: the database has just said something newer.
            Some(_) | None => {
                self.remove(&record);
                return CleanOutcome::Gone;
            }
        };
        match (version.cmp(&held.version), newer) {
            (Ordering::Less, _) => CleanOutcome::Newer,
            (Ordering::Equal, _) => {
                self.put(&record, Held::Image(StoredImage { dirty: false, ..held }), deadline);
                CleanOutcome::Cleaned
            }
            (Ordering::Greater, Some(image)) => {
                self.put_image(&record, version, image, None, false, deadline);
                CleanOutcome::Cleaned
            }
            // Lower than what the database holds, and nobody says what that is: the next read asks the database.
            (Ordering::Greater, None) => {
                self.remove(&record);
                CleanOutcome::Gone
            }
        }
    }

    pub(super) fn dirty(
        &self,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        let set = match which {
            Dirty::Unqueued => &self.unqueued,
            Dirty::All => &self.dirty,
        };
        let mut found = Vec::new();
        for (version, record) in set.above(after).take(limit) {
            if let Some(Entry { held: Held::Image(stored), .. }) = self.entries.get(record) {
                found.push(DirtyRecord { record: record.clone(), version, image: self.decode(stored)? });
            }
        }
        Ok((self.epoch, found))
    }

    pub(super) fn header(&self) -> ShardHeader {
        ShardHeader {
            open: self.check_open().is_ok(),
            epoch: self.epoch,
            clock: self.clock,
            dirty: self.dirty.len(),
            unqueued: self.unqueued.len(),
            oldest_dirty: self.dirty.oldest(),
        }
    }

    pub(super) fn store_checkpoint(&mut self, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        self.check_open_in(epoch)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    pub(super) fn claim(&mut self, token: &OpeningToken) -> Option<Claim> {
        if self.open_for == Some(self.live) {
            return None;
        }
        let resumed = self.opening.take().filter(|earlier| earlier.incarnation == self.live).and_then(|it| it.start);
        self.opening =
            Some(Opening { token: token.clone(), incarnation: self.live, start: resumed.clone(), epoch: None });
        Some(Claim { epoch: self.epoch, checkpoint: self.checkpoint.clone(), resumed })
    }

    pub(super) fn begin_opening(
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
        let void: Vec<RecordId> = self
            .entries
            .iter()
            .filter(|(_, entry)| discard || !matches!(entry.held, Held::Image(_)))
            .map(|(record, _)| record.clone())
            .collect();
        for record in &void {
            self.remove(record);
        }
        Ok(())
    }

    pub(super) fn check_begun(&mut self, token: &OpeningToken) -> Result<Epoch, HotStoreError> {
        let superseded = HotStoreError::Superseded { shard: self.shard };
        self.opening(token)?.epoch.ok_or(superseded)
    }

    pub(super) fn restore(&mut self, now: Now, restore: Restore, ttl: Duration) {
        match restore {
            Restore::Dirty { record, version, image } => {
                if self.holds_below(now, &record, version) {
                    let since = image.since;
                    self.put_image(&record, version, image, since, true, None);
                }
            }
            Restore::Clean { record, version, image } => {
                if self.holds_below(now, &record, version) {
                    self.put_image(&record, version, image, None, false, Some(now.instant + ttl));
                } else {
                    // Of an equal version the mark that it is clean was lost: nobody else would bring it back.
                    let clean = Clean { record, version, newer: None };
                    if self.holds_exactly(now, &clean) {
                        self.mark_clean(now, clean, ttl);
                    }
                }
            }
            Restore::Gone { record, horizon } => {
                if matches!(self.held(now, &record), Some(Held::Image(stored)) if stored.version <= horizon) {
                    self.remove(&record);
                }
            }
        }
    }

    pub(super) fn finish_opening(
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

    fn opening(&mut self, token: &OpeningToken) -> Result<&mut Opening, HotStoreError> {
        match &mut self.opening {
            Some(opening) if opening.token == *token && opening.incarnation == self.live => Ok(opening),
            _ => Err(HotStoreError::Superseded { shard: self.shard }),
        }
    }

    /// Whether the store holds no image of the record, or a lower version.
    fn holds_below(&self, now: Now, record: &RecordId, version: Version) -> bool {
        !matches!(self.held(now, record), Some(Held::Image(stored)) if stored.version >= version)
    }

    fn holds_exactly(&self, now: Now, clean: &Clean) -> bool {
        matches!(self.held(now, &clean.record), Some(Held::Image(stored)) if stored.version == clean.version)
    }

    fn held(&self, now: Now, record: &RecordId) -> Option<&Held> {
        let entry = self.entries.get(record)?;
        let expired = entry.deadline.is_some_and(|(deadline, _)| deadline <= now.instant);
        (!expired).then_some(&entry.held)
    }

    fn decode(&self, stored: &StoredImage) -> Result<Image, HotStoreError> {
        let mut image = Image::decode(stored.payload.clone())
            .map_err(|e| HotStoreError::Corrupt { shard: self.shard, problem: e.to_string() })?;
        image.since = stored.since.filter(|_| stored.dirty);
        Ok(image)
    }

    fn put_image(
        &mut self,
        record: &RecordId,
        version: Version,
        mut image: Image,
        since: Option<Version>,
        dirty: bool,
        deadline: Option<Instant>,
    ) {
        image.since = None;
        let tombstone = image.content == Content::Tombstone;
        let stored = StoredImage { version, since, tombstone, dirty, payload: image.encode() };
        self.put(record, Held::Image(stored), deadline);
    }

    fn put(&mut self, record: &RecordId, held: Held, deadline: Option<Instant>) {
        self.remove(record);
        if let Held::Image(StoredImage { dirty: true, version, .. }) = held {
            self.dirty.insert(version, record.clone());
        }
        let deadline = deadline.map(|at| {
            self.deadlines_given += 1;
            (at, self.deadlines_given)
        });
        if let Some(at) = deadline {
            self.deadlines.insert(at, record.clone());
        }
        self.bytes += weight(record, &held);
        self.entries.insert(record.clone(), Entry { held, deadline });
    }

    fn remove(&mut self, record: &RecordId) {
        let Some(entry) = self.entries.remove(record) else { return };
        self.bytes -= weight(record, &entry.held);
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&at);
        }
        if let Held::Image(StoredImage { dirty: true, version, .. }) = entry.held {
            self.dirty.remove(version, record);
            self.unqueued.remove(version, record);
        }
    }
}

/// What an entry counts for: the bytes that grow with the data.
fn weight(record: &RecordId, held: &Held) -> u64 {
    let payload = match held {
        Held::Image(stored) => stored.payload.len(),
        Held::Lease(_) | Held::Absent => 0,
    };
    (record.key.as_bytes().len() + record.namespace.as_str().len() + payload) as u64
}
