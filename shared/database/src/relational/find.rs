//! Finding rows by the value of a column.

use std::collections::HashMap;

use model::{Key, KeyBytes, Row, TableSchema, Value, Version};

use super::{
    dialect::Dialect,
    plan::bind_key,
    read::{ledger, stored_version},
    session::{Backend, Expected, Failure, INT, Purpose, Session},
    statement::{Param, Statement},
    table::TableText,
    transaction,
};
use crate::{DatabaseError, FoundRow, Search};

/// What is looked for, bound; it owns what it holds, for the task that carries it out outlives its caller.
pub(super) struct Wanted {
    schema: TableSchema,
    /// The column's position.
    column: usize,
    value: Param<'static>,
    after: Option<Vec<Param<'static>>>,
    limit: usize,
}

impl Wanted {
    /// `None`: there is no such column, or the value is NULL, which is equal to nothing.
    pub(super) fn new(dialect: &impl Dialect, search: &Search<'_>) -> Option<Self> {
        let column = search.schema.columns.iter().position(|column| column.name == *search.column)?;
        if search.value.is_null() {
            return None;
        }
        Some(Self {
            schema: search.schema.clone(),
            column,
            value: dialect.param(search.value).into_owned(),
            after: search.after.map(|key| bind_key(dialect, key)),
            limit: search.limit,
        })
    }
}

/// The rows, in the order of the primary key.
pub(super) async fn find<B: Backend>(backend: &B, wanted: Wanted) -> Result<Vec<FoundRow>, DatabaseError> {
    let name = wanted.schema.table.table.as_str();
    let mut session = backend.session().await.map_err(|failure| failure.on(name))?;
    let table = TableText::new(backend.dialect(), &wanted.schema);
    if table.version.is_some() {
        let found = rows(&mut session, &table, &wanted).await.map_err(|failure| failure.on(name))?;
        // Where somebody else put the row, our tombstone may still stand.
        if found.iter().all(|row| row.version > Version::ZERO) {
            return Ok(found);
        }
    }
    // A row and its entry in the ledger change places within one transaction: look at one moment.
    session.begin(Purpose::Snapshot).await.map_err(|failure| failure.on(name))?;
    let both = rows_and_ledger(&mut session, &table, &wanted).await.map_err(|failure| failure.on(name));
    transaction::finish(&mut session, name, both).await
}

async fn rows_and_ledger<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    wanted: &Wanted,
) -> Result<Vec<FoundRow>, Failure> {
    let mut found = rows(session, table, wanted).await?;
    let keys: Vec<KeyBytes> = found.iter().map(|row| row.key.to_bytes()).collect();
    let versions: HashMap<KeyBytes, Version> = ledger(session, table, &keys.iter().collect::<Vec<_>>()).await?;
    for (row, key) in found.iter_mut().zip(&keys) {
        row.version = row.version.max(versions.get(key).copied().unwrap_or_default());
    }
    Ok(found)
}

