//! The statements that write: deletes first, for they may free a unique value; then updates, then inserts, then the
//! ledger.

use std::collections::BTreeMap;

use model::{KeyBytes, TableName, TableSchema, Version};
use planted::Bug;

use super::{
    dialect::Dialect,
    plan::{Planned, PlannedRow},
    session::{Failure, Session},
    shapes,
    statement::{Param, Statement},
    table::TableText,
};
use crate::{ErrorClass, verdict::Write};

/// A change that is to be written.
pub(super) struct Writing<'a> {
    pub(super) change: &'a Planned,
    pub(super) write: Write,
    /// Whether the ledger has an entry of its key.
    pub(super) in_ledger: bool,
}

/// Rows whose images name the same columns.
type ByColumns<'a> = BTreeMap<&'a [usize], Vec<(&'a Planned, &'a PlannedRow)>>;

/// Writes what is to be written, in the order given, which is that of the primary key.
pub(super) async fn write<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    writes: &[Writing<'_>],
) -> Result<(), Failure> {
    delete(session, table, &of(writes, Write::Delete)).await?;
    for (columns, rows) in by_columns(&of(writes, Write::Update)) {
        // Some upserts would take another row for the one to update if a second unique key matched first. And all of them
        // propose a whole row, which must be one that the table takes: a column that the image is older than would have
        // its default there, or NULL, instead of what it keeps.
        let is_whole = columns.len() == table.schema.columns.len();
        if !is_whole || (table.schema.has_secondary_unique && !table.dialect.upsert_names_its_key()) {
            update_each(session, table, columns, &rows).await?;
        } else {
            upsert(session, table, columns, &rows).await?;
        }
    }
    for (columns, rows) in by_columns(&of(writes, Write::Insert)) {
        insert(session, table, columns, &rows).await?;
    }
    let (entries, others): (Vec<_>, Vec<_>) = writes.iter().partition(|w| w.write.leaves_entry(table.schema.guard));
    let outlived: Vec<&KeyBytes> = others.iter().filter(|w| w.in_ledger).map(|w| &w.change.key_bytes).collect();
    forget(session, table.dialect, &table.schema.table.table, &outlived).await?;
    remember(session, table, &entries).await
}

fn of<'a>(writes: &[Writing<'a>], which: Write) -> Vec<&'a Planned> {
    writes.iter().filter(|w| w.write == which).map(|w| w.change).collect()
}

fn by_columns<'a>(changes: &[&'a Planned]) -> ByColumns<'a> {
    let mut groups = ByColumns::new();
    for change in changes {
        if let Some(row) = &change.row {
            groups.entry(&row.columns).or_default().push((change, row));
        }
    }
    groups
}

/// What a statement matched is what it should have: all rows were locked and their versions read. Where it did not, a
/// trigger may have left a row out, and will again: so nobody is told that it passes by itself.
fn all_matched(what: &'static str, matched: u64, expected: u64) -> Result<(), Failure> {
    if matched == expected {
        return Ok(());
    }
    Err(Failure::refused(
        ErrorClass::Unclassified,
        "guard",
        format!("the {what} matched {matched} where {expected} had been locked; the transaction was undone"),
    ))
}

/// What is written is newer than what is there.
fn newer_than(change: &Planned) -> Version {
    if planted::is(Bug::NoVersionGuard) { Version::MAX } else { change.asked.version }
}

/// `set` where the row that is there is older, or always without a version.
fn on_conflict<D: Dialect>(dialect: &D, table: &str, key: &[String], set: &[String], version: Option<&str>) -> String {
    match version {
        Some(version) if planted::is(Bug::NoVersionGuard) => {
            dialect.on_conflict_update(table, key, &[set, &[version.to_owned()]].concat(), None)
        }
        version => dialect.on_conflict_update(table, key, set, version),
    }
}

async fn delete<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    changes: &[&Planned],
) -> Result<(), Failure> {
    let mut left = changes.len();
    for chunk in shapes::padded(table.dialect.limits(), table.key.len() + 1, 0, changes) {
        let mut statement = Statement::new(table.dialect.delete_from(&table.name));
        statement.push(" WHERE ");
        match &table.version {
            None => table.push_key_in(&mut statement, chunk.map(|change| change.key.as_slice())),
            Some(version) => {
                statement.push("(");
                statement.list(chunk, ") OR (", |s, change| {
                    table.push_key_equals(s, &change.key);
                    s.push(" AND ").push(version).push(" < ").bind(newer_than(change));
                });
                statement.push(")");
            }
        }
        let matched = session.execute(statement).await?;
        left = left.saturating_sub(usize::try_from(matched).unwrap_or(usize::MAX));
    }
    all_matched("deletes", (changes.len() - left) as u64, changes.len() as u64)
}

/// `INSERT INTO table (columns) VALUES (...), ...`, in shapes.
fn insert_statements<'a, D: Dialect>(
    table: &TableText<'_, D>,
    columns: &[usize],
    rows: &'a [(&'a Planned, &'a PlannedRow)],
) -> Vec<(Statement<'a>, u64)> {
    let mut names: Vec<&str> = columns.iter().map(|&at| table.columns[at].as_str()).collect();
    names.extend(table.version.as_deref());
    let mut placeholders: Vec<&str> = columns.iter().map(|&at| table.placeholders[at].as_ref()).collect();
    placeholders.extend(table.version.is_some().then_some("{}"));
    let head = format!("INSERT INTO {} ({}) VALUES ", table.name, names.join(", "));
    let row_bytes: Vec<usize> = rows.iter().map(|(_, row)| row.wire_bytes).collect();
    let ranges = shapes::exact(table.dialect.limits(), names.len(), &row_bytes);
    let statement = |range: std::ops::Range<usize>| {
        let count = range.len() as u64;
        let mut statement = Statement::new(head.clone());
        statement.list(&rows[range], ", ", |s, (change, row)| {
            let version = table.version.is_some().then(|| Param::from(change.asked.version));
            let values = row.values.iter().map(Param::by_ref).chain(version);
            s.push("(").list(placeholders.iter().zip(values), ", ", |s, (placeholder, value)| {
                s.bind_in(placeholder, value);
            });
            s.push(")");
        });
        (statement, count)
    };
    ranges.into_iter().map(statement).collect()
}

