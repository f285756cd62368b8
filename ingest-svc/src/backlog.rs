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
}

impl TableBacklog {
    fn add(&mut self, part: &Backlog) {
        self.records += part.records;
        self.bytes += part.bytes;
        self.oldest = [self.oldest, part.oldest].into_iter().flatten().min();
    }

    /// How long the oldest has waited; versions are microseconds unless a wall clock stepped back.
    pub fn age(&self, now: Timestamp) -> Duration {
        let now = u64::try_from(now.as_microsecond()).unwrap_or(0);
        self.oldest.map_or(Duration::ZERO, |oldest| Duration::from_micros(now.saturating_sub(oldest.get())))
    }

    /// What is too much of it, if anything is.
    pub(crate) fn excess(&self, max: MaxBacklog, now: Timestamp) -> Option<String> {
        let age = self.age(now);
        if max.records.is_some_and(|max| self.records >= max) {
            Some(format!("{} records wait for the database", self.records))
        } else if max.bytes.is_some_and(|max| self.bytes >= max) {
            Some(format!("{} bytes wait for the database", self.bytes))
        } else if max.age.is_some_and(|max| age >= max) {
            Some(format!("the oldest record waits for the database since {} s", age.as_secs()))
        } else {
            None
        }
    }
}

/// The backlogs as they were last seen. Cheap to read.
#[derive(Debug, Default)]
pub(crate) struct Backlogs(Mutex<Arc<HashMap<TableRef, TableBacklog>>>);

impl Backlogs {
    pub(crate) fn of(&self, table: &TableRef) -> TableBacklog {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(table).copied().unwrap_or_default()
    }

    fn set(&self, backlogs: HashMap<TableRef, TableBacklog>) {
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
        let mut totals: BTreeMap<TableRef, TableBacklog> = BTreeMap::new();
        for table in &tables {
            let total = totals.entry(table.schema.table.clone()).or_default();
            let parts = self.shards.values().filter_map(|shard| shard.get(&table.settings.namespace));
            parts.for_each(|part| total.add(part));
        }
        core.backlogs.set(totals.iter().map(|(table, total)| (table.clone(), *total)).collect());
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
            bytes.record(backlog.bytes, &labels);
            age.record(backlog.age(wall_clock.now()).as_secs_f64(), &labels);
        }
    }
}
