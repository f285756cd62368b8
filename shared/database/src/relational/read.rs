//! Reading rows and ledger entries by key.

use std::collections::HashMap;

use model::{Key, KeyBytes, Row, TableSchema, Value, Version};

use super::{
    dialect::Dialect,
    plan::bind_key,
    session::{BYTES, Backend, Expected, Failure, INT, Purpose, Session},
    shapes,
    statement::{Param, Statement},
    table::TableText,
    transaction,
};
use crate::{DatabaseError, DatabaseRow, ErrorClass, batch::compare_keys};

/// How much of a row is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Key and version, locking the row.
    KeyLocked,
    /// All columns.
    Full,
}

/// A row that was read.
pub(super) struct FetchedRow {
    pub(super) key: KeyBytes,
    /// Its own version; 0 in a table without version column.
    pub(super) version: Version,
    /// The columns that were asked for.
    pub(super) row: Row,
}

/// A key that is asked for: as it was stored, and bound.
pub(super) type AskedKey<'a> = (&'a KeyBytes, &'a [Param<'static>]);

/// The keys among these that have another form under the table's schema, by that form. They were accepted before the
/// collation of a column of the key was altered, or by a release that took less for equal.
fn of_older_form(schema: &TableSchema, keys: &[AskedKey<'_>]) -> HashMap<KeyBytes, KeyBytes> {
    if !schema.key().any(|column| column.ty.has_spellings()) {
        return HashMap::new();
    }
    let form = |bytes: &KeyBytes| {
        let key = bytes.decode().ok()?;
        let values = schema.key().zip(key.0).map(|(column, value)| column.ty.key_form(&value));
        values.collect::<Option<Vec<_>>>().map(|values| Key(values).to_bytes()).filter(|form| form != bytes)
    };
    let mut older: HashMap<KeyBytes, KeyBytes> =
        keys.iter().filter_map(|(bytes, _)| Some((form(bytes)?, (*bytes).clone()))).collect();
    // A row is of the key in today's form where both are asked for.
    keys.iter().for_each(|(bytes, _)| drop(older.remove(*bytes)));
    older
}

/// The rows of these keys that are there.
pub(super) async fn rows<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    keys: &[AskedKey<'_>],
    extent: Extent,
) -> Result<Vec<FetchedRow>, Failure> {
    let schema = table.schema;
    let mut of_older_form = of_older_form(schema, keys);
    let columns: Vec<usize> = match extent {
        Extent::KeyLocked => schema.key_columns.clone(),
        Extent::Full => (0..schema.columns.len()).collect(),
    };
    let mut expected: Vec<Expected<'_>> =
        columns.iter().map(|&at| &schema.columns[at]).map(|c| Expected { name: c.name.as_str(), ty: &c.ty }).collect();
    expected.extend(table.version.is_some().then_some(INT));

    let mut found = Vec::new();
    for chunk in shapes::padded(table.dialect.limits(), table.key.len(), 0, keys) {
        let mut statement = Statement::new("SELECT ");
        statement.list(&columns, ", ", |s, &at| {
            s.push(&table.dialect.select_column(&table.columns[at], &schema.columns[at].ty));
        });
        if let Some(version) = &table.version {
            statement.push(", ").push(version);
        }
        statement.push(" FROM ").push(&table.dialect.by_primary_key(&table.name)).push(" WHERE ");
        table.push_key_in(&mut statement, chunk.map(|(_, key)| *key));
        if extent == Extent::KeyLocked {
            statement.push(table.dialect.for_update());
        }
        for mut values in session.fetch(statement, &expected).await? {
            let version = match &table.version {
                Some(_) => stored_version(values.pop())?,
                None => Version::ZERO,
            };
            let named = columns.iter().map(|&at| schema.columns[at].name.clone());
            let row: Row = named.zip(values).collect();
            let key = schema.key_of(&row).ok_or_else(|| Failure::Unreadable {
                column: schema.table.to_string(),
                problem: "holds a row whose key is equal to the one asked for, under its collation, and not the same: name it \
                          by that, or give the key a binary collation"
                    .to_owned(),
            })?;
            let key = key.to_bytes();
            let key = of_older_form.remove(&key).unwrap_or(key);
            found.push(FetchedRow { key, version, row });
        }
    }
    Ok(found)
}

/// The versions that the ledger has of these keys.
///
/// No lock: the ledger is only written under the lock of the key's shard, which the caller holds, or else the caller
/// reads a snapshot.
pub(super) async fn ledger<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    keys: &[&KeyBytes],
) -> Result<HashMap<KeyBytes, Version>, Failure> {
    let mut found = HashMap::new();
    for chunk in shapes::padded(table.dialect.limits(), 1, 1, keys) {
        let mut statement = Statement::new("SELECT record_key, version FROM ");
        statement.push(&table.dialect.by_primary_key("_sa_ledger"));
        statement.push(" WHERE table_name = ").bind(table.schema.table.table.as_str()).push(" AND record_key IN (");
        statement.list(chunk, ", ", |s, key| {
            s.bind(key.as_bytes().as_ref());
        });
        statement.push(")");
        for values in session.fetch(statement, &[BYTES, INT]).await? {
            let mut values = values.into_iter();
            if let Some(Value::Bytes(key)) = values.next() {
                found.insert(KeyBytes::from_stored(key), stored_version(values.next())?);
            }
        }
    }
    Ok(found)
}

