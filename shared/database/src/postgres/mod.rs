//! PostgreSQL.

mod dialect;
mod errors;
mod introspect;
#[cfg(any(feature = "laws", all(test, feature = "mysql", feature = "postgres", feature = "sqlite")))]
pub(crate) mod laws;
mod script;
mod session;
mod types;
mod values;

use std::{sync::Arc, time::Duration};

use model::{DatabaseName, TableName, TableSchema};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    DatabaseError, DatabaseOptions, ErrorClass,
    relational::{
        dialect::{Dialect as _, VERSION_COLUMN},
        session::{Backend, Failure, Session as _},
        statement::Statement,
    },
};
use dialect::PostgresDialect;
use errors::failure;
use session::PostgresSession;

/// A connection that lay longer than this is asked whether it still lives before it is used.
const IDLE_WITHOUT_DOUBT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection: a dozen kinds in nine shapes for a few tables.
const CACHED_STATEMENTS: usize = 256;

/// Twelve; before it, not all that a table can be is told in the way in which it is asked here.
const OLDEST_SERVER: i32 = 120_000;

/// How much longer than we the server waits before it gives a statement up. It must not be the first: given up by the
/// server, a commit that waits for a standby is answered as if it had been carried out there.
const BEYOND_PATIENCE: Duration = Duration::from_secs(1);

/// PostgreSQL.
pub(crate) struct Postgres {
    pool: PgPool,
    dialect: PostgresDialect,
    patience: Duration,
    /// Of each session that is in use there is a clone.
    in_use: Arc<()>,
    connections: u32,
    /// A connection of its own for probes: a pool that is all in use says nothing of the database.
    probes: PgPool,
}

impl Postgres {
    /// Connects, and asks the server what it is and in which schema the tables are.
    pub(crate) async fn connect(options: &DatabaseOptions) -> Result<Self, DatabaseError> {
        let unfit = |problem: String| {
            DatabaseError::Unfit(format!("the url of database {} can't be used: {problem}", options.name))
        };
        let connect: PgConnectOptions = options.url.parse().map_err(|error: sqlx::Error| unfit(error.to_string()))?;
        if connect.get_database().is_none() {
            return Err(unfit("it names no database; write postgres://user:password@host/database".to_owned()));
        }
        let connect = connect.statement_cache_capacity(CACHED_STATEMENTS).disable_statement_logging();
        let connect = match connect.get_application_name() {
            None => connect.application_name("shock-absorber"),
            Some(_) => connect,
        };

        let on = |failure: Failure| failure.on(options.name.as_str());
        // The pool would try until its time is up, and then only say that it is.
        let first = tokio::time::timeout(options.connect_timeout, async {
            let mut connection = connect.connect().await?;
            let server = Server::ask(&mut connection).await?;
            let _ = connection.close().await;
            Ok(server)
        });
        let unanswered = || Failure::Broken("no answer to the attempt to connect".to_owned()).at_connect();
        let first = first.await.map_err(|_| on(unanswered()))?;
        let server = first.map_err(|error| on(failure(error).at_connect()))?;
        let schema = server
            .schema()
            .map_err(|problem| DatabaseError::Unfit(format!("database {} can't be used: {problem}", options.name)))?;

        let setup = session_setup(&schema, options.statement_timeout, options.lock_timeout);
        let pool_of = |connections: u32| {
            PgPoolOptions::new()
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
        let pool = pool_of(options.pool);
        drop(pool.acquire().await.map_err(|error| on(failure(error).at_connect()))?);
        Ok(Self {
            pool,
            dialect: PostgresDialect { schema },
            patience: options.statement_timeout,
            in_use: Arc::new(()),
            connections: options.pool,
            probes: pool_of(1),
        })
    }

    /// Whether all connections are in use. If not, none could be made.
    fn is_exhausted(&self) -> bool {
        Arc::strong_count(&self.in_use) > self.connections as usize
    }
}

/// What a server says of itself.
struct Server {
    version: i32,
    encoding: String,
    schema: Option<String>,
}

impl Server {
    async fn ask(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let ask = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding')::text, \
                   current_schema()::text";
        let row = sqlx::query(ask).fetch_one(connection).await?;
        Ok(Self { version: row.try_get(0)?, encoding: row.try_get(1)?, schema: row.try_get(2)? })
    }

