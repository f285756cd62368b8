//! Why a store could not serve a use case; shared by reads and writes.

use std::fmt;

use database::{DatabaseError, ErrorClass};
use hot_store::HotStoreError;
use model::{Shard, TableRef};

/// The part of a request in which something is wrong; with the column's name it makes the field's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The row of a create or put.
    Row,
    /// The key of an update, delete or get.
    Key,
    /// The changes of an update.
    Changes,
    /// The columns that a read selects.
    Columns,
    /// The field that a find looks at.
    Field,
    /// The value that a find looks for.
    Value,
}

impl Part {
    /// The name of the field in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Key => "key",
            Self::Changes => "changes",
            Self::Columns => "columns",
            Self::Field => "field",
            Self::Value => "value",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A store could not serve the request. Nothing was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The shard is not open: the hot store was restarted and the log is being read.
    #[error("shard {shard} is being opened after a restart of the hot store: try again")]
    Closed {
        /// The shard.
        shard: Shard,
    },
    /// The write was held up on its way for so long that it took no effect any more.
    #[error("{0}: nothing was written; try again")]
    Late(HotStoreError),
    /// The hot store has no room.
    #[error("the hot store is full: try again when the drain has emptied it, or raise its memory")]
    HotStoreFull,
    /// The hot store can't be reached.
    #[error("the hot store can't be reached: {0}")]
    HotStoreDown(String),
    /// The database had to be asked for a record that the hot store does not hold, and can't be reached.
    #[error("the record is not in the hot store, and the database can't be reached: {0}")]
    DatabaseDown(String),
    /// The database refuses what we asked in a way that trying again won't change.
    #[error("the record is not in the hot store, and the database can't be asked for it: {0}")]
    DatabaseUnfit(String),
    /// Too many cold reads are waiting for the database already.
    #[error("too many records that the hot store does not hold are being read from the database: try again")]
    ColdReadsBusy,
    /// The record's place in the hot store kept changing while it was looked at.
    #[error("a record of table {table} changed each time it was looked at: try again")]
    Contended {
        /// The table.
        table: TableRef,
    },
    /// The hot store holds something unreadable.
    #[error("shard {shard} of the hot store holds something that can't be read: {problem}")]
    Corrupt {
        /// The shard.
        shard: Shard,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<HotStoreError> for StoreError {
    /// For calls that may be repeated; a write whose outcome is unknown is not one of them.
    fn from(error: HotStoreError) -> Self {
        match error {
            HotStoreError::Closed { shard } | HotStoreError::Superseded { shard } => Self::Closed { shard },
            HotStoreError::Late => Self::Late(error),
            HotStoreError::Full => Self::HotStoreFull,
            HotStoreError::Unavailable(problem) | HotStoreError::Unknown(problem) => Self::HotStoreDown(problem),
            HotStoreError::Corrupt { shard, problem } => Self::Corrupt { shard, problem },
        }
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match error.class() {
            ErrorClass::Transient | ErrorClass::Contended | ErrorClass::Unclassified => {
                Self::DatabaseDown(error.to_string())
            }
            ErrorClass::Dependent | ErrorClass::Schema | ErrorClass::Permanent => {
                Self::DatabaseUnfit(error.to_string())
            }
        }
    }
}
