//! The metrics of the drain, all of them named here.

use std::time::Duration;

use model::{DatabaseName, DeadLetterCause, TableRef, Version};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
};

use super::Breaker;

/// Every metric, so that names stand in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    RowsWritten,
    Batches,
    Coalesced,
    Void,
    Missing,
    Stale,
    Retries,
    Refused,
    DeadLetters,
    Gathered,
    GatheredSize,
    Lag,
    PausedPartitions,
    HeldPartitions,
    TransactionDuration,
    BudgetWait,
    Limit,
    AdaptiveLimit,
    BatchRows,
    HorizonAge,
    Purged,
    Breaker,
}

impl Metric {
    fn name(self) -> &'static str {
        match self {
            Self::RowsWritten => "shock_absorber.drain.rows_written",
            Self::Batches => "shock_absorber.drain.batches",
            Self::Coalesced => "shock_absorber.drain.coalesced",
            Self::Void => "shock_absorber.drain.void",
            Self::Missing => "shock_absorber.drain.missing",
            Self::Stale => "shock_absorber.drain.stale",
            Self::Retries => "shock_absorber.drain.retries",
            Self::Refused => "shock_absorber.drain.refused_rows",
            Self::DeadLetters => "shock_absorber.drain.dead_letters",
            Self::Gathered => "shock_absorber.drain.gathered",
            Self::GatheredSize => "shock_absorber.drain.gathered.size",
            Self::Lag => "shock_absorber.drain.lag",
            Self::PausedPartitions => "shock_absorber.drain.paused_partitions",
            Self::HeldPartitions => "shock_absorber.drain.held_partitions",
            Self::TransactionDuration => "shock_absorber.drain.transaction.duration",
            Self::BudgetWait => "shock_absorber.drain.budget.wait",
            Self::Limit => "shock_absorber.drain.budget.limit",
            Self::AdaptiveLimit => "shock_absorber.drain.budget.adaptive_limit",
            Self::BatchRows => "shock_absorber.drain.batch.rows",
            Self::HorizonAge => "shock_absorber.drain.horizon.age",
            Self::Purged => "shock_absorber.drain.tombstones_purged",
            Self::Breaker => "shock_absorber.drain.breaker",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::RowsWritten => "Rows that transactions wrote",
            Self::Batches => "Transactions, by outcome",
            Self::Coalesced => {
                "Records that needed no write of their own, since a newer version of their key was gathered"
            }
            Self::Void => "Records of an epoch that is over",
            Self::Missing => "Records that the log does not have though it should; the relay produces them again",
            Self::Stale => "Records that the database held in a newer version already",
            Self::Retries => "Attempts that have to be repeated, by reason",
            Self::Refused => {
                "Attempts to write one row alone that the database refused; the row is tried again, or dead-lettered"
            }
            Self::DeadLetters => "Records that went to the dead letters, by cause",
            Self::Gathered => "Records read from the log and not done",
            Self::GatheredSize => "Memory of the records gathered, about",
            Self::Lag => "Age of the oldest record read and not done",
            Self::PausedPartitions => "Partitions assigned to this replica whose delivery is stopped for now",
            Self::HeldPartitions => "Partitions that stand at a record which can be neither applied nor skipped",
            Self::TransactionDuration => "Duration of transactions",
            Self::BudgetWait => "How long a batch that was due waited for its budget",
            Self::Limit => "Rows per second that all replicas together may write",
            Self::AdaptiveLimit => "Rows per second that a database may be written with by how it fares",
            Self::BatchRows => {
                "Rows of one transaction of this replica, at most, by its limit and how long transactions take"
            }
            Self::HorizonAge => "Age of the horizon: accepted writes that are older are in the database",
            Self::Purged => "Marks of deleted rows that were forgotten",
            Self::Breaker => "Whether writes to a database are tried: 0 closed (they are), 1 half-open, 2 open",
        }
    }
}

