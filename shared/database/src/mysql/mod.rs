//! MySQL and MariaDB.

mod defaults;
mod dialect;
mod errors;
mod introspect;
#[cfg(any(feature = "laws", all(test, feature = "mysql", feature = "postgres", feature = "sqlite")))]
pub(crate) mod laws;
mod session;
mod types;

use std::{sync::Arc, time::Duration};

use model::{DatabaseName, TableName, TableSchema, Value};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
};

use crate::{
    DatabaseError, DatabaseOptions, ErrorClass,
    relational::{
        dialect::{Dialect as _, VERSION_COLUMN},
        session::{Backend, Failure, INT, Session as _, TEXT},
        statement::Statement,
    },
};
use dialect::MysqlDialect;
use errors::failure;
use session::MysqlSession;
use types::Flavour;

/// A connection that lay longer than this is asked whether it still lives before it is used.
const IDLE_WITHOUT_DOUBT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection: a dozen kinds in nine shapes for a few tables.
const CACHED_STATEMENTS: usize = 256;

/// What a statement needs beside the values that are counted.
const PACKET_MARGIN: usize = 64 * 1024;

/// MySQL or MariaDB.
pub(crate) struct Mysql {
    pool: MySqlPool,
    dialect: MysqlDialect,
    flavour: Flavour,
    patience: Duration,
    /// Of each session that is in use there is a clone.
    in_use: Arc<()>,
    connections: u32,
    /// A connection of its own for probes: a pool that is all in use says nothing of the database.
    probes: MySqlPool,
}

impl Mysql {
    /// Connects, and asks the server for its kind and its limits.
    pub(crate) async fn connect(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        let url = match options.url.split_once("://") {
            Some((_, rest)) => format!("mysql://{rest}"),
            None => options.url.clone(),
        };
        let unfit = |problem: String| {
            DatabaseError::Unfit(format!("the url of database {} can't be used: {problem}", options.name))
        };
        let connect: MySqlConnectOptions = url.parse().map_err(|error: sqlx::Error| unfit(error.to_string()))?;
        if connect.get_database().is_none() {
            return Err(unfit("it names no schema; write mysql://user:password@host/schema".to_owned()));
        }
        let connect = connect
            .charset("utf8mb4")
            .timezone("+00:00".to_owned())
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .statement_cache_capacity(CACHED_STATEMENTS)
            .disable_statement_logging();
        let setup = session_setup(options.lock_timeout);
        let pool_of = |connections: u32| {
            MySqlPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(options.connect_timeout)
                .test_before_acquire(false)
                .before_acquire(|connection, meta| {
                    Box::pin(async move {
                        if meta.idle_for > IDLE_WITHOUT_DOUBT {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
                .after_connect({
                    let setup = setup.clone();
                    move |connection, _| {
                        let setup = setup.clone();
                        Box::pin(async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(setup))).await.map(drop) })
                    }
                })
                .connect_lazy_with(connect.clone())
        };
        let (pool, in_use) = (pool_of(options.pool), Arc::new(()));

        let on = |failure: Failure| failure.on(options.name.as_str());
        // The pool would try until its time is up, and then only say that it is.
        let first = tokio::time::timeout(options.connect_timeout, connect.connect()).await;
        let unanswered = || Failure::Broken("no answer to the attempt to connect".to_owned()).at_connect();
        let first = first.map_err(|_| on(unanswered()))?;
        drop(first.map_err(|error| on(failure(error).at_connect()))?);
        let connection = pool.acquire().await.map_err(|error| on(failure(error).at_connect()))?;
        let mut session = MysqlSession::new(connection, options.statement_timeout, in_use.clone());
        let select = Statement::new("SELECT VERSION(), @@max_allowed_packet");
        let row = session.fetch(select, &[TEXT, INT]).await.map_err(on)?.into_iter().next().unwrap_or_default();
        let (mut version, mut packet) = (String::new(), 0);
        for value in row {
            match value {
                Value::Text(text) => version = text,
                Value::Int64(number) => packet = usize::try_from(number).unwrap_or_default(),
                _ => {}
            }
        }
        if packet <= 2 * PACKET_MARGIN {
            return Err(DatabaseError::Unfit(format!(
                "database {} takes packets of {packet} bytes only: set max_allowed_packet to at least 1 MiB",
                options.name
            )));
        }
        drop(session);
        Ok(Self {
            pool,
            dialect: MysqlDialect { statement_bytes: packet - PACKET_MARGIN },
            flavour: Flavour::of(&version),
            patience: options.statement_timeout,
            in_use,
            connections: options.pool,
            probes: pool_of(1),
        })
    }
}

impl Mysql {
    /// Whether all connections are in use. If not, none could be made.
    fn is_exhausted(&self) -> bool {
        Arc::strong_count(&self.in_use) > self.connections as usize
    }
}

/// What every connection is told: nothing that our statements rest on is left to the server's configuration. A MariaDB (to
/// MySQL it is a comment) ends what a frozen process of ours has locked: whatever we do between two statements is a matter
/// of moments.
fn session_setup(lock_timeout: Duration) -> String {
    format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET SESSION sql_mode = 'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
         ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', \
         SESSION time_zone = '+00:00', SESSION autocommit = 1, SESSION foreign_key_checks = 1, \
         SESSION unique_checks = 1, SESSION sql_safe_updates = 0, /*M!100300 SESSION idle_transaction_timeout = {0}, */ \
         SESSION innodb_lock_wait_timeout = {0}",
        lock_timeout.as_secs().max(1)
    )
}

impl Backend for Mysql {
    type Dialect = MysqlDialect;
    type Session = MysqlSession;

