//! How PostgreSQL spells it.

use std::borrow::Cow;

use model::{ColumnType, Value, array_elements};

use crate::relational::{
    dialect::{Dialect, SystemTable, Upgrade},
    shapes::Limits,
    statement::Param,
    temporal::{datetime_text, timestamp_text},
};

/// The spelling of PostgreSQL.
#[derive(Debug, Clone)]
pub(crate) struct PostgresDialect {
    /// The schema in which the tables are.
    pub(super) schema: String,
}

/// Every number is a BIGINT, as numbers are bound.
const SYSTEM_TABLES: &[SystemTable] = &[
    // Half of each page is left free, so that an update finds room beside the row and touches no index.
    SystemTable {
        name: "_sa_shard",
        columns: "(
        table_name TEXT COLLATE \"C\" NOT NULL,
        shard BIGINT NOT NULL,
        owner TEXT COLLATE \"C\" NOT NULL DEFAULT '',
        high_water BIGINT NOT NULL DEFAULT 0,
        purge_horizon BIGINT NOT NULL DEFAULT 0,
        horizon BIGINT NOT NULL DEFAULT 0,
        epoch BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (table_name, shard)
    ) WITH (fillfactor = 50)",
    },
    SystemTable {
        name: "_sa_ledger",
        columns: "(
        table_name TEXT COLLATE \"C\" NOT NULL,
        record_key BYTEA NOT NULL,
        shard BIGINT NOT NULL,
        version BIGINT NOT NULL,
        deleted BIGINT NOT NULL,
        PRIMARY KEY (table_name, record_key)
    )",
    },
    SystemTable {
        name: "_sa_table",
        columns: "(
        database_name TEXT COLLATE \"C\" NOT NULL,
        table_name TEXT COLLATE \"C\" NOT NULL,
        topic TEXT COLLATE \"C\" NOT NULL UNIQUE,
        namespace TEXT COLLATE \"C\" NOT NULL UNIQUE,
        enabled BIGINT NOT NULL,
        settings TEXT COLLATE \"C\" NOT NULL,
        PRIMARY KEY (database_name, table_name)
    )",
    },
    SystemTable {
        name: "_sa_epoch",
        columns: "(
        shard BIGINT NOT NULL PRIMARY KEY,
        epoch BIGINT NOT NULL
    )",
    },
    SystemTable {
        name: "_sa_meta",
        columns: "(
        name TEXT COLLATE \"C\" NOT NULL PRIMARY KEY,
        value BIGINT NOT NULL
    )",
    },
    SystemTable {
        name: "_sa_rate",
        columns: "(
        database_name TEXT COLLATE \"C\" NOT NULL,
        table_name TEXT COLLATE \"C\" NOT NULL,
        rate TEXT COLLATE \"C\" NOT NULL,
        PRIMARY KEY (database_name, table_name)
    )",
    },
    SystemTable {
        name: "_sa_hold",
        columns: "(
        database_name TEXT COLLATE \"C\" NOT NULL,
        table_name TEXT COLLATE \"C\" NOT NULL,
        kind TEXT COLLATE \"C\" NOT NULL,
        reason TEXT COLLATE \"C\" NOT NULL,
        set_by TEXT COLLATE \"C\" NOT NULL,
        since BIGINT NOT NULL,
        PRIMARY KEY (database_name, table_name, kind)
    )",
    },
];

/// Looked for first, for each of them locks its table before it finds out that there is nothing to do; and told not to
/// mind if another replica was faster, for a statement that fails would end the transaction.
const UPGRADES: &[Upgrade] = &[
    Upgrade {
        made: "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema() \
               AND table_name = '_sa_shard' AND column_name = 'horizon'",
        make: "ALTER TABLE _sa_shard ADD COLUMN IF NOT EXISTS horizon BIGINT NOT NULL DEFAULT 0",
    },
    Upgrade {
        made: "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema() \
               AND table_name = '_sa_shard' AND column_name = 'epoch'",
        make: "ALTER TABLE _sa_shard ADD COLUMN IF NOT EXISTS epoch BIGINT NOT NULL DEFAULT 0",
    },
    Upgrade {
        made: "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() \
               AND indexname = '_sa_ledger_tombstones'",
        make: "CREATE INDEX IF NOT EXISTS _sa_ledger_tombstones ON _sa_ledger (table_name, shard, version) \
               WHERE deleted = 1",
    },
];

