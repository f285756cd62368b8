//! What a table of SQLite looks like.

use model::{ColumnType, DatabaseName, TableName, TableRef, TableSchema, Value, VersionGuard};

use super::{session::SqliteSession, types::Described};
use crate::{
    DatabaseError,
    relational::{
        cascading, is_system_table, is_version_column, numbered,
        session::{INT, Session as _, TEXT},
        statement::Statement,
    },
};

fn text(value: Option<Value>) -> Option<String> {
    if let Some(Value::Text(text)) = value { Some(text) } else { None }
}

fn number(value: Option<Value>) -> i64 {
    if let Some(Value::Int64(number)) = value { number } else { 0 }
}

/// The tables of the file, without ours and SQLite's own.
pub(super) async fn list_tables(session: &mut SqliteSession) -> Result<Vec<TableName>, DatabaseError> {
    let select = Statement::new("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on("the list of tables"))?;
    let names = rows.into_iter().filter_map(|row| text(row.into_iter().next()));
    let ours = |name: &String| !is_system_table(name) && !name.starts_with("sqlite_");
    Ok(names.filter(ours).filter_map(|name| TableName::new(name).ok()).collect())
}

/// The table's schema.
pub(super) async fn introspect(
    session: &mut SqliteSession,
    database: &DatabaseName,
    table: &TableName,
) -> Result<TableSchema, DatabaseError> {
    let unsupported = |reason: String| DatabaseError::Unsupported { table: table.clone(), reason };
    check_kind(session, table).await?;
    check_cascades(session, table).await?;
    let described = columns(session, table).await?;

    let mut guard = VersionGuard::Ledger;
    let mut columns = Vec::with_capacity(described.len());
    // Position in the key, position in the columns.
    let mut key: Vec<(i64, usize)> = Vec::new();
    for (in_key, described) in described {
        if !is_version_column(&described.name) {
            if in_key > 0 {
                key.push((in_key, columns.len()));
            }
            columns.push(described.column().map_err(unsupported)?);
        } else if !described.not_null {
            return Err(unsupported(format!(
                "its column {} is not NOT NULL: a NULL there would make every guard false; make the table anew",
                described.name
            )));
        } else {
            guard = VersionGuard::Column;
        }
    }
    key.sort_unstable();
    let key_columns: Vec<usize> = key.into_iter().map(|(_, at)| at).collect();
    if key_columns.is_empty() {
        return Err(unsupported("it has no primary key: add one, records are found by it".to_owned()));
    }
    for &at in &key_columns {
        if matches!(columns[at].ty.stored_as(), ColumnType::Double | ColumnType::Json) {
            return Err(unsupported(format!(
                "its primary key holds {}, whose values can't be told apart exactly: use another type",
                columns[at].name
            )));
        }
    }
    check_key_collation(session, table).await?;
    Ok(TableSchema {
        table: TableRef { database: database.clone(), table: table.clone() },
        group: (0..key_columns.len()).collect(),
        columns,
        key_columns,
        has_secondary_unique: has_secondary_unique(session, table).await?,
        guard,
    })
}

async fn check_kind(session: &mut SqliteSession, table: &TableName) -> Result<(), DatabaseError> {
    let mut select = Statement::new("SELECT type, coalesce(sql, '') FROM sqlite_schema WHERE name = ");
    select.bind(table.as_str()).push(" AND type IN ('table', 'view')");
    let rows = session.fetch(select, &[TEXT, TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    let Some(row) = rows.into_iter().next() else { return Err(DatabaseError::NoSuchTable(table.clone())) };
    let mut row = row.into_iter();
    let (kind, sql) = (text(row.next()).unwrap_or_default(), text(row.next()).unwrap_or_default());
    let unsupported =
        |reason: &str| Err(DatabaseError::Unsupported { table: table.clone(), reason: reason.to_owned() });
    if kind != "table" {
        return unsupported("it is a view: name the table itself");
    }
    let words = sql.to_ascii_uppercase();
    if words.contains("AUTOINCREMENT") {
        // A plain INTEGER PRIMARY KEY is one like any other: SQLite numbers it only where no number is given.
        return unsupported(&numbered("of its key", "AUTOINCREMENT", "make the table anew without the word"));
    }
    if words.starts_with("CREATE VIRTUAL") {
        return unsupported("it is a virtual table");
    }
    Ok(())
}

/// A foreign key of the table that changes or removes its rows together with their parents: nobody would tell the hot
/// store, which goes on answering with what it has.
async fn check_cascades(session: &mut SqliteSession, table: &TableName) -> Result<(), DatabaseError> {
    let mut select = Statement::new("SELECT \"from\" FROM pragma_foreign_key_list(");
    select
        .bind(table.as_str())
        .push(") WHERE on_delete NOT IN ('RESTRICT', 'NO ACTION') OR on_update NOT IN ('RESTRICT', 'NO ACTION')");
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    match rows.into_iter().next().map(|row| text(row.into_iter().next()).unwrap_or_default()) {
        Some(column) => Err(cascading(table, &format!("of column {column}"))),
        None => Ok(()),
    }
}

/// Whether the table is there and has our version column.
pub(super) async fn has_version_column(session: &mut SqliteSession, table: &TableName) -> Result<bool, DatabaseError> {
    Ok(columns(session, table).await?.iter().any(|(_, described)| is_version_column(&described.name)))
}

async fn columns(session: &mut SqliteSession, table: &TableName) -> Result<Vec<(i64, Described)>, DatabaseError> {
    let mut select = Statement::new("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(");
    select.bind(table.as_str()).push(") ORDER BY cid");
    let rows = session
        .fetch(select, &[TEXT, TEXT, INT, TEXT, INT, INT])
        .await
        .map_err(|failure| failure.on(table.as_str()))?;
    let described = rows.into_iter().map(|row| {
        let mut row = row.into_iter();
        let (name, declared) = (text(row.next()).unwrap_or_default(), text(row.next()).unwrap_or_default());
        let (not_null, default, in_key) = (number(row.next()) != 0, text(row.next()), number(row.next()));
        let described = Described {
            name,
            declared,
            // A key may be NULL in SQLite unless it says otherwise; in a record it never is.
            not_null: not_null || in_key > 0,
            default,
            generated: number(row.next()) != 0,
        };
        (in_key, described)
    });
    Ok(described.collect())
}

/// A key's texts must be equal to themselves only.
async fn check_key_collation(session: &mut SqliteSession, table: &TableName) -> Result<(), DatabaseError> {
    let mut select = Statement::new("SELECT p.coll FROM pragma_index_list(");
    select.bind(table.as_str()).push(
        ") AS l, pragma_index_xinfo(l.name) AS p WHERE l.origin = 'pk' AND p.key = 1 AND p.coll <> 'BINARY' LIMIT 1",
    );
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    match rows.into_iter().next().and_then(|row| text(row.into_iter().next())) {
        None => Ok(()),
        Some(collation) => Err(DatabaseError::Unsupported {
            table: table.clone(),
            reason: format!(
                "its primary key has the collation {collation}, so that two records here could be one row there: make \
                 the table anew without it"
            ),
        }),
    }
}

async fn has_secondary_unique(session: &mut SqliteSession, table: &TableName) -> Result<bool, DatabaseError> {
    let mut select = Statement::new("SELECT count(*) FROM pragma_index_list(");
    select.bind(table.as_str()).push(") WHERE \"unique\" = 1 AND origin <> 'pk'");
    let rows = session.fetch(select, &[INT]).await.map_err(|failure| failure.on(table.as_str()))?;
    Ok(number(rows.into_iter().flatten().next()) > 0)
}

/// The columns with which an index over all rows begins that compares texts byte by byte, and the key that is the row's own number.
pub(super) async fn leading_columns(
    session: &mut SqliteSession,
    table: &TableName,
) -> Result<Vec<String>, DatabaseError> {
    let mut select = Statement::new("SELECT x.name FROM pragma_index_list(");
    select.bind(table.as_str());
    select.push(
        ") l, pragma_index_xinfo(l.name) x WHERE l.partial = 0 AND x.seqno = 0 AND x.name IS NOT NULL AND x.coll = 'BINARY' \
         UNION SELECT min(name) FROM pragma_table_info(",
    );
    select.bind(table.as_str()).push(") WHERE pk > 0 AND upper(type) = 'INTEGER' HAVING count(*) = 1");
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    Ok(rows.into_iter().filter_map(|row| text(row.into_iter().next())).collect())
}
