//! A database of its own for each test, and somebody else's connection to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use database::{
    AnyDatabase, Applied, Batch, Change, Database, DatabaseError, DatabaseOptions, DatabaseRow, Horizon, Owner,
    ShardClaim, memory::MemoryDatabase,
};
use model::{
    ColumnName, Content, DatabaseName, Epoch, Image, Key, Operation, Row, Shard, ShardCount, TableName, TableSchema,
    Value, Version, VersionGuard,
};
use sqlx::{AssertSqlSafe, Connection, Row as _};

use crate::tested::Tested;

pub struct Harness {
    pub database: Arc<Tested>,
    options: DatabaseOptions,
    kind: Kind,
}

enum Kind {
    Sqlite { _directory: tempfile::TempDir, path: String },
    Mysql(OnServer),
    Postgres(OnServer),
    Memory,
}

/// Tables in which a row's version is in the row, and in the ledger.
pub const GUARDS: [VersionGuard; 2] = [VersionGuard::Column, VersionGuard::Ledger];

/// Four shards are enough for everything here.
pub fn shards() -> ShardCount {
    ShardCount::new(4).unwrap()
}

pub fn name(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

pub fn main_database() -> DatabaseName {
    DatabaseName::new("main").unwrap()
}

pub fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

/// A schema of its own on a server that tests share.
#[derive(Clone)]
pub struct OnServer {
    server: String,
    schema: String,
}

impl OnServer {
    /// A new one on the server that this variable names.
    async fn create(variable: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let server = std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set: it names the server that this test needs (./tests/run starts one)")
        });
        let schema = format!("sa_contract_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let new = Self { server, schema };
        new.drop().await;
        if new.is_postgres() {
            new.administer("CREATE SCHEMA", "").await;
        } else {
            new.administer("CREATE DATABASE", "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci").await;
        }
        new
    }

    pub async fn drop(&self) {
        if self.is_postgres() {
            self.administer("SET client_min_messages = warning; DROP SCHEMA IF EXISTS", "CASCADE").await;
        } else {
            self.administer("DROP DATABASE IF EXISTS", "").await;
        }
    }

    pub fn name(&self) -> &str {
        &self.schema
    }

    async fn administer(&self, verb: &str, how: &str) {
        let statement = format!("{verb} {} {how}", self.schema);
        if self.is_postgres() {
            let mut admin = sqlx::PgConnection::connect(&self.server).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
            return;
        }
        let mut admin = sqlx::MySqlConnection::connect(&self.server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
    }

    fn is_postgres(&self) -> bool {
        self.server.starts_with("postgres")
    }

    /// On PostgreSQL sessions can be told by the schema's name.
    fn url(&self) -> String {
        if self.is_postgres() {
            return format!("{0}?options=-csearch_path%3D{1}&application_name={1}", self.server, self.schema);
        }
        let (place, _) = self.server.rsplit_once('/').unwrap();
        format!("{place}/{}", self.schema)
    }
}

impl Harness {
    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.db").to_str().unwrap().to_owned();
        let options = DatabaseOptions {
            create_if_missing: true,
            ..DatabaseOptions::new(main_database(), format!("sqlite:{path}"))
        };
        Self::prepared(options, Kind::Sqlite { _directory: directory, path }).await
    }

    pub async fn memory() -> Self {
        let database = Arc::new(Tested::Memory(MemoryDatabase::default()));
        database.prepare().await.unwrap();
        Self { database, options: DatabaseOptions::new(main_database(), "memory"), kind: Kind::Memory }
    }

    pub async fn mariadb() -> Self {
        Self::of_mysql(OnServer::create("SHOCK_ABSORBER_TEST_MARIADB").await).await
    }

    pub async fn mysql() -> Self {
        Self::of_mysql(OnServer::create("SHOCK_ABSORBER_TEST_MYSQL").await).await
    }

    async fn of_mysql(schema: OnServer) -> Self {
        Self::prepared(DatabaseOptions::new(main_database(), schema.url()), Kind::Mysql(schema)).await
    }

    pub async fn postgres() -> Self {
        let schema = OnServer::create("SHOCK_ABSORBER_TEST_POSTGRES").await;
        Self::prepared(DatabaseOptions::new(main_database(), schema.url()), Kind::Postgres(schema)).await
    }

    async fn prepared(options: DatabaseOptions, kind: Kind) -> Self {
        let options = DatabaseOptions { pool: 4, ..options };
        let database = Arc::new(Tested::Sql(AnyDatabase::connect(options.clone()).await.unwrap()));
        database.prepare().await.unwrap();
        Self { database, options, kind }
    }

    pub fn options(&self) -> &DatabaseOptions {
        &self.options
    }

    /// Another replica's connections to the same database.
    pub async fn another(&self, change: impl FnOnce(&mut DatabaseOptions)) -> Tested {
        match &*self.database {
            Tested::Sql(_) => {
                let mut options = self.options.clone();
                change(&mut options);
                Tested::Sql(AnyDatabase::connect(options).await.unwrap())
            }
            Tested::Memory(database) => Tested::Memory(database.clone()),
        }
    }

    pub fn is_mysql(&self) -> bool {
        matches!(self.kind, Kind::Mysql(_))
    }

    /// What the server calls itself.
    pub async fn server(&self) -> &'static str {
        if !self.is_mysql() {
            return self.of("", "PostgreSQL", "SQLite");
        }
        let version = self.text("SELECT VERSION()").await.unwrap();
        if version.contains("MariaDB") { "MariaDB" } else { "MySQL" }
    }

    /// The schema to remove afterwards, where there is one on a server.
    pub fn on_server(&self) -> Option<OnServer> {
        match &self.kind {
            Kind::Mysql(schema) | Kind::Postgres(schema) => Some(schema.clone()),
            Kind::Sqlite { .. } | Kind::Memory => None,
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.kind, Kind::Postgres(_))
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.kind, Kind::Sqlite { .. })
    }

    /// What belongs to the database that this is.
    pub fn of<T>(&self, mysql: T, postgres: T, sqlite: T) -> T {
        match self.kind {
            Kind::Mysql(_) => mysql,
            Kind::Postgres(_) => postgres,
            Kind::Sqlite { .. } | Kind::Memory => sqlite,
        }
    }

    /// A statement in which types are named as MySQL and SQLite name them.
    pub fn ddl(&self, text: &str) -> String {
        if !self.is_postgres() {
            return text.to_owned();
        }
        let names = [
            (" TIMESTAMP", " TIMESTAMPTZ"),
            ("DATETIME", "TIMESTAMP"),
            ("DOUBLE", "DOUBLE PRECISION"),
            ("TINYINT", "SMALLINT"),
        ];
        names.into_iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }

    pub async fn somebody_else(&self) -> SomebodyElse {
        match &self.kind {
            Kind::Mysql(schema) => SomebodyElse::Mysql(sqlx::MySqlConnection::connect(&schema.url()).await.unwrap()),
            Kind::Postgres(schema) => SomebodyElse::Postgres(sqlx::PgConnection::connect(&schema.url()).await.unwrap()),
            Kind::Sqlite { path, .. } => {
                let options =
                    sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
                SomebodyElse::Sqlite(sqlx::SqliteConnection::connect_with(&options).await.unwrap())
            }
            Kind::Memory => panic!("nobody else has a connection to the database in memory"),
        }
    }

    /// Runs SQL that is not ours.
    pub async fn sql(&self, text: &str) {
        self.somebody_else().await.run(text).await;
    }

    /// The one number that a SELECT of somebody else gives; `None` if it gives no row or NULL.
    pub async fn number(&self, select: &str) -> Option<i64> {
        self.somebody_else().await.number(select).await
    }

    /// What a SELECT over `information_schema.INNODB_TRX` gives. InnoDB makes that table anew only when nobody has
    /// looked at it for a tenth of a second (`CACHE_MIN_IDLE_TIME_NS`): two tests that look in turn would both see for
    /// ever what was there before they began, so one looks at a time, and after a pause.
    pub async fn about_transactions(&self, select: &str) -> Option<i64> {
        static ONE_LOOKS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = ONE_LOOKS.lock().await;
        tokio::time::sleep(Duration::from_millis(120)).await;
        self.number(select).await
    }

    /// Waits until so many transactions wait for a lock; on a server.
    pub async fn waiting(&self, many: i64) {
        if let Kind::Postgres(schema) = &self.kind {
            let waiting = format!("SELECT count(*) FROM {}", lock_waits(schema.name()));
            return eventually("it waits for the lock", async || self.number(&waiting).await == Some(many)).await;
        }
        let waiting = "SELECT count(*) FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p \
                       ON p.ID = t.trx_mysql_thread_id WHERE p.DB = DATABASE() AND t.trx_state = 'LOCK WAIT'";
        eventually("it waits for the lock", async || self.about_transactions(waiting).await == Some(many)).await;
    }

    /// A session that waits for a lock, as the server names it.
    pub async fn one_who_waits(&self) -> i64 {
        if let Kind::Postgres(schema) = &self.kind {
            return self.number(&format!("SELECT pid::int8 FROM {}", lock_waits(schema.name()))).await.unwrap();
        }
        let waiting = "SELECT t.trx_mysql_thread_id FROM information_schema.INNODB_TRX t \
                       JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
                       WHERE p.DB = DATABASE() AND t.trx_state = 'LOCK WAIT'";
        self.about_transactions(waiting).await.unwrap()
    }

    /// Waits until no transaction is open, where a server can tell.
    pub async fn no_transaction_is_open(&self) {
        if let Kind::Postgres(schema) = &self.kind {
            let open = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' \
                 AND xact_start IS NOT NULL AND pid <> pg_backend_pid()",
                schema.name()
            );
            eventually("no transaction is left open", async || self.number(&open).await == Some(0)).await;
        } else if self.is_mysql() {
            let open = "SELECT count(*) FROM information_schema.INNODB_TRX t JOIN information_schema.PROCESSLIST p \
                        ON p.ID = t.trx_mysql_thread_id WHERE p.DB = DATABASE()";
            eventually("no transaction is left open", async || self.about_transactions(open).await == Some(0)).await;
        }
    }

    /// The one text that a SELECT of somebody else gives.
    pub async fn text(&self, select: &str) -> Option<String> {
        self.somebody_else().await.text(select).await
    }

    /// Makes a table and introspects it; with a version column if the guard says so.
    pub async fn table(&self, table: &str, create: &str, guard: VersionGuard) -> TableSchema {
        self.sql(create).await;
        self.adopt(table, guard).await
    }

    /// The table of most tests, with a name that says where its versions are.
    pub async fn items(&self, guard: VersionGuard) -> TableSchema {
        let table = format!("items_{guard:?}").to_lowercase();
        self.make_items(&table).await;
        self.adopt(&table, guard).await
    }

    pub async fn introspect(&self, table: &str) -> Result<TableSchema, DatabaseError> {
        self.database.introspect(&main_database(), &name(table)).await
    }

    /// Makes `me` the owner of all shards of a table.
    pub async fn own(&self, schema: &TableSchema) {
        let claims: Vec<ShardClaim> =
            shards().all().map(|shard| ShardClaim { table: schema.table.table.clone(), shard }).collect();
        self.database.take_ownership(&claims, &me()).await.unwrap();
    }

    pub async fn apply(&self, schema: &TableSchema, changes: &[Change]) -> Result<Vec<Applied>, DatabaseError> {
        apply_as(&self.database, schema, changes, &me()).await
    }

    /// Applies one change.
    pub async fn apply_one(&self, schema: &TableSchema, change: Change) -> Applied {
        self.apply(schema, &[change]).await.unwrap().remove(0)
    }

    pub async fn read(&self, schema: &TableSchema, key: &Key) -> DatabaseRow {
        self.database.read(schema, std::slice::from_ref(key)).await.unwrap().remove(0)
    }
}

