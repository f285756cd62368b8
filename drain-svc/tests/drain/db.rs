//! A database that can be told to fail, and remembers what it was asked.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use database::{
    AnyDatabase, Applied, Batch, CatalogEntry, Change, Database, DatabaseError, DatabaseRow, ErrorClass, Owner,
    ShardClaim, ShardRow,
};
use model::{DatabaseName, Epoch, Key, Shard, ShardCount, TableName, TableRef, TableSchema, Value, Version};

/// One call of `apply`.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) at: Instant,
    pub(crate) changes: Vec<(Key, Version)>,
    pub(crate) applied: bool,
}

pub(crate) struct BentDatabase {
    inner: AnyDatabase,
    attempts: Mutex<Vec<Attempt>>,
    /// Nothing can be written: the connection is refused.
    pub(crate) away: AtomicBool,
    /// The next transaction is committed, and its answer is lost.
    pub(crate) lose_next_answer: AtomicBool,
    /// Rows with this key are refused for good.
    pub(crate) poison: Mutex<Option<(Key, ErrorClass)>>,
}

impl BentDatabase {
    pub(crate) fn new(inner: AnyDatabase) -> Self {
        Self {
            inner,
            attempts: Mutex::default(),
            away: AtomicBool::new(false),
            lose_next_answer: AtomicBool::new(false),
            poison: Mutex::default(),
        }
    }

    pub(crate) fn straight(&self) -> &AnyDatabase {
        &self.inner
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    pub(crate) fn rows_applied(&self) -> usize {
        self.attempts.lock().unwrap().iter().filter(|a| a.applied).map(|a| a.changes.len()).sum()
    }

    /// Whether any attempt, failed or not, held this version of this key.
    pub(crate) fn was_tried(&self, key: &Key, version: Version) -> bool {
        self.attempts.lock().unwrap().iter().any(|a| a.changes.iter().any(|(k, v)| k == key && *v == version))
    }

    fn refusal(&self, changes: &[Change]) -> Option<DatabaseError> {
        let statement = |class, message: &str| DatabaseError::Statement {
            table: "payments".into(),
            class,
            code: "HY000/1".into(),
            message: message.into(),
        };
        if self.away.load(Ordering::SeqCst) {
            return Some(statement(ErrorClass::Transient, "connection refused"));
        }
        let poison = self.poison.lock().unwrap();
        let (key, class) = poison.as_ref()?;
        changes.iter().any(|change| change.key == *key).then(|| statement(*class, "refused"))
    }
}

pub(crate) fn id(n: i64) -> Key {
    Key(vec![Value::Int64(n)])
}

impl Database for BentDatabase {
    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        let at = Instant::now();
        let changes: Vec<_> = batch.changes.iter().map(|change| (change.key.clone(), change.version)).collect();
        let outcome = match self.refusal(batch.changes) {
            Some(error) => Err(error),
            None => self.inner.apply(batch).await,
        };
        self.attempts.lock().unwrap().push(Attempt { at, changes, applied: outcome.is_ok() });
        if self.lose_next_answer.swap(false, Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("the connection broke".into()));
        }
        outcome
    }

    async fn take_ownership(&self, claims: &[ShardClaim], owner: &Owner) -> Result<(), DatabaseError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("connection refused".into()));
        }
        self.inner.take_ownership(claims, owner).await
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        self.inner.prepare().await
    }

    async fn add_version_column(&self, table: &TableName) -> Result<(), DatabaseError> {
        self.inner.add_version_column(table).await
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        self.inner.list_tables().await
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        self.inner.introspect(database, table).await
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        self.inner.read(schema, keys).await
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        self.inner.shard_rows(tables, shard).await
    }

    async fn note_horizons(
        &self,
        table: &TableName,
        horizons: &[(Shard, Owner, Version)],
    ) -> Result<(), DatabaseError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("connection refused".into()));
        }
        self.inner.note_horizons(table, horizons).await
    }

    async fn purge_tombstones(
        &self,
        schema: &TableSchema,
        shard: Shard,
        owner: &Owner,
        up_to: Version,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("connection refused".into()));
        }
        self.inner.purge_tombstones(schema, shard, owner, up_to, limit).await
    }

    fn max_batch_rows(&self, schema: &TableSchema) -> usize {
        self.inner.max_batch_rows(schema)
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        self.inner.shard_count(configured).await
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        self.inner.next_epoch(shard, at_least).await
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        self.inner.catalog().await
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        self.inner.enable(entry).await
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        self.inner.disable(table).await
    }
}
