//! A table in memory: what it is, and what it takes.

use std::collections::BTreeMap;

use model::{
    Column, ColumnDefault, ColumnName, ColumnType, KeyBytes, Row, TableName, TableRef, TableSchema, Value, Version,
    VersionGuard,
};

use super::state::refused;
use crate::{DatabaseError, ErrorClass};

/// A check constraint: rows are refused in which the column, divided by a number, leaves that remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryCheck {
    /// The position of the column; it holds integers.
    pub column: usize,
    /// What its values are divided by.
    pub divisor: i64,
    /// What may not be left over.
    pub remainder: i64,
    /// As what the row is refused.
    pub class: ErrorClass,
}

impl MemoryCheck {
    fn refuses(&self, column: &Column, row: &Row) -> bool {
        let Some(Value::Int64(value)) = row.get(column.name.as_str()) else { return false };
        value.checked_rem_euclid(self.divisor) == Some(self.remainder)
    }
}

/// What a table is.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryTable {
    /// Its columns, without our own.
    pub columns: Vec<Column>,
    /// The columns of the primary key, by position, in the key's order. A table without any can't be carried.
    pub key: Vec<usize>,
    /// Further unique keys, by position of their columns.
    pub unique: Vec<Vec<usize>>,
    /// What its rows may not be.
    pub checks: Vec<MemoryCheck>,
    /// Whether its rows carry their versions themselves.
    pub guard: VersionGuard,
}

impl MemoryTable {
    /// A table whose first column is its key, with a version column.
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, key: vec![0], unique: Vec::new(), checks: Vec::new(), guard: VersionGuard::Column }
    }

    /// A column that may be NULL and has no default.
    ///
    /// # Errors
    /// If it can't be a column's name.
    pub fn column(name: &str, ty: ColumnType) -> Result<Column, model::InvalidName> {
        let name = ColumnName::new(name)?;
        Ok(Column { name, ty, nullable: true, default: ColumnDefault::None, on_update_now: false })
    }
}

/// A row that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    /// The row's own version: 0 in a table without version column, and in a row of somebody else.
    pub(super) version: Version,
    pub(super) row: Row,
}

pub(super) struct Table {
    name: TableName,
    pub(super) definition: MemoryTable,
    pub(super) rows: BTreeMap<KeyBytes, Stored>,
}

impl Table {
    pub(super) fn new(name: TableName, definition: MemoryTable) -> Self {
        Self { name, definition, rows: BTreeMap::new() }
    }

    /// Alters it. Rows get the default, or NULL, of a column that they lack.
    pub(super) fn alter(&mut self, definition: MemoryTable) {
        for stored in self.rows.values_mut() {
            let held = std::mem::take(&mut stored.row);
            let value = |column: &Column| held.get(column.name.as_str()).cloned().unwrap_or_else(|| constant(column));
            stored.row = definition.columns.iter().map(|column| (column.name.clone(), value(column))).collect();
        }
        self.definition = definition;
    }

    pub(super) fn schema(&self, table: TableRef) -> Result<TableSchema, DatabaseError> {
        if self.definition.key.is_empty() {
            let reason = "it has no primary key: add one, records are found by it".to_owned();
            return Err(DatabaseError::Unsupported { table: table.table, reason });
        }
        Ok(TableSchema {
            table,
            columns: self.definition.columns.clone(),
            key_columns: self.definition.key.clone(),
            group: (0..self.definition.key.len()).collect(),
            has_secondary_unique: !self.definition.unique.is_empty(),
            guard: self.definition.guard,
        })
    }

    /// What `schema` knows of a row.
    pub(super) fn select(&self, schema: &TableSchema, row: &Row) -> Result<Row, DatabaseError> {
        let value = |column: &Column| {
            let value = row.get(column.name.as_str()).cloned();
            value.map(|value| (column.name.clone(), value)).ok_or_else(|| self.unknown_column(&column.name))
        };
        schema.columns.iter().map(value).collect()
    }

    fn unknown_column(&self, column: &ColumnName) -> DatabaseError {
        refused(&self.name, ErrorClass::Schema, "column", format!("there is no column {column}"))
    }

    /// A row as the table takes it: what `named` does not name comes from `there`, else from the defaults.
    pub(super) fn complete(&self, named: &Row, there: Option<&Row>) -> Result<Row, DatabaseError> {
        let known = |name: &ColumnName| self.definition.columns.iter().any(|column| column.name == *name);
        if let Some((unknown, _)) = named.iter().find(|(name, _)| !known(name)) {
            return Err(self.unknown_column(unknown));
        }
        let value = |column: &Column| {
            let name = column.name.as_str();
            let value = match (named.get(name), there) {
                (Some(value), _) => value.clone(),
                (None, Some(there)) => there.get(name).cloned().unwrap_or_else(|| constant(column)),
                (None, None) => constant(column),
            };
            self.check(column, value).map(|value| (column.name.clone(), value))
        };
        self.definition.columns.iter().map(value).collect()
    }

    fn check(&self, column: &Column, value: Value) -> Result<Value, DatabaseError> {
        match value {
            Value::Null if column.nullable => Ok(Value::Null),
            Value::Null => {
                let message = format!("column {} may not be NULL", column.name);
                Err(refused(&self.name, ErrorClass::Permanent, "not-null", message))
            }
            // Without the value.
            value => column.accept(value).map_err(|violation| {
                let message = format!("column {}: {}", column.name, violation.reason.as_str());
                refused(&self.name, ErrorClass::Permanent, "type", message)
            }),
        }
    }

    /// Writes a row; refused by a check, or if another one has a unique value of it.
    pub(super) fn put(&mut self, key: KeyBytes, stored: Stored) -> Result<(), DatabaseError> {
        let columns = &self.definition.columns;
        let mut checks = self.definition.checks.iter();
        if let Some(check) =
            checks.find(|it| columns.get(it.column).is_some_and(|column| it.refuses(column, &stored.row)))
        {
            return Err(refused(&self.name, check.class, "check", "a check refuses the row"));
        }
        for unique in &self.definition.unique {
            let taken = |other: &Row| {
                unique.iter().all(|&at| {
                    let name = self.definition.columns[at].name.as_str();
                    let value = stored.row.get(name);
                    value.is_some_and(|value| *value != Value::Null) && other.get(name) == value
                })
            };
            if self.rows.iter().any(|(other, held)| *other != key && taken(&held.row)) {
                return Err(refused(&self.name, ErrorClass::Dependent, "unique", "another row has a unique value"));
            }
        }
        self.rows.insert(key, stored);
        Ok(())
    }
}

/// What a row gets that does not name the column.
fn constant(column: &Column) -> Value {
    if let ColumnDefault::Constant(value) = &column.default { value.clone() } else { Value::Null }
}