/// A version that the database holds.
pub(super) fn stored_version(value: Option<Value>) -> Result<Version, Failure> {
    let version = match value {
        Some(Value::Int64(number)) => u64::try_from(number).ok().and_then(Version::new),
        _ => None,
    };
    version.ok_or_else(|| {
        Failure::refused(
            ErrorClass::Schema,
            "version",
            "a stored version is not between 0 and 2^53: somebody else writes to our columns",
        )
    })
}

/// Keys to read, bound, in the order of the primary key.
pub(super) struct Wanted {
    schema: TableSchema,
    /// In the caller's order.
    order: Vec<KeyBytes>,
    /// Distinct, sorted.
    keys: Vec<(KeyBytes, Vec<Param<'static>>)>,
}

impl Wanted {
    pub(super) fn new(dialect: &impl Dialect, schema: &TableSchema, keys: &[Key]) -> Self {
        let mut sorted: Vec<&Key> = keys.iter().collect();
        sorted.sort_by(|a, b| compare_keys(a, b));
        let mut bound: Vec<_> = sorted.into_iter().map(|key| (key.to_bytes(), bind_key(dialect, key))).collect();
        bound.dedup_by(|a, b| a.0 == b.0);
        Self { schema: schema.clone(), order: keys.iter().map(Key::to_bytes).collect(), keys: bound }
    }

    fn asked(&self) -> Vec<AskedKey<'_>> {
        self.keys.iter().map(|(bytes, key)| (bytes, key.as_slice())).collect()
    }
}

/// What the database holds for the keys, in their order.
pub(super) async fn read<B: Backend>(backend: &B, wanted: Wanted) -> Result<Vec<DatabaseRow>, DatabaseError> {
    let name = wanted.schema.table.table.as_str();
    let mut session = backend.session().await.map_err(|failure| failure.on(name))?;
    let table = TableText::new(backend.dialect(), &wanted.schema);
    let mut held = None;
    if table.version.is_some() {
        held = written_rows(&mut session, &table, &wanted).await.map_err(|failure| failure.on(name))?;
    }
    let mut held = match held {
        Some(held) => held,
        None => {
            // A row and its entry in the ledger change places within one transaction: look at one moment.
            session.begin(Purpose::Snapshot).await.map_err(|failure| failure.on(name))?;
            let both = rows_and_ledger(&mut session, &table, &wanted).await.map_err(|failure| failure.on(name));
            transaction::finish(&mut session, name, both).await?
        }
    };
    let mut rows: Vec<DatabaseRow> = Vec::with_capacity(wanted.order.len());
    let mut seen: HashMap<&KeyBytes, usize> = HashMap::new();
    for key in &wanted.order {
        let row = match seen.get(key) {
            Some(&at) => rows[at].clone(),
            None => held.remove(key).unwrap_or(DatabaseRow::Absent),
        };
        seen.insert(key, rows.len());
        rows.push(row);
    }
    Ok(rows)
}

/// All rows of a table with version column, if all are there and no tombstone matters; else `None`.
async fn written_rows<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    wanted: &Wanted,
) -> Result<Option<HashMap<KeyBytes, DatabaseRow>>, Failure> {
    let fetched = rows(session, table, &wanted.asked(), Extent::Full).await?;
    let held: HashMap<_, _> = fetched
        .into_iter()
        .map(|found| (found.key, DatabaseRow::Present { version: found.version, row: found.row }))
        .collect();
    if !wanted.keys.iter().all(|(key, _)| held.contains_key(key)) {
        return Ok(None);
    }
    // Where somebody else put the row, our tombstone may still stand.
    let of_others: Vec<&KeyBytes> = held
        .iter()
        .filter(|(_, row)| matches!(row, DatabaseRow::Present { version: Version::ZERO, .. }))
        .map(|(key, _)| key)
        .collect();
    let tombstones = ledger(session, table, &of_others).await?;
    Ok(tombstones.is_empty().then_some(held))
}

async fn rows_and_ledger<S: Session, D: Dialect>(
    session: &mut S,
    table: &TableText<'_, D>,
    wanted: &Wanted,
) -> Result<HashMap<KeyBytes, DatabaseRow>, Failure> {
    let keys: Vec<&KeyBytes> = wanted.keys.iter().map(|(key, _)| key).collect();
    let fetched = rows(session, table, &wanted.asked(), Extent::Full).await?;
    let versions = ledger(session, table, &keys).await?;
    let mut held: HashMap<KeyBytes, DatabaseRow> =
        versions.iter().map(|(key, version)| (key.clone(), DatabaseRow::Deleted { version: *version })).collect();
    for found in fetched {
        let version = versions.get(&found.key).copied().unwrap_or_default().max(found.version);
        held.insert(found.key, DatabaseRow::Present { version, row: found.row });
    }
    Ok(held)
}
