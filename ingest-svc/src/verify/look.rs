//! Looking at some records of a shard: hot store, database, purge horizon, dead letters, hot store again.

use std::collections::{BTreeMap, BTreeSet};

use database::{CatalogTable, Database, DatabaseError, DatabaseRow};
use event_log::{EventPublisher, LogReader, TopicPartition};
use hot_store::{HotStore, HotStoreError, RecordId};
use model::{Key, KeyBytes, Shard, TableSchema, Version};

use super::{
    VerifyError,
    law::{Held, Hot, HotSlot, Letter, Look},
    window::Met,
};
use crate::{Core, StoreError, dead_letters::LetterPartition};

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The hot store and the database.
    Stores,
    /// The dead letters and the drain's offset as well.
    Everything,
}

/// Where to look.
pub(super) struct Place<'a, H, L, D> {
    pub(super) core: &'a Core<H, L, D>,
    pub(super) table: &'a CatalogTable,
    pub(super) partition: &'a TopicPartition,
}

impl<H, L, D> Place<'_, H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    fn shard(&self) -> Shard {
        Shard(self.partition.partition)
    }

    /// Looks at records once; in their order. Nothing is written, locked or filled.
    ///
    /// # Errors
    /// If a store can't be asked. It can be tried again.
    pub(super) async fn look(&self, records: &[(&KeyBytes, &Met)], depth: Depth) -> Result<Vec<Look>, VerifyError> {
        let keys: Vec<&KeyBytes> = records.iter().map(|(key, _)| *key).collect();
        let before = self.hot(&keys).await?;
        let rows = self.rows(&records.iter().map(|(_, met)| met.key.clone()).collect::<Vec<_>>()).await?;
        // After the rows: what is absent there was purged by then, and what is there was given by then.
        let horizon = self.purge_horizon(&rows).await?;
        let header = self.core.hot.header(self.shard()).await?;
        // A closed shard's clock may be behind what it has given.
        let clock = if header.open { header.clock } else { Version::MAX };
        let (committed, letters) = match depth {
            Depth::Stores => (i64::MAX, BTreeMap::new()),
            Depth::Everything => (self.committed().await?, self.letters(records).await?),
        };
        let after = self.hot(&keys).await?;
        let seen = records.iter().zip(before).zip(rows).zip(after);
        Ok(seen
            .map(|((((key, met), before), row), after)| Look {
                before,
                row,
                horizon,
                clock,
                is_committed: met.offset < committed,
                letter: match depth {
                    Depth::Stores => Letter::NotAsked,
                    Depth::Everything => letters.get(*key).copied().unwrap_or(Letter::None),
                },
                after,
                is_newest: false,
            })
            .collect())
    }

    async fn hot(&self, keys: &[&KeyBytes]) -> Result<Vec<Hot>, VerifyError> {
        let namespace = &self.table.settings.namespace;
        let record = |key: &KeyBytes| RecordId { namespace: namespace.clone(), key: key.clone() };
        let records = keys.iter().map(|key| record(key)).collect();
        match self.core.hot.read(self.shard(), records).await {
            Ok(answer) if answer.slots.len() == keys.len() => {
                let hot = |slot| Hot { epoch: answer.epoch, slot: HotSlot::Slot(slot) };
                Ok(answer.slots.into_iter().map(hot).collect())
            }
            Ok(answer) => Err(VerifyError::incomplete("hot store", keys.len(), answer.slots.len())),
            // One of them keeps nobody from looking at the others.
            Err(HotStoreError::Corrupt { .. }) => {
                let mut hot = Vec::with_capacity(keys.len());
                for key in keys {
                    hot.push(self.hot_one(record(key)).await?);
                }
                Ok(hot)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn hot_one(&self, record: RecordId) -> Result<Hot, VerifyError> {
        match self.core.hot.read(self.shard(), vec![record]).await {
            Ok(mut answer) => {
                let slot = answer.slots.pop().ok_or_else(|| VerifyError::incomplete("hot store", 1, 0))?;
                Ok(Hot { epoch: answer.epoch, slot: HotSlot::Slot(slot) })
            }
            Err(HotStoreError::Corrupt { .. }) => Ok(Hot { epoch: model::Epoch::ZERO, slot: HotSlot::Unreadable }),
            Err(error) => Err(error.into()),
        }
    }

    async fn rows(&self, keys: &[Key]) -> Result<Vec<Held>, VerifyError> {
        let schema = &self.table.schema;
        match self.read(schema, keys).await {
            Ok(rows) => Ok(rows.into_iter().map(Held::Row).collect()),
            Err(Unread::Unreadable) => {
                let mut held = Vec::with_capacity(keys.len());
                for key in keys {
                    held.push(self.row(key).await?);
                }
                Ok(held)
            }
            Err(Unread::Failed(error)) => Err(error),
        }
    }

    /// One of which it is known that a value of it may not be readable: its version is, without its values.
    async fn row(&self, key: &Key) -> Result<Held, VerifyError> {
        let (schema, key) = (&self.table.schema, std::slice::from_ref(key));
        let first = |mut rows: Vec<DatabaseRow>| rows.pop().ok_or_else(|| VerifyError::incomplete("database", 1, 0));
        match self.read(schema, key).await {
            Ok(rows) => return first(rows).map(Held::Row),
            Err(Unread::Unreadable) => {}
            Err(Unread::Failed(error)) => return Err(error),
        }
        let of_key = TableSchema {
            columns: schema.key().cloned().collect(),
            key_columns: (0..schema.key_columns.len()).collect(),
            ..schema.clone()
        };
        match self.read(&of_key, key).await {
            Ok(rows) => Ok(match first(rows)? {
                DatabaseRow::Present { version, .. } => Held::Unreadable(version),
                row => Held::Row(row),
            }),
            Err(Unread::Unreadable) => Ok(Held::Unreadable(Version::ZERO)),
            Err(Unread::Failed(error)) => Err(error),
        }
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, Unread> {
        let name = &schema.table.database;
        let missing = || StoreError::DatabaseUnfit(format!("no database named {name} is configured"));
        let database = self.core.directory.database(name).ok_or_else(|| VerifyError::from(missing()))?;
        // As a cold read: of those only so many go to the database at once.
        let permit = self.core.cold_reads.acquire().await.map_err(|_| VerifyError::from(StoreError::ColdReadsBusy))?;
        let rows = database.read(schema, keys).await;
        drop(permit);
        match rows {
            Ok(rows) if rows.len() == keys.len() => Ok(rows),
            Ok(rows) => Err(VerifyError::incomplete("database", keys.len(), rows.len()).into()),
            Err(error) if error.is_unreadable() => Err(Unread::Unreadable),
            Err(error) => Err(VerifyError::of_database(&error).into()),
        }
    }

    async fn purge_horizon(&self, rows: &[Held]) -> Result<Version, VerifyError> {
        let is_bare = |held: &Held| {
            matches!(
                held,
                Held::Row(DatabaseRow::Absent | DatabaseRow::Present { version: Version::ZERO, .. })
                    | Held::Unreadable(Version::ZERO)
            )
        };
        let name = &self.table.schema.table;
        match self.core.directory.database(&name.database).filter(|_| rows.iter().any(is_bare)) {
            Some(database) => {
                let answer = database.shard_rows(std::slice::from_ref(&name.table), self.shard()).await;
                let rows = answer.map_err(|error| VerifyError::of_database(&error))?;
                rows.first().map(|row| row.purge_horizon).ok_or_else(|| VerifyError::incomplete("database", 1, 0))
            }
            None => Ok(Version::ZERO),
        }
    }

    /// What the drain group has committed; 0 if nothing.
    async fn committed(&self) -> Result<i64, VerifyError> {
        let committed = self.core.log.committed(std::slice::from_ref(self.partition)).await?;
        Ok(committed.first().copied().flatten().map_or(0, |committed| committed.done.offset))
    }

    /// What the dead letters have of these versions. One reading of the partition's, however many records.
    async fn letters(&self, records: &[(&KeyBytes, &Met)]) -> Result<BTreeMap<KeyBytes, Letter>, VerifyError> {
        let mut letters = BTreeMap::new();
        let Some(partition) = LetterPartition::look(&*self.core.log, self.table, [self.shard()]).await?.pop() else {
            return Ok(letters);
        };
        if partition.offsets.is_empty() {
            return Ok(letters);
        }
        let wanted: BTreeSet<(&KeyBytes, Version)> =
            records.iter().map(|(key, met)| (*key, met.logged.version)).collect();
        let purges = partition.purges(&*self.core.log).await?;
        let mut from = partition.offsets.start;
        while from < partition.offsets.end {
            let (found, next) = partition
                .page(&*self.core.log, from..partition.offsets.end, |_, letter| {
                    letter.version.is_some_and(|version| wanted.contains(&(&letter.key, version)))
                })
                .await?;
            from = next;
            for met in found {
                let letter = match met.letter.is_cut {
                    _ if purges.has(met.id, &met.letter) => Letter::Purged,
                    true => Letter::Cut,
                    false => Letter::Kept,
                };
                letters.insert(met.letter.key, letter);
            }
        }
        Ok(letters)
    }
}

/// Why rows could not be read.
enum Unread {
    /// One of them holds a value that can't be.
    Unreadable,
    Failed(VerifyError),
}

impl From<VerifyError> for Unread {
    fn from(error: VerifyError) -> Self {
        Self::Failed(error)
    }
}

impl VerifyError {
    fn incomplete(store: &str, asked: usize, got: usize) -> Self {
        Self::Store(StoreError::DatabaseUnfit(format!("the {store} was asked for {asked} records and answered {got}")))
    }

    fn of_database(error: &DatabaseError) -> Self {
        Self::Store(StoreError::from(error.clone()))
    }
}