    fn dialect(&self) -> &MysqlDialect {
        &self.dialect
    }

    async fn session(&self) -> Result<MysqlSession, Failure> {
        let connection = match self.pool.acquire().await {
            Ok(connection) => connection,
            Err(sqlx::Error::PoolTimedOut) if self.is_exhausted() => {
                let all = format!(
                    "all {} connections to it are in use for longer than one waits for them: raise `pool` of the \
                     database, or look why it is slow",
                    self.connections
                );
                return Err(Failure::refused(ErrorClass::Contended, "pool", all));
            }
            Err(error) => return Err(failure(error).at_connect()),
        };
        Ok(MysqlSession::new(connection, self.patience, self.in_use.clone()))
    }

    async fn probe_session(&self) -> Result<MysqlSession, Failure> {
        let connection = self.probes.acquire().await.map_err(|error| failure(error).at_connect())?;
        Ok(MysqlSession::new(connection, self.patience, Arc::new(())))
    }

    async fn list_tables(&self, session: &mut MysqlSession) -> Result<Vec<TableName>, DatabaseError> {
        introspect::list_tables(session).await
    }

    async fn introspect(
        &self,
        session: &mut MysqlSession,
        database: &DatabaseName,
        table: &TableName,
    ) -> Result<TableSchema, DatabaseError> {
        introspect::introspect(session, self.flavour, database, table).await
    }

    async fn leading_columns(
        &self,
        session: &mut MysqlSession,
        table: &TableName,
    ) -> Result<Vec<String>, DatabaseError> {
        introspect::leading_columns(session, self.flavour.is_mariadb, table).await
    }

    async fn add_version_column(&self, session: &mut MysqlSession, table: &TableName) -> Result<(), DatabaseError> {
        let alter = format!("ALTER TABLE {} ADD COLUMN {VERSION_COLUMN}", self.dialect.quote(table.as_str()));
        // A server before MySQL 8.0.23 knows no invisible columns. A copy of the whole table is nothing to begin
        // without being asked.
        let attempts =
            ["BIGINT NOT NULL DEFAULT 0 INVISIBLE, ALGORITHM=INSTANT", "BIGINT NOT NULL DEFAULT 0, ALGORITHM=INSTANT"];
        let mut refused = None;
        for attempt in attempts {
            match session.execute(Statement::new(format!("{alter} {attempt}"))).await {
                Ok(_) => return Ok(()),
                Err(Failure::Refused { code, .. }) if code == "1060" => return Ok(()),
                Err(Failure::Refused { code, .. }) if code == "1146" => {
                    return Err(DatabaseError::NoSuchTable(table.clone()));
                }
                // Syntax, or not possible as an instant change.
                Err(Failure::Refused { code, message, .. }) if matches!(&*code, "1064" | "1845" | "1846" | "1800") => {
                    refused = Some(message);
                }
                Err(failure) => return Err(failure.on(table.as_str())),
            }
        }
        Err(DatabaseError::Unsupported {
            table: table.clone(),
            reason: format!(
                "the version column can't be added as an instant change ({}): run `{alter} BIGINT NOT NULL DEFAULT 0` at \
                 a quiet hour, or leave the table as it is and its versions in the ledger",
                refused.unwrap_or_default()
            ),
        })
    }
}
