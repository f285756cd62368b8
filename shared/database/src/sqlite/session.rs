//! One connection to an SQLite file.

use std::{future::Future, sync::Arc, time::Duration};

use model::Value;
use sqlx::{
    Arguments as _, AssertSqlSafe, Executor as _, Row as _, Sqlite, TypeInfo as _, ValueRef as _,
    pool::PoolConnection,
    sqlite::{SqliteArguments, SqliteRow},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    errors::failure,
    values::{self, Stored},
};
use crate::{
    ErrorClass,
    relational::{
        session::{Expected, Failure, Purpose, Session},
        statement::{Param, Statement},
    },
};

/// One connection. See [`Session`] for what becomes of it when it is dropped.
pub(crate) struct SqliteSession {
    /// `None` once the connection came in doubt and was closed.
    connection: Option<PoolConnection<Sqlite>>,
    in_transaction: bool,
    /// SQLite has one writer; those of this process queue here, in order, instead of asking again and again.
    writer: Arc<Semaphore>,
    writing: Option<OwnedSemaphorePermit>,
    /// How long a statement may take.
    patience: Duration,
}

impl SqliteSession {
    pub(super) fn new(connection: PoolConnection<Sqlite>, writer: Arc<Semaphore>, patience: Duration) -> Self {
        Self { connection: Some(connection), in_transaction: false, writer, writing: None, patience }
    }

    /// The connection, unless it was closed.
    fn connection(&mut self) -> Result<&mut PoolConnection<Sqlite>, Failure> {
        self.connection
            .as_mut()
            .ok_or_else(|| Failure::Broken("the connection was closed after an earlier error".to_owned()))
    }

    /// A statement that was given up goes on in the driver's thread: the connection is closed, which undoes what is
    /// open once that has ended.
    fn settle<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Broken(_)) = outcome {
            self.close();
        }
        outcome
    }

    fn close(&mut self) {
        self.in_transaction = false;
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
        self.writing = None;
    }

    async fn send(&mut self, text: &'static str) -> Result<(), Failure> {
        let patience = self.patience;
        let outcome = within(patience, self.connection()?.execute(sqlx::raw_sql(text))).await;
        self.settle(outcome).map(drop)
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(patience, work).await {
        Ok(outcome) => outcome.map_err(failure),
        Err(_) => Err(Failure::Broken(format!("no answer within {patience:?}"))),
    }
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        if self.in_transaction {
            self.close();
        }
    }
}

impl Session for SqliteSession {
    async fn begin(&mut self, purpose: Purpose) -> Result<(), Failure> {
        if purpose == Purpose::Write {
            let turn = tokio::time::timeout(self.patience, self.writer.clone().acquire_owned()).await;
            let Ok(Ok(turn)) = turn else {
                return Err(Failure::refused(ErrorClass::Contended, "writer", "another transaction is being written"));
            };
            self.writing = Some(turn);
        }
        self.in_transaction = true;
        let begun = self
            .send(match purpose {
                Purpose::Write => "BEGIN IMMEDIATE",
                Purpose::Snapshot => "BEGIN",
            })
            .await;
        if let Err(Failure::Refused { .. }) = begun {
            self.in_transaction = false;
            self.writing = None;
        }
        begun
    }

    async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, Failure> {
        let (text, arguments) = bound(statement)?;
        let (patience, query) = (self.patience, sqlx::query_with(AssertSqlSafe(text), arguments));
        let outcome = within(patience, self.connection()?.execute(query)).await;
        Ok(self.settle(outcome)?.rows_affected())
    }

    async fn fetch(&mut self, statement: Statement<'_>, expected: &[Expected<'_>]) -> Result<Vec<Vec<Value>>, Failure> {
        let (text, arguments) = bound(statement)?;
        let (patience, query) = (self.patience, sqlx::query_with(AssertSqlSafe(text), arguments));
        let outcome = within(patience, self.connection()?.fetch_all(query)).await;
        self.settle(outcome)?.iter().map(|row| read_row(row, expected)).collect()
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.send("COMMIT").await?;
        self.in_transaction = false;
        self.writing = None;
        Ok(())
    }

    async fn run_script(mut self, sql: String) -> Result<(), Failure> {
        let ran = self.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
        self.close();
        ran.map(drop).map_err(failure)
    }

    async fn rollback(&mut self) {
        if self.in_transaction {
            match self.send("ROLLBACK").await {
                Ok(()) => self.in_transaction = false,
                // Some errors have undone the transaction already; a new connection is certain.
                Err(_) => self.close(),
            }
            self.writing = None;
        }
    }
}

fn bound(statement: Statement<'_>) -> Result<(String, SqliteArguments), Failure> {
    let (text, params) = statement.into_parts();
    let mut arguments = SqliteArguments::default();
    for param in params {
        match param {
            Param::Null => arguments.add(None::<i64>),
            Param::Int(number) => arguments.add(number),
            // Columns take up to 2^63 - 1, which is checked when the record is accepted.
            Param::Uint(number) => match i64::try_from(number) {
                Ok(number) => arguments.add(number),
                Err(error) => Err(error.into()),
            },
            Param::Double(number) => arguments.add(number),
            Param::Text(text) => arguments.add(text.into_owned()),
            Param::Bytes(bytes) => arguments.add(bytes.into_owned()),
        }
        .map_err(|error| failure(sqlx::Error::Encode(error)))?;
    }
    Ok((text, arguments))
}

fn read_row(row: &SqliteRow, expected: &[Expected<'_>]) -> Result<Vec<Value>, Failure> {
    let read = |(at, column): (usize, &Expected<'_>)| {
        let stored = stored(row, at).map_err(|error| error.to_string());
        stored
            .and_then(|stored| values::value(stored, column.ty))
            .map_err(|problem| Failure::Unreadable { column: column.name.to_owned(), problem })
    };
    expected.iter().enumerate().map(read).collect()
}

/// A cell by what it is kept as, not by what its column is declared.
fn stored(row: &SqliteRow, at: usize) -> Result<Stored, sqlx::Error> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Stored::Null);
    }
    let kept_as = raw.type_info().name().to_owned();
    drop(raw);
    Ok(match kept_as.as_str() {
        "INTEGER" => Stored::Integer(row.try_get_unchecked(at)?),
        "REAL" => Stored::Real(row.try_get_unchecked(at)?),
        "TEXT" => Stored::Text(row.try_get_unchecked(at)?),
        _ => Stored::Blob(row.try_get_unchecked(at)?),
    })
}
