//! The catalog: which tables are or were enabled, and how. It lies in the first configured database.

use model::{ColumnName, Namespace, TableRef, Topic};
use serde::{Deserialize, Serialize};

use crate::DatabaseError;

/// Where a create looks for an existing record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateCheck {
    /// In the hot store, and for a cold key in the database.
    #[default]
    Database,
    /// In the hot store only: for tables whose keys are unique by construction.
    HotStore,
}

/// What is fixed about a table when it is enabled, for all replicas and restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// Its topic.
    pub topic: Topic,
    /// Where its records lie in the hot store; unique among the enabled tables.
    pub namespace: Namespace,
    /// Which columns of the key decide the shard; empty: all of them.
    pub group_by: Vec<ColumnName>,
    /// Where a create looks.
    pub create_check: CreateCheck,
    /// The columns by which records are found, beside their keys.
    pub indexed_fields: Vec<ColumnName>,
}

/// A limit that an operator has set in place of the one that is configured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SetRate {
    /// Rows per second, above 0.
    RowsPerSecond(f64),
    /// None.
    Unlimited,
}

impl SetRate {
    /// A rate in rows per second, above 0; `None` if that is no rate.
    pub fn new(rows_per_second: f64) -> Option<Self> {
        (rows_per_second.is_finite() && rows_per_second > 0.0).then_some(Self::RowsPerSecond(rows_per_second))
    }

    /// As it is stored.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn stored(self) -> String {
        match self {
            Self::RowsPerSecond(rate) => rate.to_string(),
            Self::Unlimited => "unlimited".to_owned(),
        }
    }

    /// What was stored.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn from_stored(stored: &str) -> Option<Self> {
        if stored == "unlimited" {
            return Some(Self::Unlimited);
        }
        stored.parse().ok().and_then(Self::new)
    }
}

/// The limits that operators have set, by table, or what can't be read of one.
pub type StoredRates = Vec<(TableRef, Result<SetRate, DatabaseError>)>;

/// A table that is or was enabled. An entry stays for good: what was accepted while the table was enabled is still drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The table.
    pub table: TableRef,
    /// Whether requests are let in.
    pub enabled: bool,
    /// How.
    pub settings: TableSettings,
}
