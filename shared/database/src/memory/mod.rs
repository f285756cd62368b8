//! A database in memory, for tests and for the simulation.
//!
//! It keeps the contract: transactions lock the rows of their shards, wait for each other in order, and are written at
//! once or not at all. Nothing in it is decided by chance, by a thread or by a wall clock: the same calls, polled in
//! the same order, have the same outcome. What it has not: SQL, foreign keys, defaults that are expressions.

mod by_hand;
mod installation;
mod locks;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod transaction;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{ColumnName, DatabaseName, Epoch, Key, Shard, ShardCount, TableName, TableRef, TableSchema};

use crate::{
    Applied, Batch, CatalogEntry, Database, DatabaseError, DatabaseRow, FoundRow, Hold, HoldKind, HoldScope, Holds,
    Horizon, Owner, Search, SetRate, ShardClaim, ShardRow, StoredRates,
    batch::{MAX_BATCH_ROWS, check_size},
};
pub use by_hand::ShardState;
use locks::ShardLocks;
use state::State;
pub use table::{MemoryCheck, MemoryTable};
use transaction::Prepared;

/// How a database in memory behaves.
#[derive(Debug, Clone)]
pub struct MemoryDatabaseOptions {
    /// How long a transaction waits for the lock of a shard.
    pub lock_timeout: Duration,
    /// How long a statement takes. At zero it still lets others run once.
    pub statement_time: Duration,
}

impl Default for MemoryDatabaseOptions {
    fn default() -> Self {
        Self { lock_timeout: Duration::from_secs(10), statement_time: Duration::ZERO }
    }
}

/// A database in memory. A clone is the same database.
///
/// A transaction has two steps, with others let run in between: it locks the rows of its shards and judges; then it
/// writes, all at once, and unlocks. Each takes the time of a statement.
#[derive(Clone)]
pub struct MemoryDatabase {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    locks: ShardLocks,
    lock_timeout: Duration,
    /// In microseconds.
    statement_time: AtomicU64,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a statement takes before it does anything.
    async fn statement(&self) {
        match self.statement_time.load(Ordering::Relaxed) {
            0 => tokio::task::yield_now().await,
            micros => tokio::time::sleep(Duration::from_micros(micros)).await,
        }
    }
}

impl Default for MemoryDatabase {
    fn default() -> Self {
        Self::new(MemoryDatabaseOptions::default())
    }
}

impl fmt::Debug for MemoryDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDatabase").finish_non_exhaustive()
    }
}

impl MemoryDatabase {
    /// An empty database.
    pub fn new(options: MemoryDatabaseOptions) -> Self {
        let database = Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                locks: ShardLocks::default(),
                lock_timeout: options.lock_timeout,
                statement_time: AtomicU64::new(0),
            }),
        };
        database.set_statement_time(options.statement_time);
        database
    }

    /// How long a statement takes from now on.
    pub fn set_statement_time(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.inner.statement_time.store(micros, Ordering::Relaxed);
    }

    /// Runs the work as a task of its own: a call that was begun runs to its end, whoever goes away.
    async fn detached<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F + Send) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DatabaseError>> + Send + 'static,
    {
        match tokio::spawn(work(self.inner.clone())).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(DatabaseError::Unknown("the process is shutting down".to_owned())),
            },
        }
    }

    /// A statement that needs no lock.
    async fn at_once<T, W>(&self, work: W) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        W: FnOnce(&mut State) -> Result<T, DatabaseError> + Send + 'static,
    {
        self.detached(move |inner| async move {
            inner.statement().await;
            work(&mut inner.state())
        })
        .await
    }
}

impl Database for MemoryDatabase {
    async fn probe(&self) -> Result<(), DatabaseError> {
        self.at_once(|_| Ok(())).await
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        Ok(())
    }

    async fn add_version_column(&self, table: &TableName) -> Result<(), DatabaseError> {
        let table = table.clone();
        self.at_once(move |state| state.add_version_column(&table)).await
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        self.at_once(|state| Ok(state.list_tables())).await
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        let table = TableRef { database: database.clone(), table: table.clone() };
        self.at_once(move |state| state.introspect(table)).await
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (schema, keys) = (schema.clone(), keys.to_vec());
        self.at_once(move |state| keys.iter().map(|key| state.read(&schema, &key.to_bytes())).collect()).await
    }

