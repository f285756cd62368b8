//! What of each table waits for the database: looked at every now and then, so that writes can be refused before
//! there is too much of it.
//!
//! The figures are those of the hot store, summed over its shards, so all replicas act on the same ones. Between two
//! looks a table can go past its caps by what comes in meanwhile; the hot store's own limit of memory stands behind
//! them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{Backlog, HotStore, HotStoreError};
use jiff::Timestamp;
use model::{Namespace, Shard, TableRef, Version};
use opentelemetry::{KeyValue, global};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{Core, MaxBacklog};

/// What of a table waits for the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableBacklog {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The lowest version that the database may lack.
    pub oldest: Option<Version>,
    /// Records that are parked; they are no part of the above.
    pub parked: u64,
}

impl TableBacklog {
    pub(crate) fn add(&mut self, part: &Backlog) {
        self.records += part.records;
        self.bytes += part.bytes;
        self.parked += part.parked;
        self.oldest = [self.oldest, part.oldest].into_iter().flatten().min();
    }

    /// How long the oldest has waited.
    pub fn age(&self, now: Timestamp) -> Duration {
        age(self.oldest, now)
    }
}

/// How long a version has waited; versions are microseconds unless a wall clock stepped back.
fn age(oldest: Option<Version>, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_microsecond()).unwrap_or(0);
    oldest.map_or(Duration::ZERO, |oldest| Duration::from_micros(now.saturating_sub(oldest.get())))
}

/// The backlogs as they were last seen. Cheap to read.
#[derive(Debug, Default)]
pub(crate) struct Backlogs(Mutex<Arc<HashMap<TableRef, Seen>>>);

/// What was seen of one table.
#[derive(Debug, Default)]
struct Seen {
    total: TableBacklog,
    /// The lowest version that the database may lack, of the shards that have one.
    oldest: BTreeMap<Shard, Version>,
}

impl Backlogs {
    /// What is too much for another write to this shard, if anything is. Records and bytes are the table's. The age is
    /// the shard's: a record that is stuck must not stop the writes of others, and what the log deletes by age it
    /// deletes by partition.
    pub(crate) fn excess(&self, table: &TableRef, shard: Shard, max: MaxBacklog, now: Timestamp) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Seen { total: TableBacklog { records, bytes, .. }, oldest } = known.get(table)?;
        let age = age(oldest.get(&shard).copied(), now);
        if max.records.is_some_and(|max| *records >= max) {
            Some(format!("{records} records wait for the database"))
        } else if max.bytes.is_some_and(|max| *bytes >= max) {
            Some(format!("{bytes} bytes wait for the database"))
        } else if max.age.is_some_and(|max| age >= max) {
            Some(format!("the oldest record of shard {shard} waits for the database since {} s", age.as_secs()))
        } else {
            None
        }
    }

    /// How many records of a table are parked, in all shards.
    pub(crate) fn parked(&self, table: &TableRef) -> u64 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.get(table).map_or(0, |seen| seen.total.parked)
    }

    fn set(&self, backlogs: HashMap<TableRef, Seen>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(backlogs);
    }
}

/// Looks at the backlogs. Of a shard that can't be looked at, the last known ones count.
pub struct Observer<H, L, D> {
    core: Arc<Core<H, L, D>>,
    shards: BTreeMap<Shard, BTreeMap<Namespace, Backlog>>,
}

impl<H, L, D> Observer<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// One that has seen nothing yet.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core, shards: BTreeMap::new() }
    }

    /// Looks once, and says what it saw, by table.
    pub async fn look(&mut self) -> BTreeMap<TableRef, TableBacklog> {
        let core = &*self.core;
        let tables = core.directory.all();
        let namespaces: Vec<Namespace> = tables.iter().map(|table| table.settings.namespace.clone()).collect();
        let looks: Vec<_> = stream::iter(core.shards.all())
            .map(|shard| {
                let namespaces = namespaces.clone();
                async move { (shard, core.hot.backlog(shard, namespaces).await) }
            })
            .buffer_unordered(core.options.shards_at_once.max(1))
            .collect()
            .await;
        for (shard, look) in looks {
            match look {
                Ok((_, backlogs)) => {
                    drop(self.shards.insert(shard, namespaces.iter().cloned().zip(backlogs).collect()))
                }
                Err(HotStoreError::Closed { .. }) => {}
                Err(error) => tracing::warn!(%shard, %error, "can't see what waits for the database"),
            }
        }
        let mut seen: HashMap<TableRef, Seen> = HashMap::new();
        for table in &tables {
            let Seen { total, oldest } = seen.entry(table.schema.table.clone()).or_default();
            for (shard, parts) in &self.shards {
                let Some(part) = parts.get(&table.settings.namespace) else { continue };
                total.add(part);
                oldest.extend(part.oldest.map(|version| (*shard, version)));
            }
        }
        let totals = seen.iter().map(|(table, seen)| (table.clone(), seen.total)).collect();
        core.backlogs.set(seen);
        totals
    }
}

/// Looks every `backlog_interval`, until `shutdown`.
pub async fn run<H, L, D>(core: Arc<Core<H, L, D>>, shutdown: CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let meter = global::meter("shock_absorber.ingest");
    let records = meter
        .u64_gauge("shock_absorber.ingest.backlog")
        .with_description("records that wait for the database, by table")
        .build();
    let bytes = meter
        .u64_gauge("shock_absorber.ingest.backlog_bytes")
        .with_unit("By")
        .with_description("bytes of their images")
        .build();
    let age = meter
        .f64_gauge("shock_absorber.ingest.backlog_age")
        .with_unit("s")
        .with_description("how long the oldest of them has waited")
        .build();
    let parked = meter
        .u64_gauge("shock_absorber.ingest.parked")
        .with_description("records that the database refused for good and nobody has replayed or purged, by table")
        .build();
    let mut ticks = interval(core.options.backlog_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let wall_clock = core.options.wall_clock.clone();
    let mut observer = Observer::new(core);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        for (table, backlog) in observer.look().await {
            let labels = [KeyValue::new("table", table.to_string())];
            records.record(backlog.records, &labels);
            parked.record(backlog.parked, &labels);
            bytes.record(backlog.bytes, &labels);
            age.record(backlog.age(wall_clock.now()).as_secs_f64(), &labels);
        }
    }
}
