//! The log between ingest and drain.
//!
//! Ordered per partition, kept until the drain has committed past it, delivered at least once. Three faces:
//! [`EventPublisher`] for the write path, [`LogReader`] for checkpoints and openings, [`EventSource`] for a drain
//! replica that shares the partitions with others.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
mod log;

pub use log::{
    Assignment, EventPublisher, EventSource, LogError, LogReader, LogRecord, LogSettings, Outgoing, Progress,
    PublishError, SourceEvent, TopicPartition,
};
