//! What the errors of SQLite mean.

use std::borrow::Cow;

use crate::{ErrorClass, relational::session::Failure};

use ErrorClass::{Contended, Dependent, Permanent, Schema, Transient, Unclassified};

/// SQLite's primary result codes that we tell apart.
const ERROR: i32 = 1;
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const NOMEM: i32 = 7;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const PROTOCOL: i32 = 15;
const SCHEMA: i32 = 17;
const TOOBIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const NOLFS: i32 = 22;
const AUTH: i32 = 23;
const RANGE: i32 = 25;
const NOTADB: i32 = 26;

/// Its extended codes of constraints.
const CONSTRAINT_FOREIGNKEY: i32 = 787;
const CONSTRAINT_PRIMARYKEY: i32 = 1555;
const CONSTRAINT_UNIQUE: i32 = 2067;
const CONSTRAINT_ROWID: i32 = 2579;

/// What an error means; `code` is the extended one.
pub(super) fn classify(code: i32, message: &str) -> ErrorClass {
    match code & 0xff {
        CONSTRAINT => match code {
            CONSTRAINT_UNIQUE | CONSTRAINT_PRIMARYKEY | CONSTRAINT_ROWID | CONSTRAINT_FOREIGNKEY => Dependent,
            _ => Permanent,
        },
        TOOBIG | MISMATCH => Permanent,
        ERROR => generic(message),
        AUTH | RANGE | SCHEMA => Schema,
        BUSY | LOCKED | PROTOCOL => Contended,
        // A corrupt file is nobody's row.
        PERM | READONLY | FULL | IOERR | NOMEM | CANTOPEN | CORRUPT | NOTADB | NOLFS | INTERRUPT => Transient,
        // Never dead-letter a good row for what we don't know.
        _ => Unclassified,
    }
}

/// Everything from a missing table to a function that fails on a row's value has this one code, so the message has to
/// tell.
fn generic(message: &str) -> ErrorClass {
    const OF_THE_TABLE: &[&str] = &[
        "no such",
        "has no column named",
        "syntax error",
        "values for",
        "cannot INSERT into generated column",
        "cannot UPDATE generated column",
        "cannot modify",
        "ON CONFLICT clause",
        "foreign key mismatch",
    ];
    const OF_THE_ROW: &[&str] = &["malformed JSON", "integer overflow", "JSON path error", "JSON cannot hold"];
    if OF_THE_TABLE.iter().any(|words| message.contains(words)) {
        Schema
    } else if OF_THE_ROW.iter().any(|words| message.contains(words)) {
        Permanent
    } else {
        Unclassified
    }
}

