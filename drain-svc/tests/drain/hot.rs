//! A hot store in which one shard can't be looked at.

use std::{sync::Arc, time::Duration};

use hot_store::{
    AgreedLimit, Agreement, Answer, Backlog, Budget, Checkpoint, Claim, Clean, CleanOutcome, Dirty, DirtyRecord, Ended,
    Eviction, Fill, FoundInShard, Grant, Halt, HotStore, HotStoreError, IndexBuild, IndexState, Indexed, LeaseOutcome,
    LeaseToken, Limits, Lookup, OpeningStart, OpeningToken, ParkOutcome, ParkedRecord, Permit, RecordId, ReplicaReport,
    Restore, SeenReport, SetAsidePage, Settings, ShardHeader, Stamp, Write, WriteOutcome, memory::MemoryStore,
};
use model::{Epoch, IndexId, Namespace, Shard, Version};
use tokio::time::Instant;

pub(crate) struct Damaged {
    pub(crate) inner: Arc<MemoryStore>,
    /// Nobody can read what is behind in it.
    pub(crate) shard: Shard,
}

impl HotStore for Damaged {
    async fn backlog(&self, shard: Shard, tables: Vec<Namespace>) -> Result<(Epoch, Vec<Backlog>), HotStoreError> {
        if shard == self.shard {
            return Err(HotStoreError::Corrupt { shard, problem: "not a number".into() });
        }
        self.inner.backlog(shard, tables).await
    }

    async fn write(
        &self,
        shard: Shard,
        asked: Instant,
        writes: Vec<Write>,
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        self.inner.write(shard, asked, writes).await
    }

    async fn read(&self, shard: Shard, records: Vec<RecordId>) -> Result<Answer, HotStoreError> {
        self.inner.read(shard, records).await
    }

    async fn read_many(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        max_bytes: usize,
    ) -> Vec<Result<Answer, HotStoreError>> {
        self.inner.read_many(groups, max_bytes).await
    }

    async fn mark_queued(&self, shard: Shard, epoch: Epoch, stamps: Vec<Stamp>) -> Result<Vec<bool>, HotStoreError> {
        self.inner.mark_queued(shard, epoch, stamps).await
    }

    async fn lease(&self, shard: Shard, record: RecordId, ttl: Duration) -> Result<LeaseOutcome, HotStoreError> {
        self.inner.lease(shard, record, ttl).await
    }

    async fn fill(
        &self,
        shard: Shard,
        record: RecordId,
        token: LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> Result<bool, HotStoreError> {
        self.inner.fill(shard, record, token, fill, ttl).await
    }

    async fn mark_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> Result<Vec<CleanOutcome>, HotStoreError> {
        self.inner.mark_clean(shard, cleans, ttl).await
    }

    async fn evict(&self, shard: Shard, records: Vec<RecordId>) -> Result<Vec<Eviction>, HotStoreError> {
        self.inner.evict(shard, records).await
    }

    async fn park(&self, shard: Shard, stamps: Vec<Stamp>) -> Result<Vec<ParkOutcome>, HotStoreError> {
        self.inner.park(shard, stamps).await
    }

    async fn parked(
        &self,
        shard: Shard,
        namespace: Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        self.inner.parked(shard, namespace, after, limit).await
    }

    async fn purge_parked(&self, shard: Shard, stamp: Stamp) -> Result<bool, HotStoreError> {
        self.inner.purge_parked(shard, stamp).await
    }

    async fn dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        self.inner.dirty(shard, which, after, limit).await
    }

    async fn begin_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        index: IndexId,
    ) -> Result<IndexState, HotStoreError> {
        self.inner.begin_index(shard, namespace, index).await
    }

    async fn build_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> Result<bool, HotStoreError> {
        self.inner.build_index(shard, namespace, build, records, is_last).await
    }

    async fn look_up(&self, shards: &[Shard], lookup: &Lookup) -> Result<Vec<FoundInShard>, HotStoreError> {
        self.inner.look_up(shards, lookup).await
    }

    async fn header(&self, shard: Shard) -> Result<ShardHeader, HotStoreError> {
        self.inner.header(shard).await
    }

    async fn checkpoint(&self, shard: Shard, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        self.inner.checkpoint(shard, epoch, checkpoint).await
    }

    async fn claim(&self, shard: Shard, token: &OpeningToken) -> Result<Option<Claim>, HotStoreError> {
        self.inner.claim(shard, token).await
    }

    async fn begin_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> Result<(), HotStoreError> {
        self.inner.begin_opening(shard, token, epoch, start).await
    }

    async fn set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        self.inner.set_aside(shard, token, skip, limit).await
    }

    async fn restore(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> Result<(), HotStoreError> {
        self.inner.restore(shard, token, records, ttl).await
    }

    async fn finish_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> Result<(), HotStoreError> {
        self.inner.finish_opening(shard, token, clock, checkpoint).await
    }

    async fn halt_writes(&self, shard: Shard, halt: &Halt) -> Result<Halt, HotStoreError> {
        self.inner.halt_writes(shard, halt).await
    }

    async fn report(&self, report: &ReplicaReport) -> Result<(), HotStoreError> {
        self.inner.report(report).await
    }

    async fn withdraw_report(&self, incarnation: &str) -> Result<(), HotStoreError> {
        self.inner.withdraw_report(incarnation).await
    }

    async fn reports(&self) -> Result<Vec<SeenReport>, HotStoreError> {
        self.inner.reports().await
    }

    async fn settings(&self) -> Result<Settings, HotStoreError> {
        self.inner.settings().await
    }
}

impl Budget for Damaged {
    async fn take(&self, limits: &Limits, permit: Permit, ended: &[Ended]) -> Result<Grant, HotStoreError> {
        self.inner.take(limits, permit, ended).await
    }

    async fn tell(&self, limits: &Limits, held: &[Permit], ended: &[Ended]) -> Result<(), HotStoreError> {
        self.inner.tell(limits, held, ended).await
    }

    async fn agreed(&self, database: &str) -> Result<Agreement, HotStoreError> {
        self.inner.agreed(database).await
    }

    async fn agree(
        &self,
        database: &str,
        before: Option<AgreedLimit>,
        after: AgreedLimit,
    ) -> Result<bool, HotStoreError> {
        self.inner.agree(database, before, after).await
    }
}
