//! What a table of PostgreSQL looks like.

use model::{ColumnType, DatabaseName, TableName, TableRef, TableSchema, Value, ValueKind, VersionGuard};

use super::{session::PostgresSession, types::Described};
use crate::{
    DatabaseError,
    relational::{
        cascading, is_system_table, is_version_column,
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

/// The tables of the schema, without ours and without views.
pub(super) async fn list_tables(session: &mut PostgresSession, schema: &str) -> Result<Vec<TableName>, DatabaseError> {
    let mut select = Statement::new(
        "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ",
    );
    select.bind_in("{}::text", schema).push(" ORDER BY c.relname");
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on("the list of tables"))?;
    let names = rows.into_iter().filter_map(|row| text(row.into_iter().next()));
    Ok(names.filter(|name| !is_system_table(name)).filter_map(|name| TableName::new(name).ok()).collect())
}

/// The table's schema.
pub(super) async fn introspect(
    session: &mut PostgresSession,
    schema: &str,
    database: &DatabaseName,
    table: &TableName,
) -> Result<TableSchema, DatabaseError> {
    let unsupported = |reason: String| DatabaseError::Unsupported { table: table.clone(), reason };
    let found = find(session, schema, table).await?;
    check_cascades(session, table, found).await?;
    let described = columns(session, table, found).await?;
    let keys = unique_keys(session, table, found).await?;

    let mut guard = VersionGuard::Ledger;
    // With their numbers in the catalog, by which keys name them.
    let (mut numbers, mut columns) = (Vec::new(), Vec::with_capacity(described.len()));
    for described in described {
        if !is_version_column(&described.name) {
            numbers.push(described.number);
            columns.push(described.column().map_err(unsupported)?);
        } else if described.type_name != "int8" || !described.not_null {
            return Err(unsupported(format!(
                "its column {} is not BIGINT NOT NULL DEFAULT 0: a NULL there would make every guard false; alter it",
                described.name
            )));
        } else {
            guard = VersionGuard::Column;
        }
    }

    let Some(primary) = keys.iter().find(|key| key.is_primary) else {
        return Err(unsupported("it has no primary key: add one, records are found by it".to_owned()));
    };
    if !primary.is_immediate {
        return Err(unsupported(
            "its primary key is DEFERRABLE, and is no help against a row that comes twice: make it NOT DEFERRABLE"
                .to_owned(),
        ));
    }
    let mut key_columns = Vec::with_capacity(primary.columns.len());
    for number in &primary.columns {
        let at = numbers.iter().position(|of| of == number);
        let at = at.ok_or_else(|| unsupported("its primary key is over a column that is not carried".to_owned()))?;
        let problem = match &columns[at].ty {
            ColumnType::Collated { .. } => Some(
                "which takes different texts for equal (CITEXT, or a collation that is not deterministic), and which \
                 those are only the database knows: use TEXT with a deterministic collation",
            ),
            ColumnType::Numeric => Some("of which 1.0 and 1.00 are one value and are shown as two: use NUMERIC(p, s)"),
            ty if matches!(ty.kind(), ValueKind::Double | ValueKind::Json) => {
                Some("whose values can't be told apart exactly: use another type")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(unsupported(format!("its primary key holds {}, {problem}", columns[at].name)));
        }
        key_columns.push(at);
    }
    Ok(TableSchema {
        table: TableRef { database: database.clone(), table: table.clone() },
        group: (0..key_columns.len()).collect(),
        columns,
        key_columns,
        has_secondary_unique: keys.iter().any(|key| !key.is_primary),
        guard,
    })
}

/// The number of the table in the catalog. Only plain tables: a view has no rows of its own, what is not logged is gone
/// after a crash.
async fn find(session: &mut PostgresSession, schema: &str, table: &TableName) -> Result<i64, DatabaseError> {
    let mut select = Statement::new(
        "SELECT c.oid::int8, c.relkind::text, c.relpersistence::text, c.relispartition::int4::int8, \
         c.relhasrules::int4::int8, row_security_active(c.oid)::int4::int8, \
         (SELECT count(*) FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = ",
    );
    select.bind_in("{}::text", schema).push(" AND c.relname = ").bind_in("{}::text", table.as_str());
    let expected = [INT, TEXT, TEXT, INT, INT, INT, INT];
    let rows = session.fetch(select, &expected).await.map_err(|failure| failure.on(table.as_str()))?;
    let Some(row) = rows.into_iter().next() else { return Err(DatabaseError::NoSuchTable(table.clone())) };
    let mut row = row.into_iter();
    let found = number(row.next());
    let (kind, persistence) = (text(row.next()).unwrap_or_default(), text(row.next()).unwrap_or_default());
    let [is_partition, has_rules, has_row_security, relatives] = [(); 4].map(|()| number(row.next()) != 0);
    let reason = match kind.as_str() {
        "v" | "m" => "it is a view: name the table itself",
        "f" => "it is a foreign table: name the table itself, where it is",
        "p" => "it is partitioned, which is not carried yet: use a table that is not",
        _ if is_partition => "it is a partition of another table: partitioned tables are not carried yet",
        _ if relatives => {
            "rows of other tables show in it, or its rows in another one (INHERITS): use a table by itself"
        }
        _ if persistence != "p" => {
            "it is not logged, and empty after a crash of the server: ALTER TABLE ... SET LOGGED"
        }
        _ if has_rules => "it has rules, which turn what is written into something else: drop them, or use triggers",
        _ if has_row_security => {
            "row security hides rows of it from us: give our role BYPASSRLS, or make it the table's owner"
        }
        _ => return Ok(found),
    };
    Err(DatabaseError::Unsupported { table: table.clone(), reason: reason.to_owned() })
}

/// A foreign key of the table that changes or removes its rows together with their parents: nobody would tell the hot
/// store, which goes on answering with what it has.
async fn check_cascades(session: &mut PostgresSession, table: &TableName, found: i64) -> Result<(), DatabaseError> {
    let mut select = Statement::new(
        "SELECT conname::text FROM pg_catalog.pg_constraint WHERE contype = 'f' \
         AND (confdeltype NOT IN ('a', 'r') OR confupdtype NOT IN ('a', 'r')) AND conrelid::int8 = ",
    );
    select.bind(found);
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    match rows.into_iter().next().map(|row| text(row.into_iter().next()).unwrap_or_default()) {
        Some(constraint) => Err(cascading(table, &constraint)),
        None => Ok(()),
    }
}

async fn columns(
    session: &mut PostgresSession,
    table: &TableName,
    found: i64,
) -> Result<Vec<Described>, DatabaseError> {
    // A domain is what it is made of, and made of domains it may be, too. What it says itself counts after the column.
    let mut select = Statement::new(
        "WITH RECURSIVE made AS ( \
         SELECT a.attnum, a.attname, a.attcollation, a.attidentity, a.attgenerated, a.atttypid AS type, \
         a.atttypmod AS modifier, a.attnotnull AS not_null, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS preset, \
         pg_catalog.format_type(a.atttypid, a.atttypmod) AS declared \
         FROM pg_catalog.pg_attribute a \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid::int8 = ",
    );
    select.bind(found).push(
        " UNION ALL SELECT m.attnum, m.attname, m.attcollation, m.attidentity, m.attgenerated, t.typbasetype, \
         t.typtypmod, m.not_null OR t.typnotnull, \
         coalesce(m.preset, pg_catalog.pg_get_expr(t.typdefaultbin, 0)), m.declared \
         FROM made m JOIN pg_catalog.pg_type t ON t.oid = m.type WHERE t.typtype = 'd') \
         SELECT m.attnum::int8, m.attname::text, e.typname::text, n.nspname::text, e.typtype::text, m.declared, \
         m.modifier::int8, m.not_null::int4::int8, (m.attidentity <> '')::int4::int8, \
         (m.attgenerated <> '')::int4::int8, m.preset, (NOT coalesce(c.collisdeterministic, true))::int4::int8, \
         (SELECT json_agg(l.enumlabel::text ORDER BY l.enumsortorder)::text FROM pg_catalog.pg_enum l \
         WHERE l.enumtypid = e.oid), (e.oid <> t.oid)::int4::int8, pg_catalog.format_type(e.oid, -1) \
         FROM made m JOIN pg_catalog.pg_type t ON t.oid = m.type AND t.typtype <> 'd' \
         JOIN pg_catalog.pg_type e ON e.oid = CASE WHEN t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc \
         THEN t.typelem ELSE t.oid END \
         JOIN pg_catalog.pg_namespace n ON n.oid = e.typnamespace \
         LEFT JOIN pg_catalog.pg_collation c ON c.oid = m.attcollation ORDER BY m.attnum",
    );
    let expected = [INT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, INT, INT, TEXT, INT, TEXT, INT, TEXT];
    let rows = session.fetch(select, &expected).await.map_err(|failure| failure.on(table.as_str()))?;
    let described = rows.into_iter().map(|row| {
        let mut row = row.into_iter();
        Described {
            number: number(row.next()),
            name: text(row.next()).unwrap_or_default(),
            type_name: text(row.next()).unwrap_or_default(),
            is_builtin: text(row.next()).is_some_and(|schema| schema == "pg_catalog"),
            is_enum: text(row.next()).is_some_and(|kind| kind == "e"),
            declared: text(row.next()).unwrap_or_default(),
            modifier: number(row.next()),
            not_null: number(row.next()) != 0,
            is_identity: number(row.next()) != 0,
            is_generated: number(row.next()) != 0,
            default: text(row.next()),
            is_collated_loosely: number(row.next()) != 0,
            labels: text(row.next()).and_then(|labels| serde_json::from_str(&labels).ok()).unwrap_or_default(),
            is_array: number(row.next()) != 0,
            spelled: text(row.next()).unwrap_or_default(),
        }
    });
    Ok(described.collect())
}

/// A unique index, or an exclusion constraint.
struct UniqueKey {
    is_primary: bool,
    is_immediate: bool,
    /// Numbers of columns; 0 for an expression.
    columns: Vec<i64>,
}

async fn unique_keys(
    session: &mut PostgresSession,
    table: &TableName,
    found: i64,
) -> Result<Vec<UniqueKey>, DatabaseError> {
    let mut select = Statement::new(
        "SELECT i.indisprimary::int4::int8, i.indimmediate::int4::int8, i.indkey::text, i.indnkeyatts::int8 \
         FROM pg_catalog.pg_index i WHERE (i.indisunique OR i.indisexclusion) AND i.indrelid::int8 = ",
    );
    select.bind(found).push(" ORDER BY i.indexrelid");
    let rows = session.fetch(select, &[INT, INT, TEXT, INT]).await.map_err(|failure| failure.on(table.as_str()))?;
    let keys = rows.into_iter().map(|row| {
        let mut row = row.into_iter();
        let (is_primary, is_immediate) = (number(row.next()) != 0, number(row.next()) != 0);
        let columns = text(row.next()).unwrap_or_default();
        // Behind those of the key stand those that the index only includes.
        let many = usize::try_from(number(row.next())).unwrap_or_default();
        let columns = columns.split(' ').take(many).map(|number| number.parse().unwrap_or_default()).collect();
        UniqueKey { is_primary, is_immediate, columns }
    });
    Ok(keys.collect())
}

/// The columns with which an index begins: one over all rows, ready, and by the column's own collation, under which texts that
/// differ are not equal.
pub(super) async fn leading_columns(
    session: &mut PostgresSession,
    schema: &str,
    table: &TableName,
) -> Result<Vec<String>, DatabaseError> {
    let found = find(session, schema, table).await?;
    let mut select = Statement::new(
        "SELECT DISTINCT a.attname::text FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
         LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
         WHERE m.amname = 'btree' AND i.indisvalid AND i.indisready AND i.indpred IS NULL \
         AND i.indcollation[0] = a.attcollation AND coalesce(l.collisdeterministic, true) AND i.indrelid::int8 = ",
    );
    select.bind(found);
    let rows = session.fetch(select, &[TEXT]).await.map_err(|failure| failure.on(table.as_str()))?;
    Ok(rows.into_iter().filter_map(|row| text(row.into_iter().next())).collect())
}
