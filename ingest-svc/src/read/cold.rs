//! A record that the hot store does not hold: one reader of all replicas reads it from the database under a lease,
//! the others wait for it.
//!
//! The lease stands in the record's place; any write, expiry or restart removes it. So what a slow reader brings
//! can't bury a newer value.

use std::time::Duration;

use database::{CatalogTable, Database, DatabaseRow};
use event_log::{EventPublisher, LogReader};
use hot_store::{Fill, HotStore, HotStoreError, LeaseOutcome, RecordId, Slot, Stage};
use model::{Content, Image, Key, Operation, Shard, Version};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep, timeout_at},
};

use crate::{Core, StoreError};

/// The first and the longest wait for another reader.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What a load came to.
enum Loaded {
    /// The hot store holds this now: it was filled, or somebody else put it there.
    Held(Slot),
    /// The hot store has no room for it, but this is what the database holds.
    NoRoom(Slot),
}

/// Answers a read of a cold record: an image, or [`Slot::Absent`].
pub(crate) async fn look<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    shard: Shard,
    record: &RecordId,
    key: &Key,
) -> Result<Slot, StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    // What the database held after the slot was seen empty is an answer also without being remembered: everything
    // acknowledged before was there already, or it would have stood in the slot.
    load(core, table, shard, record, key).await.map(|loaded| match loaded {
        Loaded::Held(slot) | Loaded::NoRoom(slot) => slot,
    })
}

/// Brings a cold record into the hot store, so that a precondition can be checked there.
pub(crate) async fn warm<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    shard: Shard,
    record: &RecordId,
    key: &Key,
) -> Result<(), StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    match load(core, table, shard, record, key).await? {
        Loaded::Held(_) => Ok(()),
        Loaded::NoRoom(_) => Err(StoreError::HotStoreFull),
    }
}

async fn load<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    shard: Shard,
    record: &RecordId,
    key: &Key,
) -> Result<Loaded, StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let lease_ttl = core.options.lease_ttl;
    // Another reader that died leaves its lease for that long; then it is our turn.
    let deadline = Instant::now() + lease_ttl * 2;
    let mut wait = FIRST_WAIT;
    let mut refused = false;
    loop {
        let permit = cold_read(core, deadline).await?;
        let leased = match core.hot.lease(shard, record.clone(), lease_ttl).await {
            Ok(LeaseOutcome::Granted(token)) => Some(token),
            Ok(LeaseOutcome::Taken(Slot::Leased | Slot::Empty)) => {
                drop(permit);
                if Instant::now() + wait > deadline {
                    return Err(StoreError::Contended { table: table.schema.table.clone() });
                }
                sleep(wait.mul_f64(core.options.chance.jitter(0.5..1.0))).await;
                wait = (wait * 2).min(LONGEST_WAIT);
                continue;
            }
            Ok(LeaseOutcome::Taken(slot)) => return Ok(Loaded::Held(slot)),
            Err(HotStoreError::Full) => None,
            Err(error) => return Err(error.into()),
        };
        let leased_at = Instant::now();
        let fill = read(core, table, key).await?;
        let slot = slot_of(&fill);
        let Some(token) = leased else { return Ok(Loaded::NoRoom(slot)) };
        let ttl = match fill {
            Fill::Image { .. } => core.options.hot_ttl.of(&table.schema.table),
            Fill::Absent => core.options.absent_ttl,
        };
        match core.hot.fill(shard, record.clone(), token, fill, ttl).await {
            Ok(true) => return Ok(Loaded::Held(slot)),
            Err(HotStoreError::Full) => return Ok(Loaded::NoRoom(slot)),
            Err(error) => return Err(error.into()),
            // Somebody wrote meanwhile, or we were too slow, or there is no room. Look again: if the slot turns out to
            // be empty once more, and we were not too slow, it is the room.
            Ok(false) if Instant::now() >= deadline => {
                return Err(StoreError::Contended { table: table.schema.table.clone() });
            }
            Ok(false) if leased_at.elapsed() >= lease_ttl => {}
            Ok(false) if refused => return Ok(Loaded::NoRoom(slot)),
            Ok(false) => refused = true,
        }
    }
}

/// The right to ask the database for a cold record: bounded in number, waited for up to `deadline`.
async fn cold_read<H, L, D>(core: &Core<H, L, D>, deadline: Instant) -> Result<SemaphorePermit<'_>, StoreError> {
    match timeout_at(deadline, core.cold_reads.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(StoreError::ColdReadsBusy),
    }
}

async fn read<H, L, D: Database>(core: &Core<H, L, D>, table: &CatalogTable, key: &Key) -> Result<Fill, StoreError> {
    let name = &table.schema.table.database;
    let database = core
        .directory
        .database(name)
        .ok_or_else(|| StoreError::DatabaseUnfit(format!("no database named {name} is configured")))?;
    let rows = database.read(&table.schema, std::slice::from_ref(key)).await?;
    Ok(fill_of(table, rows.into_iter().next().unwrap_or(DatabaseRow::Absent)))
}

fn fill_of(table: &CatalogTable, row: DatabaseRow) -> Fill {
    match image_of(table, row) {
        Some((version, image)) => Fill::Image { version, image },
        None => Fill::Absent,
    }
}

/// A row or tombstone of the database as the hot store keeps it.
pub(crate) fn image_of(table: &CatalogTable, row: DatabaseRow) -> Option<(Version, Image)> {
    let (version, content) = match row {
        DatabaseRow::Present { version, row } => (version, Content::Row(row)),
        DatabaseRow::Deleted { version } => (version, Content::Tombstone),
        DatabaseRow::Absent => return None,
    };
    let fingerprint = table.schema.fingerprint();
    Some((version, Image { content, operation: Operation::Fill, fingerprint, request: None, since: None }))
}

fn slot_of(fill: &Fill) -> Slot {
    match fill {
        Fill::Image { version, image } => Slot::Image { version: *version, image: image.clone(), stage: Stage::Clean },
        Fill::Absent => Slot::Absent,
    }
}
