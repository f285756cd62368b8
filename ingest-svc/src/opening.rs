//! Openings: a shard that a restart of the hot store has closed is put right from the log and the database, and
//! opened.
//!
//! One replica does it, under a token that is bound to the store's live incarnation. It begins where the surviving
//! checkpoint says ([`start`]), draws a new epoch, puts a fence of that epoch into the shard's partition of every
//! topic ([`fence`]), reads from the start to the fence and puts back what the store lacks ([`restore`]). Where
//! no checkpoint can be believed, it takes what the store had for the database for one more source ([`aside`]), and parks again what the dead letters tell of ([`letters`]). A fresh
//! installation takes the same path and finds nothing to read. See DESIGN.md, "Epochs".

mod aside;
pub mod checkpoint;
mod compare;
mod error;
mod fence;
mod letters;
mod restore;
mod run;
mod shard;
mod start;

pub use error::OpeningError;
pub use run::run;
pub use shard::{Opened, open_shard};

/// How many shards were open when they were last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningProgress {
    /// Open ones.
    pub opened: u16,
    /// All.
    pub total: u16,
}

impl OpeningProgress {
    /// Whether every shard is open.
    pub fn is_complete(self) -> bool {
        self.opened == self.total
    }
}
