//! Which dead letters there are.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, RecordId, Slot};
use model::TableRef;
use tokio::sync::mpsc;

use super::{
    DeadLetterError, DeadLetters, Letter, LetterFilter, LetterName, LetterState,
    letter::{Identity, state_by_slot},
    partition::{LetterPartition, Met, Purges},
};
use crate::Core;

/// The most letters of one page.
pub const MAX_PAGE: usize = 256;
/// For how long a page waits for somebody to take it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Letters of one partition that are remembered, so that each is shown once however often it was written. Those that were
/// written again farther behind are shown again.
const REMEMBERED: usize = 1 << 16;

/// Where the letters go, page by page.
pub type Pages = mpsc::Sender<Vec<Letter>>;

impl<H, L, D> DeadLetters<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// Gives out the letters that the filter takes, by table and shard, oldest first, those there are now.
    ///
    /// # Errors
    /// See [`DeadLetterError`]. What was given out by then is right.
    pub async fn list(&self, filter: &LetterFilter, pages: &Pages) -> Result<(), DeadLetterError> {
        let core = &*self.core;
        let tables = match &filter.table {
            Some(table) => vec![known(core, table)?],
            None => core.directory.all(),
        };
        for table in tables {
            for partition in LetterPartition::look(&*core.log, &table, core.shards.all()).await? {
                if !partition.offsets.is_empty() {
                    list_partition(core, &table, &partition, filter, pages).await?;
                }
            }
        }
        Ok(())
    }
}

async fn list_partition<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    partition: &LetterPartition,
    filter: &LetterFilter,
    pages: &Pages,
) -> Result<(), DeadLetterError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let purges = partition.purges(&*core.log).await?;
    let mut known = BTreeSet::new();
    let mut from = partition.offsets.start;
    while from < partition.offsets.end {
        let (met, next) = partition
            .page(&*core.log, from..partition.offsets.end, |_, letter| {
                // The first letter of an event tells when it was given up.
                let is_new = known.len() >= REMEMBERED || known.insert(Identity::of(letter));
                is_new && filter.takes(letter)
            })
            .await?;
        from = next;
        let mut page = judge(core, table, partition, &purges, met).await?;
        page.retain(|(letter, _)| filter.all_states || letter.state.is_open());
        if !page.is_empty() {
            let page = page.into_iter().map(|(letter, _)| letter).collect();
            pages.send_timeout(page, PATIENCE).await.map_err(|_| DeadLetterError::NobodyListens)?;
        }
    }
    Ok(())
}

/// Says what became of letters, by what the hot store holds now; each with itself.
pub(super) async fn judge<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    partition: &LetterPartition,
    purges: &Purges,
    met: Vec<Met>,
) -> Result<Vec<(Letter, Met)>, DeadLetterError>
where
    H: HotStore,
{
    let namespace = &table.settings.namespace;
    let with_version = met.iter().filter(|met| met.letter.version.is_some());
    let records: Vec<_> =
        with_version.map(|met| RecordId { namespace: namespace.clone(), key: met.letter.key.clone() }).collect();
    let slots = if records.is_empty() { Vec::new() } else { core.hot.read(partition.shard(), records).await?.slots };
    let mut slots = slots.into_iter();
    let judged = met.into_iter().map(|met| {
        let is_purged = purges.has(met.id, &met.letter);
        let state = match met.letter.version {
            Some(version) => state_by_slot(version, &slots.next().unwrap_or(Slot::Empty), is_purged),
            None if is_purged => LetterState::Purged,
            None => LetterState::Unresolved,
        };
        let name = LetterName { table: table.schema.table.clone(), id: met.id };
        (Letter::of(name, &met.letter, state), met)
    });
    Ok(judged.collect())
}

pub(super) fn known<H, L, D: Database>(
    core: &Core<H, L, D>,
    table: &TableRef,
) -> Result<Arc<CatalogTable>, DeadLetterError> {
    core.directory.known(table).ok_or_else(|| DeadLetterError::NoSuchTable(table.clone()))
}
