//! One attempt to open one shard, step by step.

use std::{collections::BTreeMap, sync::Arc};

use database::{CatalogTable, Database, ShardRow};
use event_log::{EventPublisher, LogReader};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use hot_store::{Checkpoint, HotStore, LogPoint, OpeningToken};
use model::{DatabaseName, Epoch, Shard, Topic, Version};
use planted::Bug;

use super::{
    OpeningError, aside, fence, letters,
    restore::{self, Stretch, Tally},
    start,
};
use crate::{Core, holds};

/// Partitions of one shard that are read at once.
const PARTITIONS_AT_ONCE: usize = 4;

/// A shard that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether what the store held was dropped, because it had no checkpoint or none that the log reaches.
    pub discarded: bool,
    /// What of it was kept, since the database did not have it.
    pub kept: u64,
    /// Dead-lettered records that were offered to the store as parked.
    pub parked: u64,
    /// Mutations that were read.
    pub mutations: u64,
    /// Mutations that a fence had made void.
    pub void: u64,
    /// Requests that were put back.
    pub requests: u64,
}

/// Opens a shard in an epoch above `above`; `None` if it is open.
///
/// # Errors
/// Whatever stands in the way. The shard stays closed, and the next attempt, of any replica, goes on from the same
/// start.
pub async fn open_shard<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    above: Epoch,
) -> Result<Option<Opened>, OpeningError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let token = OpeningToken(format!("{:016x}{:016x}", core.options.chance.token(), core.options.chance.token()));
    let Some(claim) = core.hot.claim(shard, &token).await? else { return Ok(None) };
    // After the claim: what was written before the store was restarted was written to a table that the catalog
    // names by now, and each of their topics must get the fence.
    core.directory.refresh(false).await?;
    let tables = core.directory.all();
    let topics: Vec<Topic> = tables.iter().map(|table| table.settings.topic.clone()).collect();

    let partitions = start::ask(&*core.log, &topics, shard).await?;
    let start = start::choose(&claim, &partitions);
    let met = start.points.values().map(|point| point.epoch).fold(claim.epoch.max(above), Epoch::max);
    let epoch = core.directory.catalog_database()?.next_epoch(shard, met).await?;
    let kept = if planted::is(Bug::StartNotStored) { start::at_the_end(&start, &partitions) } else { start.clone() };
    core.hot.begin_opening(shard, &token, epoch, kept).await?;

    let within = core.options.publish_timeout;
    let fences = if planted::is(Bug::NoFence) {
        partitions.iter().map(|(topic, at)| (topic.clone(), at.high)).collect()
    } else {
        fence::append(&*core.log, &topics, shard, epoch, &core.options.replica, within).await?
    };
    let rows = announce(core, &tables, shard, epoch).await?;
    let announced = rows.iter().map(|row| row.epoch).max().unwrap_or_default();
    let stretches: Vec<Stretch<'_>> = tables
        .iter()
        .zip(rows)
        .filter_map(|(table, row)| {
            let topic = &table.settings.topic;
            let (from, fence) = (*start.points.get(topic)?, *fences.get(topic)?);
            let records_from = start::records_from(&claim, &start, topic, partitions.get(topic)?);
            Some(Stretch { topic, start: from, records_from, fence, table, row })
        })
        .collect();
    // Also above what readers of the database were told: they would take a write below it for one that is in.
    let known = |stretch: &Stretch<'_>| stretch.row.high_water.max(stretch.row.horizon);
    let mut clock = stretches.iter().map(known).max().unwrap_or(Version::ZERO);
    let mut opened = Opened { epoch, discarded: start.discard, kept: 0, parked: 0, mutations: 0, void: 0, requests: 0 };
    if start.discard {
        let why = || aside::log_beside(&claim, &partitions);
        let found = aside::restore(core, shard, &token, &stretches, why).await?;
        clock = clock.max(found.seen);
        opened.kept = found.kept;
    }
    // Boxed, since the compiler can't see otherwise that a task may hold these while they borrow.
    let restores: Vec<_> =
        stretches.iter().map(|stretch| restore::restore(core, shard, &token, stretch).boxed()).collect();
    let tallies: Vec<Tally> = stream::iter(restores).buffer_unordered(PARTITIONS_AT_ONCE).try_collect().await?;
    for tally in tallies {
        if tally.in_force > epoch {
            return Err(OpeningError::Outrun { found: tally.in_force, drawn: epoch });
        }
        clock = clock.max(tally.seen);
        opened.mutations += tally.mutations;
        opened.void += tally.void;
        opened.requests += tally.requests;
        if tally.strange > 0 {
            tracing::warn!(%shard, records = tally.strange, "an opening met records that belong to no enabled table");
        }
    }
    if start.discard {
        for stretch in &stretches {
            let found = letters::restore(core, shard, &token, stretch).await?;
            clock = clock.max(found.seen);
            opened.parked += found.parked;
        }
    }
    // Horizons are taken under this epoch from now on; under a lower one than the database knows they never would be.
    if announced > epoch {
        return Err(OpeningError::Outrun { found: announced, drawn: epoch });
    }
    let point = |(topic, offset)| (topic, LogPoint { offset, epoch });
    let checkpoint = Checkpoint(fences.into_iter().map(point).collect());
    if planted::is(Bug::ClockReset) {
        clock = Version::ZERO;
    }
    // After the claim and before anybody can write: a wish that the store has lost holds all the same.
    holds::tell_opened::<_, _, _, OpeningError>(core, shard).await?;
    core.hot.finish_opening(shard, &token, clock, checkpoint).await?;
    Ok(Some(opened))
}

/// Announces the opening to the shard rows of the tables, and answers these in the tables' order; one call per database.
/// From now on no horizon is taken that the hot store told of before: the clock is seeded above those that are there.
async fn announce<H, L, D>(
    core: &Core<H, L, D>,
    tables: &[Arc<CatalogTable>],
    shard: Shard,
    epoch: Epoch,
) -> Result<Vec<ShardRow>, OpeningError>
where
    D: Database,
{
    let mut by_database: BTreeMap<&DatabaseName, Vec<usize>> = BTreeMap::new();
    for (at, table) in tables.iter().enumerate() {
        by_database.entry(&table.schema.table.database).or_default().push(at);
    }
    let mut rows = vec![ShardRow::default(); tables.len()];
    for (name, places) in by_database {
        let database = core.directory.database(name).ok_or_else(|| OpeningError::NoDatabase(name.clone()))?;
        let names: Vec<_> = places.iter().map(|&at| tables[at].schema.table.table.clone()).collect();
        let answer = database.announce_opening(&names, shard, epoch).await?;
        if answer.len() < names.len() {
            return Err(OpeningError::Incomplete { asked: names.len(), got: answer.len() });
        }
        for (at, row) in places.into_iter().zip(answer) {
            rows[at] = row;
        }
    }
    Ok(rows)
}
