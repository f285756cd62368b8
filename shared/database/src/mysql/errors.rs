//! What the errors of MySQL and MariaDB mean, in one table.

use std::borrow::Cow;

use crate::{ErrorClass, relational::session::Failure};

use ErrorClass::{Contended, Dependent, Permanent, Schema, Transient, Unclassified};

/// Errors whose SQLSTATE says too little or the wrong thing: number, class, and whether the server's message is free
/// of values.
const KNOWN: &[(u16, ErrorClass, bool)] = &[
    // The server can't do it now.
    (1021, Transient, true), // disk full
    (1030, Transient, true), // error from the storage engine
    (1037, Transient, true), // out of memory
    (1038, Transient, true), // out of sort memory
    (1040, Transient, true), // too many connections
    (1041, Transient, true), // out of resources
    (1026, Transient, true), // error writing a file
    (1045, Transient, true), // access denied: a password being changed
    (1047, Transient, true), // Galera: not ready for queries
    (1053, Transient, true), // shutdown in progress
    (1077, Transient, true), // normal shutdown
    (1079, Transient, true), // shutdown complete
    (1114, Transient, true), // the table is full
    (1129, Transient, true), // host is blocked
    (1152, Transient, true), // aborted connection
    (1158, Transient, true), // network
    (1159, Transient, true), // network
    (1160, Transient, true), // network
    (1161, Transient, true), // network
    (1180, Transient, true), // error during commit
    (1181, Transient, true), // error during rollback
    (1184, Transient, true), // aborted connection
    (1203, Transient, true), // max_user_connections
    (1226, Transient, true), // resource limit of the user
    (1243, Transient, true), // a prepared statement that the server has forgotten
    (1290, Transient, true), // read-only option
    (1297, Transient, true), // temporary error
    (1317, Transient, true), // query interrupted: KILL QUERY
    (1461, Transient, true), // max_prepared_stmt_count
    (1637, Transient, true), // too many active transactions
    (1792, Transient, true), // read-only transaction
    (1836, Transient, true), // read-only mode
    (1878, Transient, true), // temporary file write failure
    (1927, Transient, true), // MariaDB: connection was killed
    (1969, Transient, true), // MariaDB: max_statement_time
    (3024, Transient, true), // max_execution_time
    (3100, Transient, true), // before-commit hook, group replication
    (3101, Transient, true), // rolled back by group replication
    (4031, Transient, true), // disconnected by the server for inactivity
    // Another transaction was in the way.
    (1020, Contended, true), // record has changed since last read
    (1205, Contended, true), // lock wait timeout
    (1206, Contended, true), // lock table is full
    (1213, Contended, true), // deadlock
    (1223, Contended, true), // conflicting read lock
    (1615, Contended, true), // statement needs to be prepared again
    (1689, Contended, true), // wait on a lock was aborted
    (3572, Contended, true), // lock not immediately available
    // Another row stands in the way.
    (1022, Dependent, true),  // duplicate key
    (1062, Dependent, false), // duplicate entry
    (1169, Dependent, true),  // unique constraint
    (1216, Dependent, true),  // foreign key, no parent
    (1217, Dependent, true),  // foreign key, has children
    (1451, Dependent, true),  // foreign key, has children
    (1452, Dependent, true),  // foreign key, no parent
    (1557, Dependent, true),  // foreign key, duplicate by cascade
    (1586, Dependent, false), // duplicate entry
    (1761, Dependent, false), // foreign key, duplicate by cascade
    (1762, Dependent, false), // foreign key, duplicate by cascade
    // The table is not what it was, or we may not do with it what we must.
    (1044, Schema, true), // access to the database denied
    (1049, Schema, true), // unknown database
    (1051, Schema, true), // unknown table
    (1054, Schema, true), // unknown column
    (1064, Schema, true), // syntax
    (1091, Schema, true), // no such column or key
    (1109, Schema, true), // unknown table
    (1136, Schema, true), // number of columns
    (1142, Schema, true), // command denied on the table
    (1143, Schema, true), // command denied on the column
    (1146, Schema, true), // no such table
    (1176, Schema, true), // no such key
    (1227, Schema, true), // privilege missing
    (1305, Schema, true), // no such routine, called by a trigger
    (1364, Schema, true), // no default: a column was added
    (1412, Schema, true), // the table definition has changed
    (1906, Schema, true), // MariaDB: value for a generated column
    (3105, Schema, true), // value for a generated column
    // The row can't be written.
    (1048, Permanent, true),  // may not be NULL
    (1118, Permanent, true),  // row size too large
    (1153, Permanent, true),  // packet too large
    (1264, Permanent, true),  // out of range
    (1265, Permanent, true),  // data truncated
    (1267, Permanent, true),  // mix of collations
    (1292, Permanent, false), // incorrect value
    (1301, Permanent, true),  // result larger than max_allowed_packet
    (1366, Permanent, false), // incorrect value
    (1369, Permanent, true),  // view check option
    (1406, Permanent, true),  // data too long
    (1411, Permanent, false), // incorrect value
    (1526, Permanent, false), // no partition for the value
    (1644, Permanent, false), // SIGNAL of a trigger
    (1690, Permanent, false), // out of range in an expression
    (3140, Permanent, false), // invalid JSON
    (3141, Permanent, false), // invalid JSON
    (3156, Permanent, false), // invalid JSON value for a cast
    (3988, Permanent, true),  // the column's character set lacks a character
    (3157, Permanent, false), // JSON document too deep
    (3819, Permanent, true),  // check constraint
    (4025, Permanent, true),  // MariaDB: check constraint
];

