//! An error as the API tells it.

use std::{collections::HashMap, time::Duration};

use prost::Message as _;
use proto::{ERROR_DOMAIN, Reason};
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// Status and details travel in HTTP/2 trailers, of which many clients take no more than 8 KiB: so what may grow with
/// the request is cut.
const MAX_FIELDS: usize = 16;
const MAX_TEXT_CHARS: usize = 400;

/// After what time it is worth asking what became of a write.
const AFTER_UNKNOWN: Duration = Duration::from_millis(100);

const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldProblem {
    /// Its path, as `row.columns["amount"]`.
    pub(super) field: String,
    reason: Reason,
    problem: String,
}

impl FieldProblem {
    pub(super) fn new(field: impl Into<String>, reason: Reason, problem: impl Into<String>) -> Self {
        Self { field: field.into(), reason, problem: problem.into() }
    }

    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::new(field, Reason::InvalidArgument, problem)
    }

    /// The same in a message that lies at `field` of another one.
    pub(super) fn within(self, field: &str) -> Self {
        Self { field: format!("{field}.{}", self.field), ..self }
    }
}

/// Why a call, or one item of a batch, failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    reason: Reason,
    message: String,
    fields: Vec<FieldProblem>,
    metadata: HashMap<String, String>,
    /// Sending the same again does no harm, whatever became of it: the write has a request id.
    repeatable: bool,
}

impl Failure {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), fields: Vec::new(), metadata: HashMap::new(), repeatable: false }
    }

    /// A request of which some fields can't be taken. The first one's reason is the reason of the whole.
    pub(super) fn of_fields(fields: Vec<FieldProblem>) -> Self {
        let (reason, message) = match fields.as_slice() {
            [] => (Reason::InvalidArgument, "the request can't be taken".to_owned()),
            [one] => (one.reason, format!("{}: {}", one.field, one.problem)),
            [first, rest @ ..] => {
                (first.reason, format!("{}: {}; and {} more fields", first.field, first.problem, rest.len()))
            }
        };
        Self { fields, ..Self::new(reason, message) }
    }

    /// The same with one of the circumstances.
    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same for a write that has a request id, or has none.
    pub(super) fn repeatable(self, repeatable: bool) -> Self {
        Self { repeatable, ..self }
    }

    /// The same for a message that lies at `field` of another one.
    pub(super) fn within(mut self, field: &str) -> Self {
        self.fields = self.fields.into_iter().map(|problem| problem.within(field)).collect();
        self
    }

    /// The same where the message calls a field otherwise than the use case does.
    pub(super) fn in_place_of(mut self, part: &str, field: &str) -> Self {
        for problem in &mut self.fields {
            if let Some(rest) = problem.field.strip_prefix(part) {
                problem.field = format!("{field}{rest}");
            }
        }
        self
    }

    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    /// As the status of a call.
    pub(super) fn into_status(self) -> Status {
        let retry = match self.reason {
            Reason::OutcomeUnknown if self.repeatable => Some(AFTER_UNKNOWN),
            reason => retry_delay(reason),
        };
        let pushback = match (self.reason, retry) {
            (_, Some(delay)) => Some(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
            // UNAVAILABLE makes many clients try again by themselves. Without a request id only who knows the request
            // can tell whether that is harmless.
            (Reason::OutcomeUnknown, None) => Some(-1),
            (_, None) => None,
        };
        let mut details = ErrorDetails::with_error_info(self.reason.as_str(), ERROR_DOMAIN, self.metadata);
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        if !self.fields.is_empty() {
            let violations: Vec<FieldViolation> = self.fields.into_iter().take(MAX_FIELDS).map(violation).collect();
            details.set_bad_request(violations);
        }
        let mut status = Status::with_error_details(self.reason.code(), cut(self.message), details);
        if let Some(millis) = pushback {
            status.metadata_mut().insert(RETRY_PUSHBACK, MetadataValue::from(millis));
        }
        status
    }

    /// As the status of one item of a batch: the same, but for the trailer, which a call has only once.
    pub(super) fn into_item_status(self) -> tonic_types::Status {
        let status = self.into_status();
        // The details of a status are an encoded google.rpc.Status, which repeats code and message.
        tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }

    /// A status that tonic gave itself, with a reason: too large a message, one that can't be decoded, a method that
    /// does not exist.
    pub(super) fn of_transport(status: &Status) -> Self {
        let reason = match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => Reason::MessageTooLarge,
            Code::Unimplemented => Reason::UnknownMethod,
            Code::Internal | Code::InvalidArgument => Reason::InvalidArgument,
            _ => Reason::Internal,
        };
        Self::new(reason, status.message())
    }
}

