//! The relay: brings into the event log what a crash, or an outage of the log, left unqueued in the hot store, and
//! once more what the drain must have missed.
//!
//! A record is produced again once it was unqueued in two sweeps. No memory of the first sweep is needed: versions
//! rise strictly within a shard, so what was written before the last sweep has a version up to the shard's clock
//! of that time. A record that is dirty though the drain has passed its event is produced again as well ([`missed`]).
//! Every replica relays all shards; duplicates are harmless, since order is by version.

mod missed;
mod produce;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{Dirty, DirtyRecord, HotStore, HotStoreError, ShardHeader};
use jiff::Timestamp;
use model::{Epoch, Shard, Version};
use opentelemetry::{global, metrics::Gauge};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::Core;
use missed::Marks;
use produce::{RelayError, produce};

/// Where a shard's clock stood in the last sweep, and in which epoch.
type Boundary = (Epoch, Version);

/// What one sweep found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Records that were unqueued when the sweep began.
    pub unqueued: u64,
    /// The version of the oldest of them that the sweep met.
    pub oldest: Option<Version>,
    /// Unqueued records that were produced again and marked queued.
    pub relayed: u64,
    /// Records that were produced again since the drain had passed them, and they were dirty still.
    pub missed: u64,
    /// Records of tables that are not in the catalog: they wait until the table is enabled again.
    pub homeless: u64,
    /// Records that can't be produced: their key can't be read, or the log refuses them.
    pub refused: u64,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.unqueued += other.unqueued;
        self.oldest = [self.oldest, other.oldest].into_iter().flatten().min();
        self.relayed += other.relayed;
        self.missed += other.missed;
        self.homeless += other.homeless;
        self.refused += other.refused;
    }
}

/// The relay of one replica.
pub struct Relay<H, L, D> {
    core: Arc<Core<H, L, D>>,
    boundaries: BTreeMap<Shard, Boundary>,
    marks: Marks,
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
    let missed = meter
        .u64_counter("shock_absorber.ingest.missed")
        .with_description(
            "records that the relay produced again since the drain had passed them and they were dirty still",
        )
        .build();
    let refused: Gauge<u64> = meter
        .u64_gauge("shock_absorber.ingest.unrelayable")
        .with_description(
            "unqueued records that the relay can't produce: no such table, unreadable, or refused by the log",
        )
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
        missed.add(swept.missed, &[]);
        refused.record(swept.homeless + swept.refused, &[]);
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
        Self { core, boundaries: BTreeMap::new(), marks: Marks::new() }
    }

    /// Sweeps all shards once: produces what was unqueued in the last sweep already, and what the drain has missed.
    pub async fn sweep(&mut self) -> Swept {
        let core = &*self.core.clone();
        let at_once = core.options.shards_at_once.max(1);
        let headers: Vec<_> = stream::iter(core.shards.all())
            .map(|shard| async move { (shard, core.hot.header(shard).await) })
            .buffer_unordered(at_once)
            .collect()
            .await;
        let mut open = BTreeMap::new();
        for (shard, header) in headers {
            match header {
                Ok(header) if header.open => drop(open.insert(shard, header)),
                // Closed: what it holds when it is open again was put there by the opening.
                Ok(_) => drop(self.boundaries.remove(&shard)),
                Err(error) => tracing::warn!(%shard, %error, "the relay can't see a shard; it will try again"),
            }
        }
        let mut total = self.sweep_unqueued(&open).await;
        if core.log.is_available() {
            total.add(missed::sweep(core, &open, &mut self.marks).await);
        }
        total
    }

    async fn sweep_unqueued(&mut self, open: &BTreeMap<Shard, ShardHeader>) -> Swept {
        let core = &*self.core.clone();
        let seen = |shard, epoch| self.boundaries.get(shard).filter(|(e, _)| *e == epoch).map(|(_, clock)| *clock);
        let work: Vec<(Shard, u64, Option<Version>)> =
            open.iter().map(|(shard, header)| (*shard, header.unqueued, seen(shard, header.epoch))).collect();
        let sweeps: Vec<_> = stream::iter(work)
            .map(|(shard, unqueued, seen)| async move {
                let mut swept = Swept { unqueued, ..Swept::default() };
                let result = match seen {
                    Some(up_to) if unqueued > 0 && core.log.is_available() => {
                        let span = Span { after: Version::ZERO, up_to };
                        let is_due = |record: &DirtyRecord| span.holds(record.version);
                        sweep_shard(core, shard, Dirty::Unqueued, span, &mut swept, is_due).await
                    }
                    _ => Ok(()),
                };
                (shard, result, swept)
            })
            .buffer_unordered(core.options.shards_at_once.max(1))
            .collect()
            .await;
        let mut total = Swept::default();
        for (shard, result, swept) in sweeps {
            total.add(swept);
            if let Err(error) = result {
                tracing::warn!(%shard, %error, "the relay could not sweep a shard; it will try again");
            }
        }
        // Also where the sweep failed: what was unqueued then is unqueued in two sweeps by the next one.
        self.boundaries.extend(open.iter().map(|(shard, header)| (*shard, (header.epoch, header.clock))));
        total
    }
}

/// Versions above one and up to another.
#[derive(Debug, Clone, Copy)]
struct Span {
    after: Version,
    up_to: Version,
}

impl Span {
    fn holds(self, version: Version) -> bool {
        self.after < version && version <= self.up_to
    }

    /// The least that holds both.
    fn with(self, other: Self) -> Self {
        Self { after: self.after.min(other.after), up_to: self.up_to.max(other.up_to) }
    }
}

/// Produces again what is dirty in that way, within the span and due. A shard that closes ends it in order.
async fn sweep_shard<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    which: Dirty,
    span: Span,
    swept: &mut Swept,
    is_due: impl Fn(&DirtyRecord) -> bool,
) -> Result<(), RelayError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let limit = core.options.relay_batch.max(1);
    let mut after = span.after;
    while after < span.up_to {
        let (epoch, page) = match core.hot.dirty(shard, which, after, limit).await {
            Err(HotStoreError::Closed { .. }) => return Ok(()),
            answer => answer?,
        };
        // Only an empty page is the end.
        let Some(last) = page.last() else { return Ok(()) };
        after = last.version;
        if which == Dirty::Unqueued && swept.oldest.is_none() {
            swept.oldest = page.first().map(|record| record.version);
        }
        let due: Vec<DirtyRecord> = page.into_iter().filter(&is_due).collect();
        match produce(core, shard, epoch, due, swept).await {
            Err(RelayError::HotStore(HotStoreError::Closed { .. })) => return Ok(()),
            produced => *if which == Dirty::Unqueued { &mut swept.relayed } else { &mut swept.missed } += produced?,
        }
    }
    Ok(())
}