/// What an error of the server means.
pub(super) fn classify(number: u16, sqlstate: &str) -> ErrorClass {
    // MySQL gives this number to something else than MariaDB's check constraint.
    if number == 4025 && sqlstate != "23000" {
        return Unclassified;
    }
    if let Some((_, class, _)) = KNOWN.iter().find(|known| known.0 == number) {
        return *class;
    }
    match sqlstate.get(..2) {
        Some("21" | "42") => Schema,
        Some("22" | "44" | "45") => Permanent,
        Some("23") => Dependent,
        Some("08") => Transient,
        Some("40") => Contended,
        // Never dead-letter a good row for what we don't know.
        _ => Unclassified,
    }
}

/// Errors after which the connection is of no use though the server has answered: it was killed, or leads to a server
/// that has become a replica, or has forgotten our statements. A new one may lead elsewhere.
const ENDS_CONNECTION: &[u16] = &[1053, 1077, 1079, 1152, 1153, 1184, 1243, 1290, 1792, 1836, 1927, 4031];

/// Whether a connection on which a statement was refused so must not be used again.
pub(super) fn ends_connection(code: &str) -> bool {
    code.parse().is_ok_and(|number| ENDS_CONNECTION.contains(&number))
}

/// The message without the row's values: some messages quote them.
pub(super) fn redact(number: u16, message: &str) -> Cow<'_, str> {
    if KNOWN.iter().any(|(known, _, free)| *known == number && *free) {
        return Cow::Borrowed(message);
    }
    let Some(start) = message.find(['\'', '"']) else { return Cow::Borrowed(message) };
    // What follows names the key or the column; a value may contain these words, so look from the end.
    let tail = [" for key ", " for column ", " for function "].iter().filter_map(|words| message.rfind(words)).max();
    let end = tail.or_else(|| message.rfind(['\'', '"']).map(|last| last + 1)).unwrap_or(message.len());
    if end <= start {
        return Cow::Borrowed("(the server's message is withheld: it may hold values)");
    }
    Cow::Owned(format!("{}(a value){}", &message[..start], &message[end..]))
}

/// An error of the driver.
pub(super) fn failure(error: sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
            Some(error) => {
                let (number, state) = (error.number(), error.code().unwrap_or_default());
                let class = classify(number, state);
                let message = redact(number, error.message()).into_owned();
                Failure::Refused { class, code: Cow::Owned(number.to_string()), message }
            }
            None => Failure::Broken("an error of an unknown kind".to_owned()),
        },
        sqlx::Error::PoolTimedOut => Failure::refused(Transient, "pool", "no connection could be made in time"),
        sqlx::Error::Configuration(error) => Failure::refused(Schema, "configuration", error.to_string()),
        sqlx::Error::Encode(error) => Failure::refused(Permanent, "encode", error.to_string()),
        other => Failure::Broken(other.to_string()),
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
    fn classes_by_number_and_by_sqlstate() {
        for (number, state, class) in [
            (1213, "40001", Contended),
            (1205, "HY000", Contended),
            (1243, "HY000", Transient),
            (1040, "08004", Transient),
            (1062, "23000", Dependent),
            (1452, "23000", Dependent),
            (1054, "42S22", Schema),
            (1146, "42S02", Schema),
            (1406, "22001", Permanent),
            (1264, "22003", Permanent),
            (1048, "23000", Permanent),
            (3819, "HY000", Permanent),
            (4025, "23000", Permanent),
            (4025, "HY000", Unclassified),
            (9999, "22999", Permanent),
            (9999, "42999", Schema),
            (9999, "23999", Dependent),
            (9999, "08S01", Transient),
            (9999, "40001", Contended),
            (9999, "HY000", Unclassified),
            (9999, "", Unclassified),
        ] {
            assert_eq!(classify(number, state), class, "{number} {state}");
        }
    }

    #[test]
    fn what_ends_a_connection_blames_no_row_but_for_its_size() {
        for number in ENDS_CONNECTION {
            let class = classify(*number, "HY000");
            assert!(class == Transient || *number == 1153, "{number}: {class:?}");
        }
        assert!(ends_connection("1290") && !ends_connection("1213") && !ends_connection("connection"));
    }

    #[test]
    fn no_value_is_left_in_a_message() {
        let cases = [
            (1062, "Duplicate entry 'secret' for key 'orders.mail'", "Duplicate entry (a value) for key 'orders.mail'"),
            (1062, "Duplicate entry 'x' for key 'y' for key 'mail'", "Duplicate entry (a value) for key 'mail'"),
            (
                1366,
                "Incorrect string value: '\\xF0secret' for column `d`.`t`.`c` at row 1",
                "Incorrect string value: (a value) for column `d`.`t`.`c` at row 1",
            ),
            (1644, "balance of 'secret' is \"secret\"", "balance of (a value)"),
            (1406, "Data too long for column 'name' at row 1", "Data too long for column 'name' at row 1"),
        ];
        for (number, message, expected) in cases {
            assert_eq!(redact(number, message), expected);
        }
    }

    #[test]
    fn of_an_unknown_error_nothing_quoted_is_told() {
        let told = redact(9999, "cannot do 'secret'");
        assert!(!told.contains("secret"), "{told}");
    }
}
