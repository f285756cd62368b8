//! Forgetting deletes that can't be undone by anything that still comes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::{Database, DatabaseError, Horizon};
use hot_store::{Budget, HotStore, HotStoreError};
use model::{TableRef, Version};
use planted::Bug;
use tokio::task::JoinSet;

use super::holding::{Holding, backlogs, holdings, next_round};
use crate::{apply::without_values, parts::Parts, status::TableMetrics};

/// Why the tombstones of a shard could not be purged.
enum Problem {
    /// No shard can be asked for.
    HotStore(HotStoreError),
    /// It concerns the table.
    Database(DatabaseError),
}

/// Purges the tombstones of every shard that this process owns, again and again.
pub(crate) async fn purge_tombstones<H: HotStore + Budget, D: Database>(parts: Arc<Parts<H, D>>) {
    // Replicas that were started together shall not purge together.
    let interval = parts.options.purge_interval;
    let mut pause = interval.mul_f64(parts.options.chance.jitter(0.5..1.0));
    // A table that has to wait for its budget keeps no other one waiting: a task each. They end with this one.
    let mut tables: BTreeMap<TableRef, JoinSet<()>> = BTreeMap::new();
    while next_round(&parts, std::mem::replace(&mut pause, interval)).await {
        tables.retain(|_, purging| match purging.try_join_next() {
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            ended => ended.is_none() && !purging.is_empty(),
        });
        let mut held: BTreeMap<TableRef, Vec<Holding>> = BTreeMap::new();
        for holding in holdings(&parts).await {
            held.entry(holding.table().clone()).or_default().push(holding);
        }
        for (table, holdings) in held {
            // One that is not through with its shards goes on with them, or the last ones of a table with a low limit
            // would never be reached.
            let purging = tables.entry(table.clone()).or_default();
            if purging.is_empty() {
                purging.spawn(purge_table(parts.clone(), table, holdings));
            }
        }
    }
}

/// One round of a table. If its database refuses it, it is left until the next one.
async fn purge_table<H: HotStore + Budget, D: Database>(
    parts: Arc<Parts<H, D>>,
    table: TableRef,
    holdings: Vec<Holding>,
) {
    for holding in holdings {
        match purge(&parts, &holding).await {
            // The new owner does it, or the next round.
            Ok(()) | Err(Problem::Database(DatabaseError::NotOwner(_) | DatabaseError::Outdated { .. })) => {}
            Err(Problem::Database(error)) => {
                let error = without_values(&error);
                tracing::warn!(%table, error, "marks of deleted rows could not be purged; they are kept until the next time");
                parts.metrics.of(&TableMetrics::new(&table)).retry("purge");
                return;
            }
            // What one shard alone has is its own.
            Err(Problem::HotStore(error @ HotStoreError::Corrupt { .. })) => {
                tracing::warn!(%table, shard = %holding.shard, %error, "marks of deleted rows are not purged in a shard");
            }
            Err(Problem::HotStore(error)) => {
                tracing::warn!(%table, %error, "no marks of deleted rows are purged until the hot store can be asked");
                return;
            }
        }
    }
}

async fn purge<H: HotStore + Budget, D: Database>(parts: &Parts<H, D>, holding: &Holding) -> Result<(), Problem> {
    let lane = &holding.lane;
    let table = parts.directory.known(holding.table()).unwrap_or_else(|| lane.table.clone());
    let name = &table.schema.table;
    let Some(database) = parts.directory.database(&name.database) else { return Ok(()) };
    // Tombstones count against the table's limit like rows, and pass its gate before they go; a look costs nothing, or
    // those at many shards without any would eat up a low limit.
    let gate = parts.gate(name);
    while let Some(horizon) = purgeable_now(parts, holding).await? {
        let found = database.count_tombstones(&table.schema, &horizon, gate.batch_rows()).await;
        let found = usize::try_from(found.map_err(Problem::Database)?).unwrap_or(usize::MAX);
        if found == 0 {
            break;
        }
        let granted = gate.pass(|| found).await;
        // That may have taken its time.
        let Some(horizon) = purgeable_now(parts, holding).await? else { break };
        let purged = database.purge_tombstones(&table.schema, &horizon, granted.rows).await;
        let purged = purged.map_err(Problem::Database)?;
        parts.metrics.of(&TableMetrics::new(name)).purged(purged);
        if purged < granted.rows as u64 {
            break;
        }
    }
    Ok(())
}

/// Up to where tombstones may go; nothing while none may, or nobody knows.
async fn purgeable_now<H: HotStore, D>(parts: &Parts<H, D>, holding: &Holding) -> Result<Option<Horizon>, Problem> {
    let Holding { lane, shard, .. } = holding;
    let answer = backlogs(parts, *shard, std::slice::from_ref(holding)).await.map_err(Problem::HotStore)?;
    let Some((epoch, backlogs)) = answer else { return Ok(None) };
    let Some(backlog) = backlogs.first() else { return Ok(None) };
    let unfinished = lane.with(|gathered| gathered.oldest_of(*shard));
    // What is parked may have to be told from what is forgotten, after a loss of the hot store.
    let unfinished = unfinished.into_iter().chain(backlog.lowest_parked).min();
    let mut up_to = purgeable(backlog.horizon, unfinished, parts.options.tombstone_retention);
    if planted::is(Bug::PurgePastDirty) {
        up_to = parts.hot.header(*shard).await.map_err(Problem::HotStore)?.clock;
    }
    Ok((up_to > Version::ZERO).then(|| holding.horizon(epoch, up_to)))
}

/// The highest version whose tombstone may go, where everything up to `horizon` is in the database.
///
/// What is gathered here and not finished counts as well, though it can only be delivered again. How old a tombstone
/// is, is told by the horizon alone: no clock is compared with the store's.
fn purgeable(horizon: Version, unfinished: Option<Version>, retention: Duration) -> Version {
    let retention = u64::try_from(retention.as_micros()).unwrap_or(u64::MAX);
    let old = Version::new(horizon.get().saturating_sub(retention)).unwrap_or_default();
    unfinished.map_or(old, |unfinished| old.min(unfinished.before()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_purged_that_is_young_or_could_be_undone_by_what_is_unfinished(
            horizon in 0u64..2_000_000, unfinished in prop::option::of(1u64..2_000_000), retention in 0u64..2_000_000,
        ) {
            let version = |n| Version::new(n).unwrap();
            let up_to = purgeable(version(horizon), unfinished.map(version), Duration::from_micros(retention)).get();
            prop_assert!(up_to == 0 || up_to + retention <= horizon);
            prop_assert!(unfinished.is_none_or(|unfinished| up_to < unfinished));
            // And it is the highest such version.
            let next = up_to + 1;
            prop_assert!(next + retention > horizon || unfinished.is_some_and(|unfinished| next >= unfinished));
        }
    }
}