impl Dialect for PostgresDialect {
    fn quote(&self, identifier: &str) -> String {
        quote(identifier)
    }

    fn table(&self, name: &str) -> String {
        // The search path may lead to another table of that name once this one is gone.
        format!("{}.{}", quote(&self.schema), quote(name))
    }

    fn refuses_table(&self, name: &str) -> Option<&'static str> {
        (name == "excluded").then_some("its name is PostgreSQL's for the new row of an upsert: rename it")
    }

    fn limits(&self) -> Limits {
        // A message may have 1 GiB; what is in one is in our memory, and in the server's more than once.
        Limits { placeholders: 65_535, bytes: 1 << 26 }
    }

    fn system_tables(&self) -> &'static [SystemTable] {
        SYSTEM_TABLES
    }

    fn count_tables(&self) -> &'static str {
        "SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname = current_schema() AND tablename = "
    }

    fn before_tables_are_made(&self) -> Option<&'static str> {
        // `IF NOT EXISTS` looks, and fails if another one is faster.
        Some("SELECT pg_advisory_xact_lock(hashtextextended('shock absorber ' || current_schema(), 0))")
    }

    fn upgrades(&self) -> &'static [Upgrade] {
        UPGRADES
    }

    fn param<'a>(&self, value: &'a Value) -> Param<'a> {
        match value {
            Value::Null => Param::Null,
            Value::Bool(truth) => Param::from(if *truth { "true" } else { "false" }),
            Value::Int64(number) => Param::Int(*number),
            Value::Uint64(number) => Param::Uint(*number),
            Value::Double(number) => Param::Double(*number),
            Value::Decimal(text) | Value::Text(text) | Value::Json(text) => Param::from(text.as_str()),
            Value::Bytes(bytes) => Param::from(bytes.as_ref()),
            Value::Timestamp(at) => format!("{}+00", timestamp_text(*at)).into(),
            Value::DateTime(at) => datetime_text(*at).into(),
            Value::Date(at) => at.to_string().into(),
            Value::Time(at) => at.to_string().into(),
        }
    }

    fn param_of<'a>(&self, ty: &ColumnType, value: &'a Value) -> Param<'a> {
        let elements = match (ty, value) {
            (ColumnType::Array { .. }, Value::Json(array)) => array_elements(array),
            _ => None,
        };
        elements.map_or_else(|| self.param(value), |elements| array_text(&elements).into())
    }

    /// Every placeholder says of what type it is: a prepared statement is kept by its text, and must mean the same to
    /// the server whether a value or NULL is bound.
    fn value_placeholder(&self, ty: &ColumnType) -> Cow<'static, str> {
        // Never with a length or a precision: such a cast cuts off silently what an assignment refuses.
        match ty {
            ColumnType::Bool => "{}::text::bool",
            ColumnType::Int { .. } | ColumnType::Uint { .. } => "{}::int8",
            ColumnType::Double | ColumnType::Real => "{}::float8",
            ColumnType::Decimal { .. } | ColumnType::Numeric => "{}::text::numeric",
            ColumnType::Text { .. } | ColumnType::Characters { .. } | ColumnType::Collated { .. } => "{}::text",
            ColumnType::Padded { .. } => "{}::bpchar",
            ColumnType::Bytes { .. } => "{}::bytea",
            ColumnType::Timestamp { .. } => "{}::text::timestamptz",
            ColumnType::DateTime { .. } => "{}::text::timestamp",
            ColumnType::Date => "{}::text::date",
            ColumnType::Time { .. } | ColumnType::TimeOfDay { .. } => "{}::text::time",
            ColumnType::Json => "{}::text::json",
            ColumnType::Jsonb => "{}::text::jsonb",
            ColumnType::Uuid => "{}::text::uuid",
            ColumnType::Inet => "{}::text::inet",
            ColumnType::Cidr => "{}::text::cidr",
            ColumnType::Array { name, .. } => return format!("{{}}::text::{name}[]").into(),
            // Of the column's own type, whichever that is; a label is bound as its text.
            _ => "{}",
        }
        .into()
    }

    fn key_placeholder(&self, ty: &ColumnType) -> Cow<'static, str> {
        self.value_placeholder(ty)
    }

    fn select_column(&self, quoted: &str, ty: &ColumnType) -> String {
        // Numbers in the width in which they are read, and no type that a later change of the table gives another form.
        match ty {
            ColumnType::Bool => format!("{quoted}::bool"),
            ColumnType::Int { .. } | ColumnType::Uint { .. } => format!("{quoted}::int8"),
            ColumnType::Double | ColumnType::Real => format!("{quoted}::float8"),
            ColumnType::Bytes { .. } => format!("{quoted}::bytea"),
            // As text it would lose the spaces.
            ColumnType::Padded { .. } => format!("{quoted}::bpchar"),
            // As text it would have the length of its prefix always.
            ColumnType::Inet => format!("abbrev({quoted})"),
            // JSON doesn't say where an array begins: one that doesn't begin at 1 is shown as what is none.
            ColumnType::Array { .. } => {
                format!("CASE WHEN array_lower({quoted}, 1) <> 1 THEN '' ELSE to_json({quoted})::text END")
            }
            _ => format!("{quoted}::text"),
        }
    }

    fn by_primary_key(&self, quoted_table: &str) -> String {
        // A scan takes no other locks here; that it isn't chosen is seen to when a connection is set up.
        quoted_table.to_owned()
    }

    fn sorts_by_sought_column(&self) -> bool {
        true
    }

    fn for_update(&self) -> &'static str {
        // Keys are never changed, so others' foreign keys need not wait for us. A delete locks what it deletes.
        " FOR NO KEY UPDATE"
    }

    fn delete_from(&self, quoted_table: &str) -> String {
        format!("DELETE FROM {quoted_table}")
    }

    fn greatest(&self) -> &'static str {
        "GREATEST"
    }

    fn on_conflict_update(&self, table: &str, key: &[String], set: &[String], version: Option<&str>) -> String {
        let assignment = |column: &str| format!("{column} = excluded.{column}");
        let assignments: Vec<String> = set.iter().map(String::as_str).chain(version).map(assignment).collect();
        let guard =
            version.map_or_else(String::new, |version| format!(" WHERE excluded.{version} > {table}.{version}"));
        format!(" ON CONFLICT ({}) DO UPDATE SET {}{guard}", key.join(", "), assignments.join(", "))
    }

    fn upsert_names_its_key(&self) -> bool {
        // Another unique key is an error, and never the row that is updated.
        true
    }

    fn on_conflict_nothing(&self, key: &[&str]) -> String {
        format!(" ON CONFLICT ({}) DO NOTHING", key.join(", "))
    }

    fn matched_by_upsert(&self, rows: u64) -> u64 {
        rows
    }

    fn is_deadlock(&self, code: &str) -> bool {
        matches!(code, "40P01" | "40001")
    }
}

