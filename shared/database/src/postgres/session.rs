//! One connection to PostgreSQL.

use std::{future::Future, sync::Arc, time::Duration};

use model::Value;
use sqlx::{
    Arguments as _, AssertSqlSafe, Encode, Executor as _, Postgres, Row as _, Type, ValueRef as _,
    encode::IsNull,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, types::Oid},
};

use super::{
    errors::{ends_connection, failure, failure_of, leaves_commit_open},
    script, values,
};
use crate::{
    ErrorClass,
    relational::{
        session::{Expected, Failure, Purpose, Session},
        statement::{Param, Statement},
    },
};

/// One connection. See [`Session`] for what becomes of it when it is dropped.
pub(crate) struct PostgresSession {
    /// `None` once the connection came in doubt and was closed.
    connection: Option<PoolConnection<Postgres>>,
    in_transaction: bool,
    /// A statement of the transaction was refused: the server takes no more of it, and answers a COMMIT with no error
    /// while it undoes all.
    is_failed: bool,
    /// How long a statement may take.
    patience: Duration,
    /// Counts sessions in use.
    _in_use: Arc<()>,
}

impl PostgresSession {
    pub(super) fn new(connection: PoolConnection<Postgres>, patience: Duration, in_use: Arc<()>) -> Self {
        Self { connection: Some(connection), in_transaction: false, is_failed: false, patience, _in_use: in_use }
    }

    /// The connection, unless it was closed.
    fn connection(&mut self) -> Result<&mut PoolConnection<Postgres>, Failure> {
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
            Err(Failure::Refused { .. }) => self.is_failed = self.in_transaction,
            _ => {}
        }
        outcome
    }

    /// Closes the socket at once: the server undoes what is open. Nothing is sent, for nobody may be listening.
    fn close(&mut self) {
        (self.in_transaction, self.is_failed) = (false, false);
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }

    /// Statements without parameters, in one round trip.
    async fn send(&mut self, text: &'static str) -> Result<(), Failure> {
        let patience = self.patience;
        let outcome = within(patience, self.connection()?.execute(sqlx::raw_sql(text)), failure).await;
        self.settle(outcome).map(drop)
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
    told: impl FnOnce(sqlx::Error) -> Failure,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, work).await {
        Ok(outcome) => outcome.map_err(told),
        Err(_) => Err(Failure::Broken(format!("no answer within {patience:?}"))),
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        if self.in_transaction {
            self.close();
        }
    }
}

impl Session for PostgresSession {
    async fn begin(&mut self, purpose: Purpose) -> Result<(), Failure> {
        (self.in_transaction, self.is_failed) = (true, false);
        self.send(match purpose {
            Purpose::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Purpose::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        })
        .await
    }

    async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, Failure> {
        let (text, arguments) = bound(statement)?;
        let (patience, query) = (self.patience, sqlx::query_with(AssertSqlSafe(text.clone()), arguments));
        let outcome = within(patience, self.connection()?.execute(query), |error| failure_of(error, &text)).await;
        Ok(self.settle(outcome)?.rows_affected())
    }

    async fn fetch(&mut self, statement: Statement<'_>, expected: &[Expected<'_>]) -> Result<Vec<Vec<Value>>, Failure> {
        let (text, arguments) = bound(statement)?;
        let (patience, query) = (self.patience, sqlx::query_with(AssertSqlSafe(text), arguments));
        let outcome = within(patience, self.connection()?.fetch_all(query), failure).await;
        self.settle(outcome)?.iter().map(|row| read_row(row, expected)).collect()
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        if self.is_failed {
            let told = "a statement of the transaction had been refused; the transaction was undone";
            return Err(Failure::refused(ErrorClass::Unclassified, "25P02", told));
        }
        match self.send("COMMIT").await {
            Ok(()) => {}
            Err(Failure::Refused { code, message, .. }) if leaves_commit_open(&code) => {
                self.close();
                return Err(Failure::Broken(message));
            }
            Err(failure) => return Err(failure),
        }
        self.in_transaction = false;
        Ok(())
    }

    async fn run_script(mut self, sql: String) -> Result<(), Failure> {
        // All at once they would be one transaction.
        for statement in script::statements(&sql) {
            let ran = self.connection()?.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await;
            if let Err(error) = ran {
                self.close();
                return Err(failure(error));
            }
        }
        self.close();
        Ok(())
    }

    async fn rollback(&mut self) {
        if self.in_transaction {
            match self.send("ROLLBACK").await {
                Ok(()) => (self.in_transaction, self.is_failed) = (false, false),
                Err(_) => self.close(),
            }
        }
    }
}

/// A parameter in the server's binary form. Of which type it is stands in the statement's text, see
/// [`super::dialect`]: the driver keeps prepared statements by their text alone.
struct Untyped<'a>(Param<'a>);

