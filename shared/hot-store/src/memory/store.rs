//! The store: its shards behind one lock each, its clocks, its limit.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use model::{Epoch, IndexId, Namespace, Shard, ShardCount, Version};
use tokio::time::Instant;

use super::{
    budget::Budgets,
    reports::Reports,
    shard::{Now, RequestTerms, ShardState, request_weight},
};
use crate::{
    AgreedLimit, Agreement, Answer, Backlog, Budget, Checkpoint, Claim, Clean, CleanOutcome, Dirty, DirtyRecord, Ended,
    Eviction, Fill, FoundInShard, Grant, Halt, HotStore, HotStoreError, IndexBuild, IndexState, Indexed, LeaseOutcome,
    LeaseToken, Limits, Lookup, OpeningStart, OpeningToken, ParkOutcome, ParkedRecord, Permit, REQUEST_WINDOW,
    RecordId, ReplicaReport, Restore, SeenReport, SetAsidePage, Settings, ShardHeader, Stamp, Write, WriteOutcome,
};

/// Expired entries that one call clears away beside its own work.
const EXPIRED_PER_CALL: usize = 32;
/// Expired entries per shard that are cleared away when memory gets short, and how often that is tried.
const EXPIRED_PER_SWEEP: usize = 4096;
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// What is left of the store after a restart.
#[derive(Debug, Clone)]
pub enum Survives {
    /// All of it, as after a clean stop.
    Everything,
    /// Nothing.
    Nothing,
    /// What it held when the snapshot was taken: the tail is lost.
    Snapshot(MemorySnapshot),
}

/// What the store held at some moment, shard by shard.
#[derive(Debug, Clone)]
pub struct MemorySnapshot(Vec<ShardState>);

/// The hot store in memory.
///
/// A run of it can be replayed: it starts no task, waits for nothing and draws nothing at random, and no hash map's
/// order decides anything. What it does follows from the calls and their order, from the wall clock that it is given
/// ([`MemoryStore::with_wall_clock`]; it may step, versions don't follow it back) and from tokio's clock (TTLs, leases,
/// requests, budgets), which a test can pause. Every call does its work when it is polled first and is done then: who
/// wants a delay or a lost answer between a call and its effect puts a wrapper around it.
///
/// The death of the store is [`MemoryStore::restart`]; what its history is cut down to is [`Survives`]. For the loss of
/// a tail, take a [`MemoryStore::snapshot`] now and then: it is a prefix of the history, over all shards at once, if no
/// call runs meanwhile on another thread. Who holds the store goes on with it: to them it is a server that was gone for
/// a moment and has another incarnation, in which every shard is closed.
pub struct MemoryStore {
    shards: Vec<Mutex<ShardState>>,
    budgets: Mutex<Budgets>,
    reports: Mutex<Reports>,
    wall_clock: Box<dyn Fn() -> u64 + Send + Sync>,
    requests: RequestTerms,
    max_bytes: u64,
    used_bytes: AtomicU64,
    last_sweep: Mutex<Option<Instant>>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("shards", &self.shards.len()).field("max_bytes", &self.max_bytes).finish()
    }
}

impl MemoryStore {
    /// A store of so many shards, all of them closed and empty. `max_bytes` bounds the bytes of keys and images:
    /// fills stop at 70 % of it and writes at 90 %; what the drain and openings do may exceed it.
    pub fn new(shards: ShardCount, max_bytes: u64) -> Self {
        Self {
            shards: shards.all().map(|shard| Mutex::new(ShardState::new(shard))).collect(),
            budgets: Mutex::default(),
            reports: Mutex::default(),
            wall_clock: Box::new(system_micros),
            requests: RequestTerms { window: REQUEST_WINDOW },
            max_bytes,
            used_bytes: AtomicU64::new(0),
            last_sweep: Mutex::default(),
        }
    }

    /// With another wall clock, in microseconds since 1970; it gives the versions. TTLs go by tokio's clock.
    #[must_use]
    pub fn with_wall_clock(mut self, micros: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.wall_clock = Box::new(micros);
        self
    }

    /// Remembers requests for another time than [`REQUEST_WINDOW`].
    #[must_use]
    pub fn with_request_window(mut self, window: Duration) -> Self {
        self.requests = RequestTerms { window };
        self
    }