/// `{"a",NULL}`
fn array_text(elements: &[Option<String>]) -> String {
    let element = |element: &Option<String>| match element {
        None => "NULL".to_owned(),
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{{{}}}", elements.iter().map(element).collect::<Vec<_>>().join(","))
}

/// An identifier in quotes.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_can_not_leave_its_quotes() {
        let dialect = PostgresDialect { schema: "s\"x".to_owned() };
        assert_eq!(dialect.quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(dialect.table("t"), "\"s\"\"x\".\"t\"");
    }

    #[test]
    fn an_array_is_bound_in_the_databases_own_notation() {
        let dialect = PostgresDialect { schema: "s".to_owned() };
        let element = Box::new(ColumnType::Enum { labels: Vec::new() });
        let ty = ColumnType::Array { element, name: "\"a b\"".to_owned() };
        assert_eq!(dialect.value_placeholder(&ty), "{}::text::\"a b\"[]");
        let bound = |array: &str| dialect.param_of(&ty, &Value::Json(array.to_owned())).into_owned();
        assert_eq!(bound("[]"), Param::from("{}"));
        assert_eq!(bound(r#"["a", null, "NULL", "", "{\"\\,}"]"#), Param::from(r#"{"a",NULL,"NULL","","{\"\\,}"}"#));
    }

    #[test]
    fn an_upsert_is_guarded_by_the_version() {
        let dialect = PostgresDialect { schema: "s".to_owned() };
        let text = dialect.on_conflict_update("t", &["\"id\"".into()], &["\"a\"".into()], Some("\"v\""));
        assert_eq!(
            text,
            " ON CONFLICT (\"id\") DO UPDATE SET \"a\" = excluded.\"a\", \"v\" = excluded.\"v\" \
             WHERE excluded.\"v\" > t.\"v\""
        );
    }
}
