//! A table's names in quotes, and the pieces of statements that follow from its key.

use std::borrow::Cow;

use model::{Column, TableSchema, VersionGuard};

use super::{
    dialect::{Dialect, VERSION_COLUMN},
    statement::{Param, Statement},
};

/// A table as statements name it.
pub(super) struct TableText<'a, D> {
    pub(super) dialect: &'a D,
    pub(super) schema: &'a TableSchema,
    /// The table.
    pub(super) name: String,
    /// All columns of the schema.
    pub(super) columns: Vec<String>,
    /// How a value is written into each of them.
    pub(super) placeholders: Vec<Cow<'static, str>>,
    /// The columns of the key.
    pub(super) key: Vec<String>,
    /// The version column, in a table that has one.
    pub(super) version: Option<String>,
}

impl<'a, D: Dialect> TableText<'a, D> {
    pub(super) fn new(dialect: &'a D, schema: &'a TableSchema) -> Self {
        let quote = |column: &Column| dialect.quote(column.name.as_str());
        Self {
            dialect,
            schema,
            name: dialect.table(schema.table.table.as_str()),
            columns: schema.columns.iter().map(quote).collect(),
            placeholders: schema.columns.iter().map(|column| dialect.value_placeholder(&column.ty)).collect(),
            key: schema.key().map(quote).collect(),
            version: (schema.guard == VersionGuard::Column).then(|| dialect.quote(VERSION_COLUMN)),
        }
    }

    /// `column = value` for each column of the key.
    pub(super) fn push_key_equals<'p>(&self, statement: &mut Statement<'p>, key: &'p [Param<'static>]) {
        let columns = self.schema.key().zip(&self.key).zip(key);
        statement.list(columns, " AND ", |s, ((column, quoted), value)| {
            s.push(quoted).push(" = ").bind_in(&self.dialect.key_placeholder(&column.ty), value.by_ref());
        });
    }

    /// The condition that a row's key is one of `keys`.
    pub(super) fn push_key_in<'p>(
        &self,
        statement: &mut Statement<'p>,
        keys: impl Iterator<Item = &'p [Param<'static>]>,
    ) {
        if let ([quoted], Some(column)) = (self.key.as_slice(), self.schema.key().next()) {
            let placeholder = self.dialect.key_placeholder(&column.ty);
            statement.push(quoted).push(" IN (");
            statement.list(keys.flat_map(|key| key.first()), ", ", |s, value| {
                s.bind_in(&placeholder, value.by_ref());
            });
            statement.push(")");
        } else {
            // Both servers look each alternative up in the primary key; row constructors are scanned for by some.
            statement.push("(");
            statement.list(keys, ") OR (", |s, key| self.push_key_equals(s, key));
            statement.push(")");
        }
    }
}
