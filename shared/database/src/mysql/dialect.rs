//! How MySQL and MariaDB spell it.

use std::borrow::Cow;

use model::{ColumnType, Value};

use crate::relational::{
    dialect::{Dialect, SystemTable, Upgrade},
    shapes::Limits,
    statement::Param,
    temporal::{datetime_text, timestamp_text},
};

/// The spelling of MySQL and MariaDB, which differ in nothing that is written here: upserts name the new values with
/// `VALUES()`, which MySQL 8.4 calls deprecated and accepts, since MariaDB has no row alias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MysqlDialect {
    /// Bytes of one statement.
    pub(super) statement_bytes: usize,
}

const SYSTEM_TABLES: &[SystemTable] = &[
    SystemTable {
        name: "_sa_shard",
        columns: "(
        table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        shard INT NOT NULL,
        owner VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
        high_water BIGINT NOT NULL DEFAULT 0,
        purge_horizon BIGINT NOT NULL DEFAULT 0,
        horizon BIGINT NOT NULL DEFAULT 0,
        epoch BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (table_name, shard)
    ) ENGINE = InnoDB",
    },
    SystemTable {
        name: "_sa_ledger",
        columns: "(
        table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        record_key VARBINARY(1024) NOT NULL,
        shard INT NOT NULL,
        version BIGINT NOT NULL,
        deleted TINYINT NOT NULL,
        PRIMARY KEY (table_name, record_key),
        KEY tombstones (table_name, shard, deleted, version)
    ) ENGINE = InnoDB",
    },
    SystemTable {
        name: "_sa_table",
        columns: "(
        database_name VARCHAR(63) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        topic VARCHAR(249) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        namespace VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        enabled SMALLINT NOT NULL,
        settings TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        PRIMARY KEY (database_name, table_name),
        UNIQUE KEY topic (topic),
        UNIQUE KEY namespace (namespace)
    ) ENGINE = InnoDB",
    },
    SystemTable {
        name: "_sa_epoch",
        columns: "(
        shard INT NOT NULL,
        epoch BIGINT NOT NULL,
        PRIMARY KEY (shard)
    ) ENGINE = InnoDB",
    },
    SystemTable {
        name: "_sa_meta",
        columns: "(
        name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        value BIGINT NOT NULL,
        PRIMARY KEY (name)
    ) ENGINE = InnoDB",
    },
    SystemTable {
        name: "_sa_rate",
        columns: "(
        database_name VARCHAR(63) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        rate VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        PRIMARY KEY (database_name, table_name)
    ) ENGINE = InnoDB",
    },
    SystemTable {
        name: "_sa_hold",
        columns: "(
        database_name VARCHAR(63) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        table_name VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        kind VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        reason VARCHAR(400) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        set_by VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
        since BIGINT NOT NULL,
        PRIMARY KEY (database_name, table_name, kind)
    ) ENGINE = InnoDB",
    },
];

const UPGRADES: &[Upgrade] = &[
    Upgrade {
        made: "SELECT COUNT(*) FROM information_schema.COLUMNS \
               WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '_sa_shard' AND COLUMN_NAME = 'horizon'",
        make: "ALTER TABLE _sa_shard ADD COLUMN horizon BIGINT NOT NULL DEFAULT 0",
    },
    Upgrade {
        made: "SELECT COUNT(*) FROM information_schema.COLUMNS \
               WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '_sa_shard' AND COLUMN_NAME = 'epoch'",
        make: "ALTER TABLE _sa_shard ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0",
    },
    Upgrade {
        made: "SELECT COUNT(*) FROM information_schema.STATISTICS \
               WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '_sa_ledger' AND INDEX_NAME = 'tombstones'",
        make: "ALTER TABLE _sa_ledger ADD INDEX tombstones (table_name, shard, deleted, version)",
    },
];

impl Dialect for MysqlDialect {
    fn quote(&self, identifier: &str) -> String {
        format!("`{}`", identifier.replace('`', "``"))
    }

    fn limits(&self) -> Limits {
        Limits { placeholders: 65_535, bytes: self.statement_bytes }
    }

