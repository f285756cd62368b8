//! What a drain replica tells of itself, for operators. Nothing is decided by it, and nobody waits for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a report is shown that is not followed by another: a replica tells once a second.
pub const REPORT_TTL: Duration = Duration::from_secs(5);
/// Replicas whose reports are kept at once; the oldest give way.
pub const MAX_REPORTS: usize = 256;

/// A report, and how long ago it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenReport {
    /// What the replica told.
    pub report: ReplicaReport,
    /// Not longer than [`REPORT_TTL`].
    pub ago: Duration,
}

impl SeenReport {
    /// By which reports are put in order.
    pub(crate) fn name(&self) -> (&str, &str) {
        (&self.report.replica, &self.report.incarnation)
    }
}

/// A drain replica as it knows itself. Stored as JSON: what another release does not know of it is left out there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaReport {
    /// Its name, for people.
    pub replica: String,
    /// Names this process among all that ever were.
    pub incarnation: String,
    /// What it drains.
    pub tables: Vec<TableReport>,
    /// How it gets on with its databases.
    pub databases: Vec<DatabaseReport>,
    /// Tables for which there was no room.
    pub tables_left_out: u32,
}

/// One table, as one replica drains it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableReport {
    /// Its database.
    pub database: String,
    /// Its name.
    pub table: String,
    /// The partitions that the replica owns: ranges, both ends included.
    pub partitions: Vec<(u16, u16)>,
    /// Rows that it has written since it was started.
    pub rows_written: u64,
    /// Rows that it wrote per second of late.
    pub rows_per_second: f64,
    /// Rows per second that all replicas may write; none is no limit.
    pub limit: Option<f64>,
    /// Rows of one transaction, at most.
    pub batch_rows: u64,
    /// Records that were read from the log and are not done.
    pub gathered: u64,
    /// How it gets on.
    pub state: TableState,
    /// Why, where it does not.
    pub why: String,
    /// Attempts that failed since the last one that did not.
    pub attempts: u32,
    /// Why the last of them failed.
    pub last_cause: String,
}

/// How a table gets on in a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// It is drained.
    Running,
    /// An operator has stopped it.
    Paused,
    /// Its schema is not what it was, and what was accepted does not fit.
    SchemaDrift,
    /// A later release knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A database, as one replica gets on with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseReport {
    /// Its name.
    pub database: String,
    /// Whether attempts are let through.
    pub breaker: BreakerState,
    /// In how many milliseconds the next one is, while they are not.
    pub retry_in_ms: u64,
    /// Rows per second that its health allows, where the limit heeds that.
    pub adaptive_rate: Option<f64>,
}

/// Whether attempts to write a database are let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// One, to see.
    HalfOpen,
    /// A later release knows.
    #[default]
    #[serde(other)]
    Unknown,
}