    async fn search_columns(&self, table: &TableName) -> Result<Vec<ColumnName>, DatabaseError> {
        let table = table.clone();
        self.at_once(move |state| {
            let columns = &state.table(&table)?.definition.columns;
            Ok(columns.iter().map(|column| column.name.clone()).collect())
        })
        .await
    }

    async fn find(&self, search: Search<'_>) -> Result<Vec<FoundRow>, DatabaseError> {
        let (schema, column, value) = (search.schema.clone(), search.column.clone(), search.value.clone());
        let (after, limit) = (search.after.cloned(), search.limit);
        self.at_once(move |state| state.find(&schema, &column, &value, after.as_ref(), limit)).await
    }

    async fn take_ownership(&self, claims: &[ShardClaim], owner: &Owner) -> Result<(), DatabaseError> {
        let (claims, owner) = (claims.to_vec(), owner.clone());
        self.detached(move |inner| async move { transaction::take_ownership(&inner, claims, owner).await }).await
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        let tables = tables.to_vec();
        self.at_once(move |state| Ok(tables.iter().map(|table| state.shard_row(table, shard)).collect())).await
    }

    async fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Vec<ShardRow>, DatabaseError> {
        let tables = tables.to_vec();
        self.detached(move |inner| async move { transaction::announce(&inner, tables, shard, epoch).await }).await
    }

    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        if batch.changes.is_empty() {
            return Ok(Vec::new());
        }
        check_size(&batch)?;
        let prepared = Prepared::new(&batch)?;
        self.detached(move |inner| async move { transaction::apply(&inner, prepared).await }).await
    }

    async fn note_horizons(&self, table: &TableName, horizons: &[Horizon]) -> Result<(), DatabaseError> {
        let (table, horizons) = (table.clone(), horizons.to_vec());
        self.detached(move |inner| async move { transaction::note_horizons(&inner, table, horizons).await }).await
    }

    async fn purge_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        let (table, horizon) = (schema.table.table.clone(), horizon.clone());
        self.detached(move |inner| async move { transaction::purge(&inner, table, horizon, limit).await }).await
    }

    async fn count_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        let (table, horizon) = (schema.table.table.clone(), horizon.clone());
        self.detached(move |inner| async move { transaction::count_tombstones(&inner, &table, &horizon, limit).await })
            .await
    }

    fn max_batch_rows(&self, _: &TableSchema) -> usize {
        MAX_BATCH_ROWS
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        self.at_once(move |state| Ok(state.installation.shard_count(configured))).await
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        self.at_once(move |state| state.installation.next_epoch(shard, at_least)).await
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        self.at_once(|state| Ok(state.installation.catalog())).await
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        let entry = entry.clone();
        self.at_once(move |state| Ok(state.installation.enable(entry))).await
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        let table = table.clone();
        self.at_once(move |state| Ok(state.installation.disable(&table))).await
    }

    async fn rates(&self) -> Result<StoredRates, DatabaseError> {
        self.at_once(|state| Ok(state.installation.rates())).await
    }

    async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
        let table = table.clone();
        let set = move |state: &mut State| {
            state.installation.set_rate(table, rate);
            Ok(())
        };
        self.at_once(set).await
    }

    async fn holds(&self) -> Result<Holds, DatabaseError> {
        self.at_once(|state| Ok(state.installation.holds())).await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<u64, DatabaseError> {
        let hold = hold.clone();
        self.at_once(move |state| Ok(state.installation.set_hold(hold))).await
    }

    async fn lift_hold(
        &self,
        scope: &HoldScope,
        kind: HoldKind,
        now: jiff::Timestamp,
    ) -> Result<(bool, u64), DatabaseError> {
        let scope = scope.clone();
        self.at_once(move |state| Ok(state.installation.lift_hold(&scope, kind, now))).await
    }
}
