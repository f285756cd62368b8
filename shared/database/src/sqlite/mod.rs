//! SQLite: the database of the embedded edition.

mod dialect;
mod errors;
mod introspect;
#[cfg(any(feature = "laws", all(test, feature = "mysql", feature = "postgres", feature = "sqlite")))]
pub(crate) mod laws;
mod session;
mod types;
mod values;

use std::{path::Path, sync::Arc, time::Duration};

use model::{DatabaseName, TableName, TableSchema};
use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Semaphore;

use crate::{
    DatabaseError, DatabaseOptions,
    relational::{
        dialect::{Dialect as _, VERSION_COLUMN},
        session::{Backend, Failure, Purpose, Session as _},
        statement::Statement,
        transaction,
    },
};
use dialect::SqliteDialect;
use errors::failure;
use session::SqliteSession;

/// Prepared statements kept per connection: a dozen kinds in nine shapes for a few tables.
const CACHED_STATEMENTS: usize = 256;

/// An SQLite file.
pub(crate) struct Sqlite {
    pool: SqlitePool,
    writer: Arc<Semaphore>,
    patience: Duration,
}

impl Sqlite {
    /// Opens the file. `path` is what follows `sqlite:` or `sqlite://` in the url.
    pub(crate) async fn connect(options: &DatabaseOptions, path: &str) -> Result<Self, DatabaseError> {
        if path.is_empty() || path.contains(":memory:") {
            return Err(DatabaseError::Unfit(format!(
                "database {} must be a file: what was applied must outlive the process",
                options.name
            )));
        }
        let connect = SqliteConnectOptions::new()
            .filename(Path::new(path))
            .create_if_missing(options.create_if_missing)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(options.lock_timeout)
            .statement_cache_capacity(CACHED_STATEMENTS)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(options.pool)
            .acquire_timeout(options.connect_timeout)
            .connect_lazy_with(connect.clone());
        let on = |failure: Failure| failure.on(options.name.as_str());
        // The pool would try until its time is up, and then only say that it is.
        drop(connect.connect().await.map_err(|error| on(failure(error).at_connect()))?);
        Ok(Self { pool, writer: Arc::new(Semaphore::new(1)), patience: options.statement_timeout })
    }
}

impl Backend for Sqlite {
    type Dialect = SqliteDialect;
    type Session = SqliteSession;

    fn dialect(&self) -> &SqliteDialect {
        &SqliteDialect
    }

    async fn session(&self) -> Result<SqliteSession, Failure> {
        let connection = self.pool.acquire().await.map_err(|error| failure(error).at_connect())?;
        Ok(SqliteSession::new(connection, self.writer.clone(), self.patience))
    }

    async fn list_tables(&self, session: &mut SqliteSession) -> Result<Vec<TableName>, DatabaseError> {
        introspect::list_tables(session).await
    }

    async fn introspect(
        &self,
        session: &mut SqliteSession,
        database: &DatabaseName,
        table: &TableName,
    ) -> Result<TableSchema, DatabaseError> {
        introspect::introspect(session, database, table).await
    }

    async fn leading_columns(
        &self,
        session: &mut SqliteSession,
        table: &TableName,
    ) -> Result<Vec<String>, DatabaseError> {
        introspect::leading_columns(session, table).await
    }

    async fn add_version_column(&self, session: &mut SqliteSession, table: &TableName) -> Result<(), DatabaseError> {
        let alter = format!(
            "ALTER TABLE {} ADD COLUMN {VERSION_COLUMN} BIGINT NOT NULL DEFAULT 0",
            SqliteDialect.quote(table.as_str())
        );
        session.begin(Purpose::Write).await.map_err(|failure| failure.on(table.as_str()))?;
        // SQLite refuses a second column of a name by the table as this connection remembers it, which may have been
        // dropped and made anew by others since: so it is not asked by trying. Looking makes it look again.
        let outcome = match introspect::has_version_column(session, table).await {
            Ok(true) => Ok(()),
            Ok(false) => match session.execute(Statement::new(alter)).await {
                Ok(_) => Ok(()),
                Err(Failure::Refused { message, .. }) if message.contains("no such table") => {
                    Err(DatabaseError::NoSuchTable(table.clone()))
                }
                Err(failure) => Err(failure.on(table.as_str())),
            },
            Err(error) => Err(error),
        };
        transaction::finish(session, table.as_str(), outcome).await
    }
}
