//! Letters by their names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use model::{Content, DeadLetter, Event, EventBody, KeyBytes, Mutation, Operation, Row, Shard, TableRef};

use super::{
    DeadLetterError, DeadLetters, Letter, LetterName,
    list::{judge, known},
    partition::{LetterPartition, Met},
};
use crate::Core;

/// A letter with all that it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// What a list says of it.
    pub letter: Letter,
    /// The record of its event, if that can be read.
    pub decoded: Option<Decoded>,
    /// The key of the event in the log, byte for byte.
    pub key: KeyBytes,
    /// The event, byte for byte.
    pub payload: Bytes,
}

/// A write that a letter is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What was done.
    pub operation: Operation,
    /// The columns of its key, as the table names them now.
    pub key: Row,
    /// The row; `None` of a delete.
    pub row: Option<Row>,
}

/// A letter that was found.
pub(super) struct Found {
    pub(super) table: Arc<CatalogTable>,
    pub(super) shard: Shard,
    pub(super) letter: Letter,
    pub(super) full: DeadLetter,
}

impl<H, L, D> DeadLetters<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// One letter, with the row that it holds.
    ///
    /// # Errors
    /// See [`DeadLetterError`].
    pub async fn get(&self, name: &LetterName) -> Result<Shown, DeadLetterError> {
        known(&self.core, &name.table)?;
        let found = find(&self.core, std::slice::from_ref(name)).await.pop();
        let not_found = || DeadLetterError::NotFound(name.clone());
        let Found { table, letter, full, .. } = found.ok_or_else(not_found)??.ok_or_else(not_found)?;
        let decoded = mutation_of(&full).map(|Mutation { key, image, .. }| Decoded {
            operation: image.operation,
            key: table.schema.key().map(|column| column.name.clone()).zip(key.0).collect(),
            row: match image.content {
                Content::Row(row) => Some(row),
                Content::Tombstone => None,
            },
        });
        Ok(Shown { letter, decoded, key: full.key, payload: full.payload })
    }
}

/// The write of a letter; `None` if its bytes don't say.
pub(crate) fn mutation_of(letter: &DeadLetter) -> Option<Mutation> {
    if letter.is_cut {
        return None;
    }
    let EventBody::Mutations(mutations) = Event::decode(letter.payload.clone()).ok()?.body else { return None };
    let is_it = |mutation: &Mutation| match letter.version {
        Some(version) => mutation.version == version && mutation.key.to_bytes() == letter.key,
        None => true,
    };
    mutations.into_iter().find(is_it)
}

/// Finds letters, in the order of their names; `Ok(None)` where there is none of that name. What can't be asked of one
/// partition is the problem of the letters there.
pub(super) async fn find<H, L, D>(
    core: &Core<H, L, D>,
    names: &[LetterName],
) -> Vec<Result<Option<Found>, DeadLetterError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut by_partition: BTreeMap<(&TableRef, Shard), BTreeSet<i64>> = BTreeMap::new();
    for LetterName { table, id } in names {
        by_partition.entry((table, id.shard)).or_default().insert(id.offset);
    }
    let mut found: BTreeMap<&LetterName, Result<Option<Found>, DeadLetterError>> = BTreeMap::new();
    for ((table, shard), offsets) in by_partition {
        let outcome = find_in(core, table, shard, &offsets).await;
        let mut here: BTreeMap<i64, Found> = BTreeMap::new();
        let mut failed = None;
        match outcome {
            Ok(all) => here.extend(all.into_iter().map(|found| (found.letter.name.id.offset, found))),
            Err(error) => failed = Some(error),
        }
        for name in names.iter().filter(|name| (&name.table, name.id.shard) == (table, shard)) {
            let answer = failed.clone().map_or_else(|| Ok(here.remove(&name.id.offset)), Err);
            // A name that is given twice is found once.
            found.entry(name).or_insert(answer);
        }
    }
    names.iter().map(|name| found.remove(name).unwrap_or(Ok(None))).collect()
}

async fn find_in<H, L, D>(
    core: &Core<H, L, D>,
    table: &TableRef,
    shard: Shard,
    offsets: &BTreeSet<i64>,
) -> Result<Vec<Found>, DeadLetterError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let table = known(core, table)?;
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return Ok(Vec::new()) };
    if shard.0 >= core.shards.get() {
        return Ok(Vec::new());
    }
    let Some(partition) = LetterPartition::look(&*core.log, &table, [shard]).await?.pop() else {
        return Ok(Vec::new());
    };
    let purges = partition.purges(&*core.log).await?;
    let end = last.saturating_add(1).min(partition.offsets.end);
    let mut from = (*first).max(partition.offsets.start);
    let mut found = Vec::new();
    while from < end {
        let (met, next) = partition.page(&*core.log, from..end, |id, _| offsets.contains(&id.offset)).await?;
        from = next;
        let judged = judge(core, &table, &partition, &purges, met).await?;
        found.extend(judged.into_iter().map(|(letter, Met { letter: full, .. })| Found {
            table: table.clone(),
            shard,
            letter,
            full,
        }));
    }
    Ok(found)
}
