//! The hot store in memory, with somebody who writes between the steps of others, and with answers that get lost.

use std::{
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hot_store::{
    Answer, Backlog, Checkpoint, Claim, Clean, CleanOutcome, Dirty, DirtyRecord, Eviction, Fill, FoundInShard, Halt,
    HotStore, HotStoreError, IndexBuild, IndexState, Indexed, LeaseOutcome, LeaseToken, Lookup, OpeningStart,
    OpeningToken, ParkOutcome, ParkedRecord, RecordId, ReplicaReport, Restore, SeenReport, SetAsidePage, Settings,
    ShardHeader, Slot, Stage, Stamp, Write, WriteOutcome, memory::MemoryStore,
};
use model::{Epoch, IndexId, Namespace, Shard, ShardCount, Version};
use tokio::{sync::oneshot, time::Instant};

/// A write that has been sent and does not arrive.
struct HeldWrite {
    sent: oneshot::Sender<()>,
    /// It has taken so long.
    arrives: oneshot::Receiver<Duration>,
}

type Rival = Box<dyn Fn() -> (Shard, Write) + Send>;
pub type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;
type BeforeDirty = Box<dyn Fn(Shard) -> Meanwhile + Send>;

pub struct BentStore {
    pub memory: MemoryStore,
    rival: Mutex<Option<Rival>>,
    held_write: Mutex<Option<HeldWrite>>,
    loses_answers: AtomicBool,
    forgets: AtomicBool,
    lost_entries: AtomicBool,
    before_read: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    before_header: Mutex<Option<(Shard, Meanwhile)>>,
    before_dirty: Mutex<Option<BeforeDirty>>,
    expired: Mutex<Vec<RecordId>>,
    spoilt: Mutex<Vec<RecordId>>,
    settings: Mutex<Settings>,
}

impl BentStore {
    pub fn new(shards: ShardCount, max_bytes: u64) -> Self {
        Self {
            memory: MemoryStore::new(shards, max_bytes),
            rival: Mutex::default(),
            held_write: Mutex::default(),
            loses_answers: AtomicBool::new(false),
            forgets: AtomicBool::new(false),
            lost_entries: AtomicBool::new(false),
            before_read: Mutex::default(),
            before_header: Mutex::default(),
            before_dirty: Mutex::default(),
            expired: Mutex::default(),
            spoilt: Mutex::default(),
            settings: Mutex::default(),
        }
    }

    /// Somebody whose write comes first, before each write of others.
    pub fn set_rival(&self, rival: impl Fn() -> (Shard, Write) + Send + 'static) {
        *self.rival.lock().unwrap() = Some(Box::new(rival));
    }

    /// The next write does not arrive before the returned sender says how long it has taken; the receiver says when it
    /// was sent.
    pub fn hold_next_write(&self) -> (oneshot::Receiver<()>, oneshot::Sender<Duration>) {
        let ((sent, is_sent), (arrive, arrives)) = (oneshot::channel(), oneshot::channel());
        *self.held_write.lock().unwrap() = Some(HeldWrite { sent, arrives });
        (is_sent, arrive)
    }

    /// Writes take effect, but their answers get lost.
    pub fn lose_answers(&self, lose: bool) {
        self.loses_answers.store(lose, Ordering::SeqCst);
    }

    /// Marks find nothing.
    pub fn forget(&self) {
        self.forgets.store(true, Ordering::SeqCst);
    }

    /// Does something before the next read.
    pub fn before_read(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_read.lock().unwrap() = Some(Box::new(hook));
    }

    /// Does something before that shard's header is read the next time.
    pub fn before_header(&self, shard: Shard, meanwhile: impl Future<Output = ()> + Send + 'static) {
        *self.before_header.lock().unwrap() = Some((shard, Box::pin(meanwhile)));
    }

    /// Does something before each page of all that is dirty.
    pub fn before_dirty(&self, meanwhile: impl Fn(Shard) -> Meanwhile + Send + 'static) {
        *self.before_dirty.lock().unwrap() = Some(Box::new(meanwhile));
    }

    /// Backlogs no longer have the entries by which their records are counted, as a power cut may leave them.
    pub fn lose_entries(&self, lost: bool) {
        self.lost_entries.store(lost, Ordering::SeqCst);
    }

    /// From now on the record, which must be clean, is read as if its TTL were over.
    pub fn expire(&self, record: &RecordId) {
        self.expired.lock().unwrap().push(record.clone());
    }

    /// The record's value can't be read any more.
    pub fn spoil(&self, record: &RecordId) {
        self.spoilt.lock().unwrap().push(record.clone());
    }

    /// The error that a read of these records gets.
    fn check_readable(&self, shard: Shard, records: &[RecordId]) -> Result<(), HotStoreError> {
        let spoilt = self.spoilt.lock().unwrap();
        match records.iter().any(|record| spoilt.contains(record)) {
            true => Err(HotStoreError::Corrupt { shard, problem: "told to".into() }),
            false => Ok(()),
        }
    }

    fn without_expired(&self, records: &[RecordId], mut answer: Answer) -> Answer {
        for (record, slot) in records.iter().zip(&mut answer.slots) {
            if self.expired.lock().unwrap().contains(record) {
                assert!(!matches!(slot, Slot::Image { stage: Stage::Dirty, .. }), "dirty data never expires");
                *slot = Slot::Empty;
            }
        }
        answer
    }

    pub fn set_settings(&self, settings: Settings) {
        *self.settings.lock().unwrap() = settings;
    }
}

impl HotStore for BentStore {
    async fn write(
        &self,
        shard: Shard,
        mut asked: Instant,
        writes: Vec<Write>,
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        let held = self.held_write.lock().unwrap().take();
        if let Some(HeldWrite { sent, arrives }) = held {
            sent.send(()).unwrap();
            asked -= arrives.await.unwrap();
        }
        let first = self.rival.lock().unwrap().as_ref().map(|rival| rival());
        if let Some((shard, write)) = first {
            self.memory.write(shard, Instant::now(), vec![write]).await?;
        }
        let outcomes = self.memory.write(shard, asked, writes).await?;
        if self.loses_answers.load(Ordering::SeqCst) {
            return Err(HotStoreError::Unknown("told to".into()));
        }
        Ok(outcomes)
    }

    async fn read(&self, shard: Shard, records: Vec<RecordId>) -> Result<Answer, HotStoreError> {
        let hook = self.before_read.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        let answer = self.memory.read(shard, records.clone()).await?;
        self.check_readable(shard, &records)?;
        Ok(self.without_expired(&records, answer))
    }

    async fn read_many(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        max_bytes: usize,
    ) -> Vec<Result<Answer, HotStoreError>> {
        let hook = self.before_read.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        let answers = self.memory.read_many(groups.clone(), max_bytes).await;
        let shown = |(answer, (shard, records)): (Result<Answer, _>, &(Shard, Vec<RecordId>))| {
            let answer = answer?;
            self.check_readable(*shard, records)?;
            Ok(self.without_expired(records, answer))
        };
        answers.into_iter().zip(&groups).map(shown).collect()
    }

    async fn mark_queued(&self, shard: Shard, epoch: Epoch, stamps: Vec<Stamp>) -> Result<Vec<bool>, HotStoreError> {
        let mut marked = self.memory.mark_queued(shard, epoch, stamps).await?;
        if self.forgets.load(Ordering::SeqCst) {
            marked.fill(false);
        }
        Ok(marked)
    }

    async fn lease(&self, shard: Shard, record: RecordId, ttl: Duration) -> Result<LeaseOutcome, HotStoreError> {
        self.memory.lease(shard, record, ttl).await
    }

    async fn fill(
        &self,
        shard: Shard,
        record: RecordId,
        token: LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> Result<bool, HotStoreError> {
        self.memory.fill(shard, record, token, fill, ttl).await
    }

    async fn mark_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> Result<Vec<CleanOutcome>, HotStoreError> {
        self.memory.mark_clean(shard, cleans, ttl).await
    }

    async fn evict(&self, shard: Shard, records: Vec<RecordId>) -> Result<Vec<Eviction>, HotStoreError> {
        self.memory.evict(shard, records).await
    }

    async fn park(&self, shard: Shard, stamps: Vec<Stamp>) -> Result<Vec<ParkOutcome>, HotStoreError> {
        self.memory.park(shard, stamps).await
    }

    async fn parked(
        &self,
        shard: Shard,
        namespace: Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        self.memory.parked(shard, namespace, after, limit).await
    }

    async fn purge_parked(&self, shard: Shard, stamp: Stamp) -> Result<bool, HotStoreError> {
        self.memory.purge_parked(shard, stamp).await
    }

    async fn dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        if which == Dirty::All {
            let meanwhile = self.before_dirty.lock().unwrap().as_ref().map(|meanwhile| meanwhile(shard));
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
        }
        self.memory.dirty(shard, which, after, limit).await
    }

    async fn backlog(&self, shard: Shard, namespaces: Vec<Namespace>) -> Result<(Epoch, Vec<Backlog>), HotStoreError> {
        let (epoch, mut backlogs) = self.memory.backlog(shard, namespaces).await?;
        if self.lost_entries.load(Ordering::SeqCst) {
            backlogs.iter_mut().for_each(|backlog| (backlog.records, backlog.bytes) = (0, 0));
        }
        Ok((epoch, backlogs))
    }

    async fn begin_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        index: IndexId,
    ) -> Result<IndexState, HotStoreError> {
        self.memory.begin_index(shard, namespace, index).await
    }

    async fn build_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> Result<bool, HotStoreError> {
        self.memory.build_index(shard, namespace, build, records, is_last).await
    }

    async fn look_up(&self, shards: &[Shard], lookup: &Lookup) -> Result<Vec<FoundInShard>, HotStoreError> {
        self.memory.look_up(shards, lookup).await
    }

    async fn header(&self, shard: Shard) -> Result<ShardHeader, HotStoreError> {
        let meanwhile = self.before_header.lock().unwrap().take_if(|(of, _)| *of == shard);
        if let Some((_, meanwhile)) = meanwhile {
            meanwhile.await;
        }
        self.memory.header(shard).await
    }

    async fn checkpoint(&self, shard: Shard, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        self.memory.checkpoint(shard, epoch, checkpoint).await
    }

    async fn claim(&self, shard: Shard, token: &OpeningToken) -> Result<Option<Claim>, HotStoreError> {
        self.memory.claim(shard, token).await
    }

    async fn begin_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> Result<(), HotStoreError> {
        self.memory.begin_opening(shard, token, epoch, start).await
    }

    async fn set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        self.memory.set_aside(shard, token, skip, limit).await
    }

    async fn restore(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> Result<(), HotStoreError> {
        self.memory.restore(shard, token, records, ttl).await
    }

    async fn finish_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> Result<(), HotStoreError> {
        self.memory.finish_opening(shard, token, clock, checkpoint).await
    }

    async fn halt_writes(&self, shard: Shard, halt: &Halt) -> Result<Halt, HotStoreError> {
        self.memory.halt_writes(shard, halt).await
    }

    async fn report(&self, report: &ReplicaReport) -> Result<(), HotStoreError> {
        self.memory.report(report).await
    }

    async fn withdraw_report(&self, incarnation: &str) -> Result<(), HotStoreError> {
        self.memory.withdraw_report(incarnation).await
    }

    async fn reports(&self) -> Result<Vec<SeenReport>, HotStoreError> {
        self.memory.reports().await
    }

    async fn settings(&self) -> Result<Settings, HotStoreError> {
        Ok(self.settings.lock().unwrap().clone())
    }
}
