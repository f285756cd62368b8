//! What a database driver must be able to do; the protocol is written over this.

use std::{borrow::Cow, future::Future};

use model::{ColumnType, DatabaseName, TableName, TableSchema, Value};

use super::{dialect::Dialect, statement::Statement};
use crate::error::UNREADABLE;
use crate::{CONNECTION_LOST, DatabaseError, ErrorClass};

/// Why a statement failed, before anybody has said on which table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server refused it.
    Refused { class: ErrorClass, code: Cow<'static, str>, message: String },
    /// The connection is in doubt: it broke, or the time was up. It is never used again.
    Broken(String),
    /// A value in the database is not of its column's type.
    Unreadable { column: String, problem: String },
}

impl Failure {
    pub(crate) fn refused(class: ErrorClass, code: &'static str, message: impl Into<String>) -> Self {
        Self::Refused { class, code: Cow::Borrowed(code), message: message.into() }
    }

    /// The same of an attempt to connect: no statement can be to blame.
    pub(crate) fn at_connect(self) -> Self {
        match self {
            Self::Broken(message) => {
                Self::Refused { class: ErrorClass::Transient, code: Cow::Borrowed("connect"), message }
            }
            other => other,
        }
    }

    /// Whether trying again at once is likely to help: another transaction was in the way.
    pub(crate) fn is_conflict(&self, dialect: &impl Dialect) -> bool {
        matches!(self, Self::Refused { code, .. } if dialect.is_deadlock(code))
    }

    /// The error of a statement that can't have changed anything, since no commit was sent.
    pub(crate) fn on(self, table: &str) -> DatabaseError {
        let (class, code, message) = match self {
            Self::Refused { class, code, message } => (class, code.into_owned(), message),
            Self::Broken(message) => (ErrorClass::Unclassified, CONNECTION_LOST.to_owned(), message),
            Self::Unreadable { column, problem } => {
                (ErrorClass::Permanent, UNREADABLE.to_owned(), format!("column {column}: {problem}"))
            }
        };
        DatabaseError::Statement { table: table.to_owned(), class, code, message }
    }

    /// The error of a commit: if the connection broke, nobody knows what became of it.
    pub(crate) fn at_commit(self, table: &str) -> DatabaseError {
        match self {
            Self::Broken(message) => DatabaseError::Unknown(format!("commit on {table}: {message}")),
            refused => refused.on(table),
        }
    }
}

/// A column of a result: its name, for messages, and how to read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    pub(crate) ty: &'a ColumnType,
}

/// An integer column of our own.
pub(crate) const INT: Expected<'static> = Expected { name: "number", ty: &ColumnType::Int { bits: 64 } };
/// A text column of our own.
pub(crate) const TEXT: Expected<'static> =
    Expected { name: "text", ty: &ColumnType::Text { max_chars: None, max_bytes: None } };
/// A column of bytes of our own.
pub(crate) const BYTES: Expected<'static> = Expected { name: "bytes", ty: &ColumnType::Bytes { max_bytes: None } };

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Writing: READ COMMITTED, or the only writer.
    Write,
    /// Reading several statements' worth of one moment.
    Snapshot,
}

/// One connection, held by one task, which is never cancelled.
///
/// A session that is dropped with a transaction open, or after its connection came in doubt, closes the connection:
/// nobody ever gets it from the pool half-way.
pub(crate) trait Session: Send {
    fn begin(&mut self, purpose: Purpose) -> impl Future<Output = Result<(), Failure>> + Send;

    /// How many rows the statement matched.
    fn execute(&mut self, statement: Statement<'_>) -> impl Future<Output = Result<u64, Failure>> + Send;

    /// The rows, each value as its column's type says.
    fn fetch(
        &mut self,
        statement: Statement<'_>,
        expected: &[Expected<'_>],
    ) -> impl Future<Output = Result<Vec<Vec<Value>>, Failure>> + Send;

    /// Only `Broken` leaves it open whether the transaction was committed.
    fn commit(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Runs a script that is not ours, however long it takes. It may leave variables or a transaction behind, so the
    /// connection is closed after it.
    fn run_script(self, sql: String) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Undoes the transaction. If that fails the connection is closed, which undoes it too.
    fn rollback(&mut self) -> impl Future<Output = ()> + Send;
}

/// A database: connections, its dialect, and what each database shows of its tables in its own way.
pub(crate) trait Backend: Send + Sync + 'static {
    type Dialect: Dialect;
    type Session: Session;

    fn dialect(&self) -> &Self::Dialect;

    fn session(&self) -> impl Future<Output = Result<Self::Session, Failure>> + Send;

    /// To find out whether the database takes writes, however many sessions are in use.
    fn probe_session(&self) -> impl Future<Output = Result<Self::Session, Failure>> + Send {
        self.session()
    }

    fn list_tables(
        &self,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<Vec<TableName>, DatabaseError>> + Send;

    fn introspect(
        &self,
        session: &mut Self::Session,
        database: &DatabaseName,
        table: &TableName,
    ) -> impl Future<Output = Result<TableSchema, DatabaseError>> + Send;

    /// The columns with which an index begins that finds rows by them ([`crate::Database::search_columns`]).
    fn leading_columns(
        &self,
        session: &mut Self::Session,
        table: &TableName,
    ) -> impl Future<Output = Result<Vec<String>, DatabaseError>> + Send;

    /// Adds `_sa_version`; the caller has seen that it is not there.
    fn add_version_column(
        &self,
        session: &mut Self::Session,
        table: &TableName,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;
}
