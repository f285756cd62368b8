//! One connection to MySQL or MariaDB.

use std::{future::Future, sync::Arc, time::Duration};

use model::{ColumnType, TimeOfDay, Value};
use sqlx::{
    Arguments as _, AssertSqlSafe, Executor as _, MySql, Row as _, ValueRef as _,
    mysql::{MySqlArguments, MySqlRow},
    pool::PoolConnection,
};

use super::errors::{ends_connection, failure};
use crate::relational::{
    session::{Expected, Failure, Purpose, Session},
    statement::{Param, Statement},
    temporal::{parse_date, parse_datetime, parse_timestamp},
};

/// One connection. See [`Session`] for what becomes of it when it is dropped.
pub(crate) struct MysqlSession {
    /// `None` once the connection came in doubt and was closed.
    connection: Option<PoolConnection<MySql>>,
    in_transaction: bool,
    /// How long a statement may take.
    patience: Duration,
    /// Counts sessions in use.
    _in_use: Arc<()>,
}

impl MysqlSession {
    pub(super) fn new(connection: PoolConnection<MySql>, patience: Duration, in_use: Arc<()>) -> Self {
        Self { connection: Some(connection), in_transaction: false, patience, _in_use: in_use }
    }

    /// The connection, unless it was closed.
    fn connection(&mut self) -> Result<&mut PoolConnection<MySql>, Failure> {
        self.connection
            .as_mut()
            .ok_or_else(|| Failure::Broken("the connection was closed after an earlier error".to_owned()))
    }

    /// A future of the driver that is given up, or that ended with anything but the server's own word, leaves the
    /// connection in a state that nobody knows: then it is closed. So is one that the server's word has put an end to.
    fn settle<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        match &outcome {
            Err(Failure::Broken(_)) => self.close(),
            Err(Failure::Refused { code, .. }) if ends_connection(code) => self.close(),
            _ => {}
        }
        outcome
    }

    /// Closes the socket at once: the server undoes what is open. Nothing is sent, for nobody may be listening.
    fn close(&mut self) {
        self.in_transaction = false;
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }

    /// Statements without parameters, in one round trip.
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

impl Drop for MysqlSession {
    fn drop(&mut self) {
        if self.in_transaction {
            self.close();
        }
    }
}

impl Session for MysqlSession {
    async fn begin(&mut self, purpose: Purpose) -> Result<(), Failure> {
        self.in_transaction = true;
        self.send(match purpose {
            Purpose::Write => "START TRANSACTION",
            Purpose::Snapshot => {
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
            }
        })
        .await
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
                Err(_) => self.close(),
            }
        }
    }
}

fn bound(statement: Statement<'_>) -> Result<(String, MySqlArguments), Failure> {
    let (text, params) = statement.into_parts();
    let mut arguments = MySqlArguments::default();
    arguments.reserve(params.len(), params.iter().map(Param::wire_bytes).sum());
    for param in params {
        match param {
            // As a text: MariaDB refuses a number for a UUID, even one that is NULL.
            Param::Null => arguments.add(None::<&str>),
            Param::Int(number) => arguments.add(number),
            Param::Uint(number) => arguments.add(number),
            Param::Double(number) => arguments.add(number),
            Param::Text(text) => arguments.add(text.as_ref()),
            Param::Bytes(bytes) => arguments.add(bytes.as_ref()),
        }
        .map_err(|error| failure(sqlx::Error::Encode(error)))?;
    }
    Ok((text, arguments))
}

fn read_row(row: &MySqlRow, expected: &[Expected<'_>]) -> Result<Vec<Value>, Failure> {
    let read = |(at, column): (usize, &Expected<'_>)| {
        read_value(row, at, column.ty)
            .map_err(|problem| Failure::Unreadable { column: column.name.to_owned(), problem })
    };
    expected.iter().enumerate().map(read).collect()
}

/// The driver's own check of types is left out: it takes text with a binary collation, as MySQL sends JSON and
/// MariaDB some of its own tables, for bytes. Text is checked to be UTF-8 all the same.
fn read_value(row: &MySqlRow, at: usize, ty: &ColumnType) -> Result<Value, String> {
    let told = |error: sqlx::Error| error.to_string();
    if row.try_get_raw(at).map_err(told)?.is_null() {
        return Ok(Value::Null);
    }
    let text = || row.try_get_unchecked::<&str, _>(at).map_err(told);
    let temporal =
        |kind: &str| format!("holds a {kind} that is not possible, such as 0000-00-00: correct it in the database");
    Ok(match ty.stored_as() {
        ColumnType::Bool => match row.try_get_unchecked::<i64, _>(at).map_err(told)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return Err("is a truth value, TINYINT(1), but holds a number other than 0 and 1".to_owned()),
        },
        ColumnType::Int { .. } => Value::Int64(row.try_get_unchecked(at).map_err(told)?),
        ColumnType::Uint { .. } => Value::Uint64(row.try_get_unchecked(at).map_err(told)?),
        ColumnType::Year => Value::Uint64(row.try_get_unchecked(at).map_err(told)?),
        // A FLOAT comes as four bytes, exactly.
        ColumnType::Double | ColumnType::Real => Value::Double(row.try_get_unchecked(at).map_err(told)?),
        ColumnType::Decimal { .. } => Value::Decimal(text()?.to_owned()),
        ColumnType::Text { .. }
        | ColumnType::Collated { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. }
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => Value::Text(text()?.to_owned()),
        ColumnType::Json | ColumnType::JsonDocument | ColumnType::JsonText { .. } => Value::Json(text()?.to_owned()),
        ColumnType::Bytes { .. } | ColumnType::PaddedBytes { .. } => {
            Value::Bytes(bytes::Bytes::copy_from_slice(row.try_get_unchecked::<&[u8], _>(at).map_err(told)?))
        }
        ColumnType::Timestamp { .. } | ColumnType::EpochTimestamp { .. } => {
            Value::Timestamp(parse_timestamp(text()?).ok_or_else(|| temporal("timestamp"))?)
        }
        ColumnType::DateTime { .. } => Value::DateTime(parse_datetime(text()?).ok_or_else(|| temporal("datetime"))?),
        ColumnType::Date => Value::Date(parse_date(text()?).ok_or_else(|| temporal("date"))?),
        ColumnType::Time { .. } => Value::Time(text()?.parse::<TimeOfDay>().map_err(|_| temporal("time"))?),
        ty => return Err(format!("is introspected as {ty:?}, which no column of MySQL or MariaDB is")),
    })
}
