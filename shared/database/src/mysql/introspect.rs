//! What a table of MySQL or MariaDB looks like.

use std::collections::HashSet;

use model::{
    Collation, ColumnType, DatabaseName, Equality, TableName, TableRef, TableSchema, Value, ValueKind, VersionGuard,
};

use super::{
    session::MysqlSession,
    types::{Described, Flavour},
};
use crate::{
    DatabaseError,
    relational::{
        cascading, is_system_table, is_version_column,
        session::{Expected, INT, Session as _, TEXT},
        statement::Statement,
    },
};

const UINT: Expected<'static> = Expected { name: "number", ty: &ColumnType::Uint { bits: 64 } };

fn text(value: Option<Value>) -> Option<String> {
    if let Some(Value::Text(text)) = value { Some(text) } else { None }
}

fn number(value: Option<Value>) -> Option<u64> {
    match value {
        Some(Value::Uint64(number)) => Some(number),
        Some(Value::Int64(number)) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// The tables of the schema that the connection is in, without ours and without views.
pub(super) async fn list_tables(session: &mut MysqlSession) -> Result<Vec<TableName>, DatabaseError> {
    let select = Statement::new(
        "SELECT TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_NAME",
    );
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on("the list of tables"))?;
    let names = rows.into_iter().filter_map(|row| text(row.into_iter().next()));
    Ok(names.filter(|name| !is_system_table(name)).filter_map(|name| TableName::new(name).ok()).collect())
}

/// The table's schema.
pub(super) async fn introspect(
    session: &mut MysqlSession,
    flavour: Flavour,
    database: &DatabaseName,
    table: &TableName,
) -> Result<TableSchema, DatabaseError> {
    let unsupported = |reason: String| DatabaseError::Unsupported { table: table.clone(), reason };
    check_kind(session, table).await?;
    check_cascades(session, table).await?;
    let described = columns(session, flavour, table).await?;
    let keys = unique_keys(session, table).await?;

    let mut guard = VersionGuard::Ledger;
    let mut columns = Vec::with_capacity(described.len());
    for described in described {
        if !is_version_column(&described.name) {
            columns.push(described.column(flavour).map_err(unsupported)?);
        } else if described.data_type != "bigint" || described.nullable {
            return Err(unsupported(format!(
                "its column {} is not BIGINT NOT NULL DEFAULT 0: a NULL there would make every guard false; alter it",
                described.name
            )));
        } else {
            guard = VersionGuard::Column;
        }
    }

    let primary: Vec<&KeyPart> = keys.iter().filter(|part| part.index == "PRIMARY").collect();
    if primary.is_empty() {
        return Err(unsupported("it has no primary key: add one, records are found by it".to_owned()));
    }
    let mut key_columns = Vec::with_capacity(primary.len());
    for part in primary {
        let at = columns.iter().position(|column| Some(column.name.as_str()) == part.column.as_deref());
        let at = at.ok_or_else(|| unsupported("its primary key is over a column that is not carried".to_owned()))?;
        if part.is_prefix {
            return Err(unsupported("its primary key holds only the beginning of a column: use the whole".to_owned()));
        }
        if let Some(problem) = unfit_for_a_key(&columns[at].ty) {
            return Err(unsupported(format!("its primary key holds {}, {problem}", columns[at].name)));
        }
        key_columns.push(at);
    }
    Ok(TableSchema {
        table: TableRef { database: database.clone(), table: table.clone() },
        group: (0..key_columns.len()).collect(),
        columns,
        key_columns,
        has_secondary_unique: keys.iter().any(|part| part.index != "PRIMARY"),
        guard,
    })
}

/// Why records can't be found by such a column.
fn unfit_for_a_key(ty: &ColumnType) -> Option<&'static str> {
    match ty {
        ColumnType::Collated { collation: Collation { equality: Equality::Unknown, .. }, .. } => Some(
            "a text, and which texts its collation takes for the same only the database knows, so that two records \
             here could be one row there: give it a collation such as utf8mb4_bin, or one that we know, such as \
             utf8mb4_0900_ai_ci, utf8mb4_unicode_ci or utf8mb4_general_ci",
        ),
        ty if matches!(ty.kind(), ValueKind::Double | ValueKind::Json) => {
            Some("whose values can't be told apart exactly: use another type")
        }
        _ => None,
    }
}

