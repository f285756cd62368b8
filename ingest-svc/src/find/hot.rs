//! What the hot store holds of records that were found.

use std::{collections::BTreeMap, time::Duration};

use hot_store::{Answer, FoundInShard, HotStore, HotStoreError, RecordId, Slot};
use model::{Epoch, Shard};
use tokio::time::Instant;

use super::FindError;
use crate::{Core, StoreError};

/// A clean image stays for the TTL of the drain that marked it, which may have been told another than we were. No find of
/// this length is longer than that.
const SHORTEST_TTL: Duration = Duration::from_secs(5);

/// What the hot store holds of a record.
#[derive(Debug)]
pub(super) enum Held {
    Slot {
        epoch: Epoch,
        slot: Slot,
        /// If nothing is there now, nothing was there when the shards were looked up.
        is_stable: bool,
    },
    Unreadable {
        problem: String,
    },
}

/// The hot store's part of a find, after the database's.
pub(super) struct Hot<'a, H, L, D> {
    pub(super) core: &'a Core<H, L, D>,
    /// How the shards were when they were looked up.
    pub(super) before: &'a [FoundInShard],
    /// When that was, or earlier.
    pub(super) began: Instant,
    /// How long a clean image stays.
    pub(super) ttl: Duration,
}

impl<H: HotStore, L, D> Hot<'_, H, L, D> {
    /// What it holds of these; of some nothing, if that is more than is read at once.
    pub(super) async fn read(
        &self,
        records: impl Iterator<Item = (Shard, RecordId)>,
    ) -> Result<BTreeMap<RecordId, Held>, FindError> {
        let mut groups: BTreeMap<Shard, Vec<RecordId>> = BTreeMap::new();
        for (shard, record) in records {
            groups.entry(shard).or_default().push(record);
        }
        let mut slots = BTreeMap::new();
        let unreadable = self.ask(groups.into_iter().collect(), &mut slots).await?;
        // It may be the fault of one value, which must not be that of the others.
        self.ask(unreadable, &mut slots).await?;
        Ok(slots)
    }

    /// Asks for these groups; each record alone of those of several in which something can't be read.
    async fn ask(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        slots: &mut BTreeMap<RecordId, Held>,
    ) -> Result<Vec<(Shard, Vec<RecordId>)>, FindError> {
        let mut alone = Vec::new();
        if groups.is_empty() {
            return Ok(alone);
        }
        let answers = self.core.hot.read_many(groups.clone(), self.core.options.max_find_bytes).await;
        for ((shard, mut records), answer) in groups.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    let (epoch, is_stable) = (answer.epoch, self.is_stable(shard, &answer));
                    let held = answer.slots.into_iter().map(|slot| Held::Slot { epoch, slot, is_stable });
                    slots.extend(records.into_iter().zip(held));
                }
                Err(HotStoreError::Corrupt { .. }) if records.len() > 1 => {
                    alone.extend(records.into_iter().map(|record| (shard, vec![record])));
                }
                Err(HotStoreError::Corrupt { problem, .. }) => {
                    slots.extend(records.pop().map(|record| (record, Held::Unreadable { problem })));
                }
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        Ok(alone)
    }

    /// What it holds of one, however large that is.
    pub(super) async fn read_one(&self, shard: Shard, record: &RecordId) -> Result<Held, FindError> {
        match self.core.hot.read(shard, vec![record.clone()]).await {
            Ok(answer) => {
                let is_stable = self.is_stable(shard, &answer);
                let slot = answer.slots.into_iter().next().unwrap_or(Slot::Empty);
                Ok(Held::Slot { epoch: answer.epoch, slot, is_stable })
            }
            Err(HotStoreError::Corrupt { problem, .. }) => Ok(Held::Unreadable { problem }),
            Err(error) => Err(StoreError::from(error).into()),
        }
    }

    /// Whether what is empty now was not dirty when the database was asked ([`Answer::removed`]).
    fn is_stable(&self, shard: Shard, now: &Answer) -> bool {
        let before = self.before.iter().find(|found| found.shard == shard);
        before.is_some_and(|before| before.epoch == now.epoch && before.removed == now.removed)
            && self.began.elapsed() < (self.ttl / 2).min(SHORTEST_TTL)
    }
}