async fn insert<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    columns: &[usize],
    rows: &[(&Planned, &PlannedRow)],
) -> Result<(), Failure> {
    for (statement, count) in insert_statements(table, columns, rows) {
        all_matched("inserts", session.execute(statement).await?, count)?;
    }
    Ok(())
}

/// Rows that are there and locked, many at once. An insert that finds the row turns into an update; rows that are
/// absent are never written so, for then the conflict might be with another row.
async fn upsert<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    columns: &[usize],
    rows: &[(&Planned, &PlannedRow)],
) -> Result<(), Failure> {
    let set = settable(table.schema, &table.columns, columns);
    if set.is_empty() && table.version.is_none() {
        return Ok(());
    }
    let on_conflict = on_conflict(table.dialect, &table.name, &table.key, &set, table.version.as_deref());
    for (mut statement, count) in insert_statements(table, columns, rows) {
        statement.push(&on_conflict);
        let matched = session.execute(statement).await?;
        if table.version.is_some() && !planted::is(Bug::NoVersionGuard) {
            all_matched("updates", matched, table.dialect.matched_by_upsert(count))?;
        }
    }
    Ok(())
}

/// Rows that are there and locked, one by one, by primary key alone.
async fn update_each<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    columns: &[usize],
    rows: &[(&Planned, &PlannedRow)],
) -> Result<(), Failure> {
    if settable(table.schema, &table.columns, columns).is_empty() && table.version.is_none() {
        return Ok(());
    }
    for (change, row) in rows {
        let mut statement = Statement::new(format!("UPDATE {} SET ", table.name));
        let settable = columns.iter().zip(&row.values).filter(|&(&at, _)| is_settable(table.schema, at));
        let set = settable.map(|(&at, v)| (table.columns[at].as_str(), table.placeholders[at].as_ref(), v.by_ref()));
        let version = table.version.as_deref().map(|version| (version, "{}", Param::from(change.asked.version)));
        statement.list(set.chain(version), ", ", |s, (column, placeholder, value)| {
            s.push(column).push(" = ").bind_in(placeholder, value);
        });
        statement.push(" WHERE ");
        table.push_key_equals(&mut statement, &change.key);
        if let Some(version) = &table.version {
            statement.push(" AND ").push(version).push(" < ").bind(newer_than(change));
        }
        all_matched("update", session.execute(statement).await?, 1)?;
    }
    Ok(())
}

/// Whether an update writes a column: those of the key only where another spelling of it is the same key.
fn is_settable(schema: &TableSchema, at: usize) -> bool {
    !schema.key_columns.contains(&at) || schema.columns[at].ty.has_spellings()
}

/// The columns among `columns` that an update writes, quoted.
fn settable(schema: &TableSchema, quoted: &[String], columns: &[usize]) -> Vec<String> {
    columns.iter().filter(|&&at| is_settable(schema, at)).map(|&at| quoted[at].clone()).collect()
}

/// Removes entries of the ledger.
pub(super) async fn forget<S: Session, D: Dialect>(
    session: &mut S,
    dialect: &D,
    table: &TableName,
    keys: &[&KeyBytes],
) -> Result<u64, Failure> {
    let mut forgotten = 0;
    for chunk in shapes::padded(dialect.limits(), 1, 1, keys) {
        let mut statement = Statement::new(dialect.delete_from("_sa_ledger"));
        statement.push(" WHERE table_name = ").bind(table.as_str()).push(" AND record_key IN (");
        statement.list(chunk, ", ", |s, key| {
            s.bind(key.as_bytes().as_ref());
        });
        statement.push(")");
        forgotten += session.execute(statement).await?;
    }
    Ok(forgotten)
}

/// Writes entries of the ledger: tombstones, and versions of rows where it keeps those.
async fn remember<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    writes: &[&Writing<'_>],
) -> Result<(), Failure> {
    let row_bytes: Vec<usize> = writes.iter().map(|w| w.change.key_bytes.as_bytes().len() + 160).collect();
    let key = ["table_name".to_owned(), "record_key".to_owned()];
    let set = ["shard".to_owned(), "deleted".to_owned()];
    let on_conflict = on_conflict(table.dialect, "_sa_ledger", &key, &set, Some("version"));
    for range in shapes::exact(table.dialect.limits(), 5, &row_bytes) {
        let mut statement =
            Statement::new("INSERT INTO _sa_ledger (table_name, record_key, shard, deleted, version) VALUES ");
        statement.list(&writes[range], ", ", |s, w| {
            s.push("(").bind(table.schema.table.table.as_str());
            s.push(", ").bind(w.change.key_bytes.as_bytes().as_ref());
            s.push(", ").bind(w.change.shard);
            s.push(", ").bind(i64::from(!w.write.leaves_row()));
            s.push(", ").bind(w.change.asked.version).push(")");
        });
        statement.push(&on_conflict);
        session.execute(statement).await?;
    }
    Ok(())
}