/// Sessions of a test that wait for a lock, as PostgreSQL tells.
fn lock_waits(schema: &str) -> String {
    format!("pg_stat_activity WHERE application_name = '{schema}' AND wait_event_type = 'Lock'")
}

pub fn me() -> Owner {
    Owner("me".to_owned())
}

/// Up to where everything of a shard is in the database, as the hot store told [`me`] before any opening.
pub fn horizon(shard: Shard, up_to: u64) -> Horizon {
    Horizon { shard, owner: me(), epoch: Epoch::ZERO, version: version(up_to) }
}

/// Applies under any name.
pub async fn apply_as(
    database: &Tested,
    schema: &TableSchema,
    changes: &[Change],
    owner: &Owner,
) -> Result<Vec<Applied>, DatabaseError> {
    let mut owners: Vec<Shard> = changes.iter().map(|change| change.shard).collect();
    owners.sort_unstable();
    owners.dedup();
    let owners = owners.into_iter().map(|shard| (shard, owner.clone())).collect();
    database.apply(Batch { schema, owners, changes }).await
}

/// Asks until it is so, for at most a minute.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A connection that is not ours.
pub enum SomebodyElse {
    Mysql(sqlx::MySqlConnection),
    Postgres(sqlx::PgConnection),
    Sqlite(sqlx::SqliteConnection),
}

