//! The relay: brings into the event log what a crash, or an outage of the log, left unqueued in the hot store.
//!
//! A record is produced again once it was unqueued in two sweeps. No memory of the first sweep is needed: versions
//! rise strictly within a shard, so what was written before the last sweep has a version up to the shard's clock
//! of that time. Every replica relays all shards; duplicates are harmless, since order is by version.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader, Outgoing, TopicPartition};
use futures::{StreamExt as _, stream};
use hot_store::{Dirty, DirtyRecord, HotStore, HotStoreError, Stamp};
use jiff::Timestamp;
use model::{CodecError, Epoch, Event, EventBody, Mutation, Shard, Version};
use opentelemetry::{global, metrics::Gauge};
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::Core;

/// Where a shard's clock stood in the last sweep, and in which epoch.
type Boundary = (Epoch, Version);

/// What one sweep of one shard found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Records that were unqueued when the sweep began.
    pub unqueued: u64,
    /// The version of the oldest of them that the sweep met.
    pub oldest: Option<Version>,
    /// Records that were produced again and marked queued.
    pub relayed: u64,
    /// Records of tables that are not enabled: they wait until the table is enabled again.
    pub homeless: u64,
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error(transparent)]
    HotStore(#[from] HotStoreError),
    #[error("a key in the hot store can't be read: {0}")]
    Key(#[from] CodecError),
    #[error("the event log did not take the records: {0}")]
    Log(String),
}

/// The relay of one replica.
pub struct Relay<H, L, D> {
    core: Arc<Core<H, L, D>>,
    boundaries: BTreeMap<Shard, Boundary>,
}

/// Sweeps all shards every `relay_interval`, until `shutdown`.
pub async fn run<H, L, D>(core: Arc<Core<H, L, D>>, shutdown: CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let meter = global::meter("shock_absorber.ingest");
    let unqueued: Gauge<u64> = meter
        .u64_gauge("shock_absorber.ingest.unqueued")
        .with_description("records in the hot store that are not known to be in the event log")
        .build();
    let age: Gauge<f64> = meter
        .f64_gauge("shock_absorber.ingest.unqueued_age")
        .with_unit("s")
        .with_description("age of the oldest of them")
        .build();
    let relayed = meter
        .u64_counter("shock_absorber.ingest.relayed")
        .with_description("records that the relay produced again")
        .build();

    let every = core.options.relay_interval.max(Duration::from_millis(1));
    // Replicas that were started together shall not sweep together.
    let first = tokio::time::Instant::now() + every.mul_f64(core.options.chance.jitter(0.0..1.0));
    let mut ticks = interval_at(first, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wall_clock = core.options.wall_clock.clone();
    let mut relay = Relay::new(core);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let swept = relay.sweep().await;
        unqueued.record(swept.unqueued, &[]);
        age.record(swept.oldest.map_or(0.0, |version| age_of(version, wall_clock.now()).as_secs_f64()), &[]);
        relayed.add(swept.relayed, &[]);
        if swept.homeless > 0 {
            tracing::warn!(
                records = swept.homeless,
                "records of tables that are not enabled can't be queued: enable the tables again"
            );
        }
    }
}

/// How long ago a version was given; versions are microseconds unless the wall clock stepped back.
fn age_of(version: Version, now: Timestamp) -> Duration {
    let micros = u64::try_from(now.as_microsecond()).unwrap_or(0);
    Duration::from_micros(micros.saturating_sub(version.get()))
}

impl<H, L, D> Relay<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// A relay that has seen nothing yet: its first sweep only looks.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core, boundaries: BTreeMap::new() }
    }

    /// Sweeps all shards once: produces what was unqueued in the last sweep already.
    pub async fn sweep(&mut self) -> Swept {
        let core = &*self.core;
        let boundaries = &self.boundaries;
        let sweeps: Vec<_> = stream::iter(core.shards.all())
            .map(|shard| async move {
                let mut swept = Swept::default();
                let boundary = sweep_shard(core, shard, boundaries.get(&shard).copied(), &mut swept).await;
                (shard, boundary, swept)
            })
            .buffer_unordered(core.options.shards_at_once.max(1))
            .collect()
            .await;
        let mut total = Swept::default();
        for (shard, boundary, swept) in sweeps {
            total.unqueued += swept.unqueued;
            total.relayed += swept.relayed;
            total.homeless += swept.homeless;
            total.oldest = [total.oldest, swept.oldest].into_iter().flatten().min();
            match boundary {
                Ok(Some(boundary)) => drop(self.boundaries.insert(shard, boundary)),
                // Closed: what it holds when it is open again was put there by the opening.
                Ok(None) => drop(self.boundaries.remove(&shard)),
                Err(error) => tracing::warn!(%shard, %error, "the relay could not sweep a shard; it will try again"),
            }
        }
        total
    }
}

