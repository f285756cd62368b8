//! The demo's table, with triggers by which the database itself counts what is written to it.

use anyhow::{Context as _, Result};
use database::AnyDatabase;
use model::TableName;

use crate::PAYMENTS_SQL;

/// Which SQL the database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Mysql,
}

/// Statements that make the table `name`, the table that counts its writes, and the triggers that fill it, all anew.
pub(crate) fn create(dialect: Dialect, name: &TableName) -> String {
    let (counter, now) = match dialect {
        Dialect::Sqlite => ("n INTEGER PRIMARY KEY", "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"),
        Dialect::Mysql => {
            ("n BIGINT AUTO_INCREMENT PRIMARY KEY", "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")
        }
    };
    let mut sql = format!("DROP TABLE IF EXISTS {name};\nDROP TABLE IF EXISTS {name}_writes;\n");
    sql += &PAYMENTS_SQL.replace("IF NOT EXISTS payments", &format!("IF NOT EXISTS {name}"));
    sql.push_str(&format!("CREATE TABLE {name}_writes ({counter}, at_micros BIGINT NOT NULL);\n"));
    for event in ["INSERT", "UPDATE", "DELETE"] {
        let count = format!("INSERT INTO {name}_writes (at_micros) VALUES ({now})");
        let body = match dialect {
            Dialect::Sqlite => format!("BEGIN {count}; END"),
            Dialect::Mysql => format!("FOR EACH ROW {count}"),
        };
        sql.push_str(&format!("CREATE TRIGGER {name}_after_{event} AFTER {event} ON {name} {body};\n"));
    }
    sql
}

/// When each row was written, in microseconds by the database's clock.
pub(crate) async fn write_times(database: &AnyDatabase, name: &TableName) -> Result<Vec<i64>> {
    numbers(database, &format!("SELECT at_micros FROM {name}_writes")).await
}

/// How many rows were written so far.
pub(crate) async fn writes(database: &AnyDatabase, name: &TableName) -> Result<u64> {
    count(database, &format!("SELECT COUNT(*) FROM {name}_writes")).await
}

/// How many rows of this run the table has.
pub(crate) async fn rows(database: &AnyDatabase, name: &TableName, run: &str) -> Result<u64> {
    count(database, &format!("SELECT COUNT(*) FROM {name} WHERE id LIKE '{run}%'")).await
}

async fn count(database: &AnyDatabase, sql: &str) -> Result<u64> {
    Ok(numbers(database, sql).await?.first().copied().unwrap_or(0).unsigned_abs())
}

async fn numbers(database: &AnyDatabase, sql: &str) -> Result<Vec<i64>> {
    database.query_integers(sql).await.with_context(|| format!("asking the database: {sql}"))
}
