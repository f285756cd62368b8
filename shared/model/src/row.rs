//! A row: column names and their values.

use std::collections::BTreeMap;

use crate::{ColumnName, Value};

/// Columns of a record. An absent column is not NULL: it was not named.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    columns: BTreeMap<ColumnName, Value>,
}

impl Row {
    /// The value of a column, `None` if the row does not name it.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.columns.get(column)
    }

    /// Sets a column; returns what it held before.
    pub fn insert(&mut self, column: ColumnName, value: Value) -> Option<Value> {
        self.columns.insert(column, value)
    }

    /// Columns in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ColumnName, &Value)> {
        self.columns.iter()
    }

    /// How many columns the row names.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether the row names no column at all.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// This row with the columns of `changes` laid over it.
    #[must_use]
    pub fn merged_with(mut self, changes: Row) -> Row {
        self.columns.extend(changes.columns);
        self
    }

    /// Only the named columns; those that the row does not have are left out.
    #[must_use]
    pub fn select(&self, columns: &[ColumnName]) -> Row {
        columns.iter().filter_map(|name| self.columns.get(name).map(|v| (name.clone(), v.clone()))).collect()
    }
}

impl FromIterator<(ColumnName, Value)> for Row {
    fn from_iter<I: IntoIterator<Item = (ColumnName, Value)>>(columns: I) -> Self {
        Self { columns: columns.into_iter().collect() }
    }
}

impl IntoIterator for Row {
    type Item = (ColumnName, Value);
    type IntoIter = std::collections::btree_map::IntoIter<ColumnName, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.columns.into_iter()
    }
}