/// Only tables of InnoDB: a view has no rows of its own, another engine no transactions.
async fn check_kind(session: &mut MysqlSession, table: &TableName) -> Result<(), DatabaseError> {
    let mut select = Statement::new(
        "SELECT TABLE_TYPE, ENGINE, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
         AND TABLE_NAME = ",
    );
    select.bind(table.as_str());
    let rows = session.fetch(select, &[TEXT, TEXT, TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    // Names are compared as texts, so that spaces at the end don't count, or the case of letters does not.
    let is_it = |row: &Vec<Value>| matches!(row.last(), Some(Value::Text(name)) if name == table.as_str());
    let Some(row) = rows.into_iter().find(is_it) else { return Err(DatabaseError::NoSuchTable(table.clone())) };
    let mut row = row.into_iter();
    let (kind, engine) = (text(row.next()).unwrap_or_default(), text(row.next()).unwrap_or_default());
    let unsupported = |reason: String| Err(DatabaseError::Unsupported { table: table.clone(), reason });
    if kind != "BASE TABLE" {
        return unsupported(format!("it is a {}: name the table itself", kind.to_ascii_lowercase()));
    }
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return unsupported(format!("its engine {engine} has no transactions: ALTER TABLE {table} ENGINE = InnoDB"));
    }
    Ok(())
}

/// A foreign key of the table that changes or removes its rows together with their parents: nobody would tell the hot
/// store, which goes on answering with what it has.
async fn check_cascades(session: &mut MysqlSession, table: &TableName) -> Result<(), DatabaseError> {
    let mut select = Statement::new(
        "SELECT CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = DATABASE() \
         AND (DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION')) \
         AND TABLE_NAME = ",
    );
    select.bind(table.as_str());
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    match rows.into_iter().next().map(|row| text(row.into_iter().next()).unwrap_or_default()) {
        Some(constraint) => Err(cascading(table, &constraint)),
        None => Ok(()),
    }
}

async fn columns(
    session: &mut MysqlSession,
    flavour: Flavour,
    table: &TableName,
) -> Result<Vec<Described>, DatabaseError> {
    let checked_json = if flavour.is_mariadb { json_checks(session, table).await? } else { HashSet::new() };
    let mut select = Statement::new(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, CHARACTER_MAXIMUM_LENGTH, \
         CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, \
         COLLATION_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ",
    );
    select.bind(table.as_str()).push(" ORDER BY ORDINAL_POSITION");
    let expected = [TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, UINT, UINT, UINT, UINT, UINT, TEXT, TEXT];
    let rows = session.fetch(select, &expected).await.map_err(|failure| failure.on(table.as_str()))?;
    let described = rows.into_iter().map(|row| {
        let mut row = row.into_iter();
        let name = text(row.next()).unwrap_or_default();
        Described {
            checked_json: checked_json.contains(&name),
            name,
            data_type: text(row.next()).unwrap_or_default(),
            column_type: text(row.next()).unwrap_or_default(),
            nullable: text(row.next()).is_some_and(|yes| yes == "YES"),
            default: text(row.next()),
            extra: text(row.next()).unwrap_or_default(),
            max_chars: number(row.next()),
            max_bytes: number(row.next()),
            precision: number(row.next()),
            scale: number(row.next()),
            fraction: number(row.next()),
            charset: text(row.next()),
            collation: text(row.next()),
        }
    });
    Ok(described.collect())
}

/// MariaDB has no JSON type: it makes LONGTEXT with a check constraint of it.
async fn json_checks(session: &mut MysqlSession, table: &TableName) -> Result<HashSet<String>, DatabaseError> {
    let mut select = Statement::new(
        "SELECT CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = DATABASE() AND TABLE_NAME = ",
    );
    select.bind(table.as_str());
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    let clauses = rows.into_iter().filter_map(|row| text(row.into_iter().next()));
    let column = |clause: String| {
        let inner = clause.strip_prefix("json_valid(`")?.strip_suffix("`)")?;
        Some(inner.replace("``", "`"))
    };
    Ok(clauses.filter_map(column).collect())
}

/// A column of a unique index.
struct KeyPart {
    index: String,
    /// `None` for an expression.
    column: Option<String>,
    is_prefix: bool,
}

async fn unique_keys(session: &mut MysqlSession, table: &TableName) -> Result<Vec<KeyPart>, DatabaseError> {
    let mut select = Statement::new(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
         WHERE TABLE_SCHEMA = DATABASE() AND NON_UNIQUE = 0 AND TABLE_NAME = ",
    );
    select.bind(table.as_str()).push(" ORDER BY INDEX_NAME, SEQ_IN_INDEX");
    let rows = session.fetch(select, &[TEXT, TEXT, INT]).await.map_err(|failure| failure.on(table.as_str()))?;
    let parts = rows.into_iter().map(|row| {
        let mut row = row.into_iter();
        KeyPart {
            index: text(row.next()).unwrap_or_default(),
            column: text(row.next()),
            is_prefix: row.next().is_some_and(|part| !part.is_null()),
        }
    });
    Ok(parts.collect())
}

/// The columns with which an index begins. Not those of which it holds only the beginning, nor what the optimizer must
/// not use.
pub(super) async fn leading_columns(
    session: &mut MysqlSession,
    is_mariadb: bool,
    table: &TableName,
) -> Result<Vec<String>, DatabaseError> {
    let mut select = Statement::new(
        "SELECT DISTINCT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() \
         AND SEQ_IN_INDEX = 1 AND SUB_PART IS NULL AND INDEX_TYPE = 'BTREE' AND COLUMN_NAME IS NOT NULL",
    );
    select.push(if is_mariadb { "" } else { " AND IS_VISIBLE = 'YES'" });
    select.push(" AND TABLE_NAME = ").bind(table.as_str());
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    Ok(rows.into_iter().filter_map(|row| text(row.into_iter().next())).collect())
}
