//! The errors of the use cases, each with its reason. The one place that decides.

use model::{Violation, ViolationReason};
use proto::Reason;

use super::failure::{Failure, FieldProblem};
use crate::{
    Part, StoreError,
    accept::WriteError,
    applied::WaitError,
    dead_letters::{DeadLetterError, Problem},
    find::FindError,
    read::ReadError,
    tables::TableError,
    verify::VerifyError,
    watch::WatchError,
};

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        let reason = match error {
            WriteError::Invalid { part, violations } => return invalid(part, violations),
            WriteError::Store(error) => return error.into(),
            WriteError::TableNotEnabled(table) => {
                return Self::new(Reason::TableNotEnabled, message).with("table", table);
            }
            WriteError::AlreadyExists(table) => return Self::new(Reason::AlreadyExists, message).with("table", table),
            WriteError::NotFound(table) => return Self::new(Reason::NotFound, message).with("table", table),
            WriteError::Aborted(table) => return Self::new(Reason::EtagMismatch, message).with("table", table),
            WriteError::Conflict { table, .. } => return Self::new(Reason::Conflict, message).with("table", table),
            WriteError::BacklogFull { table, .. } => {
                return Self::new(Reason::BacklogFull, message).with("table", table);
            }
            WriteError::DrainingDown(table) => return Self::new(Reason::DrainingDown, message).with("table", table),
            WriteError::ParkedFull { table, .. } => return Self::new(Reason::ParkedFull, message).with("table", table),
            WriteError::LevelNotReached { reached, .. } => {
                return Self::new(Reason::LevelNotReached, message).with("reached", reached.as_str());
            }
            WriteError::Unsupported(_) => Reason::InvalidArgument,
            WriteError::TooLarge { .. } => Reason::RecordTooLarge,
            WriteError::RequestIdReused(_) => Reason::RequestIdReused,
            WriteError::LogDown => Reason::LogUnavailable,
            WriteError::LogQueueFull => Reason::LogQueueFull,
            WriteError::OutcomeUnknown(_) => Reason::OutcomeUnknown,
            WriteError::DeadLettered => Reason::DeadLettered,
            WriteError::NotBegun(_) => Reason::StreamEnded,
        };
        Self::new(reason, message)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::Invalid { part, violations } => invalid(part, violations),
            ReadError::TableNotEnabled(table) => Self::new(Reason::TableNotEnabled, message).with("table", table),
            ReadError::NotFound(table) => Self::new(Reason::NotFound, message).with("table", table),
            ReadError::NoRoom => Self::new(Reason::AnswerFull, message),
            ReadError::Store(error) => error.into(),
        }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        let message = error.to_string();
        let field = |name: &str, message| Self::of_fields(vec![FieldProblem::invalid(name, message)]);
        match error {
            FindError::Invalid { part, violations } => invalid(part, violations),
            FindError::Null(_) => field("value", message),
            FindError::TooMany { .. } => field("limit", message),
            FindError::PageToken => field("page_token", message),
            FindError::NotDeclared { table, field } => {
                Self::new(Reason::FieldNotIndexed, message).with("table", table).with("field", field)
            }
            FindError::Unindexed { table, field } => {
                Self::new(Reason::FieldNotIndexed, message).with("table", table).with("field", field)
            }
            FindError::TableNotEnabled(table) => Self::new(Reason::TableNotEnabled, message).with("table", table),
            FindError::IndexNotReady(table) => Self::new(Reason::IndexNotReady, message).with("table", table),
            FindError::Store(error) => error.into(),
        }
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        let message = error.to_string();
        match error {
            WaitError::UnknownToken { at } => {
                Self::of_fields(vec![FieldProblem::invalid(format!("tokens[{at}]"), message)])
            }
            WaitError::DeadLettered { at, table } => {
                Self::new(Reason::DeadLettered, message).with("table", table).with("token", at)
            }
            WaitError::PerhapsLost { .. } => Self::new(Reason::OutcomeUnknown, message),
            WaitError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Closed { shard } => Self::new(Reason::ShardClosed, message).with("shard", shard),
            StoreError::HotStoreFull => Self::new(Reason::HotStoreFull, message),
            StoreError::HotStoreDown(_) | StoreError::Late(_) => Self::new(Reason::HotStoreUnavailable, message),
            StoreError::DatabaseDown(_) => Self::new(Reason::DatabaseUnavailable, message),
            StoreError::DatabaseUnfit(_) => Self::new(Reason::TableUnsupported, message),
            StoreError::ColdReadsBusy => Self::new(Reason::Overloaded, message),
            StoreError::Contended { table } => Self::new(Reason::Conflict, message).with("table", table),
            StoreError::Corrupt { shard, .. } => Self::new(Reason::Internal, message).with("shard", shard),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        let message = error.to_string();
        match error {
            TableError::Store(error) => error.into(),
            TableError::NoSuchDatabase(_) => Self::new(Reason::UnknownDatabase, message),
            TableError::NotFound(table) => Self::new(Reason::UnknownTable, message).with("table", table),
            TableError::Unsupported { table, .. } | TableError::Name { table, .. } => {
                Self::new(Reason::TableUnsupported, message).with("table", table)
            }
            TableError::Taken { table, .. } | TableError::TopicInUse { table, .. } => {
                Self::new(Reason::TableUnsupported, message).with("table", table)
            }
            TableError::LogDown(_) => Self::new(Reason::LogUnavailable, message),
            TableError::LogUnfit(_) => Self::new(Reason::TableUnsupported, message),
        }
    }
}

