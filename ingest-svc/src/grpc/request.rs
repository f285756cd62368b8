//! Requests as clients send them, taken apart. What the table makes of the columns is decided later, by its schema.

use std::{fmt, time::Duration};

use model::{DatabaseName, RequestId, TableName, TableRef};
use proto::{
    Reason,
    v1::{self, precondition::Condition, write_item::Operation},
};

use super::{
    failure::{Failure, FieldProblem},
    value::row_from_proto,
};
use crate::{
    Token,
    accept::{AckLevel, Acknowledge, Change, Require, WriteRequest},
    applied,
    read::{Consistency, Get},
};

type Taken<T> = Result<T, Vec<FieldProblem>>;

/// The names of the configured databases, by which tables are named.
#[derive(Debug, Clone)]
pub(super) struct Databases(Vec<DatabaseName>);

impl Databases {
    pub(super) fn new(names: impl IntoIterator<Item = DatabaseName>) -> Self {
        Self(names.into_iter().collect())
    }

    /// The table that is meant: without a database, of the only one there is.
    pub(super) fn table(&self, table: Option<v1::TableRef>) -> Result<TableRef, Failure> {
        let invalid = |field: &str, problem: String| Failure::of_fields(vec![FieldProblem::invalid(field, problem)]);
        let Some(v1::TableRef { database, table }) = table else {
            return Err(invalid("table", "must be set".to_owned()));
        };
        let names = || self.0.iter().map(DatabaseName::as_str).collect::<Vec<_>>().join(", ");
        let unknown = |problem: String| {
            Failure::of_fields(vec![FieldProblem::new("table.database", Reason::UnknownDatabase, problem)])
        };
        let database = match self.0.as_slice() {
            [only] if database.is_empty() => only,
            all => all.iter().find(|name| name.as_str() == database).ok_or_else(|| {
                if database.is_empty() {
                    unknown(format!("several databases are configured, name one of them: {}", names()))
                } else {
                    unknown(format!("no such database is configured; there is {}", names()))
                }
            })?,
        };
        let table = TableName::new(table).map_err(|error| invalid("table.table", error.problem.to_owned()))?;
        Ok(TableRef { database: database.clone(), table })
    }

    /// A read.
    pub(super) fn get(&self, request: v1::GetRecordRequest) -> Result<Get, Failure> {
        let table = self.table(request.table)?;
        let (key, consistency) = both(row_from_proto(request.key, "key"), consistency_from(request.consistency))
            .map_err(Failure::of_fields)?;
        Ok(Get { table, key, columns: request.columns, consistency })
    }

    /// A write, and how it wants to be acknowledged.
    pub(super) fn write(&self, operation: Operation) -> Result<(WriteRequest, Option<v1::Acknowledgement>), Failure> {
        // The table first, since its problem has a reason of its own; then all fields together.
        let (table, change, request_id, acknowledgement) = match operation {
            Operation::Create(m) => {
                let table = self.table(m.table)?;
                let row = row_from_proto(m.row, "row");
                (table, row.map(|row| Change::Create { row }), m.request_id, m.acknowledgement)
            }
            Operation::Put(m) => {
                let table = self.table(m.table)?;
                let change = both(row_from_proto(m.row, "row"), precondition(m.precondition))
                    .map(|(row, precondition)| Change::Put { row, precondition });
                (table, change, m.request_id, m.acknowledgement)
            }
            Operation::Update(m) => {
                let table = self.table(m.table)?;
                let rows = both(row_from_proto(m.key, "key"), row_from_proto(m.changes, "changes"));
                let change = both(rows, precondition(m.precondition))
                    .map(|((key, changes), precondition)| Change::Update { key, changes, precondition });
                (table, change, m.request_id, m.acknowledgement)
            }
            Operation::Delete(m) => {
                let table = self.table(m.table)?;
                let change = both(row_from_proto(m.key, "key"), precondition(m.precondition))
                    .map(|(key, precondition)| Change::Delete { key, precondition });
                (table, change, m.request_id, m.acknowledgement)
            }
        };
        let (change, request_id) = both(change, request_id_from(&request_id)).map_err(Failure::of_fields)?;
        Ok((WriteRequest { table, change, request_id }, acknowledgement))
    }

