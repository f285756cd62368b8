//! The log between ingest and drain.
//!
//! Ordered per partition, kept until the drain has committed past it, delivered at least once. Three faces:
//! [`EventPublisher`] for the write path, [`LogReader`] for checkpoints and openings, [`EventSource`] for a drain
//! replica that shares the partitions with others.
//!
//! Two backends: [`kafka`] for a cluster, [`embedded`] for one process with one SQLite file. One contract suite
//! (`tests/contract`) is run by both.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(feature = "embedded", feature = "kafka"))]
mod ledger;
mod log;

pub use log::{
    Assignment, Committed, EventPublisher, EventSource, LogError, LogReader, LogRecord, LogSettings, Outgoing,
    Progress, PublishError, SourceEvent, TopicPartition,
};