    /// The bytes of keys, images and requests that it holds.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// What it holds now.
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.shards.iter().map(|shard| lock(shard).clone()).collect())
    }

    /// Acts as if the store had been restarted: another incarnation, every shard closed, and this is what is left.
    pub fn restart(&self, survives: Survives) {
        lock(&self.budgets).clear();
        lock(&self.reports).clear();
        for (number, shard) in self.shards.iter().enumerate() {
            let mut state = lock(shard);
            let survivor = match &survives {
                Survives::Everything => state.clone(),
                Survives::Nothing => ShardState::new(Shard(number as u16)),
                Survives::Snapshot(MemorySnapshot(states)) => match states.get(number) {
                    Some(state) => state.clone(),
                    None => ShardState::new(Shard(number as u16)),
                },
            };
            let before = state.bytes();
            state.restart_as(survivor);
            self.account(before, state.bytes());
        }
    }

    fn now(&self) -> Now {
        Now { instant: Instant::now(), micros: (self.wall_clock)() }
    }

    /// Works on one shard under its lock.
    fn on<T>(
        &self,
        shard: Shard,
        work: impl FnOnce(&mut ShardState, Now) -> Result<T, HotStoreError>,
    ) -> Result<T, HotStoreError> {
        let Some(state) = self.shards.get(usize::from(shard.0)) else {
            let problem = format!("there is no such shard: the store has {}", self.shards.len());
            return Err(HotStoreError::Corrupt { shard, problem });
        };
        let now = self.now();
        let mut state = lock(state);
        let before = state.bytes();
        state.expire(now, EXPIRED_PER_CALL);
        let result = work(&mut state, now);
        self.account(before, state.bytes());
        result
    }

    /// Works on one shard, if it is open.
    fn on_open<T>(
        &self,
        shard: Shard,
        work: impl FnOnce(&mut ShardState, Now) -> Result<T, HotStoreError>,
    ) -> Result<T, HotStoreError> {
        self.on(shard, |state, now| {
            state.check_open()?;
            work(state, now)
        })
    }

    fn account(&self, before: u64, after: u64) {
        // Wraps in between when a shard shrinks; the sum of all shards never does.
        self.used_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Whether so many bytes more stay below the given percentage of the limit. Clears expired entries away before it
    /// says no: those of a shard that nobody calls would otherwise stay.
    fn has_room(&self, more: u64, percent: u64) -> bool {
        let fits = || (self.used_bytes() + more).saturating_mul(100) <= self.max_bytes.saturating_mul(percent);
        if fits() {
            return true;
        }
        let now = self.now();
        let mut last_sweep = lock(&self.last_sweep);
        if last_sweep.is_none_or(|last| now.instant.saturating_duration_since(last) >= SWEEP_INTERVAL) {
            *last_sweep = Some(now.instant);
            for shard in &self.shards {
                let mut state = lock(shard);
                let before = state.bytes();
                state.expire(now, EXPIRED_PER_SWEEP);
                self.account(before, state.bytes());
            }
        }
        fits()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere does not make what is behind the lock wrong: no work on it is left half done by a panic that
    // the caller could cause.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn system_micros() -> u64 {
    // A clock before 1970 counts as 1970: versions rise by the shard's own clock then.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

impl HotStore for MemoryStore {
    async fn write(
        &self,
        shard: Shard,
        asked: Instant,
        writes: Vec<Write>,
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        let more = writes.iter().map(|write| {
            let request = write.image.request.as_ref();
            let request = request.map_or(0, |it| request_weight(&write.record.namespace, it.id.as_str()));
            (write.record.key.as_bytes().len() + write.image.encode().len()) as u64 + request
        });
        let room = self.has_room(more.sum(), 90);
        self.on_open(shard, |state, now| {
            if now.instant.saturating_duration_since(asked) > self.requests.window / 2 {
                return Err(HotStoreError::Late);
            }
            if !room {
                return Err(HotStoreError::Full);
            }
            Ok(writes.into_iter().map(|write| state.write(now, write, self.requests)).collect())
        })
    }

    async fn read(&self, shard: Shard, records: Vec<RecordId>) -> Result<Answer, HotStoreError> {
        self.on_open(shard, |state, now| state.read(now, &records))
    }

    async fn read_many(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        max_bytes: usize,
    ) -> Vec<Result<Answer, HotStoreError>> {
        let mut left = max_bytes as u64;
        let mut answered = false;
        let read = |(shard, records): (Shard, Vec<RecordId>)| {
            let answer = self.on_open(shard, |state, now| state.read_within(now, &records, &mut left, !answered));
            answered |= answer.as_ref().is_ok_and(|answer| !answer.slots.is_empty());
            answer
        };
        groups.into_iter().map(read).collect()
    }

    async fn mark_queued(&self, shard: Shard, epoch: Epoch, stamps: Vec<Stamp>) -> Result<Vec<bool>, HotStoreError> {
        self.on_open(shard, |state, now| state.mark_queued(now, epoch, &stamps))
    }

    async fn lease(&self, shard: Shard, record: RecordId, ttl: Duration) -> Result<LeaseOutcome, HotStoreError> {
        self.on_open(shard, |state, now| state.lease(now, &record, ttl))
    }

    async fn fill(
        &self,
        shard: Shard,
        record: RecordId,
        token: LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> Result<bool, HotStoreError> {
        let room = self.has_room(0, 70);
        self.on_open(shard, |state, now| Ok(state.fill(now, &record, &token, fill, ttl, room)))
    }

    async fn mark_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> Result<Vec<CleanOutcome>, HotStoreError> {
        self.on_open(shard, |state, now| {
            Ok(cleans.into_iter().map(|clean| state.mark_clean(now, clean, ttl)).collect())
        })
    }

    async fn evict(&self, shard: Shard, records: Vec<RecordId>) -> Result<Vec<Eviction>, HotStoreError> {
        self.on_open(shard, |state, now| Ok(records.iter().map(|record| state.evict(now, record)).collect()))
    }

    async fn park(&self, shard: Shard, stamps: Vec<Stamp>) -> Result<Vec<ParkOutcome>, HotStoreError> {
        self.on_open(shard, |state, now| Ok(stamps.iter().map(|stamp| state.park(now, stamp)).collect()))
    }

    async fn parked(
        &self,
        shard: Shard,
        namespace: Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        self.on_open(shard, |state, _| state.parked(&namespace, after, limit))
    }

    async fn purge_parked(&self, shard: Shard, stamp: Stamp) -> Result<bool, HotStoreError> {
        self.on_open(shard, |state, now| Ok(state.purge_parked(now, &stamp)))
    }

    async fn dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        self.on_open(shard, |state, _| state.dirty(which, after, limit))
    }

    async fn backlog(&self, shard: Shard, namespaces: Vec<Namespace>) -> Result<(Epoch, Vec<Backlog>), HotStoreError> {
        self.on_open(shard, |state, now| Ok(state.backlog(now, &namespaces)))
    }

    async fn begin_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        index: IndexId,
    ) -> Result<IndexState, HotStoreError> {
        self.on_open(shard, |state, _| Ok(state.begin_index(namespace, index)))
    }

    async fn build_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> Result<bool, HotStoreError> {
        self.on_open(shard, |state, now| Ok(state.build_index(now, &namespace, build, records, is_last)))
    }

    async fn look_up(&self, shards: &[Shard], lookup: &Lookup) -> Result<Vec<FoundInShard>, HotStoreError> {
        shards.iter().map(|&shard| self.on_open(shard, |state, _| Ok(state.look_up(lookup)))).collect()
    }

    async fn header(&self, shard: Shard) -> Result<ShardHeader, HotStoreError> {
        self.on(shard, |state, _| Ok(state.header()))
    }

    async fn checkpoint(&self, shard: Shard, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        self.on_open(shard, |state, _| state.store_checkpoint(epoch, checkpoint))
    }

    async fn claim(&self, shard: Shard, token: &OpeningToken) -> Result<Option<Claim>, HotStoreError> {
        self.on(shard, |state, _| Ok(state.claim(token)))
    }

    async fn begin_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> Result<(), HotStoreError> {
        self.on(shard, |state, _| state.begin_opening(token, epoch, start))
    }

    async fn set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        self.on(shard, |state, _| state.set_aside(token, skip, limit))
    }

    async fn restore(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> Result<(), HotStoreError> {
        self.on(shard, |state, now| state.restore(now, token, records, ttl, self.requests))
    }

    async fn finish_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> Result<(), HotStoreError> {
        self.on(shard, |state, _| state.finish_opening(token, clock, checkpoint))
    }

    async fn halt_writes(&self, shard: Shard, halt: &Halt) -> Result<Halt, HotStoreError> {
        self.on(shard, |state, _| Ok(state.halt_writes(halt)))
    }

    async fn report(&self, report: &ReplicaReport) -> Result<(), HotStoreError> {
        lock(&self.reports).put(report);
        Ok(())
    }

    async fn withdraw_report(&self, incarnation: &str) -> Result<(), HotStoreError> {
        lock(&self.reports).remove(incarnation);
        Ok(())
    }

    async fn reports(&self) -> Result<Vec<SeenReport>, HotStoreError> {
        Ok(lock(&self.reports).list())
    }

    async fn settings(&self) -> Result<Settings, HotStoreError> {
        Ok(Settings::default())
    }
}

impl Budget for MemoryStore {
    async fn take(&self, limits: &Limits, permit: Permit, ended: &[Ended]) -> Result<Grant, HotStoreError> {
        Ok(lock(&self.budgets).take(limits, permit, ended, Instant::now()))
    }

    async fn tell(&self, limits: &Limits, held: &[Permit], ended: &[Ended]) -> Result<(), HotStoreError> {
        lock(&self.budgets).tell(limits, 1, held, ended, Instant::now());
        Ok(())
    }

    async fn agreed(&self, database: &str) -> Result<Agreement, HotStoreError> {
        Ok(lock(&self.budgets).agreed(database, Instant::now()))
    }

    async fn agree(
        &self,
        database: &str,
        before: Option<AgreedLimit>,
        after: AgreedLimit,
    ) -> Result<bool, HotStoreError> {
        Ok(lock(&self.budgets).agree(database, before, after))
    }
}
