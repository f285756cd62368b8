//! Telling the databases how far they are.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use database::{Database, DatabaseError, Horizon};
use hot_store::{HotStore, HotStoreError};
use model::{Shard, TableRef};
use planted::Bug;

use super::holding::{Holding, backlogs, holdings, next_round};
use crate::{apply::without_values, parts::Parts, status::TableMetrics};

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
    let mut tables: BTreeMap<TableRef, Vec<Horizon>> = BTreeMap::new();
    for (shard, holdings) in shards {
        match horizons(parts, shard, &holdings).await {
            Ok(horizons) => {
                for (holding, horizon) in holdings.iter().zip(horizons) {
                    tables.entry(holding.table().clone()).or_default().push(horizon);
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
) -> Result<Vec<Horizon>, HotStoreError> {
    let Some((epoch, backlogs)) = backlogs(parts, shard, holdings).await? else { return Ok(Vec::new()) };
    let mut versions: Vec<_> = backlogs.into_iter().map(|backlog| backlog.horizon).collect();
    if planted::is(Bug::HorizonPastDirty) {
        versions.fill(parts.hot.header(shard).await?.clock);
    }
    Ok(holdings.iter().zip(versions).map(|(holding, version)| holding.horizon(epoch, version)).collect())
}

async fn note<H, D: Database>(
    parts: &Parts<H, D>,
    table: &TableRef,
    horizons: &[Horizon],
) -> Result<(), DatabaseError> {
    // A database that is configured no more has no lanes either.
    let Some(database) = parts.directory.database(&table.database) else { return Ok(()) };
    database.note_horizons(&table.table, horizons).await?;
    if let Some(lowest) = horizons.iter().map(|horizon| horizon.version).min() {
        // For people: nothing is decided by this clock.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        parts.metrics.of(&TableMetrics::new(table)).horizon(lowest, now.as_micros() as u64);
    }
    Ok(())
}
