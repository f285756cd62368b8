//! Forgetting deletes that can't be undone by anything that still comes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use database::{Database, DatabaseError};
use hot_store::{Budget, Grant, HotStore, HotStoreError};
use model::{Shard, TableRef, Version};
use planted::Bug;
use tokio::time::{Instant, sleep_until};

use super::holding::{Holding, backlogs, holdings};
use crate::{apply::without_values, budget::batch_rows, parts::Parts, status::TableMetrics};

/// A shard of a table whose tombstones are to be purged.
struct Turn {
    holding: Holding,
    /// How many rows are paid for next.
    rows: usize,
}

/// The turns that are still to come. A table that has to wait for its budget keeps no other one waiting.
#[derive(Default)]
struct Turns {
    waiting: VecDeque<Turn>,
    not_before: BTreeMap<TableRef, Instant>,
}

impl Turns {
    /// Begins a round. What is left of the one before comes first, or the last shards of a table with a low limit would
    /// never be reached.
    fn begin_round(&mut self, held: Vec<Holding>) {
        let key = |holding: &Holding| (holding.table().clone(), holding.shard);
        let mut held: BTreeMap<(TableRef, Shard), Holding> = held.into_iter().map(|it| (key(&it), it)).collect();
        for left in std::mem::take(&mut self.waiting) {
            if let Some(holding) = held.remove(&key(&left.holding)) {
                self.waiting.push_back(Turn { holding, ..left });
            }
        }
        self.waiting.extend(held.into_values().map(|holding| Turn { holding, rows: 1 }));
    }

    fn may_begin(&self, turn: &Turn) -> Option<Instant> {
        self.not_before.get(turn.holding.table()).copied()
    }

    /// When somebody has a turn again.
    fn next_at(&self) -> Option<Instant> {
        let now = Instant::now();
        self.waiting.iter().map(|turn| self.may_begin(turn).unwrap_or(now)).min()
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<Turn> {
        let now = Instant::now();
        self.not_before.retain(|_, at| *at > now);
        let at = self.waiting.iter().position(|turn| self.may_begin(turn).is_none())?;
        self.waiting.remove(at)
    }

    /// The table goes on with this turn, after a while.
    fn put_off(&mut self, turn: Turn, wait: Duration) {
        self.not_before.insert(turn.holding.table().clone(), Instant::now() + wait);
        self.waiting.push_front(turn);
    }

    /// The table has no more turns in this round.
    fn skip(&mut self, table: &TableRef) {
        self.waiting.retain(|turn| turn.holding.table() != table);
    }
}

/// How a turn ended.
enum Ended {
    /// Nothing is left that may go.
    Done,
    /// Its budget says when it may go on.
    Later(Duration),
}

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
    let mut next_round = Instant::now() + interval.mul_f64(parts.options.chance.jitter(0.5..1.0));
    let mut turns = Turns::default();
    let rounds = async {
        loop {
            sleep_until(turns.next_at().map_or(next_round, |at| at.min(next_round))).await;
            if Instant::now() >= next_round {
                turns.begin_round(holdings(&parts).await);
                next_round = Instant::now() + interval;
            }
            purge_in_turn(&parts, &mut turns).await;
        }
    };
    tokio::select! {
        biased;
        () = parts.stop.cancelled() => {}
        () = rounds => {}
    }
}

/// Purges as far as the budgets allow. A table whose database refuses it is left until the next round.
async fn purge_in_turn<H: HotStore + Budget, D: Database>(parts: &Parts<H, D>, turns: &mut Turns) {
    while let Some(mut turn) = turns.next() {
        let (table, shard) = (turn.holding.table().clone(), turn.holding.shard);
        match purge(parts, &mut turn).await {
            Ok(Ended::Later(wait)) => turns.put_off(turn, wait),
            // The new owner does it, or the next round.
            Ok(Ended::Done) | Err(Problem::Database(DatabaseError::NotOwner(_) | DatabaseError::Outdated { .. })) => {}
            Err(Problem::Database(error)) => {
                let error = without_values(&error);
                tracing::warn!(%table, error, "marks of deleted rows could not be purged; they are kept until the next time");
                parts.metrics.of(&TableMetrics::new(&table)).retry("purge");
                turns.skip(&table);
            }
            // What one shard alone has is its own.
            Err(Problem::HotStore(error @ HotStoreError::Corrupt { .. })) => {
                tracing::warn!(%table, %shard, %error, "marks of deleted rows are not purged in a shard");
            }
            Err(Problem::HotStore(error)) => {
                tracing::warn!(%error, "no marks of deleted rows are purged until the hot store can be asked");
                *turns = Turns::default();
            }
        }
    }
}

async fn purge<H: HotStore + Budget, D: Database>(parts: &Parts<H, D>, turn: &mut Turn) -> Result<Ended, Problem> {
    let Holding { lane, shard, .. } = &turn.holding;
    let table = parts.directory.known(turn.holding.table()).unwrap_or_else(|| lane.table.clone());
    let name = &table.schema.table;
    let Some(database) = parts.directory.database(&name.database) else { return Ok(Ended::Done) };
    let answer = backlogs(parts, *shard, std::slice::from_ref(&turn.holding)).await.map_err(Problem::HotStore)?;
    let Some((epoch, backlogs)) = answer else { return Ok(Ended::Done) };
    let Some(backlog) = backlogs.first() else { return Ok(Ended::Done) };
    let unfinished = lane.with(|gathered| gathered.oldest_of(*shard));
    let mut up_to = purgeable(backlog.horizon, unfinished, parts.options.tombstone_retention);
    if planted::is(Bug::PurgePastDirty) {
        up_to = parts.hot.header(*shard).await.map_err(Problem::HotStore)?.clock;
    }
    if up_to == Version::ZERO {
        return Ok(Ended::Done);
    }
    let horizon = turn.holding.horizon(epoch, up_to);
    let options = parts.options.table(name);
    let most = batch_rows(options.batch_rows, options.rows_per_second);
    loop {
        if let Grant::After(wait) = pay(parts, name, turn.rows).await.map_err(Problem::HotStore)? {
            return Ok(Ended::Later(wait));
        }
        let purged = database.purge_tombstones(&table.schema, &horizon, turn.rows).await;
        let purged = purged.map_err(Problem::Database)?;
        parts.metrics.of(&TableMetrics::new(name)).purged(purged);
        if purged < turn.rows as u64 {
            return Ok(Ended::Done);
        }
        turn.rows = (turn.rows * 2).min(most);
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
async fn pay<H: Budget, D>(parts: &Parts<H, D>, table: &TableRef, rows: usize) -> Result<Grant, HotStoreError> {
    let Some(limit) = parts.options.table(table).rows_per_second else { return Ok(Grant::Now) };
    parts.hot.take(&table.to_string(), u32::try_from(rows).unwrap_or(u32::MAX), limit).await
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
