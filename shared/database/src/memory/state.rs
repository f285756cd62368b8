//! What the database holds.

use std::collections::BTreeMap;

use model::{ColumnName, Epoch, Key, KeyBytes, Shard, TableName, TableRef, TableSchema, Value, Version, VersionGuard};

use super::{installation::Installation, table::Table};
use crate::{DatabaseError, DatabaseRow, ErrorClass, FoundRow, Owner, ShardRow, batch::compare_keys, verdict::Found};

/// A row of `_sa_shard`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShardEntry {
    pub(super) owner: Owner,
    pub(super) high_water: Version,
    pub(super) purge_horizon: Version,
    pub(super) horizon: Version,
    pub(super) epoch: Epoch,
}

impl ShardEntry {
    /// A row that is made for this owner.
    pub(super) fn of(owner: Owner) -> Self {
        let zero = Version::ZERO;
        Self { owner, high_water: zero, purge_horizon: zero, horizon: zero, epoch: Epoch::ZERO }
    }
}

/// A row of `_sa_ledger`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) shard: Shard,
    pub(super) version: Version,
    pub(super) deleted: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<TableName, Table>,
    pub(super) shards: BTreeMap<(TableName, Shard), ShardEntry>,
    pub(super) ledger: BTreeMap<TableName, BTreeMap<KeyBytes, Entry>>,
    pub(super) installation: Installation,
}

/// A statement that was refused.
pub(super) fn refused(
    table: &TableName,
    class: ErrorClass,
    code: &'static str,
    message: impl Into<String>,
) -> DatabaseError {
    DatabaseError::Statement { table: table.to_string(), class, code: code.to_owned(), message: message.into() }
}

impl State {
    pub(super) fn list_tables(&self) -> Vec<TableName> {
        self.tables.keys().cloned().collect()
    }

    /// The table, for a statement about it.
    pub(super) fn table(&self, name: &TableName) -> Result<&Table, DatabaseError> {
        self.tables.get(name).ok_or_else(|| refused(name, ErrorClass::Schema, "table", "there is no such table"))
    }

    pub(super) fn table_mut(&mut self, name: &TableName) -> Result<&mut Table, DatabaseError> {
        self.tables.get_mut(name).ok_or_else(|| refused(name, ErrorClass::Schema, "table", "there is no such table"))
    }

    pub(super) fn introspect(&self, table: TableRef) -> Result<TableSchema, DatabaseError> {
        match self.tables.get(&table.table) {
            Some(found) => found.schema(table),
            None => Err(DatabaseError::NoSuchTable(table.table)),
        }
    }

    pub(super) fn add_version_column(&mut self, table: &TableName) -> Result<(), DatabaseError> {
        let found = self.tables.get_mut(table).ok_or_else(|| DatabaseError::NoSuchTable(table.clone()))?;
        found.definition.guard = VersionGuard::Column;
        Ok(())
    }

    pub(super) fn shard_row(&self, table: &TableName, shard: Shard) -> ShardRow {
        let row = |entry: &ShardEntry| {
            let ShardEntry { high_water, purge_horizon, horizon, epoch, .. } = *entry;
            ShardRow { high_water, purge_horizon, horizon, epoch }
        };
        self.shards.get(&(table.clone(), shard)).map(row).unwrap_or_default()
    }

    pub(super) fn entry(&self, table: &TableName, key: &KeyBytes) -> Option<&Entry> {
        self.ledger.get(table)?.get(key)
    }

    /// What there is of a key, for the verdict.
    pub(super) fn found(&self, schema: &TableSchema, key: &KeyBytes) -> Result<Found, DatabaseError> {
        let name = &schema.table.table;
        let row = self.table(name)?.rows.get(key);
        Ok(Found {
            row: row.map(|stored| if schema.guard == VersionGuard::Column { stored.version } else { Version::ZERO }),
            ledger: self.entry(name, key).map(|entry| entry.version),
        })
    }

    /// The rows that have this value in a column, by key.
    pub(super) fn find(
        &self,
        schema: &TableSchema,
        column: &ColumnName,
        value: &Value,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<FoundRow>, DatabaseError> {
        let table = self.table(&schema.table.table)?;
        let mut found = Vec::new();
        for (bytes, stored) in &table.rows {
            let form = |value| schema.column(column.as_str()).and_then(|column| column.ty.find_form(value));
            let held = stored.row.get(column.as_str()).and_then(form);
            if held.is_none() || held != form(value) {
                continue;
            }
            let row = table.select(schema, &stored.row)?;
            let Some(key) = schema.key_of(&row) else { continue };
            if after.is_none_or(|after| compare_keys(&key, after).is_gt()) {
                let version = self.found(schema, bytes)?.version().unwrap_or_default();
                found.push(FoundRow { key, version, row });
            }
        }
        found.sort_by(|a, b| compare_keys(&a.key, &b.key));
        found.truncate(limit);
        Ok(found)
    }

    /// What there is of a key, in full.
    pub(super) fn read(&self, schema: &TableSchema, key: &KeyBytes) -> Result<DatabaseRow, DatabaseError> {
        let version = self.found(schema, key)?.version().unwrap_or_default();
        let table = self.table(&schema.table.table)?;
        Ok(match table.rows.get(key) {
            Some(stored) => DatabaseRow::Present { version, row: table.select(schema, &stored.row)? },
            None if self.entry(&schema.table.table, key).is_some() => DatabaseRow::Deleted { version },
            None => DatabaseRow::Absent,
        })
    }
}