async fn rows<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    wanted: &Wanted,
) -> Result<Vec<FoundRow>, Failure> {
    let schema = table.schema;
    let all: Vec<usize> = (0..schema.columns.len()).collect();
    let mut found = Vec::new();
    let mut after = wanted.after.clone();
    let mut step = usize::MAX;
    loop {
        let room = step.min(wanted.limit - found.len());
        let fetched = match page(session, table, wanted, &all, after.as_deref(), room).await {
            Ok(fetched) => fetched,
            // It may be the fault of one row, behind which the others must be found all the same: down to that one.
            Err(Failure::Unreadable { .. }) if room > 1 => {
                step = room / 2;
                continue;
            }
            Err(Failure::Unreadable { column, problem }) => {
                let keys = page(session, table, wanted, &schema.key_columns, after.as_deref(), room).await?;
                let Some((_, values)) = keys.into_iter().next() else { return Ok(found) };
                let key = Key(values);
                // Not which: a key is a value of the row, and no value goes into a log.
                tracing::warn!(table = %schema.table, column, problem, "a row is left out of what is found: it can't be read");
                after = Some(bind_key(table.dialect, &key));
                step = usize::MAX;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let is_end = fetched.len() < room;
        let mut last = None;
        let mut left_out = 0;
        for (version, values) in fetched {
            // Also of a row that is left out: the pages go on behind it.
            last = Some(Key(schema.key_columns.iter().filter_map(|&at| values.get(at).cloned()).collect()));
            let row: Row = schema.columns.iter().map(|column| column.name.clone()).zip(values).collect();
            match schema.key_of(&row) {
                Some(key) => found.push(FoundRow { key, version, row }),
                None => left_out += 1,
            }
        }
        if left_out > 0 {
            tracing::warn!(table = %schema.table, rows = left_out, "rows are left out that no record can be: their keys are none of ours");
        }
        match last {
            Some(last) if !is_end && found.len() < wanted.limit => after = Some(bind_key(table.dialect, &last)),
            _ => return Ok(found),
        }
    }
}

/// The next rows: their versions, and the values of these columns.
async fn page<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    wanted: &Wanted,
    columns: &[usize],
    after: Option<&[Param<'static>]>,
    limit: usize,
) -> Result<Vec<(Version, Vec<Value>)>, Failure> {
    let of = columns.iter().map(|&at| &table.schema.columns[at]);
    let mut expected: Vec<Expected<'_>> =
        of.map(|column| Expected { name: column.name.as_str(), ty: &column.ty }).collect();
    expected.extend(table.version.is_some().then_some(INT));
    let fetched = session.fetch(statement(table, wanted, columns, after, limit), &expected).await?;
    let versioned = fetched.into_iter().map(|mut values| {
        let version = match &table.version {
            Some(_) => stored_version(values.pop())?,
            None => Version::ZERO,
        };
        Ok((version, values))
    });
    versioned.collect()
}

fn statement<'w, D: Dialect>(
    table: &TableText<'_, D>,
    wanted: &'w Wanted,
    columns: &[usize],
    after: Option<&'w [Param<'static>]>,
    limit: usize,
) -> Statement<'w> {
    let (schema, dialect) = (table.schema, table.dialect);
    let column = &schema.columns[wanted.column];
    let leads_key = schema.key_columns.first() == Some(&wanted.column);
    let mut statement = Statement::new("SELECT ");
    statement.list(columns, ", ", |s, &at| {
        s.push(&dialect.select_column(&table.columns[at], &schema.columns[at].ty));
    });
    if let Some(version) = &table.version {
        statement.push(", ").push(version);
    }
    statement.push(" FROM ").push(&dialect.by_index_of_column(&table.name, leads_key)).push(" WHERE ");
    let (sought, placeholder) = (&table.columns[wanted.column], dialect.key_placeholder(&column.ty));
    // What is between a value and itself equals it, and yet is sorted by.
    let sorts_by_sought = dialect.sorts_by_sought_column();
    let operators: &[&str] = if sorts_by_sought { &[" >= ", " <= "] } else { &[" = "] };
    statement.list(operators, " AND ", |s, operator| {
        s.push(sought).push(operator).bind_in(&placeholder, wanted.value.by_ref()).push(dialect.binary_collation());
    });
    if column.ty.is_loose() {
        // An index is of use to the looser comparison only.
        let (characters, placeholder) = dialect.character_by_character(sought);
        statement.push(" AND ").push(&characters).push(" = ").bind_in(placeholder, wanted.value.by_ref());
    }
    let key = || schema.key().zip(&table.key);
    match after {
        None => {}
        Some(after) if sorts_by_sought => {
            statement.push(" AND (");
            statement.list(std::iter::once(sought).chain(&table.key), ", ", |s, quoted| {
                s.push(quoted);
            });
            statement.push(") > (").bind_in(&placeholder, wanted.value.by_ref());
            for (column, value) in schema.key().zip(after) {
                statement.push(", ").bind_in(&dialect.key_placeholder(&column.ty), value.by_ref());
            }
            statement.push(")");
        }
        // (a > ?) OR (a = ? AND b > ?): row constructors are scanned for by some.
        Some(after) => {
            statement.push(" AND (");
            statement.list(0..table.key.len(), " OR ", |s, last| {
                s.push("(");
                let parts = key().zip(after).take(last + 1).enumerate();
                s.list(parts, " AND ", |s, (at, ((column, quoted), value))| {
                    s.push(&dialect.in_order(quoted, &column.ty)).push(if at == last { " > " } else { " = " });
                    s.bind_in(&dialect.key_placeholder(&column.ty), value.by_ref());
                });
                s.push(")");
            });
            statement.push(")");
        }
    }
    // With the table's name, or it would be by what is selected, which may be another form of the column.
    statement.push(" ORDER BY ");
    if sorts_by_sought {
        statement.push(&format!("{}.{sought}, ", table.name));
    }
    statement.list(key(), ", ", |s, (column, quoted)| {
        s.push(&dialect.in_order(&format!("{}.{quoted}", table.name), &column.ty));
    });
    statement.push(&format!(" LIMIT {limit}"));
    statement
}