    /// The schema in which the tables are, or why the database can't be used.
    fn schema(self) -> Result<String, String> {
        if self.version < OLDEST_SERVER {
            return Err(format!(
                "the server is PostgreSQL {}, 12 is the oldest that is supported",
                self.version / 10_000
            ));
        }
        if self.encoding != "UTF8" {
            return Err(format!(
                "its encoding is {}, which does not hold every text: make a database with ENCODING 'UTF8'",
                self.encoding
            ));
        }
        let advice = "none of the schemas in its search_path is there: make one, or name another in the url, as in \
                      ?options=-csearch_path%3Dpay";
        self.schema.ok_or_else(|| advice.to_owned())
    }
}

/// What every connection is told (the last one is for systems that tell a server of a client who is gone): nothing that our statements rest on is left to the server's configuration, or to that
/// of the role.
fn session_setup(schema: &str, statement_timeout: Duration, lock_timeout: Duration) -> String {
    // Read before the first of these settings is made: so a backslash may stand for itself, or hide what follows it.
    let schema = dialect::quote(schema).replace('\\', "\\\\").replace('\'', "''");
    let millis = |timeout: Duration| timeout.as_millis().clamp(1, i32::MAX as u128);
    format!(
        "SET standard_conforming_strings = on; SET client_min_messages = warning; \
         SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET extra_float_digits = 1; SET bytea_output = 'hex'; \
         SET default_transaction_deferrable = off; SET row_security = off; SET enable_seqscan = off; SET jit = off; \
         SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
         SET idle_in_transaction_session_timeout = {statement}; \
         SELECT set_config('search_path', E'{schema}, ' || current_setting('search_path'), false); \
         SELECT set_config('synchronous_commit', CASE s WHEN 'off' THEN 'on' ELSE s END, false) \
         FROM current_setting('synchronous_commit') AS s; \
         SELECT set_config(name, '1000', false) FROM pg_settings WHERE name = 'client_connection_check_interval' \
         AND version() ILIKE '%linux%'",
        statement = millis(statement_timeout + BEYOND_PATIENCE),
        lock = millis(lock_timeout),
    )
}

impl Backend for Postgres {
    type Dialect = PostgresDialect;
    type Session = PostgresSession;

    fn dialect(&self) -> &PostgresDialect {
        &self.dialect
    }

    async fn session(&self) -> Result<PostgresSession, Failure> {
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
        Ok(PostgresSession::new(connection, self.patience, self.in_use.clone()))
    }

    async fn probe_session(&self) -> Result<PostgresSession, Failure> {
        let connection = self.probes.acquire().await.map_err(|error| failure(error).at_connect())?;
        Ok(PostgresSession::new(connection, self.patience, Arc::new(())))
    }

    async fn list_tables(&self, session: &mut PostgresSession) -> Result<Vec<TableName>, DatabaseError> {
        introspect::list_tables(session, &self.dialect.schema).await
    }

    async fn introspect(
        &self,
        session: &mut PostgresSession,
        database: &DatabaseName,
        table: &TableName,
    ) -> Result<TableSchema, DatabaseError> {
        introspect::introspect(session, &self.dialect.schema, database, table).await
    }

    async fn leading_columns(
        &self,
        session: &mut PostgresSession,
        table: &TableName,
    ) -> Result<Vec<String>, DatabaseError> {
        introspect::leading_columns(session, &self.dialect.schema, table).await
    }

    async fn add_version_column(&self, session: &mut PostgresSession, table: &TableName) -> Result<(), DatabaseError> {
        // Since PostgreSQL 11 the default is kept beside the table, whose rows stay as they are.
        let alter = format!(
            "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {VERSION_COLUMN} BIGINT NOT NULL DEFAULT 0",
            self.dialect.table(table.as_str())
        );
        match session.execute(Statement::new(alter)).await {
            Ok(_) => Ok(()),
            Err(Failure::Refused { code, .. }) if code == "42P01" => Err(DatabaseError::NoSuchTable(table.clone())),
            Err(failure) => Err(failure.on(table.as_str())),
        }
    }
}
