//! What an error of the database means for the batch that met it.

use database::{DatabaseError, ErrorClass};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The database can't now, or nobody knows: the same again later.
    Later,
    /// Somebody else is the owner of a shard.
    NotOwner,
    /// The table is not what it was: look at it again, then the same again; or it is, and some rows ask for another.
    Schema,
    /// A row of the batch is in the way of the others: find it, hold it, write the others.
    ///
    /// A row that can never be written goes this way as well, until there are dead letters to put it to.
    Rows,
}

impl Refusal {
    pub(crate) fn of(error: &DatabaseError) -> Self {
        match (error, error.class()) {
            (DatabaseError::NotOwner(_), _) => Self::NotOwner,
            (DatabaseError::Unknown(_), _) | (_, ErrorClass::Transient) => Self::Later,
            (_, ErrorClass::Schema) => Self::Schema,
            (_, ErrorClass::Dependent | ErrorClass::Permanent) => Self::Rows,
        }
    }

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Later => "later",
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
            (statement(ErrorClass::Transient), Refusal::Later),
            (DatabaseError::Unknown("lost".into()), Refusal::Later),
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
    fn the_log_gets_the_code_and_not_the_values() {
        let told = without_values(&statement(ErrorClass::Dependent));
        assert!(told.contains("23000/1062") && !told.contains("secret"), "{told}");
    }
}
