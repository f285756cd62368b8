//! A row: columns by name.

use std::collections::BTreeMap;

use proto::v1;

use crate::{ClientError, Value};

/// Columns of a record. A column that is left out is not NULL: it was not named.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    columns: BTreeMap<String, Value>,
}

impl Row {
    /// A row without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// This row with a column set.
    #[must_use]
    pub fn set(mut self, column: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(column, value);
        self
    }

    /// Sets a column; returns what it held before.
    pub fn insert(&mut self, column: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.columns.insert(column.into(), value.into())
    }

    /// A column's value; `None` if the row does not name it.
    pub fn get(&self, column: &str) -> Option<&Value> {
        self.columns.get(column)
    }

    /// The columns in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.columns.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many columns the row names.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Only the columns named, for example those of the key.
    #[must_use]
    pub fn select<S: AsRef<str>>(&self, columns: &[S]) -> Self {
        columns
            .iter()
            .filter_map(|name| self.columns.get_key_value(name.as_ref()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// No fewer bytes than the row has in a message: per column two tags and lengths around the name, and three
    /// around the value.
    pub(crate) fn bytes_at_most(&self) -> usize {
        16 + self.columns.iter().map(|(name, value)| 48 + name.len() + value.payload_bytes()).sum::<usize>()
    }

    pub(crate) fn to_proto(&self) -> v1::Row {
        v1::Row { columns: self.columns.iter().map(|(name, value)| (name.clone(), value.to_proto())).collect() }
    }

    pub(crate) fn from_proto(row: v1::Row) -> Result<Self, ClientError> {
        row.columns
            .into_iter()
            .map(|(name, value)| match Value::from_proto(value) {
                Ok(value) => Ok((name, value)),
                Err(problem) => Err(ClientError::BadAnswer(format!("column {name}: {problem}"))),
            })
            .collect()
    }
}

impl FromIterator<(String, Value)> for Row {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(columns: I) -> Self {
        Self { columns: columns.into_iter().collect() }
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Row {
    fn from(columns: [(&str, Value); N]) -> Self {
        columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl IntoIterator for Row {
    type Item = (String, Value);
    type IntoIter = std::collections::btree_map::IntoIter<String, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.columns.into_iter()
    }
}