impl From<DeadLetterError> for Failure {
    fn from(error: DeadLetterError) -> Self {
        let message = error.to_string();
        match error {
            DeadLetterError::Store(error) => error.into(),
            DeadLetterError::NoSuchTable(table) => Self::new(Reason::TableNotEnabled, message).with("table", table),
            DeadLetterError::NotFound(name) => {
                Self::new(Reason::UnknownDeadLetter, message).with("table", name.table).with("id", name.id)
            }
            DeadLetterError::LogDown(_) => Self::new(Reason::LogUnavailable, message),
            DeadLetterError::LogUnfit(_) => Self::new(Reason::Internal, message),
            DeadLetterError::NobodyListens => Self::new(Reason::Overloaded, message),
        }
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let message = error.to_string();
        match error {
            VerifyError::Store(error) => error.into(),
            VerifyError::NoSuchTable(table) => Self::new(Reason::TableNotEnabled, message).with("table", table),
            VerifyError::Busy(_) | VerifyError::NobodyListens => Self::new(Reason::Overloaded, message),
            VerifyError::LogDown(_) => Self::new(Reason::LogUnavailable, message),
            VerifyError::LogUnfit(_) => Self::new(Reason::Internal, message),
            VerifyError::Stopping => Self::new(Reason::NotServing, message),
        }
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        let message = error.to_string();
        match error {
            WatchError::Invalid { part, violations } => invalid(part, violations),
            WatchError::InvalidKey { at, violations } => invalid_at(&format!("keys[{at}]"), violations),
            WatchError::OtherToken(_) => Self::of_fields(vec![FieldProblem::invalid("resume_token", message)]),
            WatchError::TableNotEnabled(table) => Self::new(Reason::TableNotEnabled, message).with("table", table),
            WatchError::OtherKey(table) => Self::new(Reason::TableUnsupported, message).with("table", table),
            WatchError::Expired(_) => Self::new(Reason::WatchTokenExpired, message),
            WatchError::TooMany(max) => Self::new(Reason::TooManyWatches, message).with("max_watches", max),
            WatchError::LogDown(_) => Self::new(Reason::LogUnavailable, message),
            WatchError::LogUnfit(_) => Self::new(Reason::Internal, message),
            WatchError::Store(error) => error.into(),
            WatchError::Stopping => Self::new(Reason::NotServing, message),
            WatchError::NobodyListens => Self::new(Reason::Overloaded, message),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let message = problem.to_string();
        match problem {
            Problem::Write(error) => error.into(),
            Problem::Letters(error) => error.into(),
            Problem::NotFound => Self::new(Reason::UnknownDeadLetter, message),
            Problem::Unreadable => Self::new(Reason::DeadLetterUnreadable, message),
            Problem::Retrying => Self::new(Reason::Conflict, message),
            Problem::NotNoted(_) => Self::new(Reason::LogUnavailable, message),
        }
    }
}

/// What the table would refuse, with the path of each column in its message.
fn invalid(part: Part, violations: Vec<Violation>) -> Failure {
    let field = |violation: Violation| {
        let path = match part {
            Part::Row | Part::Key | Part::Changes => format!("{part}.columns[{:?}]", violation.column),
            // A list of names, not a map.
            Part::Columns | Part::Field | Part::Value => part.as_str().to_owned(),
        };
        let problem = match part {
            Part::Columns | Part::Field => format!("names {:?}: {}", violation.column, violation.problem),
            _ => violation.problem,
        };
        FieldProblem::new(path, reason_of(violation.reason), problem)
    };
    Failure::of_fields(violations.into_iter().map(field).collect())
}

/// The same for a key that lies elsewhere in its message.
fn invalid_at(path: &str, violations: Vec<Violation>) -> Failure {
    let field = |violation: Violation| {
        let path = format!("{path}.columns[{:?}]", violation.column);
        FieldProblem::new(path, reason_of(violation.reason), violation.problem)
    };
    Failure::of_fields(violations.into_iter().map(field).collect())
}

fn reason_of(reason: ViolationReason) -> Reason {
    match reason {
        ViolationReason::UnknownColumn => Reason::UnknownColumn,
        ViolationReason::WrongType => Reason::WrongType,
        ViolationReason::NotNullable => Reason::NotNullable,
        ViolationReason::MissingColumn => Reason::MissingColumn,
        ViolationReason::MissingKey => Reason::MissingKey,
        ViolationReason::OutOfRange => Reason::OutOfRange,
        ViolationReason::KeyChanged => Reason::KeyChanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_and_the_api_use_the_same_names() {
        for reason in [
            ViolationReason::UnknownColumn,
            ViolationReason::WrongType,
            ViolationReason::NotNullable,
            ViolationReason::MissingColumn,
            ViolationReason::MissingKey,
            ViolationReason::OutOfRange,
            ViolationReason::KeyChanged,
        ] {
            assert_eq!(reason_of(reason).as_str(), reason.as_str());
        }
    }

    #[test]
    fn what_may_have_happened_is_never_told_as_a_refusal() {
        let unknown = Failure::from(WriteError::OutcomeUnknown("no answer".into()));
        assert!(!unknown.reason().is_refusal());
    }
}
