//! How SQLite spells it.

use std::borrow::Cow;

use model::{ColumnType, Value};

use super::values;
use crate::relational::{
    dialect::{Dialect, SystemTable, Upgrade},
    shapes::Limits,
    statement::Param,
};

/// The spelling of SQLite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SqliteDialect;

const SYSTEM_TABLES: &[SystemTable] = &[
    SystemTable {
        name: "_sa_shard",
        columns: "(
        table_name TEXT NOT NULL,
        shard INTEGER NOT NULL,
        owner TEXT NOT NULL DEFAULT '',
        high_water INTEGER NOT NULL DEFAULT 0,
        purge_horizon INTEGER NOT NULL DEFAULT 0,
        horizon INTEGER NOT NULL DEFAULT 0,
        epoch INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (table_name, shard)
    ) WITHOUT ROWID",
    },
    SystemTable {
        name: "_sa_ledger",
        columns: "(
        table_name TEXT NOT NULL,
        record_key BLOB NOT NULL,
        shard INTEGER NOT NULL,
        version INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        PRIMARY KEY (table_name, record_key)
    ) WITHOUT ROWID",
    },
    SystemTable {
        name: "_sa_table",
        columns: "(
        database_name TEXT NOT NULL,
        table_name TEXT NOT NULL,
        topic TEXT NOT NULL UNIQUE,
        namespace TEXT NOT NULL UNIQUE,
        enabled INTEGER NOT NULL,
        settings TEXT NOT NULL,
        PRIMARY KEY (database_name, table_name)
    ) WITHOUT ROWID",
    },
    SystemTable {
        name: "_sa_epoch",
        columns: "(
        shard INTEGER NOT NULL PRIMARY KEY,
        epoch INTEGER NOT NULL
    )",
    },
    SystemTable {
        name: "_sa_meta",
        columns: "(
        name TEXT NOT NULL PRIMARY KEY,
        value INTEGER NOT NULL
    ) WITHOUT ROWID",
    },
    SystemTable {
        name: "_sa_rate",
        columns: "(
        database_name TEXT NOT NULL,
        table_name TEXT NOT NULL,
        rate TEXT NOT NULL,
        PRIMARY KEY (database_name, table_name)
    ) WITHOUT ROWID",
    },
    SystemTable {
        name: "_sa_hold",
        columns: "(
        database_name TEXT NOT NULL,
        table_name TEXT NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        set_by TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (database_name, table_name, kind)
    ) WITHOUT ROWID",
    },
];

const UPGRADES: &[Upgrade] = &[
    Upgrade {
        made: "SELECT count(*) FROM pragma_table_xinfo('_sa_shard') WHERE name = 'horizon'",
        make: "ALTER TABLE _sa_shard ADD COLUMN horizon INTEGER NOT NULL DEFAULT 0",
    },
    Upgrade {
        made: "SELECT count(*) FROM pragma_table_xinfo('_sa_shard') WHERE name = 'epoch'",
        make: "ALTER TABLE _sa_shard ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
    },
    Upgrade {
        made: "SELECT count(*) FROM pragma_index_list('_sa_ledger') WHERE name = '_sa_ledger_tombstones'",
        make: "CREATE INDEX _sa_ledger_tombstones ON _sa_ledger (table_name, shard, version) WHERE deleted = 1",
    },
];

impl Dialect for SqliteDialect {
    fn quote(&self, identifier: &str) -> String {
        // Not double quotes: SQLite takes a name in those that it does not know for a text.
        format!("`{}`", identifier.replace('`', "``"))
    }

    fn refuses_table(&self, name: &str) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        if name.starts_with("sqlite_") {
            return Some("it is one of SQLite's own tables: use one of yours");
        }
        (name == "excluded").then_some("its name is SQLite's for the new row of an upsert: rename it")
    }

    fn limits(&self) -> Limits {
        // SQLITE_MAX_VARIABLE_NUMBER; SQLITE_MAX_LENGTH is a thousand million, of one value and of one row.
        Limits { placeholders: 32_766, bytes: 1 << 28 }
    }

    fn system_tables(&self) -> &'static [SystemTable] {
        SYSTEM_TABLES
    }

    fn count_tables(&self) -> &'static str {
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = "
    }

    fn upgrades(&self) -> &'static [Upgrade] {
        UPGRADES
    }

    fn param<'a>(&self, value: &'a Value) -> Param<'a> {
        values::param(value)
    }

    fn key_placeholder(&self, _ty: &ColumnType) -> Cow<'static, str> {
        "{}".into()
    }

    fn select_column(&self, quoted: &str, ty: &ColumnType) -> String {
        if values::is_read_as_text(ty) { format!("CAST({quoted} AS TEXT)") } else { quoted.to_owned() }
    }

    fn by_primary_key(&self, quoted_table: &str) -> String {
        quoted_table.to_owned()
    }

    fn binary_collation(&self) -> &'static str {
        " COLLATE BINARY"
    }

    fn for_update(&self) -> &'static str {
        // Whoever writes is alone.
        ""
    }

    fn delete_from(&self, quoted_table: &str) -> String {
        format!("DELETE FROM {quoted_table}")
    }

    fn greatest(&self) -> &'static str {
        "max"
    }

    fn on_conflict_update(&self, _table: &str, key: &[String], set: &[String], version: Option<&str>) -> String {
        let assignment = |column: &str| format!("{column} = excluded.{column}");
        let assignments: Vec<String> = set.iter().map(String::as_str).chain(version).map(assignment).collect();
        let guard = version.map_or_else(String::new, |version| format!(" WHERE excluded.{version} > {version}"));
        format!(" ON CONFLICT ({}) DO UPDATE SET {}{guard}", key.join(", "), assignments.join(", "))
    }

    fn on_conflict_nothing(&self, key: &[&str]) -> String {
        format!(" ON CONFLICT ({}) DO NOTHING", key.join(", "))
    }

    fn matched_by_upsert(&self, rows: u64) -> u64 {
        rows
    }

    fn is_deadlock(&self, _code: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_can_not_leave_its_quotes() {
        assert_eq!(SqliteDialect.quote("a`b"), "`a``b`");
    }

    #[test]
    fn an_upsert_is_guarded_by_the_version() {
        let text = SqliteDialect.on_conflict_update("t", &["\"id\"".into()], &["\"a\"".into()], Some("\"v\""));
        assert_eq!(
            text,
            " ON CONFLICT (\"id\") DO UPDATE SET \"a\" = excluded.\"a\", \"v\" = excluded.\"v\" \
             WHERE excluded.\"v\" > \"v\""
        );
    }
}
