//! Whether log, hot store and database agree about the records of a table, told while writes go on.
//!
//! It reads: no lock, no write, no fill, so many records a second, so many in memory. The log says what was written, in
//! stretches; of each the newest writes are looked up in the hot store and in the database. What follows of that is in
//! [`law`]; which events count, in [`window`]. What seems to differ is looked at again, at least twice, with all that the
//! dead letters and the drain's offset have to say, and told only if it stays the same.
//!
//! What the log no longer has is not compared: of that nobody knows any more what it should be.

mod content;
mod error;
mod law;
mod look;
mod pace;
mod report;
mod run;
mod window;

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use error::VerifyError;
pub use law::{DifferenceKind, Undecided};
pub use report::{Difference, Progress, Tell, Told, VerifyRequest};

use crate::Core;
use run::Run;

/// Records per second, unless somebody says otherwise.
pub const DEFAULT_RATE: u32 = 1000;
/// Nobody gets more.
pub const MAX_RATE: u32 = 100_000;
/// Records that differ and are told, unless somebody says otherwise.
pub const DEFAULT_LISTED: usize = 100;
/// Nobody is told of more.
pub const MAX_LISTED: usize = 10_000;

/// Verifications of a replica at once.
const AT_ONCE: usize = 2;

/// Verifies tables.
pub struct Verifier<H, L, D> {
    core: Arc<Core<H, L, D>>,
    at_once: Arc<Semaphore>,
}

impl<H, L, D> Clone for Verifier<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), at_once: self.at_once.clone() }
    }
}

impl<H, L, D> Verifier<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// On these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Compares the records of a table, and tells how far it is, which records differ, and at last what it came to. It ends
    /// where nobody listens any more, or with `stopping`.
    ///
    /// # Errors
    /// See [`VerifyError`].
    pub async fn verify(
        &self,
        request: &VerifyRequest,
        tell: &Tell,
        stopping: &CancellationToken,
    ) -> Result<Progress, VerifyError> {
        let core = &*self.core;
        let table = core.directory.known(&request.table);
        let table = table.ok_or_else(|| VerifyError::NoSuchTable(request.table.clone()))?;
        let _permit = self.at_once.try_acquire().map_err(|_| VerifyError::Busy(AT_ONCE))?;
        let run = Run::new(core, table, request, tell);
        // Whatever it waits for can be left at any time: it changes nothing, and a call to a database runs to its end.
        tokio::select! {
            biased;
            () = stopping.cancelled() => Err(VerifyError::Stopping),
            () = tell.closed() => Err(VerifyError::NobodyListens),
            done = run.all() => done,
        }
    }
}
