//! How it goes, for operators: put together from what the hot store knows, what the drains tell of themselves and what is
//! set in the catalog. Nothing is decided by it. What a store that is away would have told is missing, and that is said.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use database::{CatalogTable, Database, Hold, Holds};
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{
    BreakerState, DatabaseReport, HotStore, HotStoreError, ReplicaReport, SeenReport, TableReport, TableState,
};
use model::{Namespace, Shard, TableRef};
use tokio::time::timeout;

use crate::{Core, backlog::TableBacklog as Sum};

/// How long a store may take to tell its part.
const PATIENCE: Duration = Duration::from_secs(2);

/// How it goes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// The tables of the catalog.
    pub tables: Vec<TableStatus>,
    /// The databases that drains tell of.
    pub databases: Vec<DatabaseReport>,
    /// The drain replicas that are alive.
    pub replicas: Vec<SeenReport>,
    /// What is stopped altogether, not for one table.
    pub holds: Vec<Hold>,
    /// The shards of the installation.
    pub shards: u16,
    /// Those of them that could be looked at.
    pub shards_open: u16,
    /// What is not known, and why; empty if all is.
    pub unknown: Vec<String>,
}

/// How one table goes.
#[derive(Debug, Clone, PartialEq)]
pub struct TableStatus {
    /// The table.
    pub table: TableRef,
    /// Whether requests are let in.
    pub enabled: bool,
    /// What waits for the database, where that is known: of the shards that could be looked at.
    pub backlog: Option<TableBacklog>,
    /// Rows per second that all replicas wrote of late; `None` while none tells.
    pub rows_per_second: Option<f64>,
    /// The limit that the replicas obey; `None` while none tells.
    pub limit: Option<TableLimit>,
    /// When nothing will wait any more, if nothing comes in and it goes on as it does.
    pub empty_in: Option<Duration>,
    /// How the replicas get on: the worst of them.
    pub state: State,
    /// Why, where they do not.
    pub why: String,
    /// Attempts that failed since the last one that did not.
    pub attempts: u32,
    /// Why the last of them failed.
    pub last_cause: String,
    /// What is stopped for it, what is stopped altogether included.
    pub holds: Vec<Hold>,
}

/// What of a table waits for the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableBacklog {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest of them waits.
    pub oldest_age: Duration,
    /// Records that the database refused for good; no part of the above.
    pub parked: u64,
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TableLimit {
    /// Rows per second.
    RowsPerSecond(f64),
    /// None.
    Unlimited,
}

/// How a table gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No replica tells.
    Unknown,
    /// It is drained.
    Running,
    /// The database does not let attempts through for now.
    BreakerOpen,
    /// Its schema is not what it was.
    SchemaDrift,
    /// An operator has stopped it.
    Paused,
}

/// Looks at everything once; of one table, or of all.
pub async fn look<H, L, D>(core: &Core<H, L, D>, table: Option<&TableRef>) -> Status
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let tables: Vec<Arc<CatalogTable>> = core
        .directory
        .all()
        .into_iter()
        .filter(|known| table.is_none_or(|table| known.schema.table == *table))
        .collect();
    let holds = async {
        let catalog = core.directory.catalog_database()?;
        catalog.holds().await
    };
    let (backlogs, reports, holds) = tokio::join!(
        backlogs(core, &tables),
        in_time("what drain replicas tell (the hot store)", core.hot.reports()),
        in_time("what operators have stopped (the catalog's database)", holds),
    );
    let mut status = Status { shards: core.shards.get(), shards_open: backlogs.open, ..Status::default() };
    status.unknown.extend(backlogs.unknown);
    let holds = holds.unwrap_or_else(|problem| {
        status.unknown.push(problem);
        Holds::default()
    });
    let told = reports.is_ok();
    status.replicas = reports.unwrap_or_else(|problem| {
        status.unknown.push(problem);
        Vec::new()
    });
    if told && status.replicas.is_empty() {
        status.unknown.push("no drain replica tells of itself: none is running, or none reaches the hot store".into());
    }
    status.databases = databases(&status.replicas);
    for (table, backlog) in tables.iter().zip(backlogs.tables) {
        let parts = of_table(&status.replicas, &table.schema.table);
        status.tables.push(one(table, backlog, &parts, &status.databases, &holds));
    }
    status.tables.sort_by(|a, b| a.table.cmp(&b.table));
    let everything = |hold: &Hold| hold.scope == database::HoldScope::Everything;
    status.holds = holds.list.into_iter().filter(everything).collect();
    status
}

