//! Dead letters in the words of the API.

use std::collections::BTreeSet;

use model::{DeadLetterCause, Operation};
use proto::v1::{self, dead_letter_result};

use super::{
    failure::{Failure, FieldProblem},
    request::Databases,
    value::{row_to_proto, timestamp_from_proto, timestamp_to_proto},
};
use crate::dead_letters::{Decoded, Letter, LetterFilter, LetterName, LetterState, Outcome, Shown};

pub(super) fn filter(databases: &Databases, request: v1::ListDeadLettersRequest) -> Result<LetterFilter, Failure> {
    let table = request.table.map(|table| databases.table(Some(table))).transpose()?;
    let mut problems = Vec::new();
    let mut causes = BTreeSet::new();
    for (at, cause) in request.causes.into_iter().enumerate() {
        match v1::DeadLetterCause::try_from(cause).ok().and_then(cause_from_proto) {
            Some(cause) => drop(causes.insert(cause)),
            None => problems.push(FieldProblem::invalid(format!("causes[{at}]"), "is no cause")),
        }
    }
    let mut time = |field: &str, at: Option<prost_types::Timestamp>| {
        let invalid = |problem| problems.push(FieldProblem::invalid(field, problem));
        at.and_then(|at| timestamp_from_proto(at).map_err(invalid).ok())
    };
    let (since, until) = (time("since", request.since), time("until", request.until));
    let all_states = match v1::DeadLetterSelection::try_from(request.selection) {
        Ok(selection) => selection == v1::DeadLetterSelection::All,
        Err(_) => {
            problems.push(FieldProblem::invalid("selection", "is no selection"));
            false
        }
    };
    if !problems.is_empty() {
        return Err(Failure::of_fields(problems));
    }
    Ok(LetterFilter { table, causes, since, until, all_states })
}

pub(super) fn name(databases: &Databases, name: Option<v1::DeadLetterName>) -> Result<LetterName, Failure> {
    let invalid = |problem: String| Failure::of_fields(vec![FieldProblem::invalid("id", problem)]);
    let name = name.unwrap_or_default();
    let table = databases.table(name.table)?;
    let id = name.id.parse().map_err(|error| invalid(format!("{:?} {error}", name.id)))?;
    Ok(LetterName { table, id })
}

pub(super) fn names(databases: &Databases, names: Vec<v1::DeadLetterName>) -> Result<Vec<LetterName>, Failure> {
    let named = |(at, given)| name(databases, Some(given)).map_err(|failure| failure.within(&format!("names[{at}]")));
    names.into_iter().enumerate().map(named).collect()
}

pub(super) fn page(letters: Vec<Letter>) -> v1::ListDeadLettersResponse {
    v1::ListDeadLettersResponse { letters: letters.into_iter().map(letter).collect() }
}

pub(super) fn shown(shown: Shown) -> v1::GetDeadLetterResponse {
    let record = |Decoded { operation, key, row }| v1::DeadLetterRecord {
        operation: operation_to_proto(operation).into(),
        key: Some(row_to_proto(key)),
        row: row.map(row_to_proto),
    };
    v1::GetDeadLetterResponse {
        letter: Some(letter(shown.letter)),
        record: shown.decoded.map(record),
        event_key: shown.key.as_bytes().to_vec(),
        event_payload: shown.payload.to_vec(),
    }
}

pub(super) fn result(outcome: Outcome) -> v1::DeadLetterResult {
    let outcome = match outcome {
        Outcome::Replayed(version) => dead_letter_result::Outcome::ReplayedAs(version.get()),
        Outcome::Purged => dead_letter_result::Outcome::Purged(v1::PurgedDeadLetter {}),
        Outcome::Settled(state) => dead_letter_result::Outcome::Settled(state_to_proto(state).into()),
        Outcome::Failed(problem) => dead_letter_result::Outcome::Status(Failure::from(problem).into_item_status()),
    };
    v1::DeadLetterResult { outcome: Some(outcome) }
}

fn letter(letter: Letter) -> v1::DeadLetter {
    let LetterName { table, id } = letter.name;
    let table = v1::TableRef { database: table.database.as_str().to_owned(), table: table.table.as_str().to_owned() };
    v1::DeadLetter {
        name: Some(v1::DeadLetterName { table: Some(table), id: id.to_string() }),
        topic: letter.topic.as_str().to_owned(),
        partition: id.shard.0.into(),
        offset: letter.offset,
        version: letter.version.map_or(0, model::Version::get),
        cause: cause_to_proto(letter.cause).into(),
        code: letter.code,
        message: letter.message,
        attempts: letter.attempts,
        first_refused_at: Some(timestamp_to_proto(letter.first_refused_at)),
        dead_lettered_at: Some(timestamp_to_proto(letter.dead_lettered_at)),
        replica: letter.replica,
        state: state_to_proto(letter.state).into(),
    }
}

fn cause_to_proto(cause: DeadLetterCause) -> v1::DeadLetterCause {
    match cause {
        DeadLetterCause::Undecodable => v1::DeadLetterCause::Undecodable,
        DeadLetterCause::Misplaced => v1::DeadLetterCause::Misplaced,
        DeadLetterCause::Permanent => v1::DeadLetterCause::Permanent,
        DeadLetterCause::Dependent => v1::DeadLetterCause::Dependent,
        DeadLetterCause::Since => v1::DeadLetterCause::Since,
        DeadLetterCause::Later(_) => v1::DeadLetterCause::Unspecified,
    }
}

fn cause_from_proto(cause: v1::DeadLetterCause) -> Option<DeadLetterCause> {
    DeadLetterCause::ALL.into_iter().find(|known| cause_to_proto(*known) == cause)
}

fn state_to_proto(state: LetterState) -> v1::DeadLetterState {
    match state {
        LetterState::Unresolved => v1::DeadLetterState::Unresolved,
        LetterState::Retrying => v1::DeadLetterState::Retrying,
        LetterState::Superseded => v1::DeadLetterState::Superseded,
        LetterState::Resolved => v1::DeadLetterState::Resolved,
        LetterState::Purged => v1::DeadLetterState::Purged,
    }
}

fn operation_to_proto(operation: Operation) -> v1::DeadLetterOperation {
    match operation {
        Operation::Create => v1::DeadLetterOperation::Create,
        Operation::Put => v1::DeadLetterOperation::Put,
        Operation::Update => v1::DeadLetterOperation::Update,
        Operation::Delete => v1::DeadLetterOperation::Delete,
        // Nobody's write, so no event has it.
        Operation::Fill => v1::DeadLetterOperation::Unspecified,
    }
}