/// An error of the driver. SQLite's messages name tables and columns, never values.
pub(super) fn failure(error: sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => {
            let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
            let class = classify(code, error.message());
            Failure::Refused { class, code: Cow::Owned(code.to_string()), message: error.message().to_owned() }
        }
        sqlx::Error::PoolTimedOut => {
            Failure::refused(Transient, "pool", "no connection became free in time: all of the pool are in use")
        }
        sqlx::Error::Configuration(error) => Failure::refused(Schema, "configuration", error.to_string()),
        sqlx::Error::Encode(error) => Failure::refused(Permanent, "encode", error.to_string()),
        other => Failure::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn classes_by_code() {
        for (code, message, class) in [
            (5, "database is locked", Contended),
            (517, "database is locked", Contended),
            (6, "database table is locked", Contended),
            (8, "attempt to write a readonly database", Transient),
            (13, "database or disk is full", Transient),
            (10, "disk I/O error", Transient),
            (11, "database disk image is malformed", Transient),
            (2067, "UNIQUE constraint failed: t.mail", Dependent),
            (1555, "UNIQUE constraint failed: t.id", Dependent),
            (787, "FOREIGN KEY constraint failed", Dependent),
            (1299, "NOT NULL constraint failed: t.a", Permanent),
            (275, "CHECK constraint failed: a > 0", Permanent),
            (1811, "refused by a trigger", Permanent),
            (18, "string or blob too big", Permanent),
            (20, "datatype mismatch", Permanent),
            (1, "no such table: t", Schema),
            (1, "table t has no column named b", Schema),
            (1, "no such column: b", Schema),
            (1, "malformed JSON", Permanent),
            (1, "something nobody has heard of", Unclassified),
            (99, "", Unclassified),
        ] {
            assert_eq!(classify(code, message), class, "{code} {message}");
        }
    }

    /// What SQLite itself says of a statement, after others on the same connection.
    async fn caused(before: &[&'static str], statement: &'static str) -> Failure {
        use sqlx::{Connection as _, Executor as _};

        let mut connection = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for sql in before {
            connection.execute(sqlx::raw_sql(*sql)).await.unwrap();
        }
        failure(connection.execute(sqlx::raw_sql(statement)).await.unwrap_err())
    }

    #[tokio::test]
    async fn each_error_that_can_be_caused_is_taken_for_what_it_is() {
        const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n BIGINT NOT NULL CHECK (n > 0), \
                             s TEXT CHECK (s IS NULL OR json(s) IS NOT NULL), u TEXT UNIQUE, \
                             g BIGINT AS (n + 1), p BIGINT REFERENCES t (id)) STRICT";
        let strict = TABLE.replace("BIGINT", "INTEGER");
        let strict: &'static str = strict.leak();
        let t: &[&str] = &["PRAGMA foreign_keys = 1", strict, "INSERT INTO t (id, n, u) VALUES (1, 1, 'a')"];
        let of = |class: ErrorClass, code: &'static str| (class, code);
        for (more, statement, expected) in [
            ("", "INSERT INTO t (id, n) VALUES (1, 1)", of(Dependent, "1555")),
            ("", "INSERT INTO t (id, n, u) VALUES (2, 1, 'a')", of(Dependent, "2067")),
            ("", "INSERT INTO t (id, n, p) VALUES (2, 1, 9)", of(Dependent, "787")),
            (
                "UPDATE t SET p = 1; INSERT INTO t (id, n, p) VALUES (2, 1, 1)",
                "DELETE FROM t WHERE id = 1",
                of(Dependent, "787"),
            ),
            ("", "INSERT INTO t (id, n) VALUES (2, NULL)", of(Permanent, "1299")),
            ("", "INSERT INTO t (id, n) VALUES (2, -1)", of(Permanent, "275")),
            ("", "INSERT INTO t (id, n) VALUES (2, 'x')", of(Permanent, "3091")),
            ("", "INSERT INTO t (id, n) VALUES ('x', 1)", of(Permanent, "20")),
            ("", "INSERT INTO t (id, n, s) VALUES (2, 1, 'x')", of(Permanent, "1")),
            ("", "INSERT INTO t (id, n, u) VALUES (2, 1, zeroblob(2000000000))", of(Permanent, "18")),
            (
                "CREATE TRIGGER r BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'no'); END",
                "INSERT INTO t (id, n) VALUES (2, 1)",
                of(Permanent, "1811"),
            ),
            ("", "INSERT INTO t (id, n, g) VALUES (2, 1, 1)", of(Schema, "1")),
            ("", "INSERT INTO t (id, n, missing) VALUES (2, 1, 1)", of(Schema, "1")),
            ("", "UPDATE t SET missing = 1", of(Schema, "1")),
            ("", "INSERT INTO missing (id) VALUES (1)", of(Schema, "1")),
            ("", "INSERT INTO t (id, n) VALUES (2)", of(Schema, "1")),
            (
                "CREATE TRIGGER r BEFORE INSERT ON t BEGIN SELECT missing(1); END",
                "INSERT INTO t (id, n) VALUES (2, 1)",
                of(Schema, "1"),
            ),
            (
                "CREATE TRIGGER r BEFORE INSERT ON t BEGIN INSERT INTO missing VALUES (1); END",
                "INSERT INTO t (id, n) VALUES (2, 1)",
                of(Schema, "1"),
            ),
            ("PRAGMA query_only = 1", "INSERT INTO t (id, n) VALUES (2, 1)", of(Transient, "8")),
            (
                "PRAGMA max_page_count = 6",
                "INSERT INTO t (id, n, u) VALUES (2, 1, hex(zeroblob(100000)))",
                of(Transient, "13"),
            ),
        ] {
            let mut before = t.to_vec();
            before.extend((!more.is_empty()).then_some(more));
            match caused(&before, statement).await {
                Failure::Refused { class, code, .. } if (class, &*code) == expected => {}
                other => panic!("{statement}: {other:?}, not {expected:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_or_not_there_blames_no_row() {
        use sqlx::{Connection as _, Executor as _};

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("torn");
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        let url = format!("sqlite:{}", path.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let error = connection.execute(sqlx::raw_sql("CREATE TABLE t (id)")).await.unwrap_err();
        let is = |failure: &Failure, expected: &str| matches!(failure, Failure::Refused { class: Transient, code, .. } if code == expected);
        let failure = failure(error);
        assert!(is(&failure, "26"), "{failure:?}");
        let error = sqlx::SqliteConnection::connect("sqlite:/nowhere/at/all").await.err().unwrap();
        let failure = super::failure(error).at_connect();
        assert!(is(&failure, "14"), "{failure:?}");
    }
}
