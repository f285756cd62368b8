//! Telling the databases how far they are.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use database::{Database, DatabaseError, Owner};
use hot_store::{HotStore, HotStoreError};
use model::{Shard, TableRef, Version};
use planted::Bug;

use super::holding::{Holding, backlogs, holdings, next_round};
use crate::{apply::without_values, parts::Parts, status::TableMetrics};

/// The horizons of a table's shards.
type Horizons = Vec<(Shard, Owner, Version)>;

/// Writes the horizon of every shard that this process owns into its shard row, again and again.
pub(crate) async fn note_horizons<H: HotStore, D: Database>(parts: Arc<Parts<H, D>>) {
    let mut failing = false;
    while next_round(&parts, parts.options.horizon_interval).await {
        let problem = tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            problem = note_all(&parts) => problem,
        };
        match &problem {
            Some(problem) if !failing => {
                tracing::warn!(problem, "the horizon stands still for those who read the database itself");
            }
            None if failing => tracing::info!("the horizon moves on"),
            _ => {}
        }
        failing = problem.is_some();
    }
}

/// One round: as much of it as is possible, and what was not.
async fn note_all<H: HotStore, D: Database>(parts: &Parts<H, D>) -> Option<String> {
    let mut shards: BTreeMap<Shard, Vec<Holding>> = BTreeMap::new();
    for holding in holdings(parts).await {
        shards.entry(holding.shard).or_default().push(holding);
    }
    let mut problem = None;
    let mut tables: BTreeMap<TableRef, Horizons> = BTreeMap::new();
    for (shard, holdings) in shards {
        match horizons(parts, shard, &holdings).await {
            Ok(horizons) => {
                for (holding, horizon) in holdings.into_iter().zip(horizons) {
                    let of_table = tables.entry(holding.table().clone()).or_default();
                    of_table.push((shard, holding.owner, horizon));
                }
            }
            Err(error) => {
                problem = Some(error.to_string());
                // Others would only wait for the same store; what one shard alone has is its own.
                if !matches!(error, HotStoreError::Corrupt { .. }) {
                    break;
                }
            }
        }
    }
    for (table, horizons) in tables {
        if let Err(error) = note(parts, &table, &horizons).await {
            parts.metrics.of(&TableMetrics::new(&table)).retry("horizon");
            problem = Some(without_values(&error));
        }
    }
    problem
}

/// The horizon of each of these tables in one shard; none while the shard is closed.
async fn horizons<H: HotStore, D>(
    parts: &Parts<H, D>,
    shard: Shard,
    holdings: &[Holding],
) -> Result<Vec<Version>, HotStoreError> {
    let backlogs = backlogs(parts, shard, holdings).await?;
    if planted::is(Bug::HorizonPastDirty) {
        let clock = parts.hot.header(shard).await?.clock;
        return Ok(vec![clock; backlogs.len()]);
    }
    Ok(backlogs.into_iter().map(|backlog| backlog.horizon).collect())
}

async fn note<H, D: Database>(
    parts: &Parts<H, D>,
    table: &TableRef,
    horizons: &[(Shard, Owner, Version)],
) -> Result<(), DatabaseError> {
    // A database that is configured no more has no lanes either.
    let Some(database) = parts.directory.database(&table.database) else { return Ok(()) };
    database.note_horizons(&table.table, horizons).await?;
    if let Some(lowest) = horizons.iter().map(|(_, _, horizon)| *horizon).min() {
        // For people: nothing is decided by this clock.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        parts.metrics.of(&TableMetrics::new(table)).horizon(lowest, now.as_micros() as u64);
    }
    Ok(())
}
