//! What is set per table, and what a table ends up with.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Settings, duration};

/// `tables`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablesSettings {
    /// What every table gets.
    pub defaults: TableDefaults,
    /// What some tables get, by `database.table`.
    pub per_table: BTreeMap<String, TableOverrides>,
}

/// `tables.defaults`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableDefaults {
    /// How long a record stays in the hot store once the database has it.
    #[serde(with = "duration::text")]
    pub ttl: Duration,
    /// What writes wait for that do not say.
    pub ack: Ack,
    /// Records that may wait for the database; 0 is no cap.
    pub max_backlog_records: u64,
    /// Their bytes; 0 is no cap.
    pub max_backlog_bytes: u64,
    /// How long the oldest of them may have waited; 0 is no cap.
    #[serde(with = "duration::text")]
    pub max_backlog_age: Duration,
    /// Records that may be parked; 0 is no cap.
    pub max_parked_records: u64,
}

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// It is in the hot store.
    Logged,
    /// It is in the event log.
    Queued,
    /// It is in the database.
    Applied,
}

/// An entry of `tables.per_table`: what it leaves out is as for every table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableOverrides {
    /// How long a record stays in the hot store once the database has it.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// What writes wait for that do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    /// Records that may wait for the database; 0 is no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backlog_records: Option<u64>,
    /// Their bytes; 0 is no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backlog_bytes: Option<u64>,
    /// How long the oldest of them may have waited; 0 is no cap.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub max_backlog_age: Option<Duration>,
    /// Records that may be parked; 0 is no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parked_records: Option<u64>,
    /// Rows per second over all drain replicas; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_per_second: Option<f64>,
    /// Transactions per second over all drain replicas; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions_per_second: Option<f64>,
    /// Rows of one transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_rows: Option<usize>,
    /// What slow transactions make of it at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_batch_rows: Option<usize>,
    /// How long a batch that is not full waits for more.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    pub batch_age: Option<Duration>,
    /// Under what its records lie in the hot store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which columns of the key decide the shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_by: Option<Vec<String>>,
    /// Where a create looks for an existing record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_check: Option<CreateCheck>,
    /// The columns by which records are found, beside their keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexed_fields: Option<Vec<String>>,
}

/// Where a create looks for an existing record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateCheck {
    /// In the hot store, and for a cold key in the database.
    #[default]
    Database,
    /// In the hot store only.
    HotStore,
}

/// What is in effect for one table.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveTable {
    /// How long a record stays in the hot store once the database has it.
    pub ttl: Duration,
    /// What writes wait for that do not say.
    pub ack: Ack,
    /// Records that may wait for the database.
    pub max_backlog_records: Option<u64>,
    /// Their bytes.
    pub max_backlog_bytes: Option<u64>,
    /// How long the oldest of them may have waited.
    pub max_backlog_age: Option<Duration>,
    /// Records that may be parked.
    pub max_parked_records: Option<u64>,
    /// Rows per second over all drain replicas; `None` is no limit.
    pub rows_per_second: Option<f64>,
    /// Transactions per second over all drain replicas; `None` is no limit.
    pub transactions_per_second: Option<f64>,
    /// Rows of one transaction.
    pub batch_rows: usize,
    /// What slow transactions make of it at least.
    pub min_batch_rows: usize,
    /// How long a batch that is not full waits for more.
    pub batch_age: Duration,
    /// Under what its records lie in the hot store; `database.table` unless set.
    pub namespace: String,
    /// Which columns of the key decide the shard; empty for all of them.
    pub group_by: Vec<String>,
    /// Where a create looks for an existing record.
    pub create_check: CreateCheck,
    /// The columns by which records are found, beside their keys.
    pub indexed_fields: Vec<String>,
}

impl Settings {
    /// What is in effect for a table, named `database.table`.
    pub fn table(&self, name: &str) -> EffectiveTable {
        let own = self.tables.per_table.get(name).cloned().unwrap_or_default();
        let every = &self.tables.defaults;
        let rate = own.rows_per_second.unwrap_or(self.drain.rows_per_second);
        let transactions = own.transactions_per_second.unwrap_or(self.drain.transactions_per_second);
        EffectiveTable {
            ttl: own.ttl.unwrap_or(every.ttl),
            ack: own.ack.unwrap_or(every.ack),
            max_backlog_records: Some(own.max_backlog_records.unwrap_or(every.max_backlog_records)).filter(|&n| n > 0),
            max_backlog_bytes: Some(own.max_backlog_bytes.unwrap_or(every.max_backlog_bytes)).filter(|&n| n > 0),
            max_backlog_age: Some(own.max_backlog_age.unwrap_or(every.max_backlog_age)).filter(|age| !age.is_zero()),
            max_parked_records: Some(own.max_parked_records.unwrap_or(every.max_parked_records)).filter(|&n| n > 0),
            rows_per_second: (rate > 0.0).then_some(rate),
            transactions_per_second: (transactions > 0.0).then_some(transactions),
            batch_rows: own.batch_rows.unwrap_or(self.drain.batch_rows),
            min_batch_rows: own.min_batch_rows.unwrap_or(self.drain.min_batch_rows),
            batch_age: own.batch_age.unwrap_or(self.drain.batch_age),
            namespace: own.namespace.unwrap_or_else(|| name.to_owned()),
            group_by: own.group_by.unwrap_or_default(),
            create_check: own.create_check.unwrap_or_default(),
            indexed_fields: own.indexed_fields.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_gets_its_own_values_and_the_general_ones_for_the_rest() {
        let mut settings = Settings::default();
        settings.drain.rows_per_second = 1000.0;
        settings.tables.defaults.max_backlog_records = 9;
        let own = "{ttl: 1h, ack: applied, max_backlog_records: 0, max_backlog_age: 1h, max_parked_records: 7, rows_per_second: 0.5, group_by: [tenant], create_check: hot_store, indexed_fields: [status, day]}";
        settings.tables.per_table.insert("main.payments".into(), serde_saphyr::from_str(own).unwrap());

        let payments = settings.table("main.payments");
        assert_eq!(payments.ttl, Duration::from_secs(3600));
        assert_eq!(payments.ack, Ack::Applied);
        assert_eq!((payments.max_backlog_records, payments.max_backlog_bytes), (None, None));
        assert_eq!(payments.max_backlog_age, Some(Duration::from_secs(3600)));
        assert_eq!(payments.max_parked_records, Some(7));
        assert_eq!(payments.rows_per_second, Some(0.5));
        assert_eq!(payments.group_by, ["tenant"]);
        assert_eq!(payments.create_check, CreateCheck::HotStore);
        assert_eq!(payments.indexed_fields, ["status", "day"]);
        assert_eq!(payments.batch_rows, settings.drain.batch_rows);
        assert_eq!(payments.namespace, "main.payments");

        let others = settings.table("main.orders");
        assert_eq!(others.ttl, Duration::from_secs(600));
        assert_eq!((others.ack, others.max_backlog_records), (Ack::Queued, Some(9)));
        assert_eq!(others.max_parked_records, Some(100_000));
        assert_eq!(others.rows_per_second, Some(1000.0));
        assert_eq!(others.namespace, "main.orders");
    }

    #[test]
    fn a_rate_of_nought_is_no_limit() {
        let mut settings = Settings::default();
        settings.drain.rows_per_second = 0.0;
        assert_eq!(settings.table("main.orders").rows_per_second, None);
    }
}
