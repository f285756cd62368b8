//! The contract of the event log: the same tests for every backend, and a few for what only one of them has.

#![allow(clippy::unwrap_used, missing_docs)]

mod cases;
#[cfg(feature = "embedded")]
mod embedded;
mod following;
mod harness;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
