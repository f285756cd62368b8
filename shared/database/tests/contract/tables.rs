//! Tables that every database can make, and what somebody else does to them.

use std::collections::BTreeSet;

use database::{Database, memory::MemoryTable};
use model::{Column, ColumnType, Shard, TableName, TableSchema, VersionGuard};

use crate::{harness::*, tested::Tested};

/// A table of texts and numbers.
pub struct TableOf<'a> {
    pub name: &'a str,
    /// In the table's order. Those outside the key may be NULL.
    pub columns: &'a [(&'a str, Holds)],
    pub key: &'a [&'a str],
    pub unique: Option<&'a str>,
}

#[derive(Clone, Copy)]
pub enum Holds {
    Text,
    Number,
}

impl TableOf<'_> {
    fn create(&self) -> String {
        let columns = self.columns.iter().map(|(name, holds)| {
            let null = if self.key.contains(name) { "NOT NULL" } else { "NULL" };
            let ty = match holds {
                Holds::Text => "VARCHAR(100)",
                Holds::Number => "BIGINT",
            };
            format!("{name} {ty} {null}, ")
        });
        let unique = self.unique.map_or_else(String::new, |column| format!(", UNIQUE ({column})"));
        format!(
            "CREATE TABLE {} ({}PRIMARY KEY ({}){unique})",
            self.name,
            columns.collect::<String>(),
            self.key.join(", ")
        )
    }

    fn in_memory(&self) -> MemoryTable {
        let column = |(name, holds): &(&str, Holds)| {
            let ty = match holds {
                Holds::Text => ColumnType::Text { max_chars: Some(100), max_bytes: None },
                Holds::Number => ColumnType::Int { bits: 64 },
            };
            Column { nullable: !self.key.contains(name), ..MemoryTable::column(name, ty).unwrap() }
        };
        let position = |name: &str| self.columns.iter().position(|(column, _)| *column == name).unwrap();
        MemoryTable {
            checks: Vec::new(),
            columns: self.columns.iter().map(column).collect(),
            key: self.key.iter().map(|name| position(name)).collect(),
            unique: self.unique.iter().map(|name| vec![position(name)]).collect(),
            guard: VersionGuard::Ledger,
        }
    }
}

impl Harness {
    /// Makes a table, as somebody else does.
    pub async fn make(&self, table: &TableOf<'_>) {
        match &*self.database {
            Tested::Sql(_) => self.sql(&table.create()).await,
            Tested::Memory(database) => database.define_table(name(table.name), table.in_memory()),
        }
    }

    /// Makes a table, introspects and owns it; with a version column if the guard says so.
    pub async fn table_of(&self, table: &TableOf<'_>, guard: VersionGuard) -> TableSchema {
        self.make(table).await;
        self.adopt(table.name, guard).await
    }

    /// The table of most tests.
    pub async fn make_items(&self, table: &str) {
        let columns = [("id", Holds::Text), ("n", Holds::Number), ("note", Holds::Text)];
        self.make(&TableOf { name: table, columns: &columns, key: &["id"], unique: None }).await;
    }

    /// Somebody else writes a row of `items` where none is.
    pub async fn write_theirs(&self, table: &TableName, id: &str, n: i64) {
        match &*self.database {
            Tested::Sql(_) => self.sql(&format!("INSERT INTO {table} (id, n) VALUES ('{id}', {n})")).await,
            Tested::Memory(database) => database.write_row(table, item(id, n)).unwrap(),
        }
    }

    /// Somebody else removes all rows.
    pub async fn remove_theirs(&self, table: &TableName) {
        match &*self.database {
            Tested::Sql(_) => self.sql(&format!("DELETE FROM {table}")).await,
            Tested::Memory(database) => {
                for (key, _) in database.records(table).unwrap() {
                    database.remove_row(table, &key.decode().unwrap()).unwrap();
                }
            }
        }
    }

    /// Makes a table empty again, and forgets all that was ever in it, but not its owners.
    pub async fn forget_all(&self, table: &TableName) {
        match &*self.database {
            Tested::Sql(_) => {
                self.sql(&format!("DELETE FROM {table}")).await;
                self.sql(&format!("DELETE FROM _sa_ledger WHERE table_name = '{table}'")).await;
                let reset = "UPDATE _sa_shard SET high_water = 0, purge_horizon = 0 WHERE table_name =";
                self.sql(&format!("{reset} '{table}'")).await;
            }
            Tested::Memory(database) => {
                for (key, _) in database.records(table).unwrap() {
                    let key = key.decode().unwrap();
                    database.set_record(table, Shard(0), &key, database::DatabaseRow::Absent).unwrap();
                }
                for shard in shards().all() {
                    if let Some(state) = database.shard_state(table, shard) {
                        let (high_water, purge_horizon) = (version(0), version(0));
                        let state = database::memory::ShardState { high_water, purge_horizon, ..state };
                        database.set_shard_state(table, shard, state);
                    }
                }
            }
        }
    }

