//! What the errors of PostgreSQL mean, in one table.

use std::borrow::Cow;

use sqlx::postgres::PgDatabaseError;

use crate::{ErrorClass, relational::session::Failure};

use ErrorClass::{Contended, Dependent, Permanent, Schema, Transient, Unclassified};

/// SQLSTATEs whose class, the first two characters, says too little or the wrong thing; and whether the server's message
/// is free of values.
const KNOWN: &[(&str, ErrorClass, bool)] = &[
    // The server can't do it now.
    ("25006", Transient, true), // read-only transaction: a standby
    ("25P02", Transient, true), // an earlier statement of the transaction failed
    ("25P03", Transient, true), // idle in a transaction for too long
    ("25P04", Transient, true), // transaction timeout
    ("26000", Transient, true), // a prepared statement that the server has forgotten
    ("28000", Transient, true), // not let in
    ("28P01", Transient, true), // wrong password: being changed
    ("55006", Transient, true), // object in use
    ("57014", Transient, true), // cancelled, by somebody or by statement_timeout
    ("57P01", Transient, true), // shutdown, or pg_terminate_backend
    ("57P02", Transient, true), // another session crashed
    ("57P03", Transient, true), // starting up or shutting down
    ("57P05", Transient, true), // idle for too long
    ("58000", Transient, true), // system error
    ("58030", Transient, true), // input/output error
    // Another transaction was in the way.
    ("40001", Contended, true), // serialization failure
    ("40P01", Contended, true), // deadlock
    ("55P03", Contended, true), // lock not available within lock_timeout
    // Another row stands in the way.
    ("23001", Dependent, true), // restrict
    ("23503", Dependent, true), // foreign key
    ("23505", Dependent, true), // unique
    ("23P01", Dependent, true), // exclusion constraint
    // Nobody knows.
    ("40003", Unclassified, true), // statement completion unknown
    // The table is not what it was, or we may not do with it what we must.
    ("0A000", Schema, true), // a cached plan of another form, or not possible on this kind of table
    ("3D000", Schema, true), // no such database
    ("3F000", Schema, true), // no such schema
    ("42501", Schema, true), // privilege missing
    ("42601", Schema, true), // syntax
    ("42703", Schema, true), // unknown column
    ("42804", Schema, true), // the column is of another type
    ("42846", Schema, true), // the column is of another type
    ("42883", Schema, true), // no such function, called by a trigger; or the column is of another type
    ("428C9", Schema, true), // value for a generated column
    ("42P01", Schema, true), // unknown table
    ("42P10", Schema, true), // the primary key is not what it was
    // The row can't be written.
    ("21000", Permanent, true),  // one row twice in one statement
    ("22001", Permanent, true),  // too long
    ("22003", Permanent, false), // out of range
    ("22007", Permanent, false), // invalid date or time
    ("22008", Permanent, false), // date or time out of range
    ("22021", Permanent, false), // not in the encoding
    ("22P02", Permanent, false), // invalid text for the type
    ("22P05", Permanent, false), // not in the encoding
    ("23502", Permanent, true),  // may not be NULL
    ("23514", Permanent, true),  // check constraint
    ("44000", Permanent, true),  // view check option
    ("54000", Permanent, true),  // a limit of the server, as the size of an index's row
    ("54001", Permanent, true),  // too complex
];

/// What an error of the server means.
pub(super) fn classify(state: &str) -> ErrorClass {
    if let Some((_, class, _)) = KNOWN.iter().find(|known| known.0 == state) {
        return *class;
    }
    match state.get(..2) {
        Some("08" | "53" | "57") => Transient,
        Some("40") => Contended,
        Some("23") => Dependent,
        Some("42") => Schema,
        // P0: what a trigger raises.
        Some("22" | "P0") => Permanent,
        // Never dead-letter a good row for what we don't know.
        _ => Unclassified,
    }
}

/// Whether a connection on which a statement was refused so must not be used again, though the server has answered: it
/// was ended, or leads to a standby, or its statements are forgotten or of another form. A new one may lead elsewhere.
pub(super) fn ends_connection(state: &str) -> bool {
    state.starts_with("08")
        || state.starts_with("57P")
        || matches!(state, "0A000" | "25006" | "25P02" | "25P03" | "25P04" | "26000" | "28000" | "28P01")
}