impl SomebodyElse {
    pub async fn run(&mut self, text: &str) {
        self.try_run(text).await.unwrap();
    }

    pub async fn try_run(&mut self, text: &str) -> Result<(), sqlx::Error> {
        match self {
            Self::Mysql(connection) => sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop),
            Self::Sqlite(connection) => sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.map(drop),
        }
    }

    /// The one text that a SELECT gives on PostgreSQL, or what the server says against it.
    pub async fn try_text(&mut self, select: &str) -> Result<Option<String>, sqlx::Error> {
        let Self::Postgres(connection) = self else { panic!("this is about PostgreSQL") };
        sqlx::query(AssertSqlSafe(select)).fetch_one(connection).await.map(|row| row.get_unchecked(0))
    }

    pub async fn text(&mut self, select: &str) -> Option<String> {
        match self {
            Self::Mysql(connection) => {
                let row = sqlx::query(AssertSqlSafe(select)).fetch_optional(connection).await.unwrap()?;
                row.get_unchecked(0)
            }
            Self::Postgres(connection) => {
                let row = sqlx::query(AssertSqlSafe(select)).fetch_optional(connection).await.unwrap()?;
                row.get_unchecked(0)
            }
            Self::Sqlite(connection) => {
                let row = sqlx::query(AssertSqlSafe(select)).fetch_optional(connection).await.unwrap()?;
                row.get_unchecked(0)
            }
        }
    }

    pub async fn number(&mut self, select: &str) -> Option<i64> {
        match self {
            Self::Mysql(connection) => {
                let row = sqlx::query(AssertSqlSafe(select)).fetch_optional(connection).await.unwrap()?;
                row.get_unchecked(0)
            }
            Self::Postgres(connection) => {
                let row = sqlx::query(AssertSqlSafe(select)).fetch_optional(connection).await.unwrap()?;
                row.get_unchecked(0)
            }
            Self::Sqlite(connection) => {
                let row = sqlx::query(AssertSqlSafe(select)).fetch_optional(connection).await.unwrap()?;
                row.get_unchecked(0)
            }
        }
    }
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn id(id: &str) -> Key {
    Key(vec![text(id)])
}

