//! The protocol, written once for all relational databases.
//!
//! What differs between them is a [`dialect::Dialect`], which is text only, and a [`session::Session`], which runs
//! statements. Everything that the promises rest on is here: the shard's lock, the guards, the ledger, the epochs.

mod apply;
pub(crate) mod dialect;
mod find;
mod holds;
mod installation;
#[cfg(any(feature = "laws", all(test, feature = "mysql", feature = "postgres", feature = "sqlite")))]
pub(crate) mod laws;
mod plan;
mod rates;
mod read;
pub(crate) mod session;
pub(crate) mod shapes;
mod shard_rows;
pub(crate) mod statement;
mod table;
pub(crate) mod temporal;
mod tombstones;
pub(crate) mod transaction;
mod write;

use std::{future::Future, sync::Arc};

use model::{ColumnName, DatabaseName, Epoch, Key, Shard, ShardCount, TableName, TableRef, TableSchema};
use tracing::Instrument as _;

use crate::{
    Applied, Batch, CatalogEntry, Database, DatabaseError, DatabaseRow, FoundRow, Hold, HoldKind, HoldScope, Holds,
    Horizon, Owner, Search, SetRate, ShardClaim, ShardRow, StoredRates,
    batch::{MAX_BATCH_ROWS, check_size},
};
use dialect::{Dialect, VERSION_COLUMN};
use session::Backend;

/// A relational database.
pub(crate) struct Relational<B> {
    backend: Arc<B>,
}

impl<B: Backend> Relational<B> {
    pub(crate) fn new(backend: B) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// Runs the work as a task of its own, so that a caller who goes away cancels nothing: what was begun on a
    /// connection is ended there.
    pub(crate) async fn detached<T, F>(&self, work: impl FnOnce(Arc<B>) -> F + Send) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DatabaseError>> + Send + 'static,
    {
        match tokio::spawn(work(self.backend.clone()).in_current_span()).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(DatabaseError::Unknown("the process is shutting down".to_owned())),
            },
        }
    }
}

impl<B: Backend> Database for Relational<B> {
    async fn probe(&self) -> Result<(), DatabaseError> {
        self.detached(move |backend| async move { installation::probe(&*backend).await }).await
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        self.detached(move |backend| async move { installation::prepare(&*backend).await }).await
    }

    async fn add_version_column(&self, table: &TableName) -> Result<(), DatabaseError> {
        let table = table.clone();
        self.detached(move |backend| async move {
            not_taken(backend.dialect(), &table)?;
            let mut session = backend.session().await.map_err(|failure| failure.on(table.as_str()))?;
            backend.add_version_column(&mut session, &table).await
        })
        .await
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        self.detached(move |backend| async move {
            let mut session = backend.session().await.map_err(|failure| failure.on("the list of tables"))?;
            backend.list_tables(&mut session).await
        })
        .await
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        let (database, table) = (database.clone(), table.clone());
        self.detached(move |backend| async move {
            not_taken(backend.dialect(), &table)?;
            let mut session = backend.session().await.map_err(|failure| failure.on(table.as_str()))?;
            backend.introspect(&mut session, &database, &table).await
        })
        .await
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = read::Wanted::new(self.backend.dialect(), schema, keys);
        self.detached(move |backend| async move { read::read(&*backend, wanted).await }).await
    }

    async fn search_columns(&self, table: &TableName) -> Result<Vec<ColumnName>, DatabaseError> {
        let table = table.clone();
        self.detached(move |backend| async move {
            let mut session = backend.session().await.map_err(|failure| failure.on(table.as_str()))?;
            let columns = backend.leading_columns(&mut session, &table).await?;
            Ok(columns.into_iter().filter_map(|column| ColumnName::new(column).ok()).collect())
        })
        .await
    }

    async fn find(&self, search: Search<'_>) -> Result<Vec<FoundRow>, DatabaseError> {
        let Some(wanted) = find::Wanted::new(self.backend.dialect(), &search) else { return Ok(Vec::new()) };
        self.detached(move |backend| async move { find::find(&*backend, wanted).await }).await
    }

    async fn take_ownership(&self, claims: &[ShardClaim], owner: &Owner) -> Result<(), DatabaseError> {
        if claims.is_empty() {
            return Ok(());
        }
        let (claims, owner) = (claims.to_vec(), owner.clone());
        self.detached(move |backend| async move { shard_rows::take(&*backend, claims, &owner).await }).await
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        let tables = tables.to_vec();
        self.detached(move |backend| async move { shard_rows::read(&*backend, &tables, shard).await }).await
    }

