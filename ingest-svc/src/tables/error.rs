//! Why a table could not be listed, enabled, disabled or given a limit.

use database::{DatabaseError, ErrorClass};
use event_log::LogError;
use hot_store::HotStoreError;
use model::{DatabaseName, InvalidName, Namespace, Shard, TableRef, Topic};

use crate::StoreError;

/// Why a table could not be listed, enabled or disabled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No database of that name is configured.
    #[error("no database named {0} is configured")]
    NoSuchDatabase(DatabaseName),
    /// The database has no such table.
    #[error("there is no table {0}")]
    NotFound(TableRef),
    /// The table can't be carried.
    #[error("table {table} can't be enabled: {reason}")]
    Unsupported {
        /// The table.
        table: TableRef,
        /// Why, and what would help.
        reason: String,
    },
    /// The topic or namespace that the configuration gives the table is no usable name.
    #[error("table {table} can't be enabled: {error}; name another one in the configuration")]
    Name {
        /// The table.
        table: TableRef,
        /// What is wrong with it.
        error: InvalidName,
    },
    /// Another enabled table has that topic or namespace.
    #[error("table {table} can't be enabled: another table has topic {topic} or namespace {namespace}")]
    Taken {
        /// The table.
        table: TableRef,
        /// The topic it would get.
        topic: Topic,
        /// The namespace it would get.
        namespace: Namespace,
    },
    /// The topic holds what was left over from an earlier use.
    #[error(
        "table {table} can't be enabled: partition {shard} of topic {topic} holds events, or a fence, of another installation or another life of this one, which would overtake or void new writes; choose another topic_template, or delete the topic if its events are not wanted any more"
    )]
    TopicInUse {
        /// The table.
        table: TableRef,
        /// The topic.
        topic: Topic,
        /// The partition.
        shard: Shard,
    },
    /// The event log can't be reached.
    #[error("the event log can't be reached: {0}")]
    LogDown(String),
    /// The event log is not fit for the table's topic.
    #[error("{0}")]
    LogUnfit(String),
    /// The hot store or the database could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TableError {
    /// What a database's refusal means for the table that was asked for.
    pub(super) fn of(table: &TableRef, error: DatabaseError) -> Self {
        match error {
            DatabaseError::NoSuchTable(_) => Self::NotFound(table.clone()),
            DatabaseError::Unsupported { reason, .. } => Self::Unsupported { table: table.clone(), reason },
            other => other.into(),
        }
    }
}

impl From<DatabaseError> for TableError {
    fn from(error: DatabaseError) -> Self {
        let problem = error.to_string();
        Self::Store(match error.class() {
            ErrorClass::Transient | ErrorClass::Contended | ErrorClass::Unclassified => {
                StoreError::DatabaseDown(problem)
            }
            ErrorClass::Dependent | ErrorClass::Schema | ErrorClass::Permanent => StoreError::DatabaseUnfit(problem),
        })
    }
}

impl From<HotStoreError> for TableError {
    fn from(error: HotStoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<LogError> for TableError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(problem) => Self::LogDown(problem),
            other => Self::LogUnfit(other.to_string()),
        }
    }
}