impl Type<Postgres> for Untyped<'_> {
    fn type_info() -> PgTypeInfo {
        // The server finds out.
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl<'q> Encode<'q, Postgres> for Untyped<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.0 {
            Param::Null => return Ok(IsNull::Yes),
            Param::Int(number) => buffer.extend(number.to_be_bytes()),
            // Of these PostgreSQL has none beyond the signed ones.
            Param::Uint(number) => buffer.extend(i64::try_from(*number)?.to_be_bytes()),
            Param::Double(number) => buffer.extend(number.to_be_bytes()),
            Param::Text(text) => buffer.extend_from_slice(text.as_bytes()),
            Param::Bytes(bytes) => buffer.extend_from_slice(bytes),
        }
        Ok(IsNull::No)
    }
}

/// The type that is written behind a placeholder, and whether its parameter goes as text. Where the statement says a
/// type already, it is that; a value of another kind, of a record that is older than the column's type, goes as text,
/// which the server turns into it or refuses.
fn form(param: &Param<'_>, behind: &str) -> (&'static str, bool) {
    match (behind.strip_prefix("::"), param) {
        (Some(_), Param::Null) => ("", false),
        (Some(ty), Param::Int(_) | Param::Uint(_)) if ty.starts_with("int8") => ("", false),
        (Some(ty), Param::Double(_)) if ty.starts_with("float8") => ("", false),
        (Some(ty), Param::Bytes(_) | Param::Text(_)) if ty.starts_with("bytea") => ("", false),
        (Some(ty), _) if ty.starts_with("text") || ty.starts_with("bpchar") => ("", true),
        (Some(_), _) => ("::text", true),
        (None, Param::Int(_) | Param::Uint(_)) => ("::int8", false),
        (None, Param::Double(_)) => ("::float8", false),
        (None, Param::Bytes(_)) => ("::bytea", false),
        (None, Param::Text(_) | Param::Null) => ("", false),
    }
}

fn as_text(param: Param<'_>) -> Param<'_> {
    match param {
        Param::Int(number) => number.to_string().into(),
        Param::Uint(number) => number.to_string().into(),
        Param::Double(number) => number.to_string().into(),
        Param::Null | Param::Text(_) | Param::Bytes(_) => param,
    }
}

/// The statement as the server wants it: `$1` with a type behind it, each parameter in that type's form.
fn spelled(statement: Statement<'_>) -> (String, Vec<Param<'_>>) {
    let mut textual = Vec::new();
    let (text, params) = statement.into_spelled(|text, number, param, behind| {
        let (ty, is_text) = form(param, behind);
        text.push('$');
        text.push_str(&number.to_string());
        text.push_str(ty);
        textual.push(is_text);
    });
    let params = params.into_iter().zip(textual);
    (text, params.map(|(param, is_text)| if is_text { as_text(param) } else { param }).collect())
}

fn bound(statement: Statement<'_>) -> Result<(Arc<str>, PgArguments), Failure> {
    let (text, params) = spelled(statement);
    let mut arguments = PgArguments::default();
    arguments.reserve(params.len(), params.iter().map(Param::wire_bytes).sum());
    for param in params {
        arguments.add(Untyped(param)).map_err(|error| failure(sqlx::Error::Encode(error)))?;
    }
    Ok((text.into(), arguments))
}

fn read_row(row: &PgRow, expected: &[Expected<'_>]) -> Result<Vec<Value>, Failure> {
    let read = |(at, column): (usize, &Expected<'_>)| {
        let raw = row.try_get_raw(at).map_err(|error| error.to_string());
        let value = raw.and_then(|raw| match raw.is_null() {
            true => Ok(Value::Null),
            false => values::value(raw.as_bytes().map_err(|error| error.to_string())?, column.ty),
        });
        value.map_err(|problem| Failure::Unreadable { column: column.name.to_owned(), problem })
    };
    expected.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_says_its_type_once() {
        let mut statement = Statement::new("SELECT \"a?b\" WHERE n = ");
        statement.bind(5_i64).push(" AND t = ").bind("x").push(" AND k = ").bind_in("{}::text::numeric", "1");
        statement.push(" AND b = ").bind([1_u8].as_slice()).push(" AND z = ").bind_in("{}::int8", Param::Null);
        let (text, params) = spelled(statement);
        assert_eq!(
            text,
            "SELECT \"a?b\" WHERE n = $1::int8 AND t = $2 AND k = $3::text::numeric AND b = $4::bytea AND z = $5::int8"
        );
        assert_eq!(params.len(), 5);
    }

    #[test]
    fn a_value_of_another_kind_goes_as_text() {
        let mut statement = Statement::new("");
        statement.bind_in("{}::int8", "five").push(", ").bind_in("{}::text::numeric", 5_i64).push(", ");
        statement
            .bind_in("{}::float8", 5_i64)
            .push(", ")
            .bind_in("{}::bytea", "x")
            .push(", ")
            .bind_in("{}::bpchar", 5_i64);
        let (text, params) = spelled(statement);
        assert_eq!(text, "$1::text::int8, $2::text::numeric, $3::text::float8, $4::bytea, $5::bpchar");
        assert_eq!(params, ["five", "5", "5", "x", "5"].map(Param::from));
    }
}
