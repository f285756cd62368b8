//! A client of Shock Absorber.
//!
//! ```no_run
//! use shock_absorber_client::{Client, Row};
//!
//! # async fn example() -> Result<(), shock_absorber_client::ClientError> {
//! let client = Client::connect("http://127.0.0.1:7070").await?;
//! let payment = Row::new().set("id", "p-1").set("amount", 1_250).set("currency", "INR");
//! let accepted = client.create("main.payments", payment).await?;
//! let found = client.get("main.payments", Row::new().set("id", "p-1")).await?;
//! assert_eq!(found.etag, accepted.etag);
//! # Ok(())
//! # }
//! ```
//!
//! # What is tried again
//!
//! Within [`Builder::timeout`], after the delay that the server asks for, with jittered exponential backoff:
//!
//! - **Reads, enabling and disabling tables:** whenever the server was unavailable or overloaded, the connection broke,
//!   or an attempt was not answered in time.
//! - **Writes:** when it is certain that nothing was touched: the server refused ([`Reason::is_refusal`]), or the
//!   connection could not be made. Also after an unknown outcome, since every write carries a request id, one of yours
//!   ([`Write::request_id`]) or one that each call gets: the server makes it once, whichever attempt arrives first, as
//!   long as it remembers the id ([`Builder::request_window`]). Without an id ([`Builder::without_request_ids`]) the first
//!   attempt could take effect late, behind later writes of the record, and bring an old value back: such a call fails,
//!   and [`ClientError::is_outcome_unknown`] says so. In a batch a write of unknown outcome is sent again only if no
//!   later one of its key may have taken effect.
//!
//! A refusal speaks of one attempt. If an earlier attempt of the same call may have taken effect, the call fails with
//! [`ClientError::Unsettled`], which is no refusal, however clearly the last attempt was refused. If you make a *call*
//! again, with an id of your own, mind the same: unless it succeeds, the outcome of the call before is as unknown as it
//! was.
//!
//! In a [`WriteStream`] one write of each key is under way at a time, so all of that holds there for each write by itself.
//!
//! A watch ([`Client::watch`]) that breaks off goes on by itself behind the last message that it has handed out, at whichever
//! server answers, for as long as [`WatchOptions::patience`] says.
//!
//! A call that was abandoned (its future dropped) may still take effect.

mod batch;
mod batcher;
mod client;
mod connections;
mod dead_letter;
mod error;
mod find;
#[cfg(feature = "json")]
mod json;
mod key_group;
mod operate;
mod read;
mod retry;
mod row;
mod table;
mod value;
mod verify;
mod watch;
mod write;
mod write_stream;

pub use batcher::{Batcher, BatcherOptions, Pending};
pub use client::Client;
pub use connections::Builder;
pub use dead_letter::{
    DeadLetter, DeadLetterCause, DeadLetterFilter, DeadLetterName, DeadLetterOperation, DeadLetterOutcome,
    DeadLetterPages, DeadLetterRecord, DeadLetterState, ShownDeadLetter,
};
pub use error::{ClientError, FieldProblem, ServerError};
pub use find::{Find, FoundPage};
#[cfg(feature = "json")]
pub use json::JsonError;
pub use operate::{
    BreakerState, DatabaseStatus, DrainDown, Hold, HoldKind, PartitionRange, ProtoDuration, ProtoTableRef,
    ProtoTimestamp, ReplicaStatus, ReplicaTable, Resumed, Status, TableBacklog, TableLimit, TableState, TableStatus,
};
pub use proto::Reason;
pub use read::{Consistency, Eviction, Found, Get};
pub use row::Row;
pub use table::{Column, ColumnKind, Rate, RateError, Table, TableRef};
pub use tonic::Code;
pub use value::{Value, ValueError};
pub use verify::{
    Verification, Verified, VerifyDifference, VerifyDifferenceKind, VerifyImageStage, VerifyOptions, VerifyProgress,
};
pub use watch::{Change, ChangeOperation, Watch, WatchOptions, Watched};
pub use write::{Accepted, AckLevel, Acknowledge, Precondition, Write};
pub use write_stream::{WriteStream, WriteStreamOptions};
