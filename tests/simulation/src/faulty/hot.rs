//! The hot store of one process.

use std::time::Duration;

use hot_store::{
    AgreedLimit, Agreement, Answer, Backlog, Budget, Checkpoint, Claim, Clean, CleanOutcome, Dirty, DirtyRecord, Ended,
    Eviction, Fill, FoundInShard, Grant, Halt, HotStore, HotStoreError, IndexBuild, IndexState, Indexed, LeaseOutcome,
    LeaseToken, Limits, Lookup, OpeningStart, OpeningToken, ParkOutcome, ParkedRecord, Permit, RecordId, ReplicaReport,
    Restore, SeenReport, SetAsidePage, Settings, ShardHeader, Stamp, Write, WriteOutcome,
};
use model::{Epoch, IndexId, Namespace, Shard, Version};
use tokio::time::Instant;

use super::Faulty;
use crate::{nature::Place, process::Fault};

impl Fault for HotStoreError {
    fn refused() -> Self {
        Self::Unavailable("simulated".to_owned())
    }

    fn unanswered() -> Self {
        Self::Unknown("simulated".to_owned())
    }
}

/// A call that is passed on: its name and arguments for the trace, and what the store does when it arrives there.
macro_rules! pass {
    ($self:ident, $method:ident ($($argument:ident),*)) => {{
        let inner = $self.inner.clone();
        let what = $self.process.shown(|| {
            let shown: Vec<String> = vec![$(format!("{:?}", $argument)),*];
            format!("{}({})", stringify!($method), shown.join(", "))
        });
        $self.process.call(Place::Hot, what, async move { inner.$method($($argument),*).await }).await
    }};
}

impl<H: HotStore> HotStore for Faulty<H> {
    async fn write(
        &self,
        shard: Shard,
        asked: Instant,
        writes: Vec<Write>,
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        let inner = self.inner.clone();
        // Not when it was asked for: a trace tells the same in each run.
        let what = self.process.shown(|| format!("write({shard:?}, {writes:?})"));
        self.process.call(Place::Hot, what, async move { inner.write(shard, asked, writes).await }).await
    }

    async fn read(&self, shard: Shard, records: Vec<RecordId>) -> Result<Answer, HotStoreError> {
        pass!(self, read(shard, records))
    }

    async fn read_many(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        max_bytes: usize,
    ) -> Vec<Result<Answer, HotStoreError>> {
        let (inner, count) = (self.inner.clone(), groups.len());
        let what = self.process.shown(|| format!("read_many({groups:?}, {max_bytes})"));
        let read = async move { Ok(inner.read_many(groups, max_bytes).await) };
        match self.process.call(Place::Hot, what, read).await {
            Ok(answers) => answers,
            Err(error) => std::iter::repeat_n(Err(error), count).collect(),
        }
    }

    async fn mark_queued(&self, shard: Shard, epoch: Epoch, stamps: Vec<Stamp>) -> Result<Vec<bool>, HotStoreError> {
        pass!(self, mark_queued(shard, epoch, stamps))
    }

    async fn lease(&self, shard: Shard, record: RecordId, ttl: Duration) -> Result<LeaseOutcome, HotStoreError> {
        pass!(self, lease(shard, record, ttl))
    }

    async fn fill(
        &self,
        shard: Shard,
        record: RecordId,
        token: LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> Result<bool, HotStoreError> {
        pass!(self, fill(shard, record, token, fill, ttl))
    }

    async fn mark_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> Result<Vec<CleanOutcome>, HotStoreError> {
        pass!(self, mark_clean(shard, cleans, ttl))
    }

    async fn evict(&self, shard: Shard, records: Vec<RecordId>) -> Result<Vec<Eviction>, HotStoreError> {
        pass!(self, evict(shard, records))
    }

    async fn park(&self, shard: Shard, stamps: Vec<Stamp>) -> Result<Vec<ParkOutcome>, HotStoreError> {
        pass!(self, park(shard, stamps))
    }

    async fn parked(
        &self,
        shard: Shard,
        namespace: Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        pass!(self, parked(shard, namespace, after, limit))
    }

    async fn purge_parked(&self, shard: Shard, stamp: Stamp) -> Result<bool, HotStoreError> {
        pass!(self, purge_parked(shard, stamp))
    }

    async fn dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        pass!(self, dirty(shard, which, after, limit))
    }

    async fn backlog(&self, shard: Shard, namespaces: Vec<Namespace>) -> Result<(Epoch, Vec<Backlog>), HotStoreError> {
        pass!(self, backlog(shard, namespaces))
    }

