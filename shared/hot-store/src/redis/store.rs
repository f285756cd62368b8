//! The store itself; each call is in `records` or `openings`.

use std::{fmt, sync::Arc, time::Duration};

use ::redis::{Cmd, FromRedisValue as _, Value};
use model::{Epoch, IndexId, Namespace, Shard, Version};
use tokio::time::Instant;

use super::{
    RedisOptions, clock::ServerClock, keys::ShardKeys, link::Link, records::millis, reply::Reply,
    restore_new::Exclusive, scripts::Call, torn_file::TornFile,
};
use crate::{
    Answer, Backlog, Checkpoint, Claim, Clean, CleanOutcome, Dirty, DirtyRecord, Eviction, Fill, FoundInShard, Halt,
    HotStore, HotStoreError, IndexBuild, IndexState, Indexed, LeaseOutcome, LeaseToken, Lookup, OpeningStart,
    OpeningToken, ParkOutcome, ParkedRecord, RecordId, ReplicaReport, Restore, SeenReport, SetAsidePage, Settings,
    ShardHeader, Stamp, Write, WriteOutcome,
};

/// The hot store on Redis.
pub struct RedisStore {
    links: Vec<Link>,
    shards: Vec<ShardKeys>,
    prefix: String,
    request_window: Duration,
    clock: ServerClock,
    exclusive: Exclusive,
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("links", &self.links.len()).field("prefix", &self.prefix).finish()
    }
}