/// Whether the server's word on a commit leaves it open what became of it.
pub(super) fn leaves_commit_open(state: &str) -> bool {
    state.starts_with("08") || state.starts_with("57") || state == "40003"
}

/// The message without the row's values: some messages quote them. What the server tells in detail is left out always.
fn redact<'a>(state: &str, message: &'a str) -> Cow<'a, str> {
    if let Some((_, _, free)) = KNOWN.iter().find(|known| known.0 == state) {
        if *free {
            return Cow::Borrowed(message);
        }
        let end = message.find(['"', ':', '\'']).unwrap_or(message.len());
        return Cow::Owned(format!("{} (a value)", message[..end].trim_end()));
    }
    Cow::Borrowed("(the server's message is withheld: it may hold values)")
}

fn told(error: &PgDatabaseError) -> String {
    let mut told = redact(error.code(), error.message()).into_owned();
    let place = [("column", error.column()), ("constraint", error.constraint())];
    for (what, name) in place {
        if let Some(name) = name.filter(|name| !told.contains(*name)) {
            told.push_str(&format!(", {what} {name}"));
        }
    }
    told
}

/// An error of the driver.
pub(super) fn failure(error: sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => Failure::Refused {
                class: classify(error.code()),
                code: Cow::Owned(error.code().to_owned()),
                message: told(error),
            },
            None => Failure::Broken("an error of an unknown kind".to_owned()),
        },
        sqlx::Error::PoolTimedOut => Failure::refused(Transient, "pool", "no connection could be made in time"),
        sqlx::Error::Configuration(error) => Failure::refused(Schema, "configuration", error.to_string()),
        sqlx::Error::Encode(error) => Failure::refused(Permanent, "encode", error.to_string()),
        other => Failure::Broken(other.to_string()),
    }
}

/// The same, of a statement. A NULL in a column that the statement doesn't name is not the row's fault: the column was
/// added since the table was looked at.
pub(super) fn failure_of(error: sqlx::Error, statement: &str) -> Failure {
    let unnamed = match &error {
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .filter(|error| error.code() == "23502")
            .and_then(PgDatabaseError::column)
            .is_some_and(|column| !statement.contains(&super::dialect::quote(column))),
        _ => false,
    };
    match failure(error) {
        Failure::Refused { code, message, .. } if unnamed => Failure::Refused { class: Schema, code, message },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_stands_once() {
        for (at, known) in KNOWN.iter().enumerate() {
            assert!(!KNOWN[..at].iter().any(|other| other.0 == known.0), "{} stands twice", known.0);
        }
    }

    #[test]
    fn classes_by_state_and_by_class() {
        for (state, class) in [
            ("40001", Contended),
            ("40P01", Contended),
            ("55P03", Contended),
            ("57P01", Transient),
            ("57014", Transient),
            ("53300", Transient),
            ("53100", Transient),
            ("08006", Transient),
            ("23505", Dependent),
            ("23503", Dependent),
            ("22999", Permanent),
            ("23502", Permanent),
            ("23514", Permanent),
            ("P0001", Permanent),
            ("42P01", Schema),
            ("42703", Schema),
            ("42999", Schema),
            ("XX000", Unclassified),
            ("99999", Unclassified),
            ("", Unclassified),
        ] {
            assert_eq!(classify(state), class, "{state}");
        }
    }

    #[test]
    fn what_ends_a_connection_blames_no_row() {
        for (state, class, _) in KNOWN.iter().filter(|known| ends_connection(known.0)) {
            assert!(matches!(class, Transient | Schema), "{state}: {class:?}");
        }
        assert!(!ends_connection("40P01") && !ends_connection("57014") && !ends_connection("connection"));
    }

    #[test]
    fn no_value_is_left_in_a_message() {
        for (state, message, expected) in [
            (
                "22P02",
                "invalid input syntax for type integer: \"secret\"",
                "invalid input syntax for type integer (a value)",
            ),
            ("22003", "value \"secret\" is out of range for type smallint", "value (a value)"),
            ("22008", "date/time field value out of range: \"secret\"", "date/time field value out of range (a value)"),
            ("P0001", "balance of secret", "(the server's message is withheld: it may hold values)"),
            (
                "23505",
                "duplicate key value violates unique constraint \"u\"",
                "duplicate key value violates unique constraint \"u\"",
            ),
        ] {
            assert_eq!(redact(state, message), expected);
        }
    }
}