/// The instruments.
pub(crate) struct Metrics {
    rows_written: Counter<u64>,
    batches: Counter<u64>,
    coalesced: Counter<u64>,
    void: Counter<u64>,
    missing: Counter<u64>,
    stale: Counter<u64>,
    retries: Counter<u64>,
    refused: Counter<u64>,
    dead_letters: Counter<u64>,
    gathered_records: Gauge<u64>,
    gathered_bytes: Gauge<u64>,
    lag: Gauge<f64>,
    paused: Gauge<u64>,
    held: Gauge<u64>,
    transaction: Histogram<f64>,
    budget_wait: Histogram<f64>,
    limit: Gauge<f64>,
    adaptive_limit: Gauge<f64>,
    batch_rows: Gauge<u64>,
    horizon_age: Gauge<f64>,
    purged: Counter<u64>,
    breaker: Gauge<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let counter = |m: Metric| meter.u64_counter(m.name()).with_description(m.about()).build();
        let gauge = |m: Metric| meter.u64_gauge(m.name()).with_description(m.about()).build();
        let seconds = |m: Metric| {
            let bounds = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
            meter
                .f64_histogram(m.name())
                .with_unit("s")
                .with_description(m.about())
                .with_boundaries(bounds.to_vec())
                .build()
        };
        let rate = |m: Metric| meter.f64_gauge(m.name()).with_description(m.about()).build();
        let size = Metric::GatheredSize;
        let age = |m: Metric| meter.f64_gauge(m.name()).with_unit("s").with_description(m.about()).build();
        Self {
            rows_written: counter(Metric::RowsWritten),
            batches: counter(Metric::Batches),
            coalesced: counter(Metric::Coalesced),
            void: counter(Metric::Void),
            missing: counter(Metric::Missing),
            stale: counter(Metric::Stale),
            retries: counter(Metric::Retries),
            refused: counter(Metric::Refused),
            dead_letters: counter(Metric::DeadLetters),
            gathered_records: gauge(Metric::Gathered),
            gathered_bytes: meter.u64_gauge(size.name()).with_unit("By").with_description(size.about()).build(),
            lag: age(Metric::Lag),
            horizon_age: age(Metric::HorizonAge),
            purged: counter(Metric::Purged),
            breaker: gauge(Metric::Breaker),
            paused: gauge(Metric::PausedPartitions),
            held: gauge(Metric::HeldPartitions),
            transaction: seconds(Metric::TransactionDuration),
            budget_wait: seconds(Metric::BudgetWait),
            limit: rate(Metric::Limit),
            adaptive_limit: rate(Metric::AdaptiveLimit),
            batch_rows: gauge(Metric::BatchRows),
        }
    }

    /// The instruments as they are used for one table.
    pub(crate) fn of<'a>(&'a self, table: &'a TableMetrics) -> ForTable<'a> {
        ForTable { metrics: self, table }
    }

    /// Partitions that stand still, and those of them that stand at a record that can't be read.
    pub(crate) fn standing(&self, paused: usize, held: usize) {
        self.paused.record(paused as u64, &[]);
        self.held.record(held as u64, &[]);
    }

    /// What the limit of a database is that follows how it fares.
    pub(crate) fn adaptive_limit(&self, database: &DatabaseName, rows_per_second: f64) {
        self.adaptive_limit.record(rows_per_second, &[KeyValue::new("database", database.to_string())]);
    }

    /// Whether writes to a database are tried.
    pub(crate) fn breaker(&self, database: &DatabaseName, breaker: Breaker) {
        let state = match breaker {
            Breaker::Closed => 0,
            Breaker::HalfOpen => 1,
            Breaker::Open { .. } => 2,
        };
        self.breaker.record(state, &[KeyValue::new("database", database.to_string())]);
    }

    /// Records that the log does not have.
    pub(crate) fn missing(&self, records: u64) {
        self.missing.add(records, &[]);
    }
}

/// The attributes of one table, made once.
#[derive(Debug, Clone)]
pub(crate) struct TableMetrics {
    attributes: [KeyValue; 1],
}

impl TableMetrics {
    pub(crate) fn new(table: &TableRef) -> Self {
        Self { attributes: [KeyValue::new("table", table.to_string())] }
    }

    fn with(&self, name: &'static str, value: &'static str) -> [KeyValue; 2] {
        let [table] = self.attributes.clone();
        [table, KeyValue::new(name, value)]
    }
}

/// The instruments with the table's attributes.
pub(crate) struct ForTable<'a> {
    metrics: &'a Metrics,
    table: &'a TableMetrics,
}

