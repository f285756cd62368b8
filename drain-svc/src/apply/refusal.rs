//! What an error of the database means for the batch that met it.

use database::{DatabaseError, ErrorClass};
use model::DeadLetterCause;

use crate::gather::Reason;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The database can't now: nothing more for it until it can.
    Away,
    /// Somebody was in the way: the same again later.
    Later,
    /// Nobody knows why. If the database is there, and it is always the same batch, a row of it may be to blame.
    Unclear,
    /// Somebody else is the owner of a shard.
    NotOwner,
    /// The table is not what it was: look at it again, then the same again; or it is, and some rows ask for another.
    Schema,
    /// A row of the batch is in the way of the others: find it, set it aside or give it up, write the others.
    Rows,
}

impl Refusal {
    pub(crate) fn of(error: &DatabaseError) -> Self {
        match (error, error.class()) {
            (DatabaseError::NotOwner(_), _) => Self::NotOwner,
            (_, ErrorClass::Transient) => Self::Away,
            (_, ErrorClass::Contended) => Self::Later,
            (_, ErrorClass::Unclassified) => Self::Unclear,
            (_, ErrorClass::Schema) => Self::Schema,
            (_, ErrorClass::Dependent | ErrorClass::Permanent) => Self::Rows,
        }
    }

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Later => "later",
            Self::Unclear => "unclear",
            Self::NotOwner => "not_owner",
            Self::Schema => "schema",
            Self::Rows => "rows",
        }
    }
}

/// An error for logs: databases put row values into their messages, so of a refused statement only the code is told.
pub(crate) fn without_values(error: &DatabaseError) -> String {
    match error {
        DatabaseError::Statement { table, class, code, .. } => {
            format!("the database refused a statement on {table} ({class:?}, code {code})")
        }
        other => other.to_string(),
    }
}

/// Why a row that was tried alone is given up; `None` if it is to be tried again. `was_patient`: it has been for long
/// enough.
pub(crate) fn of_the_database(error: &DatabaseError, was_patient: bool) -> Option<Reason> {
    let DatabaseError::Statement { code, .. } = error else { return None };
    let cause = match error.class() {
        ErrorClass::Permanent => DeadLetterCause::Permanent,
        ErrorClass::Dependent if was_patient => DeadLetterCause::Dependent,
        // Our view of the table, or the table itself, is to be put right: no row is to blame.
        ErrorClass::Dependent
        | ErrorClass::Schema
        | ErrorClass::Transient
        | ErrorClass::Contended
        | ErrorClass::Unclassified => return None,
    };
    Some(Reason { cause, code: code.clone(), message: without_values(error) })
}

/// Why a create is given up that looked at the hot store only.
pub(crate) fn since_refused() -> Reason {
    let message =
        "the database has a row of this key that is older than the create, which looked at the hot store only";
    Reason { cause: DeadLetterCause::Since, code: String::new(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::TableName;

    use super::*;

    fn statement(class: ErrorClass) -> DatabaseError {
        let (code, message) = ("23000/1062".into(), "Duplicate entry 'secret' for key".into());
        DatabaseError::Statement { table: "payments".into(), class, code, message }
    }

    #[test]
    fn every_error_has_its_way_and_none_lets_a_record_go() {
        let ways = [
            (statement(ErrorClass::Transient), Refusal::Away),
            (statement(ErrorClass::Contended), Refusal::Later),
            (statement(ErrorClass::Unclassified), Refusal::Unclear),
            (DatabaseError::Unknown("lost".into()), Refusal::Unclear),
            (DatabaseError::NotOwner(TableName::new("payments").unwrap()), Refusal::NotOwner),
            (DatabaseError::NoSuchTable(TableName::new("payments").unwrap()), Refusal::Schema),
            (statement(ErrorClass::Schema), Refusal::Schema),
            (statement(ErrorClass::Dependent), Refusal::Rows),
            (statement(ErrorClass::Permanent), Refusal::Rows),
        ];
        for (error, way) in ways {
            assert_eq!(Refusal::of(&error), way, "{error}");
        }
    }

    #[test]
    fn only_a_row_that_can_never_be_written_or_was_waited_for_is_given_up() {
        let cause = |class, was_patient| of_the_database(&statement(class), was_patient).map(|reason| reason.cause);
        for was_patient in [false, true] {
            assert_eq!(cause(ErrorClass::Permanent, was_patient), Some(DeadLetterCause::Permanent));
            assert_eq!(cause(ErrorClass::Schema, was_patient), None);
            assert_eq!(cause(ErrorClass::Transient, was_patient), None);
            assert_eq!(cause(ErrorClass::Contended, was_patient), None);
            assert_eq!(cause(ErrorClass::Unclassified, was_patient), None);
            assert_eq!(of_the_database(&DatabaseError::Unknown("lost".into()), was_patient), None);
            let no_table = DatabaseError::NoSuchTable(TableName::new("payments").unwrap());
            assert_eq!(of_the_database(&no_table, was_patient), None);
        }
        assert_eq!(cause(ErrorClass::Dependent, true), Some(DeadLetterCause::Dependent));
        assert_eq!(cause(ErrorClass::Dependent, false), None);
        let reason = of_the_database(&statement(ErrorClass::Permanent), false).unwrap();
        assert_eq!(reason.code, "23000/1062");
        assert!(!reason.message.contains("secret"), "{}", reason.message);
    }

    #[test]
    fn the_log_gets_the_code_and_not_the_values() {
        let told = without_values(&statement(ErrorClass::Dependent));
        assert!(told.contains("23000/1062") && !told.contains("secret"), "{told}");
    }
}
