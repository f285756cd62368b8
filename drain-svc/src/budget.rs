//! The budget: how many rows a table's database may be asked to write, and when.
//!
//! - `rates`: the limits in force for a table, and how large a batch they allow.
//! - `follow`: what operators set, looked for once a second.
//! - `adaptive`: a database's limit that follows how it fares.
//! - `batch_size`: how large batches are, by how long transactions take.
//! - `gate`: where batches of a table wait for their leave, which comes from the hot store, for all replicas.
//! - `ledger`: what leave this process holds, and what it has to tell the store of that.
//! - `cap`: what this process does not exceed whatever the store says.

mod adaptive;
mod batch_size;
mod cap;
mod follow;
mod gate;
mod gates;
mod ledger;
mod rates;

pub use adaptive::Bounds;
pub(crate) use adaptive::{Pulse, heed_database};
pub(crate) use batch_size::SizeBounds;
pub(crate) use follow::follow_rates;
pub(crate) use gate::Gate;
pub(crate) use gates::Gates;
pub(crate) use ledger::Leave;
pub(crate) use rates::Rates;
