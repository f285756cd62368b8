//! What went wrong, and what a caller may do about it.

use std::{collections::HashMap, error::Error, fmt, time::Duration};

use proto::{ERROR_DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, RpcStatusExt, StatusExt};

/// What the server says is wrong with one field of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Its path, as `row.columns["amount"]`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
    /// The stable name of the problem.
    pub reason: String,
}

/// An error that the server answered.
#[derive(Debug, Clone)]
pub struct ServerError {
    /// The gRPC code.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// The stable name of what happened; `None` if somebody else than Shock Absorber answered.
    pub reason: Option<String>,
    /// The circumstances, as `table` or `shard`.
    pub metadata: HashMap<String, String>,
    /// What is wrong with which field.
    pub fields: Vec<FieldProblem>,
    /// After what time it is worth trying again.
    pub retry_after: Option<Duration>,
    /// The server asks clients that know no more than the code not to try again by themselves.
    pub do_not_retry: bool,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{reason}: {}", self.message)?,
            None => write!(f, "{:?}: {}", self.code, self.message)?,
        }
        self.fields.iter().try_for_each(|field| write!(f, "\n  {}: {}", field.field, field.description))
    }
}

impl Error for ServerError {}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An address that can't be one.
    #[error("{endpoint:?} is no address of a server: {problem}")]
    Endpoint {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection could be made: nothing was sent.
    #[error("can't connect to the server: {0}")]
    Connect(String),
    /// The connection broke before an answer came.
    #[error("the connection broke before the server answered: {0}; the outcome is unknown")]
    Transport(String),
    /// No answer in time.
    #[error("the server did not answer within {0:?}; the outcome is unknown")]
    TimedOut(Duration),
    /// The server's answer.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// Sending the write again came to a definite end, but an earlier attempt may have taken effect.
    #[error("an earlier attempt may have taken effect; the last one failed: {0}")]
    Unsettled(Box<ClientError>),
    /// The server answered something that this client can't read.
    #[error("the server's answer can't be read: {0}")]
    BadAnswer(String),
    /// The batcher, or the stream of writes, was closed: nothing was sent.
    #[error("the batcher or stream is closed")]
    BatcherClosed,
}

impl ClientError {
    /// The server's answer, if there was one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            Self::Unsettled(last) => last.server(),
            _ => None,
        }
    }

    /// The stable name of what happened, also one that this release does not know.
    pub fn reason(&self) -> Option<&str> {
        self.server()?.reason.as_deref()
    }

    /// Whether that is what happened.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason() == Some(reason.as_str())
    }

    /// The gRPC code; of a failure on this side of the connection the one that gRPC clients use for it.
    pub fn code(&self) -> Code {
        match self {
            Self::Server(error) => error.code,
            Self::Unsettled(last) => last.code(),
            Self::Endpoint { .. } => Code::InvalidArgument,
            Self::Connect(_) | Self::Transport(_) => Code::Unavailable,
            Self::TimedOut(_) => Code::DeadlineExceeded,
            Self::BadAnswer(_) => Code::Internal,
            Self::BatcherClosed => Code::Cancelled,
        }
    }

    /// After what time the server thinks it worth trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.server()?.retry_after
    }

    /// Whether it is certain that the call, with all its attempts, had no effect and never will have one. Of an earlier
    /// call with the same request id it says nothing: the server refuses what it can't take now before it looks whether
    /// it knows the id.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Endpoint { .. } | Self::Connect(_) | Self::BatcherClosed => true,
            Self::Transport(_) | Self::TimedOut(_) | Self::BadAnswer(_) | Self::Unsettled(_) => false,
            Self::Server(error) => match error.reason.as_deref().map(Reason::parse) {
                Some(Some(reason)) => reason.is_refusal(),
                // A proxy, or a server newer than this client: the codes that blame the request.
                _ => matches!(
                    error.code,
                    Code::InvalidArgument
                        | Code::NotFound
                        | Code::AlreadyExists
                        | Code::PermissionDenied
                        | Code::FailedPrecondition
                        | Code::Unimplemented
                        | Code::Unauthenticated
                ),
            },
        }
    }

    /// Whether a write may have taken effect, or may still do so, and nobody knows.
    pub fn is_outcome_unknown(&self) -> bool {
        !self.is_refusal() && !self.is(Reason::LevelNotReached) && !self.is(Reason::DeadLettered)
    }

    /// An error of one item of a batch.
    pub(crate) fn from_item(status: &tonic_types::Status) -> Self {
        let server = ServerError::new(Code::from_i32(status.code), &status.message, &status.get_error_details());
        Self::Server(Box::new(server))
    }
}