impl ForTable<'_> {
    pub(crate) fn coalesced(&self, records: usize) {
        self.metrics.coalesced.add(records as u64, &self.table.attributes);
    }

    pub(crate) fn void(&self, records: usize) {
        self.metrics.void.add(records as u64, &self.table.attributes);
    }

    pub(crate) fn committed(&self, written: usize, stale: usize, took: Duration) {
        self.metrics.batches.add(1, &self.table.with("outcome", "committed"));
        self.metrics.rows_written.add(written as u64, &self.table.attributes);
        self.metrics.stale.add(stale as u64, &self.table.attributes);
        self.metrics.transaction.record(took.as_secs_f64(), &self.table.attributes);
    }

    pub(crate) fn failed(&self, took: Duration) {
        self.metrics.batches.add(1, &self.table.with("outcome", "failed"));
        self.metrics.transaction.record(took.as_secs_f64(), &self.table.attributes);
    }

    pub(crate) fn retry(&self, reason: &'static str) {
        self.metrics.retries.add(1, &self.table.with("reason", reason));
    }

    pub(crate) fn refused(&self) {
        self.metrics.refused.add(1, &self.table.attributes);
    }

    pub(crate) fn dead_lettered(&self, cause: DeadLetterCause) {
        self.metrics.dead_letters.add(1, &self.table.with("cause", cause.name()));
    }

    pub(crate) fn budget_waited(&self, waited: Duration) {
        self.metrics.budget_wait.record(waited.as_secs_f64(), &self.table.attributes);
    }

    /// The limit in force, where none is infinite, and how many rows one transaction may have.
    pub(crate) fn limited(&self, rows_per_second: Option<f64>, batch_rows: usize) {
        self.metrics.batch_rows.record(batch_rows as u64, &self.table.attributes);
        self.metrics.limit.record(rows_per_second.unwrap_or(f64::INFINITY), &self.table.attributes);
    }

    /// Up to where all that was accepted is in the database; versions are microseconds of the hot store's clock.
    pub(crate) fn horizon(&self, lowest: Version, now_micros: u64) {
        let age = now_micros.saturating_sub(lowest.get());
        self.metrics.horizon_age.record(age as f64 / 1e6, &self.table.attributes);
    }

    pub(crate) fn purged(&self, tombstones: u64) {
        self.metrics.purged.add(tombstones, &self.table.attributes);
    }

    /// What all lanes of the table have gathered; versions are microseconds of the hot store's clock.
    pub(crate) fn gathered(&self, records: usize, bytes: usize, oldest: Option<Version>, now_micros: u64) {
        self.metrics.gathered_records.record(records as u64, &self.table.attributes);
        self.metrics.gathered_bytes.record(bytes as u64, &self.table.attributes);
        let lag = oldest.map_or(0, |version| now_micros.saturating_sub(version.get()));
        self.metrics.lag.record(lag as f64 / 1e6, &self.table.attributes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{DatabaseName, TableName};

    use super::*;

    #[test]
    fn what_is_measured_shows_with_its_table() {
        let shown = runtime::telemetry::Metrics::new().unwrap();
        let metrics = Metrics::new(&shown.meter("test"));
        let name =
            TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() };
        let table = TableMetrics::new(&name);
        let of_table = metrics.of(&table);
        of_table.committed(7, 1, Duration::from_millis(3));
        of_table.dead_lettered(DeadLetterCause::Since);
        of_table.gathered(5, 50, Version::new(4_000_000), 6_500_000);
        metrics.standing(3, 1);
        let text = shown.text().unwrap();
        let line = |name: &str| {
            let found = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            found.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
        };
        let rows = line("shock_absorber_drain_rows_written_total");
        assert!(rows.contains("table=\"main.payments\"") && rows.ends_with(" 7"), "{rows}");
        let letters = line("shock_absorber_drain_dead_letters_total");
        assert!(letters.contains("cause=\"since\"") && letters.ends_with(" 1"), "{letters}");
        assert!(line("shock_absorber_drain_lag_seconds{").ends_with(" 2.5"));
        assert!(line("shock_absorber_drain_paused_partitions{").ends_with(" 3"));
    }
}
