//! How far a drain-down has come.

use std::collections::BTreeMap;

use database::{CatalogTable, Database, Hold, HoldKind, HoldScope};
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{Backlog, HaltedTables, HotStore, HotStoreError};
use model::{Namespace, Shard, TableRef};

use super::{HoldError, Operators};
use crate::Core;

/// How far a drain-down has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainDown {
    /// What was asked for; `None` if nothing was, or it has ended.
    pub hold: Option<Hold>,
    /// The shards of the installation.
    pub shards: u16,
    /// Those of them that refuse the writes.
    pub refusing: u16,
    /// Those of them that can't be looked at: they are closed, or the hot store does not answer.
    pub unknown: u16,
    /// Records that the database lacks, in the shards that could be looked at.
    pub records: u64,
    /// Records that the drains hold in memory.
    pub gathered: u64,
    /// Records that the database refused for good; they hinder nothing.
    pub parked: u64,
    /// Tables of these that are paused, and so never come to their end.
    pub paused: Vec<TableRef>,
    /// What stands in the way of knowing more.
    pub problem: Option<String>,
}

impl DrainDown {
    /// Whether no write comes in any more, and all that did is in the database (or parked).
    pub fn is_ready(&self) -> bool {
        self.hold.is_some()
            && self.refusing == self.shards
            && self.unknown == 0
            && self.records == 0
            && self.gathered == 0
            && self.problem.is_none()
    }
}

/// One shard.
struct Look {
    /// Which of the operators' wishes it follows.
    revision: u64,
    refuses: bool,
    records: u64,
    parked: u64,
}

impl<H, L, D> Operators<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// How far a drain-down of this scope has come. It is ready when each shard, in one and the same epoch, was first seen
    /// to refuse the writes and then to have none that the database lacks: from then on there can be none until the
    /// drain-down ends. For a shard that loses its refusal with the hot store's history is closed, and is not opened before
    /// it has it again.
    ///
    /// # Errors
    /// [`HoldError`] if nobody knows what was asked for.
    pub async fn drain_down(&self, scope: &HoldScope) -> Result<DrainDown, HoldError> {
        let core = &*self.core;
        core.directory.refresh(false).await?;
        if let HoldScope::Table(table) = scope
            && core.directory.known(table).is_none()
        {
            return Err(HoldError::NotEnabled(table.clone()));
        }
        let catalog = core.directory.catalog_database()?;
        let holds = catalog.holds().await?;
        let tables: Vec<_> =
            core.directory.all().into_iter().filter(|table| scope.covers(&table.schema.table)).collect();
        let covers = |hold: &&Hold| {
            hold.kind == HoldKind::DrainDown && (hold.scope == HoldScope::Everything || hold.scope == *scope)
        };
        let namespaces: Vec<Namespace> = tables.iter().map(|table| table.settings.namespace.clone()).collect();
        let (mut refusing, mut unknown, mut records, mut parked) = (0, 0, 0, 0);
        let mut problem = None;
        let looks = looks(core, scope, &namespaces).await;
        // The looks are of different moments: an end and another beginning may lie between them, also where the shards that
        // are looked at late were not told of either yet. A catalog that was restored knows less than the shards.
        let known = catalog.holds().await?.revision;
        let told = looks.iter().filter_map(|(_, look)| Some(look.as_ref().ok()?.as_ref()?.revision));
        let newest = told.max().max(Some(known));
        for (shard, look) in looks {
            match look {
                Ok(Some(look)) => {
                    refusing += u16::from(look.refuses && Some(look.revision) == newest);
                    records += look.records;
                    parked += look.parked;
                }
                Ok(None) => unknown += 1,
                Err(error) => {
                    unknown += 1;
                    problem = Some(format!("shard {shard} of the hot store can't be looked at: {error}"));
                }
            }
        }
        let gathered = match core.hot.reports().await {
            Ok(reports) => {
                let drained = reports.iter().flat_map(|seen| &seen.report.tables);
                let meant: BTreeMap<_, &CatalogTable> = tables.iter().map(|table| (names(table), &**table)).collect();
                drained
                    .filter(|report| meant.contains_key(&(report.database.as_str(), report.table.as_str())))
                    .map(|report| report.gathered)
                    .sum()
            }
            Err(error) => {
                problem = problem.or_else(|| Some(format!("what the drains hold is not known: {error}")));
                0
            }
        };
        let is_paused =
            |table: &&std::sync::Arc<CatalogTable>| holds.of(HoldKind::Pause, &table.schema.table).next().is_some();
        Ok(DrainDown {
            // Its own, before one of everything.
            hold: holds.list.iter().filter(covers).max_by_key(|hold| hold.scope == *scope).cloned(),
            shards: core.shards.get(),
            refusing,
            unknown,
            records,
            gathered,
            parked,
            paused: tables.iter().filter(is_paused).map(|table| table.schema.table.clone()).collect(),
            problem,
        })
    }
}

fn names(table: &CatalogTable) -> (&str, &str) {
    (table.schema.table.database.as_str(), table.schema.table.table.as_str())
}

async fn looks<H: HotStore, L, D>(
    core: &Core<H, L, D>,
    scope: &HoldScope,
    namespaces: &[Namespace],
) -> Vec<(Shard, Result<Option<Look>, HotStoreError>)> {
    stream::iter(core.shards.all())
        .map(|shard| async move { (shard, look(core, shard, scope, namespaces).await) })
        .buffered(core.options.shards_at_once.max(1))
        .collect()
        .await
}

/// First whether it refuses, then what it has: the other way round a write could come between. Nothing if it is closed,
/// or was opened anew in between.
async fn look<H: HotStore, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    scope: &HoldScope,
    namespaces: &[Namespace],
) -> Result<Option<Look>, HotStoreError> {
    let header = core.hot.header(shard).await?;
    if !header.open {
        return Ok(None);
    }
    let refuses = match scope {
        // Also what is enabled later.
        HoldScope::Everything => header.halt.tables == HaltedTables::All,
        HoldScope::Table(_) => namespaces.iter().all(|namespace| header.halt.tables.covers(namespace)),
    };
    match core.hot.backlog(shard, namespaces.to_vec()).await {
        Ok((epoch, backlogs)) if epoch == header.epoch => {
            // A power cut of the hot store may have left one of which only this is known.
            let records_of = |b: &Backlog| b.records.max(u64::from(b.oldest.is_some()));
            let (records, parked) = backlogs.iter().fold((0, 0), |(r, p), b| (r + records_of(b), p + b.parked));
            let records = match scope {
                // Also those of tables that nobody knows any more.
                HoldScope::Everything => records.max(header.dirty),
                HoldScope::Table(_) => records,
            };
            Ok(Some(Look { revision: header.halt.revision, refuses, records, parked }))
        }
        Ok(_) | Err(HotStoreError::Closed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
