//! One shard in memory: what it holds and what each call does to it. No locks and no clocks: the caller holds the
//! shard's lock and says what time it is.
//!
//! | file | subject |
//! |---|---|
//! | `slots` | how records are kept: the one place that puts and removes them |
//! | `writes`, `marks`, `leases` | the calls that concern records |
//! | `requests` | which requests took effect |
//! | `backlog` | what the database does not have |
//! | `parking` | what it refused for good |
//! | `index` | by which fields either is found |
//! | `opening` | the calls that open the shard |
//! | `aside` | what was dirty when an opening discarded it |
//!
//! Nothing here depends on the order of a hash map: the maps that are walked through are ordered, and the others are
//! only looked up in.

mod aside;
mod backlog;
mod index;
mod leases;
mod marks;
mod opening;
mod parking;
mod requests;
mod slots;
mod writes;

use std::collections::{BTreeMap, HashMap};

use model::{Epoch, Namespace, Shard, Version};
use planted::Bug;
use tokio::time::Instant;

pub(super) use self::requests::{RequestTerms, weight as request_weight};
use self::{
    aside::Aside,
    backlog::Tally,
    index::Index,
    opening::Opening,
    requests::{RequestKey, StoredRequest},
    slots::Entry,
};
use super::versions::ByVersion;
use crate::{Checkpoint, Halt, HotStoreError, RecordId, ShardHeader};

/// What time it is, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For TTLs.
    pub(super) instant: Instant,
    /// Microseconds since 1970, for versions.
    pub(super) micros: u64,
}

/// The end of a TTL; the number tells those of one instant apart.
type Deadline = (Instant, u64);

/// What expires.
#[derive(Debug, Clone)]
enum Expiring {
    Record(RecordId),
    Request(RequestKey),
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
    halt: Halt,
    entries: HashMap<RecordId, Entry>,
    dirty: ByVersion,
    unqueued: ByVersion,
    /// What was dirty when an opening discarded it, and was not put back since.
    aside: BTreeMap<RecordId, Aside>,
    /// What is dirty, by table.
    backlogs: BTreeMap<Namespace, Tally>,
    /// What is parked, by table.
    parked: BTreeMap<Namespace, ByVersion>,
    /// By table.
    indexes: BTreeMap<Namespace, Index>,
    indexes_begun: u64,
    requests: HashMap<RequestKey, StoredRequest>,
    deadlines: BTreeMap<Deadline, Expiring>,
    deadlines_given: u64,
    leases_given: u64,
    bytes: u64,
    /// How many images were removed otherwise than by expiry.
    removed: u64,
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
            halt: Halt::default(),
            entries: HashMap::new(),
            dirty: ByVersion::default(),
            unqueued: ByVersion::default(),
            aside: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            parked: BTreeMap::new(),
            indexes: BTreeMap::new(),
            indexes_begun: 0,
            requests: HashMap::new(),
            deadlines: BTreeMap::new(),
            deadlines_given: 0,
            leases_given: 0,
            bytes: 0,
            removed: 0,
        }
    }

    /// The bytes of keys, images and requests.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The store was restarted and `survivor` is what is left of the shard.
    pub(super) fn restart_as(&mut self, survivor: ShardState) {
        let live = self.live + 1;
        *self = survivor;
        self.live = live;
    }

    /// Forgets at most `limit` expired records and requests.
    pub(super) fn expire(&mut self, now: Now, limit: usize) {
        for _ in 0..limit {
            match self.deadlines.first_entry() {
                Some(first) if first.key().0 <= now.instant => match first.get().clone() {
                    Expiring::Record(record) => self.remove(&record),
                    Expiring::Request(key) => self.forget_request(&key),
                },
                _ => return,
            }
        }
    }

    pub(super) fn check_open(&self) -> Result<(), HotStoreError> {
        let open =
            self.open_for == Some(self.live) || (self.open_for.is_some() && planted::is(Bug::IncarnationIgnored));
        if open { Ok(()) } else { Err(HotStoreError::Closed { shard: self.shard }) }
    }

    fn check_open_in(&self, epoch: Epoch) -> Result<(), HotStoreError> {
        self.check_open()?;
        if self.epoch == epoch { Ok(()) } else { Err(HotStoreError::Closed { shard: self.shard }) }
    }

    pub(super) fn header(&self) -> ShardHeader {
        ShardHeader {
            open: self.check_open().is_ok(),
            epoch: self.epoch,
            clock: self.clock,
            dirty: self.dirty.len(),
            unqueued: self.unqueued.len(),
            oldest_dirty: self.dirty.oldest(),
            halt: self.halt.clone(),
        }
    }

    pub(super) fn halt_writes(&mut self, halt: &Halt) -> Halt {
        if halt.revision >= self.halt.revision {
            self.halt = halt.clone();
        }
        self.halt.clone()
    }

    pub(super) fn store_checkpoint(&mut self, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        self.check_open_in(epoch)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// The end of a TTL that ends at `at`.
    fn deadline(&mut self, at: Instant) -> Deadline {
        self.deadlines_given += 1;
        (at, self.deadlines_given)
    }
}
