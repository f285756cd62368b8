//! A database that a test can take away or slow down; it keeps the contract of `Database` as far as ingest asks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use database::{
    Applied, Batch, CatalogEntry, Database, DatabaseError, DatabaseRow, FoundRow, Hold, HoldKind, HoldScope, Holds,
    Horizon, Owner, Search, SetRate, ShardClaim, ShardRow, StoredRates,
};
use model::{
    Column, ColumnDefault, ColumnName, ColumnType, Content, DatabaseName, Epoch, Key, KeyBytes, Row, Shard, ShardCount,
    TableName, TableRef, TableSchema, Value, VersionGuard,
};
use tokio::sync::Notify;

#[derive(Default)]
struct State {
    tables: BTreeMap<TableName, Option<Vec<Column>>>,
    rows: HashMap<(TableName, KeyBytes), DatabaseRow>,
    /// Rows in which the value of a column can't be read.
    spoilt: HashMap<KeyBytes, &'static str>,
    shard_rows: HashMap<(TableName, Shard), ShardRow>,
    without_index: BTreeSet<&'static str>,
    catalog: BTreeMap<TableRef, CatalogEntry>,
    holds: Holds,
    rates: BTreeMap<TableRef, SetRate>,
    generation: u64,
    epochs: HashMap<Shard, u32>,
    shards: Option<u32>,
}

#[derive(Default)]
pub struct BentDatabase {
    state: Mutex<State>,
    away: AtomicBool,
    pub reads: AtomicUsize,
    pub finds: AtomicUsize,
    /// The most rows that a search was for.
    pub most_wanted: AtomicUsize,
    pub introspections: AtomicUsize,
    hold: AtomicBool,
    held: Notify,
    arrived: Notify,
}

pub fn column(name: &str, ty: ColumnType, nullable: bool, default: ColumnDefault) -> Column {
    Column { name: ColumnName::new(name).unwrap(), ty, nullable, default, on_update_now: false }
}

pub fn payment_columns() -> Vec<Column> {
    let text = ColumnType::Text { max_chars: Some(2000), max_bytes: None };
    vec![
        column("id", text.clone(), false, ColumnDefault::None),
        column("amount", ColumnType::Int { bits: 64 }, false, ColumnDefault::None),
        column("status", text.clone(), false, ColumnDefault::Constant(Value::Text("new".into()))),
        column("note", text, true, ColumnDefault::None),
    ]
}

impl BentDatabase {
    /// Takes a table out of the catalog, as nobody does but by hand.
    pub fn forget_table(&self, table: &TableRef) -> CatalogEntry {
        let mut state = self.state.lock().unwrap();
        state.generation += 1;
        state.catalog.remove(table).unwrap()
    }

    /// No index begins with that column.
    pub fn drop_index(&self, column: &'static str) {
        self.state.lock().unwrap().without_index.insert(column);
    }

    /// An index begins with that column again.
    pub fn make_index(&self, column: &'static str) {
        self.state.lock().unwrap().without_index.remove(column);
    }

    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// A table; without columns it can't be carried.
    pub fn make_table(&self, name: &str, columns: Option<Vec<Column>>) {
        self.state.lock().unwrap().tables.insert(TableName::new(name).unwrap(), columns);
    }

    /// Drops a table; the catalog keeps it.
    pub fn drop_table(&self, name: &str) {
        self.state.lock().unwrap().tables.remove(&TableName::new(name).unwrap());
    }

    pub fn set_row(&self, table: &str, key: &Key, row: DatabaseRow) {
        let table = TableName::new(table).unwrap();
        self.state.lock().unwrap().rows.insert((table, key.to_bytes()), row);
    }

    pub fn row(&self, table: &str, key: &Key) -> DatabaseRow {
        let table = TableName::new(table).unwrap();
        self.state.lock().unwrap().rows.get(&(table, key.to_bytes())).cloned().unwrap_or(DatabaseRow::Absent)
    }

    /// The value of that column can't be read any more.
    pub fn spoil(&self, key: &Key, column: &'static str) {
        self.state.lock().unwrap().spoilt.insert(key.to_bytes(), column);
    }

    pub fn set_shard_row(&self, table: &str, shard: Shard, row: ShardRow) {
        self.state.lock().unwrap().shard_rows.insert((TableName::new(table).unwrap(), shard), row);
    }

    /// From now on a read has its answer, but does not return before [`BentDatabase::release_reads`].
    pub fn hold_reads(&self) {
        self.hold.store(true, Ordering::SeqCst);
    }

    /// Waits for a read that is held.
    pub async fn held_read(&self) {
        self.arrived.notified().await;
    }