pub fn row<const N: usize>(columns: [(&str, Value); N]) -> Row {
    columns.into_iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value)).collect()
}

/// A row of `items`.
pub fn item(id: &str, n: i64) -> Row {
    row([("id", text(id)), ("n", Value::Int64(n)), ("note", Value::Null)])
}

pub fn change(schema: &TableSchema, key: Key, number: u64, content: Content) -> Change {
    let operation = if content == Content::Tombstone { Operation::Delete } else { Operation::Put };
    Change {
        shard: schema.shard_of(&key, shards()),
        key,
        version: version(number),
        image: Image { content, operation, fingerprint: schema.fingerprint(), request: None, since: None },
    }
}

pub fn put_row(schema: &TableSchema, row: Row, number: u64) -> Change {
    change(schema, schema.key_of(&row).unwrap(), number, Content::Row(row))
}

/// A put of a row of `items`, whose `n` is its version unless told otherwise.
pub fn put(schema: &TableSchema, id: &str, number: u64) -> Change {
    put_row(schema, item(id, number as i64), number)
}

pub fn delete(schema: &TableSchema, id: &str, number: u64) -> Change {
    change(schema, self::id(id), number, Content::Tombstone)
}

pub fn since(change: Change, number: u64) -> Change {
    Change { image: Image { since: Some(version(number)), ..change.image }, ..change }
}

pub fn present(number: u64, row: Row) -> DatabaseRow {
    DatabaseRow::Present { version: version(number), row }
}

pub fn deleted(number: u64) -> DatabaseRow {
    DatabaseRow::Deleted { version: version(number) }
}

/// What the defaults of a write at that time are made of.
pub fn moment(now: jiff::Timestamp) -> model::Moment<'static> {
    static CHANCE: std::sync::LazyLock<model::Chance> = std::sync::LazyLock::new(|| model::Chance::seeded(1));
    model::Moment { now, chance: &CHANCE }
}
