//! The drain: carries events from the log into the database, in order, exactly once in effect, and never faster than
//! the database can bear.
//!
//! A record walks through the rooms from left to right:
//!
//! - `consume`: decoded; void if its epoch is over; counted as unfinished in its partition's watermark.
//! - `gather`: waits in a lane of its table until a batch is due; of each key only the newest version is written.
//! - `budget`: leave to write so many rows now, over all replicas.
//! - `apply`: one transaction; then the hot store is told, and only then the record is done.
//! - `horizon`: up to where everything is in, told to those who read the database itself; what may be forgotten.
//! - `status`: what is measured on the way.
//!
//! Nothing is ever skipped: a record that can't be read holds its partition, a row that the database refuses is held
//! and tried again by itself. Both are where a dead-letter topic will take over.

mod apply;
mod backoff;
mod budget;
mod consume;
mod drain;
mod gather;
mod horizon;
mod options;
mod parts;
pub mod startup;
mod status;

#[cfg(feature = "servers")]
pub mod app;

pub use drain::{Drain, DrainError, DrainParts};
pub use options::{DrainOptions, TableOptions};