/// Whether a status says that the time of the attempt was up, on either side of the connection.
pub(crate) fn is_timeout(status: &Status) -> bool {
    match status.source() {
        Some(source) => chain(source).any(|error| error.is::<tonic::TimeoutExpired>()),
        None => status.details().is_empty() && matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let from_us = details.error_info().is_some_and(|info| info.domain == ERROR_DOMAIN);
        if !from_us && let Some(source) = status.source() {
            // tonic's own errors carry their source, an answer of a server has none.
            return if chain(source).any(|error| error.is::<tonic::ConnectError>()) {
                Self::Connect(root_cause(source))
            } else {
                Self::Transport(root_cause(source))
            };
        }
        let mut server = ServerError::new(status.code(), status.message(), &details);
        if let Some(pushback) = status.metadata().get("grpc-retry-pushback-ms") {
            // gRFC A6: anything but a number of milliseconds means "do not retry".
            match pushback.to_str().ok().and_then(|text| text.parse::<i64>().ok()).map(u64::try_from) {
                Some(Ok(millis)) => {
                    let pushback = Duration::from_millis(millis);
                    server.retry_after = Some(server.retry_after.map_or(pushback, |delay| delay.max(pushback)));
                }
                _ => server.do_not_retry = true,
            }
        }
        Self::Server(Box::new(server))
    }
}

impl ServerError {
    fn new(code: Code, message: &str, details: &ErrorDetails) -> Self {
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let fields = details.bad_request().map(|bad| {
            bad.field_violations
                .iter()
                .map(|violation| FieldProblem {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                    reason: violation.reason.clone(),
                })
                .collect()
        });
        Self {
            code,
            message: message.to_owned(),
            reason: info.map(|info| info.reason.clone()),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            fields: fields.unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            do_not_retry: false,
        }
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn root_cause(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(reason: &str, code: Code) -> ClientError {
        let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(code, "x", details).into()
    }

    #[test]
    fn an_outcome_is_unknown_unless_the_server_says_that_nothing_was_touched() {
        assert!(answered("SHARD_CLOSED", Code::Unavailable).is_refusal());
        assert!(answered("OUTCOME_UNKNOWN", Code::Unavailable).is_outcome_unknown());
        // A reason of a later server: its code decides, and UNAVAILABLE promises nothing.
        assert!(answered("SOMETHING_NEW", Code::Unavailable).is_outcome_unknown());
        assert!(answered("SOMETHING_NEW", Code::InvalidArgument).is_refusal());
        assert!(ClientError::from(Status::unavailable("a proxy")).is_outcome_unknown());
        let level = answered("LEVEL_NOT_REACHED", Code::DeadlineExceeded);
        assert!(!level.is_refusal() && !level.is_outcome_unknown());
        let refused_later = answered("DEAD_LETTERED", Code::FailedPrecondition);
        assert!(!refused_later.is_refusal() && !refused_later.is_outcome_unknown());
    }

    #[test]
    fn the_longer_of_both_delays_counts_and_a_negative_pushback_forbids() {
        let mut status = Status::with_error_details(
            Code::Unavailable,
            "x",
            ErrorDetails::with_retry_info(Some(Duration::from_millis(20))),
        );
        status.metadata_mut().insert("grpc-retry-pushback-ms", tonic::metadata::MetadataValue::from(50));
        assert_eq!(ClientError::from(status.clone()).retry_after(), Some(Duration::from_millis(50)));
        status.metadata_mut().insert("grpc-retry-pushback-ms", tonic::metadata::MetadataValue::from(-1));
        assert!(ClientError::from(status).server().is_some_and(|server| server.do_not_retry));
    }
}
