//! Making the index over what the database does not have yet, where a shard has none: after an opening, and where a field was
//! declared, or a column altered, while records were waiting.

use std::{sync::Arc, time::Duration};

use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hot_store::{Dirty, DirtyRecord, FoundInShard, HotStore, HotStoreError, IndexState, Indexed, Lookup, RecordId};
use model::{Content, Image, Shard, TableIndex, Version};
use tokio::time::{Instant, sleep};

use super::FindError;
use crate::{Core, StoreError, read::form};

/// So long a find waits for it. It is made in any case.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether somebody else has made it.
const PAUSE: Duration = Duration::from_millis(20);
/// Records that are read at once.
const PAGE: usize = 500;
/// A write by a replica that knows other fields drops what is made.
const ATTEMPTS: u32 = 3;

/// What the shards have of a term, all with a complete index.
pub(super) async fn looked_up<H, L, D>(
    core: &Core<H, L, D>,
    table: &Arc<CatalogTable>,
    index: &TableIndex,
    shards: &[Shard],
    lookup: &Lookup,
) -> Result<Vec<FoundInShard>, FindError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = core.hot.look_up(shards, lookup).await.map_err(StoreError::from)?;
        let missing: Vec<Shard> = found.iter().filter(|found| found.keys.is_none()).map(|found| found.shard).collect();
        if missing.is_empty() {
            return Ok(found);
        }
        let name = &table.schema.table;
        if Instant::now() >= deadline {
            return Err(FindError::IndexNotReady(name.clone()));
        }
        match core.index_builds.clone().try_acquire_owned() {
            Ok(permit) => {
                let (hot, table, index) = (core.hot.clone(), table.clone(), index.clone());
                let at_once = core.options.shards_at_once.max(1);
                // A task of its own: it goes on when nobody waits for it any more.
                let made = core.tasks.spawn(async move {
                    let _permit = permit;
                    tracing::debug!(table = %table.schema.table, shards = missing.len(), "making an index");
                    let all = stream::iter(missing).map(|shard| build(&*hot, &table, &index, shard));
                    all.buffer_unordered(at_once).try_for_each(|()| async { Ok(()) }).await
                });
                match tokio::time::timeout_at(deadline, made).await {
                    Ok(Ok(Ok(()))) => {}
                    Ok(Ok(Err(error))) => return Err(StoreError::from(error).into()),
                    Ok(Err(_)) | Err(_) => return Err(FindError::IndexNotReady(name.clone())),
                }
            }
            // Somebody is at it.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Makes a shard's index, unless it has one.
async fn build<H: HotStore>(
    hot: &H,
    table: &CatalogTable,
    index: &TableIndex,
    shard: Shard,
) -> Result<(), HotStoreError> {
    for _ in 0..ATTEMPTS {
        if build_once(hot, table, index, shard).await? {
            break;
        }
    }
    Ok(())
}

/// First all that is dirty, then all that is parked: what is parked meanwhile is met there, and what is written keeps the
/// index itself. `false`: it was dropped meanwhile.
async fn build_once<H: HotStore>(
    hot: &H,
    table: &CatalogTable,
    index: &TableIndex,
    shard: Shard,
) -> Result<bool, HotStoreError> {
    let (namespace, schema) = (&table.settings.namespace, &table.schema);
    let indexed = |record: RecordId, version: Version, image: &Image| {
        let terms = match &image.content {
            Content::Row(row) if image.fingerprint != schema.fingerprint() => index.terms(&form::certain(schema, row)),
            Content::Row(row) => index.terms(row),
            Content::Tombstone => index.nothing(),
        };
        Indexed { record, version, terms }
    };
    let state = hot.begin_index(shard, namespace.clone(), index.id()).await?;
    let IndexState::Building(build) = state else { return Ok(true) };
    // What gets a version from here on is in the index by itself, so that however much is written, this ends.
    let newest = hot.header(shard).await?.clock;
    let mut after = Version::ZERO;
    while after < newest {
        let (_, page) = hot.dirty(shard, Dirty::All, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.version;
        let is_wanted = |dirty: &DirtyRecord| dirty.version <= newest && dirty.record.namespace == *namespace;
        let own = page.into_iter().filter(is_wanted);
        let records: Vec<Indexed> = own.map(|dirty| indexed(dirty.record, dirty.version, &dirty.image)).collect();
        if !hot.build_index(shard, namespace.clone(), &build, records, false).await? {
            return Ok(false);
        }
    }
    let mut after = Version::ZERO;
    loop {
        let (_, page) = hot.parked(shard, namespace.clone(), after, PAGE).await?;
        let last = page.last().map(|last| last.version);
        let is_last = last.is_none_or(|last| last >= newest);
        after = last.unwrap_or(after);
        let records = page.into_iter().map(|parked| indexed(parked.record, parked.version, &parked.image)).collect();
        if !hot.build_index(shard, namespace.clone(), &build, records, is_last).await? {
            return Ok(false);
        }
        if is_last {
            return Ok(true);
        }
    }
}

/// Makes the index of a table whose fields were declared, so that nobody has to wait for it. What is missing afterwards is made
/// by who needs it.
pub(crate) async fn prepare<H, L, D>(core: &Core<H, L, D>, table: &CatalogTable)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let Some(index) = &table.index else { return };
    let all = stream::iter(core.shards.all()).map(|shard| build(&*core.hot, table, index, shard));
    let made = all.buffer_unordered(core.options.shards_at_once.max(1)).try_for_each(|()| async { Ok(()) }).await;
    if let Err(error) = made {
        tracing::info!(table = %table.schema.table, %error, "an index is not made yet; the first find makes it");
    }
}
