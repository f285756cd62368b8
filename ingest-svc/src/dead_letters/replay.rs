//! Parked records, written again.

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, RecordId, Slot, Stage};
use model::{Image, Version};

use super::{
    DeadLetters, LetterName, LetterState, Outcome, Problem,
    find::{Found, find},
    letter::state_by_slot,
};
use crate::accept::{Parked, WriteError, Writer};

/// How often it is tried again when a shard was opened again meanwhile.
const ATTEMPTS: usize = 3;

impl<H, L, D> DeadLetters<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// Writes the parked records of letters again, each if it still is what the letter says: it gets a new version and goes
    /// the way of every write, so it never takes the place of what is newer. Answers in the order of the names.
    pub async fn replay(&self, names: &[LetterName]) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(names.len());
        let mut open: Vec<(usize, Found)> = Vec::new();
        for (at, found) in find(&self.core, names).await.into_iter().enumerate() {
            outcomes.push(match found {
                Err(error) => Outcome::Failed(error.into()),
                Ok(None) => Outcome::Failed(Problem::NotFound),
                Ok(Some(found)) => match (found.letter.version, found.letter.state) {
                    (_, LetterState::Retrying) => Outcome::Failed(Problem::Retrying),
                    (None, LetterState::Unresolved) => Outcome::Failed(Problem::Unreadable),
                    (Some(_), LetterState::Unresolved) => {
                        open.push((at, found));
                        Outcome::Settled(LetterState::Resolved)
                    }
                    (_, state) => Outcome::Settled(state),
                },
            });
        }
        for _ in 0..ATTEMPTS {
            open = self.attempt(open, &mut outcomes).await;
        }
        for (at, found) in open {
            outcomes[at] = Outcome::Failed(WriteError::Aborted(found.table.schema.table.clone()).into());
        }
        outcomes
    }

    /// Answers those that changed between the look and the write.
    async fn attempt(&self, open: Vec<(usize, Found)>, outcomes: &mut [Outcome]) -> Vec<(usize, Found)> {
        let (mut writes, mut writers) = (Vec::new(), Vec::new());
        for (at, found) in open {
            let Some(version) = found.letter.version else { continue };
            match self.parked(&found, version).await {
                Err(outcome) => outcomes[at] = outcome,
                Ok((epoch, image)) => {
                    let (table, shard, key) = (found.table.clone(), found.shard, found.full.key.clone());
                    writes.push(Parked { table, shard, key, version, epoch, image });
                    writers.push((at, found));
                }
            }
        }
        if writes.is_empty() {
            return Vec::new();
        }
        let mut again = Vec::new();
        let results = Writer::new(self.core.clone()).write_parked(writes).await;
        for ((at, found), result) in writers.into_iter().zip(results) {
            match result {
                Ok(accepted) => outcomes[at] = Outcome::Replayed(accepted.etag.version),
                Err(WriteError::Aborted(_)) => again.push((at, found)),
                Err(error) => outcomes[at] = Outcome::Failed(error.into()),
            }
        }
        again
    }

    /// What is parked of a letter, or what became of it.
    async fn parked(&self, found: &Found, version: Version) -> Result<(model::Epoch, Image), Outcome> {
        let record = RecordId { namespace: found.table.settings.namespace.clone(), key: found.full.key.clone() };
        let failed = |error: hot_store::HotStoreError| Outcome::Failed(Problem::Letters(error.into()));
        let answer = self.core.hot.read(found.shard, vec![record]).await.map_err(failed)?;
        match answer.slots.into_iter().next().unwrap_or(Slot::Empty) {
            Slot::Image { version: held, image, stage: Stage::Parked } if held == version => Ok((answer.epoch, image)),
            slot => match state_by_slot(version, &slot, false) {
                LetterState::Retrying => Err(Outcome::Failed(Problem::Retrying)),
                state => Err(Outcome::Settled(state)),
            },
        }
    }
}