/// After what time it is worth trying again; nobody gains from coming back sooner.
fn retry_delay(reason: Reason) -> Option<Duration> {
    let millis = match reason {
        // The others are out of the way already.
        Reason::AnswerFull => 0,
        Reason::Conflict => 20,
        Reason::Overloaded | Reason::LogQueueFull | Reason::NotServing | Reason::StreamEnded => 100,
        Reason::ShardClosed | Reason::IndexNotReady | Reason::HotStoreUnavailable | Reason::LogUnavailable => 500,
        Reason::DatabaseUnavailable | Reason::HotStoreFull | Reason::BacklogFull => 1000,
        // Watches last long.
        Reason::TooManyWatches => 2000,
        // It is over when an operator says so.
        Reason::DrainingDown => 5000,
        // It takes an operator.
        Reason::ParkedFull => 10_000,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

fn violation(problem: FieldProblem) -> FieldViolation {
    FieldViolation {
        reason: problem.reason.as_str().to_owned(),
        ..FieldViolation::new(cut(problem.field), cut(problem.problem))
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use tonic_types::RpcStatusExt as _;

    #[test]
    fn every_reason_has_one_error_info_and_its_retry_delay_in_both_places() {
        for &reason in Reason::ALL {
            let status = Failure::new(reason, "it failed").with("table", "main.t").into_status();
            assert_eq!((status.code(), status.message()), (reason.code(), "it failed"));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), "shockabsorber"));
            assert_eq!(info.metadata.get("table").map(String::as_str), Some("main.t"));
            let infos = status.get_error_details_vec();
            assert_eq!(infos.iter().filter(|d| matches!(d, tonic_types::ErrorDetail::ErrorInfo(_))).count(), 1);

            let delay = details.retry_info().and_then(|retry| retry.retry_delay);
            let pushback = status.metadata().get(RETRY_PUSHBACK).and_then(|value| value.to_str().ok());
            let wanted = match (reason, delay) {
                (Reason::OutcomeUnknown, None) => Some("-1".to_owned()),
                (_, delay) => delay.map(|delay| delay.as_millis().to_string()),
            };
            assert_eq!(pushback.map(str::to_owned), wanted, "{reason}");
            // What passes by itself says when to come back, but where a second attempt could do harm.
            let passes = matches!(reason.code(), Code::Unavailable | Code::ResourceExhausted);
            assert!(!passes || delay.is_some() || reason == Reason::OutcomeUnknown, "{reason}");
            assert!(delay.is_none() || reason.is_refusal(), "{reason}");
        }
    }

    #[test]
    fn a_write_of_unknown_outcome_may_be_sent_again_if_it_has_a_request_id() {
        let failure = Failure::new(Reason::OutcomeUnknown, "nobody knows");
        let pushback = |failure: Failure| {
            let status = failure.into_status();
            let delay = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
            (status.metadata().get(RETRY_PUSHBACK).unwrap().to_str().unwrap().to_owned(), delay)
        };
        assert_eq!(pushback(failure.clone()), ("-1".to_owned(), None));
        assert_eq!(pushback(failure.repeatable(true)), ("100".to_owned(), Some(AFTER_UNKNOWN)));
    }

    #[test]
    fn an_item_s_status_says_the_same_as_a_call_s() {
        let fields = vec![FieldProblem::new("row.columns[\"x\"]", Reason::WrongType, "is text").within("items[1].put")];
        let item = Failure::of_fields(fields).into_item_status();
        assert_eq!(item.code, i32::from(Code::InvalidArgument));
        let details = item.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("WRONG_TYPE"));
        let bad = details.bad_request().unwrap();
        assert_eq!(bad.field_violations[0].field, "items[1].put.row.columns[\"x\"]");
        assert_eq!(bad.field_violations[0].reason, "WRONG_TYPE");
    }

    #[test]
    fn a_status_fits_into_the_trailers_that_clients_take() {
        let fields = (0..500)
            .map(|n| FieldProblem::invalid(format!("row.columns[\"{n}{}\"]", "n".repeat(70)), "is no good ".repeat(9)))
            .collect();
        let status = Failure { message: "é".repeat(9_000), ..Failure::of_fields(fields) }.into_status();
        assert_eq!(status.get_details_bad_request().map(|bad| bad.field_violations.len()), Some(MAX_FIELDS));
        let base64_bytes = status.details().len() * 4 / 3 + status.message().len() * 3;
        assert!(base64_bytes < 8 * 1024, "{base64_bytes}");
    }
}
