//! The drain: carries events from the log into the database, in order, exactly once in effect, and never faster than
//! the database can bear.
//!
//! A record walks through the rooms from left to right:
//!
//! - `consume`: decoded; void if its epoch is over; counted as unfinished in its partition's watermark.
//! - `gather`: waits in a lane of its table until a batch is due; of each key only the newest version is written.
//! - `budget`: leave to write so many rows now, over all replicas.
//! - `breaker`: nothing is tried while the database can write nothing.
//! - `apply`: one transaction; then the hot store is told, and only then the record is done.
//! - `dead_letter`: what the database refuses for good, or nobody can read: lettered, parked, and so done.
//! - `horizon`: up to where everything is in, told to those who read the database itself; what may be forgotten.
//! - `status`: what is measured on the way.
//!
//! Nothing is ever dropped: a row that the database refuses for good goes to the dead letters and stays readable in the hot
//! store; a record that only a later release can read holds its partition.

mod apply;
mod backoff;
mod breaker;
mod budget;
mod consume;
mod dead_letter;
mod drain;
mod gather;
mod horizon;
mod options;
mod parts;
pub mod startup;
pub mod status;

#[cfg(feature = "servers")]
pub mod app;

pub use budget::Bounds;
pub use drain::{Drain, DrainError, DrainParts};
pub use options::{DrainOptions, TableOptions};
