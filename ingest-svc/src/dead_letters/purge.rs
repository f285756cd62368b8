//! Letters that are given up.

use database::Database;
use event_log::{EventPublisher, LogReader, Outgoing, TopicPartition};
use hot_store::{HotStore, RecordId, Stamp};
use model::{DeadLetterBody, DeadLetterPurge, DeadLetterRecord, InvalidName};
use tokio::time::timeout;

use super::{
    DeadLetters, LetterName, LetterState, Outcome, Problem,
    find::{Found, find},
};

impl<H, L, D> DeadLetters<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// Gives letters up. That is noted among the dead letters first, and only then the parked record is removed: whatever
    /// ends in between, no opening parks it again, and who purges again completes it. Answers in the order of the names.
    pub async fn purge(&self, names: &[LetterName]) -> Vec<Outcome> {
        let core = &*self.core;
        let mut outcomes = Vec::with_capacity(names.len());
        let (mut notes, mut open) = (Vec::new(), Vec::new());
        for (at, found) in find(core, names).await.into_iter().enumerate() {
            outcomes.push(match found {
                Err(error) => Outcome::Failed(error.into()),
                Ok(None) => Outcome::Failed(Problem::NotFound),
                Ok(Some(found)) => match found.letter.state {
                    LetterState::Unresolved => match self.note(&found) {
                        Ok(note) => {
                            notes.push(note);
                            open.push((at, found));
                            Outcome::Purged
                        }
                        Err(error) => Outcome::Failed(Problem::NotNoted(error.to_string())),
                    },
                    LetterState::Retrying => Outcome::Failed(Problem::Retrying),
                    state => Outcome::Settled(state),
                },
            });
        }
        if notes.is_empty() {
            return outcomes;
        }
        let noted = timeout(core.options.publish_timeout, core.log.publish(notes)).await.unwrap_or_default();
        let mut noted = noted.into_iter();
        for (at, found) in open {
            outcomes[at] = match noted.next() {
                Some(Ok(_)) => self.remove(&found).await,
                Some(Err(error)) => Outcome::Failed(Problem::NotNoted(error.to_string())),
                None => Outcome::Failed(Problem::NotNoted("there was no answer in time".to_owned())),
            };
        }
        outcomes
    }

    fn note(&self, found: &Found) -> Result<Outgoing, InvalidName> {
        let Found { table, shard, full, .. } = found;
        let purge = DeadLetterPurge {
            key: full.key.clone(),
            version: full.version,
            offset: full.offset,
            purged_at: self.core.options.wall_clock.now(),
        };
        let body = DeadLetterBody::Purge(purge);
        let record = DeadLetterRecord { table: table.schema.table.clone(), shard: *shard, body };
        let topic = table.settings.topic.dead_letters()?;
        Ok(Outgoing {
            to: TopicPartition { topic, partition: shard.0 },
            key: full.key.as_bytes().clone(),
            payload: record.encode(),
        })
    }

    async fn remove(&self, found: &Found) -> Outcome {
        let Some(version) = found.full.version else { return Outcome::Purged };
        let record = RecordId { namespace: found.table.settings.namespace.clone(), key: found.full.key.clone() };
        match self.core.hot.purge_parked(found.shard, Stamp { record, version }).await {
            Ok(true) => Outcome::Purged,
            // Somebody wrote the record since it was looked at. The note is about this version, and those before it.
            Ok(false) => Outcome::Settled(LetterState::Superseded),
            Err(error) => Outcome::Failed(Problem::Letters(error.into())),
        }
    }
}