/// Sweeps a shard and returns the boundary for the next sweep, `None` if it is closed.
async fn sweep_shard<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    boundary: Option<Boundary>,
    swept: &mut Swept,
) -> Result<Option<Boundary>, RelayError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let header = core.hot.header(shard).await?;
    if !header.open {
        return Ok(None);
    }
    swept.unqueued = header.unqueued;
    let next = Some((header.epoch, header.clock));
    let Some((_, seen_up_to)) = boundary.filter(|(epoch, _)| *epoch == header.epoch) else { return Ok(next) };
    if header.unqueued == 0 || !core.log.is_available() {
        return Ok(next);
    }
    let limit = core.options.relay_batch.max(1);
    let mut after = Version::ZERO;
    loop {
        let (epoch, page) = match core.hot.dirty(shard, Dirty::Unqueued, after, limit).await {
            Err(HotStoreError::Closed { .. }) => return Ok(None),
            answer => answer?,
        };
        let is_last = page.len() < limit;
        let Some(last) = page.last() else { return Ok(next) };
        after = last.version;
        if swept.oldest.is_none() {
            swept.oldest = page.first().map(|record| record.version);
        }
        let seen: Vec<DirtyRecord> = page.into_iter().filter(|record| record.version <= seen_up_to).collect();
        if seen.is_empty() {
            return Ok(next);
        }
        match relay(core, shard, epoch, seen, swept).await {
            Err(RelayError::HotStore(HotStoreError::Closed { .. })) => return Ok(None),
            other => other?,
        }
        if is_last || after > seen_up_to {
            return Ok(next);
        }
    }
}

/// Produces records under the shard's current epoch and marks queued those that the log took.
async fn relay<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    epoch: Epoch,
    records: Vec<DirtyRecord>,
    swept: &mut Swept,
) -> Result<(), RelayError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let (mut outgoing, mut stamps) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
    for DirtyRecord { record, version, image } in records {
        let Some(table) = core.directory.by_namespace(&record.namespace) else {
            swept.homeless += 1;
            continue;
        };
        let mutation = Mutation { table: table.schema.table.clone(), key: record.key.decode()?, version, image };
        let event = Event { shard, epoch, body: EventBody::Mutations(vec![mutation]) };
        outgoing.push(Outgoing {
            to: TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 },
            key: record.key.as_bytes().clone(),
            payload: event.encode(),
        });
        stamps.push(Stamp { record, version });
    }
    if outgoing.is_empty() {
        return Ok(());
    }
    let published = timeout(core.options.publish_timeout, core.log.publish(outgoing))
        .await
        .map_err(|_| RelayError::Log("it did not acknowledge them in time".to_owned()))?;
    let mut refusal = None;
    let mut taken = Vec::with_capacity(stamps.len());
    for (stamp, answer) in stamps.into_iter().zip(published) {
        match answer {
            Ok(_) => taken.push(stamp),
            Err(error) => refusal = Some(error),
        }
    }
    if !taken.is_empty() {
        let marked = core.hot.mark_queued(shard, epoch, taken).await?;
        swept.relayed += marked.iter().filter(|marked| **marked).count() as u64;
    }
    match refusal {
        Some(error) => Err(RelayError::Log(error.to_string())),
        None => Ok(()),
    }
}
