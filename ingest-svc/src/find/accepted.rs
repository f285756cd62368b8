//! A query that its table accepts.

use std::sync::Arc;

use database::{CatalogTable, Database};
use hot_store::RecordId;
use model::{ColumnName, KeyBytes, Row, TableIndex, Term, Value, Violation};

use super::{FindError, Query, page::Page};
use crate::{Core, Etag, Part, read::Found};

/// A query that the table accepts.
pub(super) struct Accepted {
    pub(super) table: Arc<CatalogTable>,
    pub(super) index: TableIndex,
    pub(super) field: ColumnName,
    pub(super) value: Value,
    /// What the index has of it.
    pub(super) term: Term,
    /// Those that are shown; empty: all.
    pub(super) columns: Vec<ColumnName>,
    pub(super) limit: usize,
    pub(super) page: Page,
}

impl Accepted {
    pub(super) fn new<H, L, D: Database>(core: &Core<H, L, D>, query: Query) -> Result<Self, FindError> {
        let Query { table, field, value, limit, page_token, columns } = query;
        let enabled = core.directory.table(&table).ok_or_else(|| FindError::TableNotEnabled(table.clone()))?;
        let invalid = |part, violations: Vec<Violation>| FindError::Invalid { part, violations };
        let names = std::slice::from_ref(&field);
        let mut named = enabled.schema.accept_selection(names).map_err(|wrong| invalid(Part::Field, wrong))?;
        let index = enabled.index.clone().filter(|index| named.first().is_some_and(|name| index.has(name)));
        let (Some(index), Some(field)) = (index, named.pop()) else {
            return Err(FindError::NotDeclared { table, field });
        };
        let Some(column) = enabled.schema.column(field.as_str()) else {
            return Err(FindError::NotDeclared { table, field: field.to_string() });
        };
        if core.unindexed.has(&table, &field) {
            return Err(FindError::Unindexed { table, field });
        }
        if value.is_null() {
            return Err(FindError::Null(field));
        }
        let value = column.accept(value).map_err(|wrong| invalid(Part::Value, vec![wrong]))?;
        let term = index.term(&field, &value).ok_or_else(|| FindError::Null(field.clone()))?;
        let columns = enabled.schema.accept_selection(&columns).map_err(|wrong| invalid(Part::Columns, wrong))?;
        let most = core.options.max_find_records;
        if limit > most {
            return Err(FindError::TooMany { limit, most });
        }
        let (limit, page) = (limit.max(1), Page::default());
        let mut accepted = Self { table: enabled, index, field, value, term, columns, limit, page };
        if !page_token.is_empty() {
            let page = Page::of_token(&page_token, &accepted.index, &accepted.seal());
            accepted.page = page.ok_or(FindError::PageToken)?;
        }
        Ok(accepted)
    }

    /// What a token belongs to.
    pub(super) fn seal(&self) -> Vec<u8> {
        [self.table.settings.namespace.as_str().as_bytes(), b"\0", &self.term.0].concat()
    }

    pub(super) fn record(&self, key: KeyBytes) -> RecordId {
        RecordId { namespace: self.table.settings.namespace.clone(), key }
    }

    /// Whether a row in the table's present form is what is looked for.
    pub(super) fn matches(&self, row: &Row) -> bool {
        self.index.matches(row, &self.field, &self.value)
    }
    /// What is answered of a record.
    pub(super) fn found(&self, row: Row, etag: Etag) -> Found {
        let row = if self.columns.is_empty() { row } else { row.select(&self.columns) };
        Found { row, etag: Some(etag) }
    }
}

/// About what a row takes in an answer.
pub(super) fn bytes_of(row: &Row) -> usize {
    let bytes_of = |(name, value): (&ColumnName, &Value)| {
        let value = match value {
            Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.len() + 16,
            Value::Bytes(bytes) => bytes.len() + 16,
            _ => 32,
        };
        name.as_str().len() + value
    };
    row.iter().map(bytes_of).sum()
}
