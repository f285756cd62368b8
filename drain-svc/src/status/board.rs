//! What a drain replica knows about itself, put together from the parts that know it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hot_store::{BreakerState, DatabaseReport, ReplicaReport, TableReport, TableState};
use model::{DatabaseName, Shard, TableRef};
use tokio::time::Instant;

/// Over how long the present rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Tables that one report holds.
const MAX_TABLES: usize = 256;
/// Characters of a cause that are told.
const MAX_CAUSE: usize = 300;

/// Whether attempts to write a database are let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Breaker {
    /// All of them.
    #[default]
    Closed,
    /// None until then.
    Open {
        /// The next attempt's time.
        until: Instant,
    },
    /// One is let through, to see.
    HalfOpen,
}

/// What a replica knows about itself: told by the parts that know, each its own, and read as one report. Cheap to clone,
/// without I/O.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    tables: BTreeMap<TableRef, TableOnBoard>,
    databases: BTreeMap<DatabaseName, DatabaseOnBoard>,
}

#[derive(Debug, Default)]
struct TableOnBoard {
    partitions: Vec<Shard>,
    rows_written: u64,
    /// When there were how many, the oldest first.
    samples: VecDeque<(Instant, u64)>,
    limit: Option<f64>,
    batch_rows: usize,
    gathered: usize,
    paused: Option<String>,
    drift: Option<String>,
    attempts: u32,
    last_cause: String,
}

#[derive(Debug, Default)]
struct DatabaseOnBoard {
    breaker: Breaker,
    adaptive_rate: Option<f64>,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every setter is done with what it sets in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self, table: &TableRef, set: impl FnOnce(&mut TableOnBoard)) {
        let mut state = self.state();
        match state.tables.get_mut(table) {
            Some(known) => set(known),
            None => set(state.tables.entry(table.clone()).or_default()),
        }
    }

    fn database(&self, database: &DatabaseName, set: impl FnOnce(&mut DatabaseOnBoard)) {
        set(self.state().databases.entry(database.clone()).or_default());
    }

    /// The partitions that this replica owns now, of all tables.
    pub fn owns(&self, mut owned: BTreeMap<TableRef, Vec<Shard>>) {
        let mut state = self.state();
        for (table, known) in &mut state.tables {
            known.partitions = owned.remove(table).unwrap_or_default();
        }
        for (table, partitions) in owned {
            state.tables.entry(table).or_default().partitions = partitions;
        }
    }

    /// Records of the table that were read from the log and are not done.
    pub fn gathered(&self, table: &TableRef, records: usize) {
        self.table(table, |table| table.gathered = records);
    }

    /// A transaction has written rows: attempts get through.
    pub fn wrote(&self, table: &TableRef, rows: usize) {
        self.table(table, |table| {
            table.rows_written += rows as u64;
            table.attempts = 0;
        });
    }

    /// An attempt has failed. The cause holds no values of rows.
    pub fn failed(&self, table: &TableRef, cause: &str) {
        self.table(table, |table| {
            table.attempts = table.attempts.saturating_add(1);
            table.last_cause = cut(cause);
        });
    }

    /// The limit in force (rows per second over all replicas; `None` is no limit), and the rows of a batch.
    pub fn limited(&self, table: &TableRef, rows_per_second: Option<f64>, batch_rows: usize) {
        self.table(table, |table| (table.limit, table.batch_rows) = (rows_per_second, batch_rows));
    }

    /// An operator has stopped the table, or lets it go on: by whom and why.
    pub fn paused(&self, table: &TableRef, why: Option<&str>) {
        self.table(table, |table| table.paused = why.map(cut));
    }

    /// The table's schema is not what was accepted for, or is again: what does not fit.
    pub fn drifted(&self, table: &TableRef, why: Option<&str>) {
        self.table(table, |table| table.drift = why.map(cut));
    }

    /// Whether attempts to write a database are let through.
    pub fn breaker(&self, database: &DatabaseName, breaker: Breaker) {
        self.database(database, |database| database.breaker = breaker);
    }

    /// Rows per second that a database's health allows; `None` where the limit does not heed it.
    pub fn adaptive_rate(&self, database: &DatabaseName, rows_per_second: Option<f64>) {
        self.database(database, |database| database.adaptive_rate = rows_per_second);
    }

    /// All of it at that moment. Called once a second: that is how often rates are sampled.
    pub fn report(&self, replica: &str, incarnation: &str, now: Instant) -> ReplicaReport {
        let mut state = self.state();
        let left_out = state.tables.len().saturating_sub(MAX_TABLES);
        let tables = state.tables.iter_mut().map(|(name, table)| table.report(name, now)).take(MAX_TABLES).collect();
        let databases = state.databases.iter().map(|(name, database)| database.report(name, now)).collect();
        ReplicaReport {
            replica: replica.to_owned(),
            incarnation: incarnation.to_owned(),
            tables,
            databases,
            tables_left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
        }
    }
}

impl TableOnBoard {
    fn report(&mut self, name: &TableRef, now: Instant) -> TableReport {
        let (state, why) = match (&self.paused, &self.drift) {
            (Some(why), _) => (TableState::Paused, why.clone()),
            (None, Some(why)) => (TableState::SchemaDrift, why.clone()),
            (None, None) => (TableState::Running, String::new()),
        };
        TableReport {
            database: name.database.to_string(),
            table: name.table.to_string(),
            partitions: ranges(&self.partitions),
            rows_written: self.rows_written,
            rows_per_second: self.sample(now),
            limit: self.limit,
            batch_rows: self.batch_rows as u64,
            gathered: self.gathered as u64,
            state,
            why,
            attempts: self.attempts,
            last_cause: self.last_cause.clone(),
        }
    }

    /// Rows per second of late.
    fn sample(&mut self, now: Instant) -> f64 {
        self.samples.push_back((now, self.rows_written));
        // The last one before the window stays: it tells what there was when the window began.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_WINDOW) {
            self.samples.pop_front();
        }
        let Some((since, before)) = self.samples.front() else { return 0.0 };
        let seconds = now.saturating_duration_since(*since).as_secs_f64();
        if seconds > 0.0 { (self.rows_written - before) as f64 / seconds } else { 0.0 }
    }
}

impl DatabaseOnBoard {
    fn report(&self, name: &DatabaseName, now: Instant) -> DatabaseReport {
        let (breaker, retry_in) = match self.breaker {
            Breaker::Closed => (BreakerState::Closed, Duration::ZERO),
            Breaker::Open { until } => (BreakerState::Open, until.saturating_duration_since(now)),
            Breaker::HalfOpen => (BreakerState::HalfOpen, Duration::ZERO),
        };
        DatabaseReport {
            database: name.to_string(),
            breaker,
            retry_in_ms: u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX),
            adaptive_rate: self.adaptive_rate,
        }
    }
}

/// Neighbours together: ranges, both ends included.
fn ranges(shards: &[Shard]) -> Vec<(u16, u16)> {
    let mut sorted: Vec<u16> = shards.iter().map(|shard| shard.0).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for shard in sorted {
        match ranges.last_mut() {
            Some((_, last)) if shard <= last.saturating_add(1) => *last = shard,
            _ => ranges.push((shard, shard)),
        }
    }
    ranges
}

fn cut(cause: &str) -> String {
    cause.chars().take(MAX_CAUSE).collect()
}

#[cfg(test)]
mod tests;
