//! What can be set about the drain.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use event_log::LogSettings;
use model::{Chance, DatabaseName, TableRef};
use runtime::{Settings, config::DatabaseSettings};

use crate::Bounds;

/// How one table is drained.
#[derive(Debug, Clone, PartialEq)]
pub struct TableOptions {
    /// Rows per second over all drain replicas; `None` is no limit.
    pub rows_per_second: Option<f64>,
    /// Transactions per second over all drain replicas; `None` is no limit.
    pub transactions_per_second: Option<f64>,
    /// Rows of one transaction, at most; a limit makes batches smaller.
    pub batch_rows: usize,
    /// Batches are made smaller than that by slow or failing transactions, and not below this.
    pub min_batch_rows: usize,
    /// A transaction that takes longer is slow.
    pub batch_target: Duration,
    /// Bytes of one transaction, at most, unless one row alone has more.
    pub batch_bytes: usize,
    /// A batch that is not full waits at most so long for more.
    pub batch_age: Duration,
    /// How long a record stays in the hot store once the database has it.
    pub ttl: Duration,
}

/// What can be set about the drain. The defaults are those of the configuration.
#[derive(Debug, Clone)]
pub struct DrainOptions {
    /// The name of this replica in logs and shard rows.
    pub replica: String,
    /// For tables that are not named.
    pub default_table: TableOptions,
    /// For those that are, by `database.table`.
    pub per_table: HashMap<String, TableOptions>,
    /// Rows per second of all tables of a database, over all drain replicas, where that is limited.
    pub per_database: HashMap<String, f64>,
    /// Between what the limit of a database follows how it fares, where it does.
    pub adaptive: BTreeMap<DatabaseName, Bounds>,
    /// Writer lanes per table: transactions at once.
    pub lanes: usize,
    /// Records gathered per lane; past it the lane's partitions are paused.
    pub lane_capacity: usize,
    /// The first delay between attempts while a store is away.
    pub retry_initial: Duration,
    /// The last one.
    pub retry_max: Duration,
    /// The partitions of every topic.
    pub shards: u16,
    /// What is checked of the topics that it makes.
    pub log: LogSettings,
    /// How long a row is tried again, at least, that another row stands in the way of; it goes to the dead letters when
    /// everything is written that was accepted before it.
    pub dependent_patience: Duration,
    /// How often the databases are told up to which version all accepted writes are in them.
    pub horizon_interval: Duration,
    /// How often tombstones are purged.
    pub purge_interval: Duration,
    /// How long a tombstone is kept at least.
    pub tombstone_retention: Duration,
    /// How often tables that were enabled, disabled or altered are looked for.
    pub table_refresh: Duration,
    /// How long the drain may take to stop: what is not done by then is redelivered.
    pub shutdown_deadline: Duration,
    /// Delays between attempts and the names of owners come from it.
    pub chance: Chance,
}

impl DrainOptions {
    /// The drain's part of the settings.
    pub fn from_settings(settings: &Settings) -> Self {
        let drain = &settings.drain;
        let table = |name: &str| {
            let table = settings.table(name);
            TableOptions {
                rows_per_second: table.rows_per_second,
                transactions_per_second: table.transactions_per_second,
                batch_rows: table.batch_rows,
                min_batch_rows: table.min_batch_rows,
                batch_target: drain.batch_target,
                batch_bytes: drain.batch_bytes,
                batch_age: table.batch_age,
                ttl: table.ttl,
            }
        };
        Self {
            replica: if drain.replica.is_empty() {
                host().unwrap_or_else(|| "drain".to_owned())
            } else {
                drain.replica.clone()
            },
            // A name that no table has: what is in effect where nothing is said.
            default_table: table(""),
            per_table: settings.tables.per_table.keys().map(|name| (name.clone(), table(name))).collect(),
            per_database: settings.databases.iter().filter_map(database_limit).collect(),
            adaptive: settings.databases.iter().filter_map(adaptive_limit).collect(),
            lanes: drain.lanes,
            lane_capacity: drain.lane_capacity,
            retry_initial: drain.retry_initial,
            retry_max: drain.retry_max,
            // A number that does not fit is refused before anything else happens.
            shards: u16::try_from(settings.shards).unwrap_or(u16::MAX),
            log: LogSettings { allow_single_node: settings.kafka.allow_single_node },
            dependent_patience: drain.dependent_patience,
            horizon_interval: drain.horizon_interval,
            purge_interval: drain.purge_interval,
            tombstone_retention: drain.tombstone_retention,
            table_refresh: settings.table_refresh,
            // The process breaks off what still runs a tenth of the time before its deadline.
            shutdown_deadline: settings.shutdown_deadline.mul_f64(0.8),
            chance: Chance::from_os(),
        }
    }

    /// How a table is drained.
    pub fn table(&self, table: &TableRef) -> &TableOptions {
        self.per_table.get(&table.to_string()).unwrap_or(&self.default_table)
    }

    /// What the gathered records of one lane may hold in memory: some batches' worth, however large records are.
    pub(crate) fn lane_bytes(&self, table: &TableOptions) -> usize {
        const BATCHES: usize = 16;
        table.batch_bytes.saturating_mul(BATCHES)
    }
}

fn database_limit(database: &DatabaseSettings) -> Option<(String, f64)> {
    (database.rows_per_second > 0.0).then(|| (database.name.clone(), database.rows_per_second))
}

fn adaptive_limit(database: &DatabaseSettings) -> Option<(DatabaseName, Bounds)> {
    let adaptive = database.adaptive?;
    // A name that is none is refused with the other settings.
    let name = DatabaseName::new(&database.name).ok()?;
    Some((name, Bounds { min: adaptive.min_rows_per_second, max: adaptive.max_rows_per_second }))
}

/// The name of this machine, where it is known: of a pod, where it runs in one.
pub(crate) fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self::from_settings(&Settings::default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{DatabaseName, TableName};

    use super::*;

    #[test]
    fn a_table_that_is_named_has_its_own_rate() {
        let mut settings = Settings::default();
        settings.drain.rows_per_second = 70.0;
        settings.tables.per_table.insert("main.payments".into(), Default::default());
        settings.tables.per_table.get_mut("main.payments").unwrap().rows_per_second = Some(0.0);
        let options = DrainOptions::from_settings(&settings);
        let rate = |table: &str| {
            let (database, table) = (DatabaseName::new("main").unwrap(), TableName::new(table).unwrap());
            options.table(&TableRef { database, table }).rows_per_second
        };
        assert_eq!((rate("payments"), rate("orders")), (None, Some(70.0)));
    }
}
