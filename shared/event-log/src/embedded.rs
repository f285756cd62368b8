//! The log in one process, on one SQLite file.
//!
//! It has what the log on Kafka has: partitions, offsets, a group whose members share the partitions, redelivery
//! from the committed offset, and durability (each acknowledged record was synced to disk). It is for one process:
//! the directory is locked.
//!
//! How it works: publishers hand their records to one writer, which takes all that waits, puts it into the file as
//! one checksummed blob in one transaction, and then acknowledges it all. What the group has not committed yet is
//! also in memory, from where members and readers are served. What is drained is read from the file, for as long as the
//! request window has not passed it; then its blobs are deleted.

mod blob;
mod blobs;
mod continuity;
mod directory;
mod file;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod log;
mod options;
mod round;
mod source;
mod writer;

pub use log::EmbeddedLog;
pub use options::{EmbeddedOptions, LastWords};
pub use source::EmbeddedSource;
