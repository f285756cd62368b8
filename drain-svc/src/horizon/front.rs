//! How far each database is in all, and who may be given up by that.
//!
//! A row that waits for another one may wait for what was accepted before it and is not written yet: in a backlog, of a table
//! that is paused, in another replica. So while the database lacks anything older it is not given up, however long that
//! takes; whoever waits longest is the oldest in the end. Then the next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use database::Database;
use hot_store::{HotStore, HotStoreError};
use model::{DatabaseName, Namespace, Shard, TableRef, Version};
use tokio::time::Instant;

use super::holding::{Holding, holdings, next_round};
use crate::{gather::Lane, parts::Parts};

/// How often databases are looked at in which rows wait.
const INTERVAL: Duration = Duration::from_millis(250);

/// What of a database is the oldest that it lacks, as far as this process knows; only of databases in which it has rows that
/// were waited for long enough.
#[derive(Debug, Default)]
pub(crate) struct Fronts(Mutex<BTreeMap<DatabaseName, Front>>);

/// How far a database was when it was looked at.
#[derive(Debug)]
struct Front {
    /// It has every write up to this version.
    reached: Version,
    /// The partitions of ours that are no further than that, and the lowest version of what they have left. The hot store may
    /// know of a lower one that was overwritten before it was in the log: nothing of that comes any more.
    oldest: BTreeMap<(TableRef, Shard), Version>,
}

impl Fronts {
    fn known(&self) -> MutexGuard<'_, BTreeMap<DatabaseName, Front>> {
        // Whoever holds it sets one entry in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the table's database lacks nothing that is older than this version of a record of ours.
    pub(crate) fn have_reached(&self, table: &TableRef, shard: Shard, version: Version) -> bool {
        self.known().get(&table.database).is_some_and(|front| {
            front.reached >= version.before() || front.oldest.get(&(table.clone(), shard)) == Some(&version)
        })
    }
}

/// Looks how far databases are in which rows have been waited for long enough, and lets those have their last try that
/// nothing older is left of.
pub(crate) async fn watch_fronts<H: HotStore, D: Database>(parts: Arc<Parts<H, D>>) {
    let mut failing = false;
    while next_round(&parts, INTERVAL).await {
        let problem = tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            problem = look(&parts) => problem,
        };
        if let Some(problem) = problem.as_ref().filter(|_| !failing) {
            tracing::warn!(%problem, "rows that wait for others are not given up until it is known what is not written yet");
        }
        failing = problem.is_some();
    }
}

/// One round, and what was in the way.
async fn look<H: HotStore, D: Database>(parts: &Parts<H, D>) -> Option<HotStoreError> {
    let patience = parts.options.dependent_patience;
    let mut held: BTreeMap<DatabaseName, Vec<Holding>> = BTreeMap::new();
    for holding in holdings(parts).await {
        held.entry(holding.table().database.clone()).or_default().push(holding);
    }
    for (database, holdings) in held {
        let mut lanes: Vec<Arc<Lane>> = Vec::new();
        for Holding { lane, .. } in &holdings {
            if !lanes.iter().any(|known| Arc::ptr_eq(known, lane)) {
                lanes.push(lane.clone());
            }
        }
        lanes.retain(|lane| lane.with(|gathered| gathered.has_overdue(patience, Instant::now())));
        if lanes.is_empty() {
            continue;
        }
        match front(parts, &database, &holdings).await {
            Ok(Some(front)) => drop(parts.fronts.known().insert(database, front)),
            Ok(None) => continue,
            Err(error) => return Some(error),
        }
        for lane in lanes {
            let table = &lane.table.schema.table;
            let is_reached = |shard, version| parts.fronts.have_reached(table, shard, version);
            if lane.with(|gathered| gathered.hurry_overdue(patience, is_reached, Instant::now())) {
                lane.wake();
            }
        }
    }
    None
}

/// How far a database is; nothing while a shard is closed, since nobody knows then.
async fn front<H: HotStore, D: Database>(
    parts: &Parts<H, D>,
    database: &DatabaseName,
    holdings: &[Holding],
) -> Result<Option<Front>, HotStoreError> {
    let mut tables = parts.directory.all();
    tables.retain(|table| table.schema.table.database == *database);
    let namespaces: Vec<Namespace> = tables.iter().map(|table| table.settings.namespace.clone()).collect();
    // Where nothing is left to be written a horizon says nothing: shards need not have the same time.
    let (mut lowest, mut latest): (BTreeMap<(TableRef, Shard), Version>, _) = (BTreeMap::new(), Version::ZERO);
    for shard in (0..parts.options.shards).map(Shard) {
        match parts.hot.backlog(shard, namespaces.clone()).await {
            Ok((_, backlogs)) => {
                let tables = tables.iter().map(|table| (table.schema.table.clone(), shard));
                latest = backlogs.iter().map(|backlog| backlog.horizon).fold(latest, Version::max);
                let lacking = tables.zip(&backlogs).filter_map(|(of, backlog)| Some((of, backlog.oldest?)));
                lowest.extend(lacking);
            }
            Err(HotStoreError::Closed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let first = lowest.values().min().copied();
    let mut oldest = BTreeMap::new();
    for Holding { lane, shard, .. } in holdings {
        let of = (lane.table.schema.table.clone(), *shard);
        if first.is_some()
            && lowest.get(&of).copied() == first
            && let Some(version) = lane.with(|gathered| gathered.oldest_of(*shard))
        {
            oldest.insert(of, version);
        }
    }
    Ok(Some(Front { reached: first.map_or(latest, Version::before), oldest }))
}