    pub fn release_reads(&self) {
        self.hold.store(false, Ordering::SeqCst);
        self.held.notify_waiters();
    }

    fn ask(&self) -> Result<std::sync::MutexGuard<'_, State>, DatabaseError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("it was taken away".into()));
        }
        Ok(self.state.lock().unwrap())
    }
}

impl Database for BentDatabase {
    async fn probe(&self) -> Result<(), DatabaseError> {
        self.ask().map(drop)
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        self.ask().map(drop)
    }

    async fn add_version_column(&self, _: &TableName) -> Result<(), DatabaseError> {
        self.ask().map(drop)
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        Ok(self.ask()?.tables.keys().cloned().collect())
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        self.introspections.fetch_add(1, Ordering::SeqCst);
        let state = self.ask()?;
        let columns = match state.tables.get(table) {
            None => return Err(DatabaseError::NoSuchTable(table.clone())),
            Some(None) => {
                return Err(DatabaseError::Unsupported { table: table.clone(), reason: "no primary key".into() });
            }
            Some(Some(columns)) => columns.clone(),
        };
        Ok(TableSchema {
            table: TableRef { database: database.clone(), table: table.clone() },
            columns,
            key_columns: vec![0],
            group: vec![0],
            has_secondary_unique: false,
            guard: VersionGuard::Ledger,
        })
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let rows = {
            let state = self.ask()?;
            let is_spoilt =
                |key: &Key| state.spoilt.get(&key.to_bytes()).is_some_and(|column| schema.column(column).is_some());
            if keys.iter().any(is_spoilt) {
                return Err(DatabaseError::Statement {
                    table: schema.table.to_string(),
                    class: database::ErrorClass::Permanent,
                    code: "unreadable".into(),
                    message: "told to".into(),
                });
            }
            let row = |key: &Key| state.rows.get(&(schema.table.table.clone(), key.to_bytes())).cloned();
            keys.iter().map(|key| row(key).unwrap_or(DatabaseRow::Absent)).collect()
        };
        if self.hold.load(Ordering::SeqCst) {
            let released = self.held.notified();
            self.arrived.notify_one();
            released.await;
        }
        Ok(rows)
    }

    async fn search_columns(&self, table: &TableName) -> Result<Vec<ColumnName>, DatabaseError> {
        let state = self.ask()?;
        let columns = state.tables.get(table).cloned().flatten().unwrap_or_default();
        let has_index = |column: &Column| !state.without_index.contains(column.name.as_str());
        Ok(columns.into_iter().filter(has_index).map(|column| column.name).collect())
    }

    async fn find(&self, search: Search<'_>) -> Result<Vec<FoundRow>, DatabaseError> {
        let found = {
            let state = self.ask()?;
            let mut found: Vec<FoundRow> = state
                .rows
                .iter()
                .filter(|((table, _), _)| *table == search.schema.table.table)
                .filter_map(|((_, key), row)| match row {
                    DatabaseRow::Present { version, row } if row.get(search.column.as_str()) == Some(search.value) => {
                        Some((key, FoundRow { key: key.decode().unwrap(), version: *version, row: row.clone() }))
                    }
                    _ => None,
                })
                .filter(|(key, _)| search.after.is_none_or(|after| **key > after.to_bytes()))
                .map(|(_, found)| found)
                .collect();
            found.sort_by_key(|found| found.key.to_bytes());
            found.truncate(search.limit);
            found
        };
        self.finds.fetch_add(1, Ordering::SeqCst);
        self.most_wanted.fetch_max(search.limit, Ordering::SeqCst);
        if self.hold.load(Ordering::SeqCst) {
            let released = self.held.notified();
            self.arrived.notify_one();
            released.await;
        }
        Ok(found)
    }

    async fn take_ownership(&self, _: &[ShardClaim], _: &Owner) -> Result<(), DatabaseError> {
        self.ask().map(drop)
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        let state = self.ask()?;
        let zero = ShardRow::default();
        let row = |table: &TableName| state.shard_rows.get(&(table.clone(), shard)).cloned();
        Ok(tables.iter().map(|table| row(table).unwrap_or(zero)).collect())
    }

