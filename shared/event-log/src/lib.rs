//! The log between ingest and drain.
//!
//! Ordered per partition, kept until the drain has committed past it, delivered at least once. Three faces:
//! [`EventPublisher`] for the write path, [`LogReader`] for checkpoints, openings and who watches, [`EventSource`] for a drain
//! replica that shares the partitions with others.
//!
//! Three backends: [`kafka`] for a cluster, [`embedded`] for one process with one SQLite file, [`memory`] for tests and
//! simulation. One contract suite (`tests/contract`) is run by all.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(any(feature = "embedded", feature = "memory"))]
mod in_process;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(feature = "embedded", feature = "kafka", feature = "memory"))]
mod ledger;
mod log;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(any(feature = "embedded", feature = "kafka", feature = "memory"))]
mod window;

pub use log::{
    Assignment, Committed, EventPublisher, EventSource, Following, LogError, LogReader, LogRecord, LogSettings,
    Outgoing, Progress, PublishError, SourceEvent, TopicPartition,
};
