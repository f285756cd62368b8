//! Errors of a database, classified once per dialect.

use model::{Shard, TableName};

/// The code of [`DatabaseError::Statement`] where there is none: the connection broke.
pub const CONNECTION_LOST: &str = "connection";

/// What an error means for the record that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The database can't do it now, for nobody: connection refused, too many connections, read-only, disk full,
    /// shutting down. Try again once it can.
    Transient,
    /// Another transaction was in the way: deadlock, lock wait. Try again soon.
    Contended,
    /// Nobody knows: a code that stands in no table, or a connection that broke within a statement. Try again; never
    /// give a record up for it, nor let all others wait for ever.
    Unclassified,
    /// Another row stands in the way that may be on its way itself: foreign key without parent, unique value taken.
    Dependent,
    /// The table is not what it was: unknown table or column. Introspect again.
    Schema,
    /// The row can never be written: too long, out of range, check constraint.
    Permanent,
}

impl ErrorClass {
    /// Whether neither the record nor the table is to blame, as far as anybody knows: the same may go through later.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Transient | Self::Contended | Self::Unclassified => true,
            Self::Dependent | Self::Schema | Self::Permanent => false,
        }
    }
}

/// Why a call to the database failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// A statement failed. The transaction was rolled back.
    #[error("the database refused a statement on {table} ({class:?}, code {code}): {message}")]
    Statement {
        /// The table.
        table: String,
        /// What it means.
        class: ErrorClass,
        /// The database's own code (SQLSTATE/number), for people.
        code: String,
        /// The database's message; may not hold row values when logged.
        message: String,
    },
    /// The connection broke or the time was up: the transaction may or may not have been committed.
    #[error("the database did not answer: {0}; the outcome is unknown")]
    Unknown(String),
    /// Another owner holds a shard of the batch. The transaction was rolled back.
    #[error("another replica owns a shard of table {0} now")]
    NotOwner(TableName),
    /// A later opening of the shard was announced: what the hot store said of it before may be true no more. The
    /// transaction was rolled back.
    #[error("shard {shard} of table {table} was opened again since the hot store was asked about it; ask again")]
    Outdated {
        /// The table.
        table: TableName,
        /// The shard.
        shard: Shard,
    },
    /// There is no such table.
    #[error("the database has no table {0}")]
    NoSuchTable(TableName),
    /// The table can't be used, with the reason.
    #[error("table {table} can't be used: {reason}")]
    Unsupported {
        /// The table.
        table: TableName,
        /// Why, and what would help.
        reason: String,
    },
    /// The configuration or the stored state does not fit.
    #[error("{0}")]
    Unfit(String),
}

/// The code of a statement whose answer holds a value that is not of its column's type.
pub(crate) const UNREADABLE: &str = "unreadable";

impl DatabaseError {
    /// Whether a row of the answer holds a value that can't be read. Which one it is shows when rows are asked for one
    /// by one; its key and version may be readable all the same.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Statement { code, .. } if code == UNREADABLE)
    }

    /// What the error means for the batch.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Statement { class, .. } => *class,
            Self::Unknown(_) => ErrorClass::Unclassified,
            Self::NotOwner(_) | Self::Outdated { .. } => ErrorClass::Contended,
            Self::NoSuchTable(_) | Self::Unsupported { .. } | Self::Unfit(_) => ErrorClass::Schema,
        }
    }
}