    /// How many rows somebody else counts.
    pub async fn rows(&self, table: &TableName) -> i64 {
        match &*self.database {
            Tested::Sql(_) => self.number(&format!("SELECT count(*) FROM {table}")).await.unwrap(),
            Tested::Memory(database) => {
                let records = database.records(table).unwrap();
                records.iter().filter(|(_, row)| matches!(row, database::DatabaseRow::Present { .. })).count() as i64
            }
        }
    }

    /// How many entries the ledger has.
    pub async fn ledger_entries(&self, table: &TableName) -> i64 {
        match &*self.database {
            Tested::Sql(_) => {
                let select = format!("SELECT count(*) FROM _sa_ledger WHERE table_name = '{table}'");
                self.number(&select).await.unwrap()
            }
            Tested::Memory(database) => database.ledger_entries(table) as i64,
        }
    }

    /// All that is stored of a table: rows, versions, ledger, shard rows.
    pub async fn bytes(&self, table: &TableName) -> String {
        if let Tested::Memory(database) = &*self.database {
            let shards: Vec<_> = shards().all().map(|shard| database.shard_state(table, shard)).collect();
            return format!("{:?} {shards:?}", database.records(table).unwrap());
        }
        let is_ledger = table.as_str().contains("ledger");
        let version = if is_ledger { "0" } else { "_sa_version" };
        let mut all = String::new();
        for (columns, from) in [
            (vec!["id", "n", "coalesce(note, '-')", version], format!("{table}")),
            (
                vec![
                    self.of("hex(record_key)", "encode(record_key, 'hex')", "hex(record_key)"),
                    "shard",
                    "version",
                    "deleted",
                ],
                format!("_sa_ledger WHERE table_name = '{table}'"),
            ),
            (vec!["shard", "owner", "high_water", "purge_horizon"], format!("_sa_shard WHERE table_name = '{table}'")),
        ] {
            let (row, order) = if self.is_sqlite() {
                (columns.join(" || ' ' || "), String::new())
            } else {
                (format!("CONCAT_WS(' ', {})", columns.join(", ")), format!(" ORDER BY {}", columns[0]))
            };
            let joined = self.of(
                format!("group_concat({row}{order})"),
                format!("string_agg({row}, ','{order})"),
                format!("group_concat({row})"),
            );
            let rows = self.text(&format!("SELECT {joined} FROM {from}")).await;
            all.push_str(&rows.unwrap_or_default());
            all.push('\n');
        }
        all
    }

    /// How many shard rows there are of these tables and so many shards, and who owns them.
    pub async fn shard_owners(&self, tables: &[TableName], shards: u16) -> (i64, BTreeSet<String>) {
        match &*self.database {
            Tested::Sql(_) => {
                let owner = self.text("SELECT min(owner) FROM _sa_shard").await;
                let other = self.text("SELECT max(owner) FROM _sa_shard").await;
                let count = self.number("SELECT count(*) FROM _sa_shard").await.unwrap();
                (count, owner.into_iter().chain(other).collect())
            }
            Tested::Memory(database) => {
                let of = |table| (0..shards).filter_map(move |shard| database.shard_state(table, Shard(shard)));
                let owners: Vec<String> = tables.iter().flat_map(of).map(|state| state.owner.0).collect();
                (owners.len() as i64, owners.into_iter().collect())
            }
        }
    }

    /// Up to where a table shows all accepted writes to those who read it themselves.
    pub async fn horizon(&self, table: &TableName) -> u64 {
        match &*self.database {
            Tested::Sql(_) => {
                let select = format!("SELECT MIN(horizon) FROM _sa_shard WHERE table_name = '{table}'");
                self.number(&select).await.unwrap_or_default().unsigned_abs()
            }
            Tested::Memory(database) => database.horizon(table).unwrap_or_default().get(),
        }
    }

    /// Introspects and owns a table that is there.
    pub async fn adopt(&self, table: &str, guard: VersionGuard) -> TableSchema {
        if guard == VersionGuard::Column {
            self.database.add_version_column(&name(table)).await.unwrap();
        }
        let schema = self.introspect(table).await.unwrap();
        assert_eq!(schema.guard, guard);
        self.own(&schema).await;
        schema
    }
}