/// An answer, or what is not known for want of it.
async fn in_time<T, E: std::fmt::Display>(what: &str, answer: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The backlogs, in the order of the tables.
struct Backlogs {
    tables: Vec<Option<TableBacklog>>,
    open: u16,
    unknown: Option<String>,
}

async fn backlogs<H: HotStore, L, D>(core: &Core<H, L, D>, tables: &[Arc<CatalogTable>]) -> Backlogs {
    let namespaces: Vec<Namespace> = tables.iter().map(|table| table.settings.namespace.clone()).collect();
    let look = |shard: Shard| {
        let namespaces = namespaces.clone();
        async move { core.hot.backlog(shard, namespaces).await }
    };
    let shards = core.shards.get();
    let mut sums = vec![Sum::default(); tables.len()];
    let (mut open, mut closed, mut problem) = (0, 0, None);
    let looks = async {
        let mut looks = stream::iter(core.shards.all()).map(look).buffer_unordered(core.options.shards_at_once.max(1));
        while let Some(look) = looks.next().await {
            match look {
                Ok((_, parts)) => {
                    open += 1;
                    sums.iter_mut().zip(&parts).for_each(|(sum, part)| sum.add(part));
                }
                Err(HotStoreError::Closed { .. }) => closed += 1,
                // Others would only wait for the same store.
                Err(error) => {
                    problem = Some(error.to_string());
                    if !matches!(error, HotStoreError::Corrupt { .. }) {
                        return;
                    }
                }
            }
        }
    };
    if timeout(PATIENCE, looks).await.is_err() {
        problem = Some(format!("no answer within {} s", PATIENCE.as_secs()));
    }
    let unknown = match (problem, closed) {
        (Some(problem), _) => {
            Some(format!("the backlog of {} of {shards} shards (the hot store): {problem}", shards - open))
        }
        (None, 0) => None,
        (None, _) => Some(format!("the backlog of {closed} of {shards} shards, which are being opened")),
    };
    let now = core.options.wall_clock.now();
    let told = |sum: Sum| {
        let Sum { records, bytes, parked, .. } = sum;
        (open > 0).then(|| TableBacklog { records, bytes, oldest_age: sum.age(now), parked })
    };
    Backlogs { tables: sums.into_iter().map(told).collect(), open, unknown }
}

fn of_table<'a>(replicas: &'a [SeenReport], table: &TableRef) -> Vec<&'a TableReport> {
    let all = replicas.iter().flat_map(|seen| &seen.report.tables);
    all.filter(|part| part.database == table.database.as_str() && part.table == table.table.as_str()).collect()
}

/// Each database once: as the replica sees it that gets on worst with it.
fn databases(replicas: &[SeenReport]) -> Vec<DatabaseReport> {
    let mut all: BTreeMap<&str, DatabaseReport> = BTreeMap::new();
    for report in replicas.iter().flat_map(|seen| -> &[DatabaseReport] {
        let ReplicaReport { databases, .. } = &seen.report;
        databases
    }) {
        let worst = all.entry(&report.database).or_insert_with(|| report.clone());
        if badness(report.breaker) > badness(worst.breaker) {
            *worst = report.clone();
        }
    }
    all.into_values().collect()
}

fn badness(breaker: BreakerState) -> u8 {
    match breaker {
        BreakerState::Unknown => 0,
        BreakerState::Closed => 1,
        BreakerState::HalfOpen => 2,
        BreakerState::Open => 3,
    }
}

fn one(
    table: &CatalogTable,
    backlog: Option<TableBacklog>,
    parts: &[&TableReport],
    databases: &[DatabaseReport],
    holds: &Holds,
) -> TableStatus {
    let name = &table.schema.table;
    let is_open = |report: &DatabaseReport| {
        report.database == name.database.as_str() && badness(report.breaker) >= badness(BreakerState::HalfOpen)
    };
    let broken = databases.iter().any(is_open);
    let state_of = |part: &TableReport| match part.state {
        TableState::Paused => State::Paused,
        TableState::SchemaDrift => State::SchemaDrift,
        TableState::Running if broken => State::BreakerOpen,
        TableState::Running => State::Running,
        TableState::Unknown => State::Unknown,
    };
    // Who owns nothing of the table has nothing to say of how it goes.
    let owning: Vec<&&TableReport> = parts.iter().filter(|part| !part.partitions.is_empty()).collect();
    let worst = owning.iter().max_by_key(|part| state_of(part));
    let failing = owning.iter().max_by_key(|part| part.attempts);
    let rows_per_second = (!parts.is_empty()).then(|| parts.iter().map(|part| part.rows_per_second).sum::<f64>());
    let mut limits = parts.iter().map(|part| part.limit.map_or(TableLimit::Unlimited, TableLimit::RowsPerSecond));
    let holds_of = |kind| holds.of(kind, name).cloned();
    let pauses: Vec<Hold> = holds_of(database::HoldKind::Pause).collect();
    let (state, why) = match (pauses.first(), worst) {
        (Some(pause), _) => (State::Paused, format!("{}: {}", pause.by, pause.reason)),
        (None, Some(worst)) => (state_of(worst), worst.why.clone()),
        (None, None) => (State::Unknown, String::new()),
    };
    TableStatus {
        table: name.clone(),
        enabled: table.enabled,
        backlog,
        rows_per_second,
        limit: limits.next(),
        empty_in: empty_in(backlog, rows_per_second),
        state,
        why,
        attempts: failing.map_or(0, |part| part.attempts),
        last_cause: failing.map(|part| part.last_cause.clone()).unwrap_or_default(),
        holds: pauses.into_iter().chain(holds_of(database::HoldKind::DrainDown)).collect(),
    }
}

fn empty_in(backlog: Option<TableBacklog>, rows_per_second: Option<f64>) -> Option<Duration> {
    match (backlog?.records, rows_per_second) {
        (0, _) => Some(Duration::ZERO),
        (records, Some(rate)) if rate > 0.0 => Duration::try_from_secs_f64(records as f64 / rate).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