    async fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Vec<ShardRow>, DatabaseError> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let tables = tables.to_vec();
        self.detached(move |backend| async move { shard_rows::announce(&*backend, &tables, shard, epoch).await }).await
    }

    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        if batch.changes.is_empty() {
            return Ok(Vec::new());
        }
        check_size(&batch)?;
        let plan = plan::Plan::new(self.backend.dialect(), &batch)?;
        self.detached(move |backend| async move { apply::apply(&*backend, &plan).await }).await
    }

    async fn note_horizons(&self, table: &TableName, horizons: &[Horizon]) -> Result<(), DatabaseError> {
        if horizons.is_empty() {
            return Ok(());
        }
        let (table, mut horizons) = (table.clone(), horizons.to_vec());
        horizons.sort_by_key(|horizon| horizon.shard);
        self.detached(move |backend| async move { shard_rows::note_horizons(&*backend, &table, &horizons).await }).await
    }

    async fn purge_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        let (table, horizon, limit) = (schema.table.table.clone(), horizon.clone(), limit.min(MAX_BATCH_ROWS));
        self.detached(move |backend| async move { tombstones::purge(&*backend, &table, &horizon, limit).await }).await
    }

    async fn count_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        let (table, horizon, limit) = (schema.table.table.clone(), horizon.clone(), limit.min(MAX_BATCH_ROWS));
        self.detached(move |backend| async move { tombstones::count(&*backend, &table, &horizon, limit).await }).await
    }

    fn max_batch_rows(&self, _schema: &TableSchema) -> usize {
        MAX_BATCH_ROWS
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        self.detached(move |backend| async move { installation::shard_count(&*backend, configured).await }).await
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        self.detached(move |backend| async move { installation::next_epoch(&*backend, shard, at_least).await }).await
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        self.detached(move |backend| async move { installation::catalog(&*backend).await }).await
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        let entry = entry.clone();
        self.detached(move |backend| async move { installation::enable(&*backend, &entry).await }).await
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        let table = table.clone();
        self.detached(move |backend| async move { installation::disable(&*backend, &table).await }).await
    }

    async fn rates(&self) -> Result<StoredRates, DatabaseError> {
        self.detached(|backend| async move { rates::rates(&*backend).await }).await
    }

    async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
        let table = table.clone();
        self.detached(move |backend| async move { rates::set(&*backend, &table, rate).await }).await
    }

    async fn holds(&self) -> Result<Holds, DatabaseError> {
        self.detached(|backend| async move { holds::holds(&*backend).await }).await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<u64, DatabaseError> {
        let hold = hold.clone();
        self.detached(move |backend| async move { holds::set(&*backend, &hold).await }).await
    }

    async fn lift_hold(
        &self,
        scope: &HoldScope,
        kind: HoldKind,
        now: jiff::Timestamp,
    ) -> Result<(bool, u64), DatabaseError> {
        let scope = scope.clone();
        self.detached(move |backend| async move { holds::lift(&*backend, &scope, kind, now).await }).await
    }
}

/// Whether a table is one of ours.
pub(crate) fn is_system_table(name: &str) -> bool {
    name.to_ascii_lowercase().starts_with("_sa_")
}

/// Refuses a table by its name alone. Whoever could write our own tables through us could say what was drained, and who
/// drains.
fn not_taken(dialect: &impl Dialect, table: &TableName) -> Result<(), DatabaseError> {
    let reason = if is_system_table(table.as_str()) {
        "it is one of our own tables, or is named like one: name it otherwise"
    } else if let Some(reason) = dialect.refuses_table(table.as_str()) {
        reason
    } else {
        return Ok(());
    };
    Err(DatabaseError::Unsupported { table: table.clone(), reason: reason.to_owned() })
}

/// Whether a column is one of ours.
pub(crate) fn is_version_column(name: &str) -> bool {
    name.eq_ignore_ascii_case(VERSION_COLUMN)
}

/// Why a table is refused that has a column which the database numbers; `undo` says how it is taken from it.
pub(crate) fn numbered(column: &str, by: &str, undo: &str) -> String {
    format!(
        "column {column} is numbered by {by}: a record has to be whole when it is accepted, long before the database sees it, \
         and numbers handed out here would meet those that the database hands out to others who write to the table; let the \
         client make the value, such as a UUID or a number that it draws for itself, and take the numbering away: {undo}"
    )
}

/// Why a table is refused whose rows the database itself changes together with others.
pub(crate) fn cascading(table: &TableName, constraint: &str) -> DatabaseError {
    let reason = format!(
        "its foreign key {constraint} changes or deletes rows of it when their parents change (CASCADE, SET NULL), and the hot \
         store would go on with the rows as they were: make it RESTRICT or NO ACTION, and let clients delete the children"
    );
    DatabaseError::Unsupported { table: table.clone(), reason }
}