    fn system_tables(&self) -> &'static [SystemTable] {
        SYSTEM_TABLES
    }

    fn count_tables(&self) -> &'static str {
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = "
    }

    fn upgrades(&self) -> &'static [Upgrade] {
        UPGRADES
    }

    fn param<'a>(&self, value: &'a Value) -> Param<'a> {
        match value {
            Value::Null => Param::Null,
            Value::Bool(truth) => Param::Int((*truth).into()),
            Value::Int64(number) => Param::Int(*number),
            Value::Uint64(number) => Param::Uint(*number),
            Value::Double(number) => Param::Double(*number),
            Value::Decimal(text) | Value::Text(text) | Value::Json(text) => Param::from(text.as_str()),
            Value::Bytes(bytes) => Param::from(bytes.as_ref()),
            Value::Timestamp(at) => timestamp_text(*at).into(),
            Value::DateTime(at) => datetime_text(*at).into(),
            Value::Date(at) => at.to_string().into(),
            Value::Time(at) => at.to_string().into(),
        }
    }

    fn key_placeholder(&self, ty: &ColumnType) -> Cow<'static, str> {
        match ty.stored_as() {
            // A decimal compared with text is compared as a double.
            ColumnType::Decimal { precision, scale } => format!("CAST({{}} AS DECIMAL({precision}, {scale}))").into(),
            _ => "{}".into(),
        }
    }

    fn select_column(&self, quoted: &str, ty: &ColumnType) -> String {
        match ty {
            ColumnType::EpochTimestamp { .. }
            | ColumnType::DateTime { .. }
            | ColumnType::Date
            | ColumnType::Time { .. }
            | ColumnType::Uuid
            | ColumnType::Inet4
            | ColumnType::Inet6 => {
                format!("CAST({quoted} AS CHAR)")
            }
            _ => quoted.to_owned(),
        }
    }

    fn by_primary_key(&self, quoted_table: &str) -> String {
        format!("{quoted_table} FORCE INDEX (PRIMARY)")
    }

    fn by_index_of_column(&self, quoted_table: &str, is_key: bool) -> String {
        // For the sake of the order the optimizer may walk through the primary key instead, however long that takes.
        if is_key { quoted_table.to_owned() } else { format!("{quoted_table} IGNORE INDEX (PRIMARY)") }
    }

    fn character_by_character(&self, quoted: &str) -> (String, &'static str) {
        // No collation will do: the binary ones of MariaDB and of some character sets drop spaces at the end.
        (format!("CAST(CONVERT({quoted} USING utf8mb4) AS BINARY)"), "CAST(CONVERT({} USING utf8mb4) AS BINARY)")
    }

    fn in_order<'q>(&self, quoted: &'q str, ty: &ColumnType) -> Cow<'q, str> {
        match ty {
            // Sorted by their numbers, but compared with a text as texts.
            ColumnType::Enum { .. } | ColumnType::Set { .. } => format!("CONCAT({quoted})").into(),
            _ => quoted.into(),
        }
    }

    fn for_update(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn delete_from(&self, quoted_table: &str) -> String {
        // Only the multi-table form takes an index hint.
        format!("DELETE {quoted_table} FROM {}", self.by_primary_key(quoted_table))
    }

    fn greatest(&self) -> &'static str {
        "GREATEST"
    }

    fn on_conflict_update(&self, _table: &str, _key: &[String], set: &[String], version: Option<&str>) -> String {
        // Assignments are carried out from left to right and see each other, so the version, which guards the others,
        // is the last one.
        let assignment = |column: &str| match version {
            Some(version) => format!("{column} = IF(VALUES({version}) > {version}, VALUES({column}), {column})"),
            None => format!("{column} = VALUES({column})"),
        };
        let assignments: Vec<String> = set.iter().map(String::as_str).chain(version).map(assignment).collect();
        format!(" ON DUPLICATE KEY UPDATE {}", assignments.join(", "))
    }

    fn on_conflict_nothing(&self, key: &[&str]) -> String {
        let assignments: Vec<String> = key.iter().map(|column| format!("{column} = {column}")).collect();
        format!(" ON DUPLICATE KEY UPDATE {}", assignments.join(", "))
    }

    fn matched_by_upsert(&self, rows: u64) -> u64 {
        // 2 for a row that was changed, 1 for one that was not, also where the guard was false.
        2 * rows
    }

    fn is_deadlock(&self, code: &str) -> bool {
        code == "1213"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: MysqlDialect = MysqlDialect { statement_bytes: 1 << 20 };

    #[test]
    fn an_identifier_can_not_leave_its_quotes() {
        assert_eq!(DIALECT.quote("a`b"), "`a``b`");
    }

    #[test]
    fn the_version_is_assigned_last() {
        let text = DIALECT.on_conflict_update("t", &["`id`".into()], &["`a`".into()], Some("`v`"));
        assert_eq!(
            text,
            " ON DUPLICATE KEY UPDATE `a` = IF(VALUES(`v`) > `v`, VALUES(`a`), `a`), \
             `v` = IF(VALUES(`v`) > `v`, VALUES(`v`), `v`)"
        );
    }
}
