//! Random tables of all types, with names that would break out of any quotes that are not kept, and random records in
//! them: what is in the database is always what a map would hold.

use std::collections::BTreeMap;

use database::{Applied, DatabaseRow};
use jiff::Timestamp;
use model::{Chance, ColumnName, Content, Key, Row, TableSchema, Value};

use crate::{corpus, harness::*, types::Case};

on_each!(on_sqlite, sqlite: random_tables_hold_what_a_map_would);
on_servers!(random_tables_hold_what_a_map_would);

const TABLES: u64 = 8;
const ROUNDS: u64 = 12;

/// Each closes some quotes, ends some statement, or stands for a parameter somewhere.
const NAMES: &[&str] = &[
    "a`b",
    "a\"b",
    "a'b",
    "sel ect",
    "?",
    "{}",
    "$1",
    ":x",
    "--",
    "/*",
    "a\\",
    "ö",
    "%s",
    "'; DROP TABLE t; --",
    "`;\"",
    "#",
    "0",
    "NULL",
    "(",
    "a,b",
    "a.b",
    "\u{a0}",
    "@@version",
    "漢字",
    "x'00'",
];

/// What a client might send who means no good, beside the values of the corpus.
const TEXTS: &[&str] = &[
    "'; DROP TABLE t; --",
    "\\'; DROP TABLE t; --",
    "' OR '1'='1",
    "\\",
    "\\\\'",
    "?",
    "{}",
    "$1",
    "\0'",
    "`",
    "\"",
    "/*",
    "%_",
];

fn any<'a, T>(chance: &Chance, of: &'a [T]) -> &'a T {
    &of[(chance.token() % of.len() as u64) as usize]
}

struct Table<'a> {
    schema: TableSchema,
    /// Of each column, in the table's order.
    cases: Vec<&'a Case>,
}

/// Types by which rows can be found, and that fit into an index.
fn may_be_in_a_key(case: &Case) -> bool {
    let cannot = ["DOUBLE", "FLOAT", "REAL", "JSON", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT", "public.citext"];
    let declared = case.declared;
    !cannot.iter().any(|cannot| declared.starts_with(cannot))
        && declared != "NUMERIC"
        && !["BLOB", "[]", "COLLATE loose"].iter().any(|end| declared.ends_with(end))
}

fn quoted(h: &Harness, name: &str) -> String {
    let quote = h.of("`", "\"", "`");
    format!("{quote}{}{quote}", name.replace(quote, &quote.repeat(2)))
}

async fn any_table<'a>(h: &Harness, n: u64, chance: &Chance, cases: &'a [Case]) -> Table<'a> {
    let table = format!("t{n} {}.", any(chance, NAMES));
    let keys: Vec<&Case> = cases.iter().filter(|case| may_be_in_a_key(case)).collect();
    let in_key = 1 + (chance.token() % 3) as usize;
    let mut chosen: Vec<&Case> = (0..in_key).map(|_| *any(chance, &keys)).collect();
    chosen.extend((0..1 + chance.token() % 8).map(|_| any(chance, cases)));
    let mut names: Vec<&str> = NAMES.to_vec();
    chance.shuffle(&mut names);
    let quote = |name: &str| quoted(h, name);
    let columns: Vec<String> = chosen
        .iter()
        .zip(&names)
        .enumerate()
        .map(|(at, (case, name))| {
            let null = if at < in_key { "NOT NULL" } else { "NULL" };
            format!("{} {} {null}", quote(name), case.declared)
        })
        .collect();
    let key: Vec<String> = names[..in_key].iter().map(|name| quote(name)).collect();
    let create = format!("CREATE TABLE {} ({}, PRIMARY KEY ({}))", quote(&table), columns.join(", "), key.join(", "));
    let schema = h.table(&table, &create, *any(chance, &GUARDS)).await;
    Table { schema, cases: chosen }
}

impl Table<'_> {
    /// One that the table accepts.
    fn any_row(&self, chance: &Chance) -> Row {
        loop {
            let named = self.schema.columns.iter().zip(&self.cases).enumerate().map(|(at, (column, case))| {
                let is_key = self.schema.key_columns.contains(&at);
                let value = match chance.token() % 8 {
                    0 if !is_key => Value::Null,
                    1 if matches!(case.values[0].0, Value::Text(_)) => Value::Text((*any(chance, TEXTS)).to_owned()),
                    _ => any(chance, &case.values).0.clone(),
                };
                // What doesn't fit is left out, unless it is the key's: then all is drawn again.
                let value = if is_key || column.accept(value.clone()).is_ok() { value } else { Value::Null };
                (column.name.clone(), value)
            });
            let named: Row = named.collect::<Vec<(ColumnName, Value)>>().into_iter().collect();
            if let Ok(row) = self.schema.accept_row(named, moment(Timestamp::UNIX_EPOCH)) {
                return row;
            }
        }
    }
}

async fn random_tables_hold_what_a_map_would(h: Harness) {
    corpus::declare_types(&h).await;
    let cases = corpus::cases(&h).await;
    // Long values are tried elsewhere.
    let cases: Vec<Case> =
        cases.into_iter().filter(|case| !case.declared.ends_with("BLOB") && case.declared != "TEXT").collect();
    for n in 0..TABLES {
        let seed = n + 20;
        let chance = Chance::seeded(seed);
        let table = any_table(&h, n, &chance, &cases).await;
        let told = format!("seed {seed}: {:?}", table.schema);
        let mut expected: BTreeMap<model::KeyBytes, (Key, Option<(u64, Row)>)> = BTreeMap::new();
        let mut version = 0;
        for _ in 0..ROUNDS {
            let mut changes = BTreeMap::new();
            for _ in 0..1 + chance.token() % 20 {
                version += 10;
                let row = table.any_row(&chance);
                let key = table.schema.key_of(&row).unwrap();
                let is_there = expected.get(&key.to_bytes()).is_some_and(|(_, row)| row.is_some());
                let deletes = is_there && chance.token().is_multiple_of(4);
                let content = if deletes { Content::Tombstone } else { Content::Row(row.clone()) };
                // Of one key the newest.
                changes.insert(
                    key.to_bytes(),
                    (change(&table.schema, key.clone(), version, content), deletes, row, version),
                );
            }
            let batch: Vec<_> = changes.values().map(|(change, ..)| change.clone()).collect();
            assert_eq!(h.apply(&table.schema, &batch).await.unwrap(), vec![Applied::Written; batch.len()], "{told}");
            for (bytes, (change, deletes, row, version)) in changes {
                expected.insert(bytes, (change.key, (!deletes).then_some((version, row))));
            }
        }
        use database::Database as _;
        let keys: Vec<Key> = expected.values().map(|(key, _)| key.clone()).collect();
        let found = h.database.read(&table.schema, &keys).await.unwrap();
        for (found, (key, expected)) in found.iter().zip(expected.values()) {
            match (found, expected) {
                (DatabaseRow::Present { version, row }, Some((number, kept))) => {
                    assert_eq!((version.get(), row), (*number, kept), "{told}");
                }
                (DatabaseRow::Deleted { .. }, None) => {}
                other => panic!("{told}: {key:?}: {other:?}"),
            }
        }
        let there = expected.values().filter(|(_, row)| row.is_some()).count() as i64;
        let quoted = quoted(&h, table.schema.table.table.as_str());
        assert_eq!(h.number(&format!("SELECT count(*) FROM {quoted}")).await, Some(there), "{told}");
    }
}
