//! Forgetting deletes that can't be undone by anything that still comes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use database::{Database, DatabaseError};
use hot_store::{Budget, Grant, HotStore, HotStoreError};
use model::{TableRef, Version};
use planted::Bug;
use tokio::time;

use super::holding::{Holding, backlogs, holdings, next_round};
use crate::{apply::without_values, budget::batch_rows, parts::Parts, status::TableMetrics};

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
    while next_round(&parts, std::mem::replace(&mut pause, interval)).await {
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = purge_all(&parts) => {}
        }
    }
}

/// One round. A table whose database refuses it is left until the next one.
async fn purge_all<H: HotStore + Budget, D: Database>(parts: &Parts<H, D>) {
    let mut refused: BTreeSet<TableRef> = BTreeSet::new();
    for holding in holdings(parts).await {
        let table = holding.table().clone();
        if refused.contains(&table) {
            continue;
        }
        match purge(parts, &holding).await {
            // The new owner does it.
            Ok(()) | Err(Problem::Database(DatabaseError::NotOwner(_))) => {}
            Err(Problem::Database(error)) => {
                let error = without_values(&error);
                tracing::warn!(%table, error, "marks of deleted rows could not be purged; they are kept until the next time");
                parts.metrics.of(&TableMetrics::new(&table)).retry("purge");
                refused.insert(table);
            }
            // What one shard alone has is its own.
            Err(Problem::HotStore(error @ HotStoreError::Corrupt { .. })) => {
                tracing::warn!(%table, shard = %holding.shard, %error, "marks of deleted rows are not purged in a shard");
            }
            Err(Problem::HotStore(error)) => {
                tracing::warn!(%error, "no marks of deleted rows are purged until the hot store can be asked");
                return;
            }
        }
    }
}

async fn purge<H: HotStore + Budget, D: Database>(parts: &Parts<H, D>, holding: &Holding) -> Result<(), Problem> {
    let Holding { lane, shard, owner } = holding;
    let table = parts.directory.known(holding.table()).unwrap_or_else(|| lane.table.clone());
    let name = &table.schema.table;
    let Some(database) = parts.directory.database(&name.database) else { return Ok(()) };
    let backlogs = backlogs(parts, *shard, std::slice::from_ref(holding)).await.map_err(Problem::HotStore)?;
    let Some(backlog) = backlogs.first() else { return Ok(()) };
    let unfinished = lane.with(|gathered| gathered.oldest_of(*shard));
    let mut up_to = purgeable(backlog.horizon, unfinished, parts.options.tombstone_retention);
    if planted::is(Bug::PurgePastDirty) {
        up_to = parts.hot.header(*shard).await.map_err(Problem::HotStore)?.clock;
    }
    if up_to == Version::ZERO {
        return Ok(());
    }
    let options = parts.options.table(name);
    let most = batch_rows(options.batch_rows, options.rows_per_second);
    let mut rows = 1;
    loop {
        pay(parts, name, rows).await.map_err(Problem::HotStore)?;
        let purged = database.purge_tombstones(&table.schema, *shard, owner, up_to, rows).await;
        let purged = purged.map_err(Problem::Database)?;
        parts.metrics.of(&TableMetrics::new(name)).purged(purged);
        if purged < rows as u64 {
            return Ok(());
        }
        rows = (rows * 2).min(most);
    }
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

/// Tombstones count against the table's limit like rows, and are paid for before they go. How many there are is not
/// known by then, so the first look pays for one, and each further one for twice as many as the last has found.
async fn pay<H: Budget, D>(parts: &Parts<H, D>, table: &TableRef, rows: usize) -> Result<(), HotStoreError> {
    let Some(limit) = parts.options.table(table).rows_per_second else { return Ok(()) };
    let rows = u32::try_from(rows).unwrap_or(u32::MAX);
    while let Grant::After(wait) = parts.hot.take(&table.to_string(), rows, limit).await? {
        time::sleep(wait).await;
    }
    Ok(())
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