    async fn begin_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        index: IndexId,
    ) -> Result<IndexState, HotStoreError> {
        pass!(self, begin_index(shard, namespace, index))
    }

    async fn build_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> Result<bool, HotStoreError> {
        let (inner, build) = (self.inner.clone(), build.clone());
        let what = self.process.shown(|| format!("build_index({shard}, {namespace}, {records:?}, {is_last})"));
        let effect = async move { inner.build_index(shard, namespace, &build, records, is_last).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn look_up(&self, shards: &[Shard], lookup: &Lookup) -> Result<Vec<FoundInShard>, HotStoreError> {
        let (inner, shards, lookup) = (self.inner.clone(), shards.to_vec(), lookup.clone());
        let what = self.process.shown(|| format!("look_up({lookup:?})"));
        let effect = async move { inner.look_up(&shards, &lookup).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn header(&self, shard: Shard) -> Result<ShardHeader, HotStoreError> {
        pass!(self, header(shard))
    }

    async fn checkpoint(&self, shard: Shard, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        pass!(self, checkpoint(shard, epoch, checkpoint))
    }

    async fn claim(&self, shard: Shard, token: &OpeningToken) -> Result<Option<Claim>, HotStoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        let effect = async move { inner.claim(shard, &token).await };
        self.process.call(Place::Hot, self.process.shown(|| format!("claim({shard})")), effect).await
    }

    async fn begin_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> Result<(), HotStoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        let what = self.process.shown(|| format!("begin_opening({shard}, {epoch}, {start:?})"));
        let effect = async move { inner.begin_opening(shard, &token, epoch, start).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        let what = self.process.shown(|| format!("set_aside({shard}, {skip}..)"));
        let effect = async move { inner.set_aside(shard, &token, skip, limit).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn restore(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> Result<(), HotStoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        let what = self.process.shown(|| format!("restore({shard}, {records:?})"));
        let effect = async move { inner.restore(shard, &token, records, ttl).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn finish_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> Result<(), HotStoreError> {
        let (inner, token) = (self.inner.clone(), token.clone());
        let what = self.process.shown(|| format!("finish_opening({shard}, {clock}, {checkpoint:?})"));
        let effect = async move { inner.finish_opening(shard, &token, clock, checkpoint).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn halt_writes(&self, shard: Shard, halt: &Halt) -> Result<Halt, HotStoreError> {
        let (inner, halt) = (self.inner.clone(), halt.clone());
        let what = self.process.shown(|| format!("halt_writes({shard}, {halt:?})"));
        self.process.call(Place::Hot, what, async move { inner.halt_writes(shard, &halt).await }).await
    }

    async fn report(&self, report: &ReplicaReport) -> Result<(), HotStoreError> {
        let (inner, report) = (self.inner.clone(), report.clone());
        let what = self.process.shown(|| format!("report({report:?})"));
        self.process.call(Place::Hot, what, async move { inner.report(&report).await }).await
    }

    async fn withdraw_report(&self, incarnation: &str) -> Result<(), HotStoreError> {
        let (inner, incarnation) = (self.inner.clone(), incarnation.to_owned());
        let what = self.process.shown(|| format!("withdraw_report({incarnation})"));
        self.process.call(Place::Hot, what, async move { inner.withdraw_report(&incarnation).await }).await
    }

    async fn reports(&self) -> Result<Vec<SeenReport>, HotStoreError> {
        pass!(self, reports())
    }

    async fn settings(&self) -> Result<Settings, HotStoreError> {
        pass!(self, settings())
    }
}

impl<H: Budget> Budget for Faulty<H> {
    async fn take(&self, limits: &Limits, permit: Permit, ended: &[Ended]) -> Result<Grant, HotStoreError> {
        let (inner, limits, ended) = (self.inner.clone(), limits.clone(), ended.to_vec());
        let effect = async move { inner.take(&limits, permit, &ended).await };
        self.process.call(Place::Hot, self.process.shown(|| format!("take({permit:?})")), effect).await
    }

    async fn tell(&self, limits: &Limits, held: &[Permit], ended: &[Ended]) -> Result<(), HotStoreError> {
        let what = self.process.shown(|| format!("tell({held:?}, {ended:?})"));
        let (inner, limits, held, ended) = (self.inner.clone(), limits.clone(), held.to_vec(), ended.to_vec());
        let effect = async move { inner.tell(&limits, &held, &ended).await };
        self.process.call(Place::Hot, what, effect).await
    }

    async fn agreed(&self, database: &str) -> Result<Agreement, HotStoreError> {
        let (inner, database) = (self.inner.clone(), database.to_owned());
        let effect = async move { inner.agreed(&database).await };
        self.process.call(Place::Hot, self.process.shown(|| "agreed()".to_owned()), effect).await
    }

    async fn agree(
        &self,
        database: &str,
        before: Option<AgreedLimit>,
        after: AgreedLimit,
    ) -> Result<bool, HotStoreError> {
        let (inner, database) = (self.inner.clone(), database.to_owned());
        let what = self.process.shown(|| format!("agree({before:?}, {after:?})"));
        let effect = async move { inner.agree(&database, before, after).await };
        self.process.call(Place::Hot, what, effect).await
    }
}
