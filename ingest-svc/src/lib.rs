//! The side of Shock Absorber that clients speak to.
//!
//! A write walks through the rooms from left to right: [`grpc`] (transport) hands it to [`accept`], which validates
//! it, writes it into the hot store, puts it into the event log and acknowledges it. [`read`] answers from the hot
//! store, or from the database under a lease; [`find`] looks for records by a declared field. What a crash leaves half-way is healed by [`relay`]; what a restart of
//! the hot store closes is opened again by [`opening`]. [`tables`] says which tables take part. What the database refused
//! for good is in the hands of operators: [`dead_letters`], and so is what is stopped: [`holds`]. [`status`] tells them
//! how it goes, [`verify`] whether the stores agree. Who reacts to changes sees them come in: [`watch`].
//!
//! The use cases know the three stores by their traits only; [`app`] is the one place that names backends.

pub mod accept;
pub mod app;
pub mod applied;
pub mod backlog;
mod core_parts;
pub mod dead_letters;
mod error;
mod etag;
pub mod find;
pub mod grpc;
pub mod holds;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
pub mod opening;
pub mod read;
pub mod relay;
pub mod startup;
pub mod status;
pub mod tables;
mod token;
pub mod verify;
pub mod watch;

pub use core_parts::{Core, HotTtl, IngestOptions, MaxBacklog, TableRules, WallClock, WriteRules};
pub use error::{Part, StoreError};
pub use etag::{Etag, InvalidEtag};
pub use token::{InvalidToken, Token};
