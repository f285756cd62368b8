//! What operators do with records that the database refused for good: look at them, write them again, give them up.
//!
//! The dead letters lie in a topic beside the table's own, for ever; whether one still waits for somebody is not written
//! there. A letter is unresolved as long as the hot store has its record parked at its version: a newer write, a replay or
//! a purge ends that. Only a letter without a version, whose bytes nobody could read, is settled by what lies in the topic:
//! the note of its purge.

mod error;
mod find;
mod letter;
mod list;
mod partition;
mod purge;
mod replay;

use std::sync::Arc;

pub use error::DeadLetterError;
pub use find::{Decoded, Shown};
pub use letter::{InvalidLetterId, Letter, LetterFilter, LetterId, LetterName, LetterState, Outcome, Problem};
pub use list::{MAX_PAGE, Pages};

pub(crate) use find::mutation_of;
pub(crate) use partition::{LetterPartition, Met};

use crate::Core;

/// Shows, replays and purges dead letters.
pub struct DeadLetters<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for DeadLetters<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<H, L, D> DeadLetters<H, L, D> {
    /// On these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }
}
