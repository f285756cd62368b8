//! What a person at the database's own prompt would do and see: past the protocol.

use model::{Epoch, Key, KeyBytes, Row, Shard, TableName, TableRef, Version};

use super::{
    MemoryDatabase, MemoryTable,
    table::{Stored, Table},
};
use crate::{CatalogEntry, DatabaseError, DatabaseRow, Owner};

/// A shard's row, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardState {
    /// Who owns it.
    pub owner: Owner,
    /// The highest version that any transaction has decided on.
    pub high_water: Version,
    /// At or below it nothing absent is inserted.
    pub purge_horizon: Version,
    /// Up to where readers of the database see all accepted writes.
    pub horizon: Version,
    /// The epoch of the newest opening that was announced.
    pub epoch: Epoch,
}

impl MemoryDatabase {
    /// Makes a table, or alters it.
    pub fn define_table(&self, name: TableName, definition: MemoryTable) {
        let mut state = self.inner.state();
        match state.tables.get_mut(&name) {
            Some(table) => table.alter(definition),
            None => {
                state.tables.insert(name.clone(), Table::new(name, definition));
            }
        }
    }

    /// Drops a table with its rows.
    pub fn drop_table(&self, name: &TableName) {
        self.inner.state().tables.remove(name);
    }

    /// Writes a row as somebody does who knows nothing of us: a new one has version 0, another one keeps its own.
    ///
    /// # Errors
    /// If the table does not take it, or lacks its key.
    pub fn write_row(&self, table: &TableName, row: Row) -> Result<(), DatabaseError> {
        let mut state = self.inner.state();
        let table = state.table_mut(table)?;
        let names = table.definition.key.iter().map(|&at| table.definition.columns[at].name.as_str());
        let key = names.map(|name| row.get(name).cloned().unwrap_or(model::Value::Null)).collect();
        let key = Key(key).to_bytes();
        let there = table.rows.get(&key);
        let version = there.map_or(Version::ZERO, |stored| stored.version);
        let row = table.complete(&row, there.map(|stored| &stored.row))?;
        table.put(key, Stored { version, row })
    }

    /// Removes a row as somebody does who knows nothing of us; whether it was there.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn remove_row(&self, table: &TableName, key: &Key) -> Result<bool, DatabaseError> {
        Ok(self.inner.state().table_mut(table)?.rows.remove(&key.to_bytes()).is_some())
    }

    /// Writes a row or a tombstone of ours with its version, as an earlier transaction would have left it; `Absent`
    /// removes both.
    ///
    /// # Errors
    /// If the table does not take it.
    pub fn set_record(
        &self,
        table: &TableName,
        shard: Shard,
        key: &Key,
        row: DatabaseRow,
    ) -> Result<(), DatabaseError> {
        let mut state = self.inner.state();
        let key = key.to_bytes();
        let found = state.table_mut(table)?;
        found.rows.remove(&key);
        let guard = found.definition.guard;
        let entry = |version, deleted| super::state::Entry { shard, version, deleted };
        let entry = match row {
            DatabaseRow::Present { version, row } => {
                let row = found.complete(&row, None)?;
                let in_row = guard == model::VersionGuard::Column;
                let stored = Stored { version: if in_row { version } else { Version::ZERO }, row };
                found.put(key.clone(), stored)?;
                (!in_row && version > Version::ZERO).then(|| entry(version, false))
            }
            DatabaseRow::Deleted { version } => Some(entry(version, true)),
            DatabaseRow::Absent => None,
        };
        let ledger = state.ledger.entry(table.clone()).or_default();
        match entry {
            Some(entry) => ledger.insert(key, entry),
            None => ledger.remove(&key),
        };
        Ok(())
    }

    /// All rows and tombstones of a table with their versions, in the order of their canonical keys.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn records(&self, table: &TableName) -> Result<Vec<(KeyBytes, DatabaseRow)>, DatabaseError> {
        let state = self.inner.state();
        let found = state.table(table)?;
        let ledger = state.ledger.get(table);
        let mut records: std::collections::BTreeMap<KeyBytes, DatabaseRow> = ledger
            .into_iter()
            .flatten()
            .map(|(key, entry)| (key.clone(), DatabaseRow::Deleted { version: entry.version }))
            .collect();
        for (key, stored) in &found.rows {
            let in_ledger = state.entry(table, key).map(|entry| entry.version).unwrap_or_default();
            let version = stored.version.max(in_ledger);
            records.insert(key.clone(), DatabaseRow::Present { version, row: stored.row.clone() });
        }
        Ok(records.into_iter().collect())
    }

    /// How many entries the ledger has of a table.
    pub fn ledger_entries(&self, table: &TableName) -> usize {
        self.inner.state().ledger.get(table).map_or(0, std::collections::BTreeMap::len)
    }

    /// A shard's row; `None` if it was never taken, nor opened.
    pub fn shard_state(&self, table: &TableName, shard: Shard) -> Option<ShardState> {
        let state = self.inner.state();
        let entry = state.shards.get(&(table.clone(), shard))?;
        Some(ShardState {
            owner: entry.owner.clone(),
            high_water: entry.high_water,
            purge_horizon: entry.purge_horizon,
            horizon: entry.horizon,
            epoch: entry.epoch,
        })
    }

    /// Writes a shard's row.
    pub fn set_shard_state(&self, table: &TableName, shard: Shard, to: ShardState) {
        let ShardState { owner, high_water, purge_horizon, horizon, epoch } = to;
        let entry = super::state::ShardEntry { owner, high_water, purge_horizon, horizon, epoch };
        self.inner.state().shards.insert((table.clone(), shard), entry);
    }

    /// What `SELECT MIN(horizon) FROM _sa_shard WHERE table_name = ...` gives.
    pub fn horizon(&self, table: &TableName) -> Option<Version> {
        let state = self.inner.state();
        state.shards.iter().filter(|((name, _), _)| name == table).map(|(_, entry)| entry.horizon).min()
    }

    /// Takes a table's entry out of the catalog, as nobody does but by hand.
    pub fn forget_entry(&self, table: &TableRef) -> Option<CatalogEntry> {
        self.inner.state().installation.forget(table)
    }
}