impl RedisStore {
    /// Connects. Once it has, it reconnects by itself, and answers [`HotStoreError::Unavailable`] meanwhile.
    ///
    /// # Errors
    /// [`HotStoreError::Unavailable`] if the options are unusable or the server can't be reached.
    pub async fn connect(options: RedisOptions) -> Result<Self, HotStoreError> {
        let info = options.connection_info()?;
        let torn_file = Arc::new(TornFile::default());
        let links = (0..options.pool.max(1))
            .map(|_| Link::new(info.clone(), options.connect_timeout, options.response_timeout, torn_file.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let shards = options.shards.all().map(|shard| ShardKeys::new(&options.prefix, shard)).collect();
        let store = Self {
            links,
            shards,
            prefix: options.prefix,
            request_window: options.request_window,
            clock: ServerClock::default(),
            exclusive: Exclusive::default(),
        };
        store.command(&::redis::cmd("PING")).await?;
        Ok(store)
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How long a request is remembered, in milliseconds.
    pub(super) fn request_window(&self) -> u64 {
        millis(self.request_window)
    }

    /// The server's time up to which writes that were asked for at that moment may take effect, in microseconds.
    pub(super) async fn not_after(&self, shard: Shard, asked: Instant) -> Result<u64, HotStoreError> {
        let seen = match self.clock.last() {
            Some(seen) => seen,
            None => {
                let told = self.link(shard).command(&::redis::cmd("TIME")).await.map_err(|error| match error {
                    // Of the write nothing was sent yet.
                    HotStoreError::Unknown(problem) => HotStoreError::Unavailable(problem),
                    other => other,
                })?;
                let (seconds, micros) = <(u64, u64)>::from_redis_value(told).map_err(|error| {
                    let problem = format!("its answer to TIME can't be read: {error}");
                    HotStoreError::Corrupt { shard, problem }
                })?;
                self.clock.learn(seconds * 1_000_000 + micros)
            }
        };
        let half_the_window = self.request_window() * 500;
        Ok(seen.at(asked).saturating_add(half_the_window).min(1 << 53))
    }

    /// What the answers of the server tell of its clock.
    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// Connections for optimistic transactions.
    pub(super) fn exclusive(&self) -> &Exclusive {
        &self.exclusive
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn keys(&self, shard: Shard) -> Result<&ShardKeys, HotStoreError> {
        self.shards.get(usize::from(shard.0)).ok_or_else(|| {
            let problem = format!("there is no such shard: the installation has {}", self.shards.len());
            HotStoreError::Corrupt { shard, problem }
        })
    }

    /// Calls a script that concerns one shard. A shard always uses the same connection.
    pub(super) async fn call(&self, shard: Shard, call: Call) -> Result<Reply, HotStoreError> {
        Reply::new(shard, self.link(shard).call(call).await?)
    }

    pub(super) fn link(&self, shard: Shard) -> &Link {
        &self.links[usize::from(shard.0) % self.links.len()]
    }

    /// Calls a script that concerns no shard.
    pub(super) async fn call_beside(&self, call: Call) -> Result<Reply, HotStoreError> {
        // Errors that name a shard can't come back from it.
        Reply::new(Shard(0), self.links[0].call(call).await?)
    }

    /// Sends a command that concerns no shard.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, HotStoreError> {
        self.links[0].command(command).await
    }

    /// See [`TornFile::leave_behind`].
    pub(super) async fn leave_torn_file_behind(&self) -> Result<(), HotStoreError> {
        self.links[0].leave_torn_file_behind().await
    }
}

impl HotStore for RedisStore {
    async fn write(
        &self,
        shard: Shard,
        asked: Instant,
        writes: Vec<Write>,
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        self.write_records(shard, asked, writes).await
    }

    async fn read(&self, shard: Shard, records: Vec<RecordId>) -> Result<Answer, HotStoreError> {
        self.read_records(shard, &records).await
    }

    async fn read_many(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        max_bytes: usize,
    ) -> Vec<Result<Answer, HotStoreError>> {
        self.read_groups(&groups, max_bytes).await
    }

    async fn mark_queued(&self, shard: Shard, epoch: Epoch, stamps: Vec<Stamp>) -> Result<Vec<bool>, HotStoreError> {
        self.mark_records_queued(shard, epoch, &stamps).await
    }

    async fn lease(&self, shard: Shard, record: RecordId, ttl: Duration) -> Result<LeaseOutcome, HotStoreError> {
        self.lease_record(shard, &record, ttl).await
    }

    async fn fill(
        &self,
        shard: Shard,
        record: RecordId,
        token: LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> Result<bool, HotStoreError> {
        self.fill_record(shard, &record, &token, fill, ttl).await
    }

    async fn mark_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> Result<Vec<CleanOutcome>, HotStoreError> {
        self.mark_records_clean(shard, cleans, ttl).await
    }

    async fn evict(&self, shard: Shard, records: Vec<RecordId>) -> Result<Vec<Eviction>, HotStoreError> {
        self.evict_records(shard, &records).await
    }

    async fn park(&self, shard: Shard, stamps: Vec<Stamp>) -> Result<Vec<ParkOutcome>, HotStoreError> {
        self.park_records(shard, &stamps).await
    }

    async fn parked(
        &self,
        shard: Shard,
        namespace: Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        self.list_parked(shard, &namespace, after, limit).await
    }

    async fn purge_parked(&self, shard: Shard, stamp: Stamp) -> Result<bool, HotStoreError> {
        self.purge_parked_record(shard, &stamp).await
    }

    async fn dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        self.list_dirty(shard, which, after, limit).await
    }

    async fn backlog(&self, shard: Shard, namespaces: Vec<Namespace>) -> Result<(Epoch, Vec<Backlog>), HotStoreError> {
        self.read_backlog(shard, &namespaces).await
    }

    async fn begin_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        index: IndexId,
    ) -> Result<IndexState, HotStoreError> {
        self.begin_table_index(shard, &namespace, index).await
    }

    async fn build_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> Result<bool, HotStoreError> {
        self.build_table_index(shard, &namespace, build, &records, is_last).await
    }

    async fn look_up(&self, shards: &[Shard], lookup: &Lookup) -> Result<Vec<FoundInShard>, HotStoreError> {
        self.look_up_in(shards, lookup).await
    }

    async fn header(&self, shard: Shard) -> Result<ShardHeader, HotStoreError> {
        self.read_header(shard).await
    }

    async fn checkpoint(&self, shard: Shard, epoch: Epoch, checkpoint: Checkpoint) -> Result<(), HotStoreError> {
        self.store_checkpoint(shard, epoch, &checkpoint).await
    }

    async fn claim(&self, shard: Shard, token: &OpeningToken) -> Result<Option<Claim>, HotStoreError> {
        self.claim_shard(shard, token).await
    }

    async fn begin_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> Result<(), HotStoreError> {
        self.begin_shard(shard, token, epoch, &start).await
    }

    async fn set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        self.list_set_aside(shard, token, skip, limit).await
    }

    async fn restore(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> Result<(), HotStoreError> {
        self.restore_records(shard, token, records, ttl).await
    }

    async fn finish_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> Result<(), HotStoreError> {
        self.finish_shard(shard, token, clock, &checkpoint).await
    }

    async fn halt_writes(&self, shard: Shard, halt: &Halt) -> Result<Halt, HotStoreError> {
        self.halt_shard(shard, halt).await
    }

    async fn report(&self, report: &ReplicaReport) -> Result<(), HotStoreError> {
        self.store_report(report).await
    }

    async fn withdraw_report(&self, incarnation: &str) -> Result<(), HotStoreError> {
        self.remove_report(incarnation).await
    }

    async fn reports(&self) -> Result<Vec<SeenReport>, HotStoreError> {
        self.list_reports().await
    }

    async fn settings(&self) -> Result<Settings, HotStoreError> {
        self.check_settings().await
    }
}
