//! The horizon: up to which version every accepted write of a shard is in its database. Those who read the database
//! itself are told, and deletes that lie below it for long enough are forgotten.
//!
//! Neither is in the way of a record: what goes wrong here is logged, counted and tried again in the next round.

mod front;
mod holding;
mod note;
mod purge;

pub(crate) use front::{Fronts, watch_fronts};
pub(crate) use holding::Holding;
pub(crate) use note::note_horizons;
pub(crate) use purge::purge_tombstones;
