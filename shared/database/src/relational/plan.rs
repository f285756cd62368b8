//! A batch made ready: checked, sorted by primary key, every value as it will be bound.
//!
//! It owns what it holds, for the task that carries it out outlives the caller who drops the call.

use std::{borrow::Cow, collections::HashSet};

use model::{Content, Key, KeyBytes, Shard, TableSchema};

use super::{dialect::Dialect, session::Failure, statement::Param};
use crate::{
    Batch, Change, DatabaseError, ErrorClass,
    batch::{Claim, claims, compare_keys, twice},
    verdict::Asked,
};

/// A batch, ready to be written.
pub(super) struct Plan {
    pub(super) schema: TableSchema,
    pub(super) claims: Vec<Claim>,
    /// Sorted by primary key.
    pub(super) changes: Vec<Planned>,
}

/// A change, ready to be written.
pub(super) struct Planned {
    /// Where it stood in the batch.
    pub(super) at: usize,
    pub(super) shard: Shard,
    pub(super) key_bytes: KeyBytes,
    pub(super) key: Vec<Param<'static>>,
    pub(super) asked: Asked,
    /// `None` is a delete.
    pub(super) row: Option<PlannedRow>,
}

/// The columns that an image names, in the table's order. An image of an older schema names fewer. If it was accepted as
/// a whole record the others get their default, for it says that nothing else is in them, and whoever reads it meanwhile is
/// told so; else, and where the default is no constant, they keep what they have.
pub(super) struct PlannedRow {
    pub(super) columns: Vec<usize>,
    pub(super) values: Vec<Param<'static>>,
    /// About what it takes in a statement.
    pub(super) wire_bytes: usize,
}

impl Plan {
    pub(super) fn new(dialect: &impl Dialect, batch: &Batch<'_>) -> Result<Self, DatabaseError> {
        let table = batch.schema.table.table.as_str();
        let mut changes: Vec<(usize, &Change)> = batch.changes.iter().enumerate().collect();
        changes.sort_by(|(_, a), (_, b)| compare_keys(&a.key, &b.key));

        let mut seen = HashSet::with_capacity(changes.len());
        let mut planned = Vec::with_capacity(changes.len());
        for (at, change) in changes {
            let change = plan_change(dialect, batch.schema, at, change).map_err(|failure| failure.on(table))?;
            if !seen.insert(change.key_bytes.clone()) {
                return Err(twice(&batch.schema.table));
            }
            planned.push(change);
        }
        Ok(Self { schema: batch.schema.clone(), claims: claims(batch)?, changes: planned })
    }
}

fn plan_change(dialect: &impl Dialect, schema: &TableSchema, at: usize, change: &Change) -> Result<Planned, Failure> {
    if change.key.0.len() != schema.key_columns.len() {
        let message = "the key has another number of columns than the table's primary key".to_owned();
        return Err(Failure::Refused { class: ErrorClass::Schema, code: Cow::Borrowed("key"), message });
    }
    let row = match &change.image.content {
        Content::Tombstone => None,
        Content::Row(row) => {
            if let Some((unknown, _)) = row.iter().find(|(name, _)| schema.column(name.as_str()).is_none()) {
                let message = format!("the record has a column {unknown}, which the table does not have");
                return Err(Failure::Refused { class: ErrorClass::Schema, code: Cow::Borrowed("column"), message });
            }
            let (mut columns, mut values) = (Vec::with_capacity(row.len()), Vec::with_capacity(row.len()));
            for (position, column) in schema.columns.iter().enumerate() {
                let in_key = schema.key_columns.iter().position(|&k| k == position);
                let named = row.get(column.name.as_str());
                let default = if named.is_none() && change.image.is_whole() { column.constant_default() } else { None };
                let value = match in_key.and_then(|in_key| change.key.0.get(in_key)) {
                    // As it is spelled in the record; the key has one spelling for all that are equal.
                    Some(form) => named.filter(|value| column.ty.key_form(value).as_ref() == Some(form)).or(Some(form)),
                    None => named.or(default.as_ref()),
                };
                if let Some(value) = value {
                    columns.push(position);
                    values.push(dialect.param_of(&column.ty, value).into_owned());
                }
            }
            let wire_bytes = values.iter().map(|value| value.wire_bytes() + 4).sum::<usize>() + 16;
            let limit = dialect.limits().bytes;
            if wire_bytes > limit {
                return Err(Failure::refused(
                    ErrorClass::Permanent,
                    "too-large",
                    format!(
                        "the record takes {wire_bytes} bytes, a statement takes {limit}: raise max_allowed_packet \
                         on the server and restart, or write smaller records"
                    ),
                ));
            }
            Some(PlannedRow { columns, values, wire_bytes })
        }
    };
    Ok(Planned {
        at,
        shard: change.shard,
        key_bytes: change.key.to_bytes(),
        key: bind_key(dialect, &change.key),
        asked: Asked { version: change.version, since: change.image.since, delete: row.is_none() },
        row,
    })
}

/// A key's values as they are bound.
pub(super) fn bind_key(dialect: &impl Dialect, key: &Key) -> Vec<Param<'static>> {
    key.0.iter().map(|value| dialect.param(value).into_owned()).collect()
}