    async fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Vec<ShardRow>, DatabaseError> {
        let mut state = self.ask()?;
        let announce = |table: &TableName| {
            let row = state.shard_rows.entry((table.clone(), shard)).or_default();
            row.epoch = row.epoch.max(epoch);
            *row
        };
        Ok(tables.iter().map(announce).collect())
    }

    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        let mut state = self.ask()?;
        let mut applied = Vec::new();
        for change in batch.changes {
            let table = batch.schema.table.table.clone();
            let zero = ShardRow::default();
            let shard_row = state.shard_rows.entry((table.clone(), change.shard)).or_insert(zero);
            shard_row.high_water = shard_row.high_water.max(change.version);
            let row = state.rows.entry((table, change.key.to_bytes())).or_insert(DatabaseRow::Absent);
            let current = match row {
                DatabaseRow::Present { version, .. } | DatabaseRow::Deleted { version } => Some(*version),
                DatabaseRow::Absent => None,
            };
            applied.push(match current {
                Some(current) if current == change.version => Applied::Same,
                Some(current) if current > change.version => Applied::Stale { current: row.clone() },
                _ => {
                    let version = change.version;
                    *row = match &change.image.content {
                        Content::Row(columns) if change.image.is_whole() => {
                            DatabaseRow::Present { version, row: batch.schema.with_constant_defaults(columns.clone()) }
                        }
                        Content::Row(columns) => {
                            let there = match row {
                                DatabaseRow::Present { row, .. } => row.clone(),
                                DatabaseRow::Deleted { .. } | DatabaseRow::Absent => Row::default(),
                            };
                            DatabaseRow::Present { version, row: there.merged_with(columns.clone()) }
                        }
                        Content::Tombstone => DatabaseRow::Deleted { version },
                    };
                    Applied::Written
                }
            });
        }
        Ok(applied)
    }

    async fn note_horizons(&self, table: &TableName, horizons: &[Horizon]) -> Result<(), DatabaseError> {
        let mut state = self.ask()?;
        for horizon in horizons {
            let row = state.shard_rows.entry((table.clone(), horizon.shard)).or_default();
            if row.epoch <= horizon.epoch {
                row.horizon = row.horizon.max(horizon.version);
            }
        }
        Ok(())
    }

    async fn count_tombstones(&self, _: &TableSchema, _: &Horizon, _: usize) -> Result<u64, DatabaseError> {
        self.ask().map(|_| 0)
    }

    async fn purge_tombstones(&self, _: &TableSchema, _: &Horizon, _: usize) -> Result<u64, DatabaseError> {
        self.ask().map(|_| 0)
    }

    fn max_batch_rows(&self, _: &TableSchema) -> usize {
        1000
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        Ok(*self.ask()?.shards.get_or_insert(configured.get().into()))
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        let mut state = self.ask()?;
        let epoch = state.epochs.entry(shard).or_default();
        *epoch = (*epoch).max(at_least.0) + 1;
        Ok(Epoch(*epoch))
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        let state = self.ask()?;
        Ok((state.generation, state.catalog.values().cloned().collect()))
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        let mut state = self.ask()?;
        let clashes = |other: &CatalogEntry| {
            other.table != entry.table
                && (other.settings.topic == entry.settings.topic
                    || other.settings.namespace == entry.settings.namespace)
        };
        if state.catalog.values().any(clashes) {
            return Ok(false);
        }
        state.generation += 1;
        state.catalog.insert(entry.table.clone(), CatalogEntry { enabled: true, ..entry.clone() });
        Ok(true)
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        let mut state = self.ask()?;
        state.generation += 1;
        Ok(state.catalog.get_mut(table).is_some_and(|entry| std::mem::replace(&mut entry.enabled, false)))
    }

    async fn rates(&self) -> Result<StoredRates, DatabaseError> {
        Ok(self.ask()?.rates.iter().map(|(table, rate)| (table.clone(), Ok(*rate))).collect())
    }

    async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
        let mut state = self.ask()?;
        match rate {
            Some(rate) => drop(state.rates.insert(table.clone(), rate)),
            None => drop(state.rates.remove(table)),
        }
        Ok(())
    }

    async fn holds(&self) -> Result<Holds, DatabaseError> {
        Ok(self.ask()?.holds.clone())
    }

    async fn set_hold(&self, hold: &Hold) -> Result<u64, DatabaseError> {
        let mut state = self.ask()?;
        state.holds.revision += 1;
        state.holds.list.retain(|other| (&other.scope, other.kind) != (&hold.scope, hold.kind));
        state.holds.list.push(hold.clone());
        Ok(state.holds.revision)
    }

    async fn lift_hold(
        &self,
        scope: &HoldScope,
        kind: HoldKind,
        now: jiff::Timestamp,
    ) -> Result<(bool, u64), DatabaseError> {
        let mut state = self.ask()?;
        let before = state.holds.list.len();
        state.holds.revision = (state.holds.revision + 1).max(now.as_microsecond().unsigned_abs());
        state.holds.list.retain(|other| (&other.scope, other.kind) != (scope, kind));
        Ok((state.holds.list.len() < before, state.holds.revision))
    }
}
