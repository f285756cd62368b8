//! The stable names of everything that can go wrong: `google.rpc.ErrorInfo.reason`.

use std::fmt;

use tonic::Code;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident, $touched:ident;)*) => {
        /// Why a call failed; part of the API. A name never changes its meaning, new ones may come.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name, as it stands in `ErrorInfo.reason`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The gRPC code that goes with it.
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$variant => Code::$code,)*
                }
            }

            /// Whether it is certain that this attempt of the write had no effect and never will have one. It says nothing
            /// of an earlier attempt under the same request id: most refusals come before anybody has looked for that.
            pub const fn is_refusal(self) -> bool {
                match self {
                    $(Self::$variant => reasons!(@$touched),)*
                }
            }

            /// The reason of that name; `None` for one that this release does not know.
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
    (@untouched) => { true };
    (@maybe) => { false };
}

reasons! {
    /// The table has no such column.
    UnknownColumn = "UNKNOWN_COLUMN", InvalidArgument, untouched;
    /// The value is of another kind than the column.
    WrongType = "WRONG_TYPE", InvalidArgument, untouched;
    /// NULL where none may be.
    NotNullable = "NOT_NULLABLE", InvalidArgument, untouched;
    /// A column that must be named was not.
    MissingColumn = "MISSING_COLUMN", InvalidArgument, untouched;
    /// A column of the primary key is missing or NULL.
    MissingKey = "MISSING_KEY", InvalidArgument, untouched;
    /// Outside the column's range, length or precision.
    OutOfRange = "OUT_OF_RANGE", InvalidArgument, untouched;
    /// An update names a column of the primary key with another value than the record's key.
    KeyChanged = "KEY_CHANGED", InvalidArgument, untouched;
    /// Another write was made with this request id a short time ago.
    RequestIdReused = "REQUEST_ID_REUSED", InvalidArgument, untouched;
    /// A field of the request is missing or malformed; the field violations say which.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument, untouched;
    /// No database of that name is configured, or the request must name one.
    UnknownDatabase = "UNKNOWN_DATABASE", InvalidArgument, untouched;
    /// The record is larger than the event log takes.
    RecordTooLarge = "RECORD_TOO_LARGE", InvalidArgument, untouched;
    /// The batch has more items than the server takes.
    BatchTooLarge = "BATCH_TOO_LARGE", InvalidArgument, untouched;
    /// The message is larger than the server takes.
    MessageTooLarge = "MESSAGE_TOO_LARGE", InvalidArgument, untouched;
    /// The answer does not fit into one message: select fewer columns, or send smaller batches, whose items may have
    /// taken effect.
    AnswerTooLarge = "ANSWER_TOO_LARGE", OutOfRange, maybe;
    /// The answer to the batch has no room for this item: ask for it again.
    AnswerFull = "ANSWER_FULL", ResourceExhausted, untouched;
    /// The database has no such table.
    UnknownTable = "UNKNOWN_TABLE", NotFound, untouched;
    /// The table is not enabled.
    TableNotEnabled = "TABLE_NOT_ENABLED", FailedPrecondition, untouched;
    /// The field is not among the table's indexed_fields, or its index in the database was dropped.
    FieldNotIndexed = "FIELD_NOT_INDEXED", FailedPrecondition, untouched;
    /// The table can't be enabled, or not as the configuration wants it.
    TableUnsupported = "TABLE_UNSUPPORTED", FailedPrecondition, untouched;
    /// There is such a record already.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists, untouched;
    /// There is no such record.
    NotFound = "NOT_FOUND", NotFound, untouched;
    /// The table has no such dead letter.
    UnknownDeadLetter = "UNKNOWN_DEAD_LETTER", NotFound, untouched;
    /// The bytes of the dead letter's event can't be read, so nothing can be written again.
    DeadLetterUnreadable = "DEAD_LETTER_UNREADABLE", FailedPrecondition, untouched;
    /// The record is not the one that the etag names.
    EtagMismatch = "ETAG_MISMATCH", Aborted, untouched;
    /// Others kept changing the record; try again.
    Conflict = "CONFLICT", Aborted, untouched;
    /// The index over what the database does not have yet is being made.
    IndexNotReady = "INDEX_NOT_READY", Unavailable, untouched;
    /// The hot store was restarted and the record's shard has not been opened since.
    ShardClosed = "SHARD_CLOSED", Unavailable, untouched;
    /// The hot store is full.
    HotStoreFull = "HOT_STORE_FULL", ResourceExhausted, untouched;
    /// The hot store can't be reached.
    HotStoreUnavailable = "HOT_STORE_UNAVAILABLE", Unavailable, untouched;
    /// The event log can't be reached, and the acknowledgement needs it.
    LogUnavailable = "LOG_UNAVAILABLE", Unavailable, untouched;
    /// The event log's queue in the server is full: writes come in faster than the log takes them.
    LogQueueFull = "LOG_QUEUE_FULL", ResourceExhausted, untouched;
    /// The database can't be reached, and the call needs it.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE", Unavailable, untouched;
    /// The write may or may not have taken effect, or may still do so.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unavailable, maybe;
    /// The write took effect, but the required acknowledgement was not reached in time.
    LevelNotReached = "LEVEL_NOT_REACHED", DeadlineExceeded, maybe;
    /// The write took effect, but the database refuses it for good: it is among the dead letters.
    DeadLettered = "DEAD_LETTERED", FailedPrecondition, maybe;
    /// The level of acknowledgement can't be given.
    LevelUnsupported = "LEVEL_UNSUPPORTED", Unimplemented, untouched;
    /// Too much is waiting for the database.
    BacklogFull = "BACKLOG_FULL", ResourceExhausted, untouched;
    /// The database has refused so many records of the table for good that it takes writes to those only, until an
    /// operator replays or purges them.
    ParkedFull = "PARKED_FULL", ResourceExhausted, untouched;
    /// An operator has the table drained down: it takes no writes until that has ended. Reads go on.
    DrainingDown = "DRAINING_DOWN", Unavailable, untouched;
    /// The server is working on as many requests as it takes.
    Overloaded = "OVERLOADED", ResourceExhausted, untouched;
    /// The server has as many watches as it takes.
    TooManyWatches = "TOO_MANY_WATCHES", ResourceExhausted, untouched;
    /// The resume token names a place that the event log no longer has, or is of another log: read the table anew, and
    /// watch from now on.
    WatchTokenExpired = "WATCH_TOKEN_EXPIRED", OutOfRange, untouched;
    /// The server is starting or being stopped.
    NotServing = "NOT_SERVING", Unavailable, untouched;
    /// The server has ended a stream of writes: it is being stopped, a write of unknown outcome stands in the way of the
    /// later ones, or nothing has happened for too long. Of a write: it was not begun. Of the stream: nor was any that
    /// has no result.
    StreamEnded = "STREAM_ENDED", Unavailable, untouched;
    /// The server has no such method.
    UnknownMethod = "UNKNOWN_METHOD", Unimplemented, untouched;
    /// What the server met must not happen; its log says more.
    Internal = "INTERNAL", Internal, maybe;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_read_back_and_fit_the_form_that_google_rpc_asks_for() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            let name = reason.as_str();
            assert_eq!(Reason::parse(name), Some(*reason));
            assert!(Reason::ALL[..at].iter().all(|other| other.as_str() != name), "{name} twice");
            assert!(name.len() <= 63 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
        }
        assert_eq!(Reason::parse("NO_SUCH_REASON"), None);
    }
}
