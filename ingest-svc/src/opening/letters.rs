//! What the database had refused for good: an opening that finds nothing it can believe in the hot store parks it again.
//!
//! The log is read from what the drain has done, and with what it refused it is done. So the dead letters are read, all of
//! them, and behind the log: what is newer in the log, or in the database, or was given up, stays as it is.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, OpeningToken, Restore};
use model::{Key, KeyBytes, Shard, Version};

use super::{
    OpeningError, compare,
    restore::{Newest, Stretch},
};
use crate::{
    Core,
    dead_letters::{LetterPartition, Met, mutation_of},
};

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// The highest version met: no version that a letter names is given again.
    pub(super) seen: Version,
    /// Records that were offered to the hot store as parked.
    pub(super) parked: u64,
}

/// Parks again what the dead letters of a table in this shard tell of, unless something took its place.
pub(super) async fn restore<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    token: &OpeningToken,
    stretch: &Stretch<'_>,
) -> Result<Tally, OpeningError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let (schema, mut tally) = (&stretch.table.schema, Tally::default());
    let ttl = core.options.hot_ttl.of(&schema.table);
    let database = core
        .directory
        .database(&schema.table.database)
        .ok_or_else(|| OpeningError::NoDatabase(schema.table.database.clone()))?;
    let look = || LetterPartition::look(&*core.log, stretch.table, [shard]);
    let partition = match look().await?.pop() {
        Some(partition) => Some(partition),
        None => {
            // Made if it is missing, as it is of a table that an older release enabled; so nobody takes a log that does
            // not know its topics yet for one without letters.
            let topic = stretch.topic.dead_letters().map_err(|error| OpeningError::Letters(error.into()))?;
            core.log.ensure_topic(&topic, core.shards.get(), core.options.tables.log).await?;
            look().await?.pop()
        }
    };
    let Some(partition) = partition.filter(|partition| !partition.offsets.is_empty()) else { return Ok(tally) };
    let purges = partition.purges(&*core.log).await?;
    let mut from = partition.offsets.start;
    while from < partition.offsets.end {
        let with_version = |_, letter: &model::DeadLetter| letter.version.is_some();
        let (met, next) = partition.page(&*core.log, from..partition.offsets.end, with_version).await?;
        from = next;
        let mut newest: BTreeMap<KeyBytes, Newest> = BTreeMap::new();
        for Met { id, letter } in met {
            tally.seen = tally.seen.max(letter.version.unwrap_or_default());
            let Some(mutation) = mutation_of(&letter).filter(|_| !purges.has(id, &letter)) else { continue };
            // What lay in another shard's partition, or is another table's, is nobody's record here.
            if mutation.table != schema.table || schema.shard_of(&mutation.key, core.shards) != shard {
                continue;
            }
            let lowest = mutation.version;
            let held =
                newest.entry(letter.key.clone()).or_insert_with(|| Newest { lowest, mutation: mutation.clone() });
            if held.mutation.version < mutation.version {
                *held = Newest { lowest, mutation };
            }
        }
        let newest: Vec<Newest> = newest.into_values().collect();
        let keys: Vec<Key> = newest.iter().map(|newest| newest.mutation.key.clone()).collect();
        let held = compare::look(&**database, schema, &keys).await?;
        let horizon = compare::purge_horizon(&**database, shard, stretch, &held).await?;
        let restores = newest.into_iter().zip(held).filter_map(|(newest, held)| {
            match compare::compare(stretch, horizon, newest, held) {
                // The database has nothing as new, nor had: that is what it refused.
                Restore::Dirty { record, version, image, .. } => Some(Restore::Parked { record, version, image }),
                _ => None,
            }
        });
        let restores: Vec<Restore> = restores.collect();
        tally.parked += restores.len() as u64;
        if !restores.is_empty() {
            core.hot.restore(shard, token, restores, ttl).await?;
        }
    }
    Ok(tally)
}