    /// One item of a batch or a stream; problems are named with the item's place.
    pub(super) fn item(&self, at: impl fmt::Display, item: v1::WriteItem) -> Result<WriteRequest, Failure> {
        let invalid = |field: String, problem: &str| Failure::of_fields(vec![FieldProblem::invalid(field, problem)]);
        let Some(operation) = item.operation else {
            return Err(invalid(format!("items[{at}]"), "holds no operation"));
        };
        let field = format!("items[{at}].{}", name(&operation));
        let (request, acknowledgement) = self.write(operation).map_err(|failure| failure.within(&field))?;
        if acknowledgement.is_some() {
            return Err(invalid(format!("{field}.acknowledgement"), "must not be set: there is one for all items"));
        }
        Ok(request)
    }
}

/// The name of the item's field.
pub(super) fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Create(_) => "create",
        Operation::Put(_) => "put",
        Operation::Update(_) => "update",
        Operation::Delete(_) => "delete",
    }
}

/// Both, or the problems of both.
fn both<A, B>(a: Taken<A>, b: Taken<B>) -> Taken<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (a, b) => Err(a.err().into_iter().chain(b.err()).flatten().collect()),
    }
}

fn precondition(precondition: Option<v1::Precondition>) -> Taken<Option<Require>> {
    let Some(condition) = precondition.and_then(|precondition| precondition.condition) else { return Ok(None) };
    match condition {
        Condition::Exists(exists) => Ok(Some(Require::Exists(exists))),
        Condition::Etag(etag) => match etag.parse() {
            Ok(etag) => Ok(Some(Require::Etag(etag))),
            Err(error) => Err(vec![FieldProblem::invalid("precondition.etag", format!("is {error}"))]),
        },
    }
}

fn consistency_from(number: i32) -> Taken<Consistency> {
    match v1::Consistency::try_from(number) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Newest) => Ok(Consistency::Newest),
        Ok(v1::Consistency::Database) => Ok(Consistency::Database),
        Err(_) => Err(vec![FieldProblem::invalid("consistency", format!("{number} is no consistency that is known"))]),
    }
}

fn request_id_from(id: &str) -> Taken<Option<RequestId>> {
    if id.is_empty() {
        return Ok(None);
    }
    RequestId::new(id).map(Some).map_err(|error| vec![FieldProblem::invalid("request_id", error.problem)])
}

/// How writes are acknowledged; the default where a client does not say.
pub(super) fn acknowledge(acknowledgement: Option<v1::Acknowledgement>) -> Result<Acknowledge, Failure> {
    let Some(given) = acknowledgement else { return Ok(Acknowledge::default()) };
    let wrong = |field: &str, problem: String| vec![FieldProblem::invalid(format!("acknowledgement.{field}"), problem)];
    let level = |number: i32, field: &str| match v1::AckLevel::try_from(number) {
        Ok(v1::AckLevel::Unspecified) => Ok(None),
        Ok(v1::AckLevel::Logged) => Ok(Some(AckLevel::Logged)),
        Ok(v1::AckLevel::Queued) => Ok(Some(AckLevel::Queued)),
        Ok(v1::AckLevel::Applied) => Ok(Some(AckLevel::Applied)),
        Err(_) => Err(wrong(field, format!("{number} is no level"))),
    };
    let wait = time_from(given.wait, "acknowledgement.wait", Acknowledge::MAX_WAIT);
    let levels = both(level(given.required, "required"), level(given.preferred, "preferred"));
    let ((required, preferred), wait) = both(levels, wait).map_err(Failure::of_fields)?;
    Ok(Acknowledge { required, preferred, wait })
}

/// The tokens, and how long to wait for them.
pub(super) fn tokens(request: v1::WaitAppliedRequest) -> Result<(Vec<Token>, Duration), Failure> {
    let mut problems = Vec::new();
    let mut tokens = Vec::with_capacity(request.tokens.len());
    for (at, token) in request.tokens.iter().enumerate() {
        match token.parse() {
            Ok(token) => tokens.push(token),
            Err(error) => problems.push(FieldProblem::invalid(format!("tokens[{at}]"), format!("is {error}"))),
        }
    }
    let tokens = if problems.is_empty() { Ok(tokens) } else { Err(problems) };
    both(tokens, time_from(request.wait, "wait", applied::MAX_WAIT)).map_err(Failure::of_fields)
}

