//! What the errors of SQLite mean.

use std::borrow::Cow;

use crate::{ErrorClass, relational::session::Failure};

use ErrorClass::{Dependent, Permanent, Schema, Transient};

/// SQLite's primary result codes that we tell apart.
const ERROR: i32 = 1;
const PERM: i32 = 3;
const TOOBIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const AUTH: i32 = 23;
const RANGE: i32 = 25;

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
        // Everything from a missing table to a function that fails on a row's value has this one code.
        ERROR => {
            let names_schema = ["no such table", "no such column", "has no column named", "no such view"];
            if names_schema.iter().any(|words| message.contains(words)) { Schema } else { Permanent }
        }
        PERM | AUTH | RANGE => Schema,
        // Busy, locked, read-only, full, I/O error; and a corrupt file, which is nobody's row.
        _ => Transient,
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
    use super::*;

    #[test]
    fn classes_by_code() {
        for (code, message, class) in [
            (5, "database is locked", Transient),
            (517, "database is locked", Transient),
            (6, "database table is locked", Transient),
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
        ] {
            assert_eq!(classify(code, message), class, "{code} {message}");
        }
    }
}