/// A length of time up to `max`; none if it is not set.
fn time_from(given: Option<prost_types::Duration>, field: &str, max: Duration) -> Taken<Duration> {
    let Some(given) = given else { return Ok(Duration::ZERO) };
    match Duration::try_from(given) {
        Ok(time) if time <= max => Ok(time),
        Ok(_) => Err(vec![FieldProblem::invalid(field, format!("is longer than {} s", max.as_secs()))]),
        Err(_) => Err(vec![FieldProblem::invalid(field, "is no length of time")]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic_types::StatusExt as _;

    use super::*;

    fn databases(names: &[&str]) -> Databases {
        Databases::new(names.iter().map(|name| DatabaseName::new(name).unwrap()))
    }

    fn table(database: &str, table: &str) -> Option<v1::TableRef> {
        Some(v1::TableRef { database: database.into(), table: table.into() })
    }

    fn one_column() -> Option<v1::Row> {
        let one = v1::Value { kind: Some(v1::value::Kind::Int64Value(1)) };
        Some(v1::Row { columns: [("id".to_owned(), one)].into() })
    }

    fn fields(failure: Failure) -> Vec<String> {
        let bad = failure.into_status().get_details_bad_request().unwrap();
        bad.field_violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn without_a_database_the_only_one_is_meant() {
        let found = databases(&["main"]).table(table("", "payments")).unwrap();
        assert_eq!(found.to_string(), "main.payments");
        assert_eq!(databases(&["main", "other"]).table(table("other", "t")).unwrap().to_string(), "other.t");

        for (names, database) in [(&["main", "other"][..], ""), (&["main", "other"], "third"), (&["main"], "third")] {
            let failure = databases(names).table(table(database, "t")).unwrap_err();
            assert_eq!(failure.reason(), Reason::UnknownDatabase);
            let status = failure.into_status();
            assert!(names.iter().all(|name| status.message().contains(name)), "{}", status.message());
        }
        assert_eq!(fields(databases(&["main"]).table(None).unwrap_err()), ["table"]);
        assert_eq!(fields(databases(&["main"]).table(table("", "")).unwrap_err()), ["table.table"]);
    }

    #[test]
    fn all_problems_of_a_write_are_told_together() {
        let update = v1::UpdateRecordRequest {
            table: table("", "t"),
            key: None,
            changes: None,
            precondition: Some(v1::Precondition { condition: Some(Condition::Etag("x".into())) }),
            acknowledgement: None,
            request_id: "with space".into(),
        };
        let failure = databases(&["main"]).write(Operation::Update(update.clone())).unwrap_err();
        assert_eq!(fields(failure), ["key", "changes", "precondition.etag", "request_id"]);

        let item = v1::WriteItem { operation: Some(Operation::Update(update)) };
        let failure = databases(&["main"]).item(7, item).unwrap_err();
        assert_eq!(fields(failure)[0], "items[7].update.key");
        let nothing = databases(&["main"]).item(2, v1::WriteItem { operation: None }).unwrap_err();
        assert_eq!(fields(nothing), ["items[2]"]);
    }

    #[test]
    fn an_item_has_no_acknowledgement_of_its_own() {
        let delete = |acknowledgement| {
            let key = one_column();
            let delete = v1::DeleteRecordRequest { table: table("", "t"), key, acknowledgement, ..Default::default() };
            v1::WriteItem { operation: Some(Operation::Delete(delete)) }
        };
        assert!(databases(&["main"]).item(0, delete(None)).is_ok());
        let failure = databases(&["main"]).item(0, delete(Some(v1::Acknowledgement::default()))).unwrap_err();
        assert_eq!(fields(failure), ["items[0].delete.acknowledgement"]);
    }

    #[test]
    fn an_acknowledgement_is_taken_or_refused_but_never_bent() {
        // The table's default.
        let unsaid = Acknowledge { required: None, preferred: None, wait: Duration::ZERO };
        assert_eq!(acknowledge(None).unwrap(), unsaid);
        assert_eq!(acknowledge(Some(v1::Acknowledgement::default())).unwrap(), unsaid);
        let all = v1::Acknowledgement {
            required: v1::AckLevel::Logged.into(),
            preferred: v1::AckLevel::Applied.into(),
            wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        };
        let wait = Duration::from_secs(30);
        let wanted = Acknowledge { required: Some(AckLevel::Logged), preferred: Some(AckLevel::Applied), wait };
        assert_eq!(acknowledge(Some(all)).unwrap(), wanted);
        for (seconds, nanos) in [(30, 1), (-1, 0), (0, -1), (i64::MAX, 0)] {
            let wait = Some(prost_types::Duration { seconds, nanos });
            let failure = acknowledge(Some(v1::Acknowledgement { wait, ..all })).unwrap_err();
            assert_eq!(fields(failure), ["acknowledgement.wait"], "{seconds} s {nanos} ns");
        }
        let failure = acknowledge(Some(v1::Acknowledgement { required: 9, preferred: -1, wait: None })).unwrap_err();
        assert_eq!(fields(failure), ["acknowledgement.required", "acknowledgement.preferred"]);
    }
}
