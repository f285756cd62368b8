//! Records that the hot store does not hold: one reader of all replicas reads them from the database under a lease,
//! the others wait for it.
//!
//! The lease stands in the record's place; any write, expiry, eviction or restart removes it. So what a slow reader brings
//! can't bury a newer value. Who misses a record that this replica brings already waits for that in memory
//! ([`super::flights`]).

use std::time::Duration;

use database::{CatalogTable, Database, DatabaseRow};
use event_log::{EventPublisher, LogReader};
use futures::future::{join, join_all};
use hot_store::{Fill, HotStore, HotStoreError, LeaseOutcome, LeaseToken, RecordId, Slot, Stage};
use model::{Content, Image, Key, Operation, Shard, Version};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep, timeout_at},
};

use super::{
    database_rows,
    flights::{Follow, Lead, Role, Step},
    outages::Question,
};
use crate::{Core, StoreError};

/// The first and the longest wait for another reader.
const FIRST_WAIT: Duration = Duration::from_millis(2);
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Records that are read by one statement, and brought by one caller at once.
pub(crate) const RECORDS_AT_ONCE: usize = 64;

/// Rows may be large, and all of a statement's are in memory at once: one of many counts as several cold reads.
const RECORDS_PER_PERMIT: usize = 16;

/// A record of some table that the hot store does not hold.
#[derive(Debug, Clone)]
pub(crate) struct ColdRecord {
    pub(crate) shard: Shard,
    pub(crate) record: RecordId,
    pub(crate) key: Key,
}

/// What a load came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Loaded {
    /// The hot store holds this now: it was filled, or somebody else put it there.
    Held(Slot),
    /// The hot store has no room for it, but this is what the database holds.
    NoRoom(Slot),
}

/// Answers reads of cold records of one table, at most [`RECORDS_AT_ONCE`] and each once: an image or [`Slot::Absent`] each.
pub(crate) async fn look<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    records: &[ColdRecord],
) -> Vec<Result<Slot, StoreError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    // What the database held after the slot was seen empty is an answer also without being remembered: everything
    // acknowledged before was there already, or it would have stood in the slot.
    let loaded = load(core, table, records).await.into_iter();
    loaded.map(|loaded| loaded.map(|(Loaded::Held(slot) | Loaded::NoRoom(slot))| slot)).collect()
}

/// Brings a cold record into the hot store, so that a precondition can be checked there.
pub(crate) async fn warm<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    record: ColdRecord,
) -> Result<(), StoreError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    match load(core, table, &[record]).await.pop() {
        Some(Ok(Loaded::Held(_))) => Ok(()),
        Some(Ok(Loaded::NoRoom(_))) => Err(StoreError::HotStoreFull),
        Some(Err(error)) => Err(error),
        None => Err(StoreError::Contended { table: table.schema.table.clone() }),
    }
}

/// Leads where nobody does, and waits for the others.
async fn load<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    records: &[ColdRecord],
) -> Vec<Result<Loaded, StoreError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let contended = || StoreError::Contended { table: table.schema.table.clone() };
    // Another reader that died leaves its lease for that long; then it is our turn.
    let deadline = Instant::now() + core.options.lease_ttl * 2;
    let mut results: Vec<Option<Result<Loaded, StoreError>>> = records.iter().map(|_| None).collect();
    loop {
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for (at, cold) in records.iter().enumerate().filter(|(at, _)| results[*at].is_none()) {
            match core.flights.join(&cold.record) {
                Role::Lead(lead) => mine.push(Load { at, cold, lead, was_refused: false }),
                Role::Follow(follow) => others.push((at, follow)),
            }
        }
        if mine.is_empty() && others.is_empty() {
            break;
        }
        let wait = |(at, follow): (usize, Follow)| async move {
            (at, timeout_at(deadline, follow.outcome()).await.unwrap_or(Some(Err(contended()))))
        };
        let (brought, waited) = join(bring(core, table, mine, deadline), join_all(others.into_iter().map(wait))).await;
        let mut again = Vec::new();
        for (at, outcome) in brought.into_iter().map(|(at, result)| (at, Some(result))).chain(waited) {
            match outcome {
                Some(result) => results[at] = Some(result),
                None => again.push(at),
            }
        }
        let asked = join_all(again.into_iter().map(async |at| (at, held(core, &records[at]).await)));
        for (at, slot) in asked.await {
            results[at] = match slot {
                Ok(Slot::Empty | Slot::Leased) if Instant::now() >= deadline => Some(Err(contended())),
                Ok(Slot::Empty | Slot::Leased) => None,
                Ok(slot) => Some(Ok(Loaded::Held(slot))),
                Err(error) => Some(Err(error)),
            };
        }
    }
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(contended()))).collect()
}

async fn held<H: HotStore, L, D>(core: &Core<H, L, D>, cold: &ColdRecord) -> Result<Slot, StoreError> {
    let answer = core.hot.read(cold.shard, vec![cold.record.clone()]).await?;
    Ok(answer.slots.into_iter().next().unwrap_or(Slot::Empty))
}

/// A record that this caller brings.
struct Load<'a> {
    at: usize,
    cold: &'a ColdRecord,
    lead: Lead<'a>,
    /// A fill was refused before.
    was_refused: bool,
}

impl Load<'_> {
    fn end(self, good_for: Step, loaded: Loaded) -> Ended {
        self.lead.end(good_for, loaded.clone());
        (self.at, Ok(loaded))
    }

    fn fail(self, error: StoreError) -> Ended {
        self.lead.fail(error.clone());
        (self.at, Err(error))
    }
}

/// A record by its place, and what became of it.
type Ended = (usize, Result<Loaded, StoreError>);

/// A record that is to be read from the database: with the lease, if the hot store has room for it.
struct Granted<'a> {
    load: Load<'a>,
    lease: Option<LeaseToken>,
    asked: Step,
}

/// Brings records in rounds: those that somebody else is reading, or that changed meanwhile, once more.
async fn bring<'a, H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    mut loads: Vec<Load<'a>>,
    deadline: Instant,
) -> Vec<Ended>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut ended = Vec::with_capacity(loads.len());
    let mut wait = FIRST_WAIT;
    if loads.is_empty() {
        return ended;
    }
    // Once: who is to find out whether an outage is over would be refused in the next round.
    if let Err(error) = core.outages.check(&table.schema.table, Question::Rows) {
        ended.extend(loads.into_iter().map(|load| load.fail(error.clone())));
        return ended;
    }
    while !loads.is_empty() {
        let permit = match cold_read(core, deadline, loads.len()).await {
            Ok(permit) => permit,
            Err(error) => {
                ended.extend(loads.into_iter().map(|load| load.fail(error.clone())));
                break;
            }
        };
        let (granted, waiting) = lease(core, loads, &mut ended).await;
        let leased_at = Instant::now();
        let changed = if granted.is_empty() {
            Vec::new()
        } else {
            read_and_fill(core, table, granted, leased_at, &mut ended).await
        };
        drop(permit);
        let must_wait = !waiting.is_empty();
        loads = changed.into_iter().chain(waiting).collect();
        if !loads.is_empty() && Instant::now() + if must_wait { wait } else { Duration::ZERO } > deadline {
            let contended = StoreError::Contended { table: table.schema.table.clone() };
            ended.extend(loads.into_iter().map(|load| load.fail(contended.clone())));
            break;
        }
        if must_wait {
            sleep(wait.mul_f64(core.options.chance.jitter(0.5..1.0))).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
    ended
}

/// Asks for the leases: those that are granted, and those that somebody else has.
async fn lease<'a, H: HotStore, L, D>(
    core: &Core<H, L, D>,
    loads: Vec<Load<'a>>,
    ended: &mut Vec<Ended>,
) -> (Vec<Granted<'a>>, Vec<Load<'a>>) {
    let ask = |load: Load<'a>| async move {
        let asked = load.lead.step();
        let outcome = core.hot.lease(load.cold.shard, load.cold.record.clone(), core.options.lease_ttl).await;
        (load, asked, outcome)
    };
    let (mut granted, mut waiting) = (Vec::new(), Vec::new());
    for (load, asked, outcome) in join_all(loads.into_iter().map(ask)).await {
        match outcome {
            Ok(LeaseOutcome::Granted(token)) => granted.push(Granted { load, lease: Some(token), asked }),
            Ok(LeaseOutcome::Taken(Slot::Leased | Slot::Empty)) => waiting.push(load),
            Ok(LeaseOutcome::Taken(slot)) => ended.push(load.end(asked, Loaded::Held(slot))),
            Err(HotStoreError::Full) => granted.push(Granted { load, lease: None, asked }),
            Err(error) => ended.push(load.fail(error.into())),
        }
    }
    (granted, waiting)
}

/// Reads what was granted, and fills it; those that changed meanwhile are to be looked at again.
async fn read_and_fill<'a, H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    granted: Vec<Granted<'a>>,
    leased_at: Instant,
    ended: &mut Vec<Ended>,
) -> Vec<Load<'a>>
where
    H: HotStore,
    D: Database,
{
    let keys: Vec<Key> = granted.iter().map(|granted| granted.load.cold.key.clone()).collect();
    let rows = database_rows::read(core, table, &keys).await;
    let fill = |(granted, row): (Granted<'a>, Result<DatabaseRow, StoreError>)| async move {
        let Granted { load, lease, asked } = granted;
        let (shard, record) = (load.cold.shard, load.cold.record.clone());
        let fill = match row {
            Ok(row) => fill_of(table, row),
            Err(error) => {
                if let Some(token) = lease {
                    // Nobody shall wait for what is not coming. If this fails, the lease's time does it.
                    drop(core.hot.fill(shard, record, token, Fill::Nothing, Duration::ZERO).await);
                }
                return Filled::Ended(load.fail(error));
            }
        };
        let slot = slot_of(&fill);
        let Some(token) = lease else { return Filled::Ended(load.end(asked, Loaded::NoRoom(slot))) };
        let ttl = match &fill {
            Fill::Image { image, .. } if matches!(image.content, Content::Row(_)) => {
                core.options.hot_ttl.of(&table.schema.table)
            }
            // There is no row, whoever deleted it: others may insert one.
            Fill::Image { .. } | Fill::Absent | Fill::Nothing => core.options.absent_ttl,
        };
        let before = load.lead.step();
        match core.hot.fill(shard, record, token, fill, ttl).await {
            // The lease stood all the while: it is what everybody before the fill would have been told.
            Ok(true) => Filled::Ended(load.end(before, Loaded::Held(slot))),
            Err(HotStoreError::Full) => Filled::Ended(load.end(asked, Loaded::NoRoom(slot))),
            Err(error) => Filled::Ended(load.fail(error.into())),
            // Somebody wrote meanwhile, or we were too slow, or there is no room. Look again: if the slot turns out to
            // be empty once more, and we were not too slow, it is the room.
            Ok(false) if leased_at.elapsed() >= core.options.lease_ttl => Filled::Changed(load),
            Ok(false) if load.was_refused => Filled::Ended(load.end(asked, Loaded::NoRoom(slot))),
            Ok(false) => Filled::Changed(Load { was_refused: true, ..load }),
        }
    };
    let mut changed = Vec::new();
    for filled in join_all(granted.into_iter().zip(rows).map(fill)).await {
        match filled {
            Filled::Ended(one) => ended.push(one),
            Filled::Changed(load) => changed.push(load),
        }
    }
    changed
}

enum Filled<'a> {
    Ended(Ended),
    Changed(Load<'a>),
}

/// The right to ask the database for so many cold records at once: bounded in number, waited for up to `deadline`.
pub(crate) async fn cold_read<H, L, D>(
    core: &Core<H, L, D>,
    deadline: Instant,
    records: usize,
) -> Result<SemaphorePermit<'_>, StoreError> {
    let most = core.options.max_cold_reads.max(1);
    let permits = u32::try_from(records.div_ceil(RECORDS_PER_PERMIT).clamp(1, most)).unwrap_or(u32::MAX);
    match timeout_at(deadline, core.cold_reads.acquire_many(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(StoreError::ColdReadsBusy),
    }
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
    let fingerprint = table.fingerprint();
    Some((version, Image { content, operation: Operation::Fill, fingerprint, request: None, since: None }))
}

fn slot_of(fill: &Fill) -> Slot {
    match fill {
        Fill::Image { version, image } => Slot::Image { version: *version, image: image.clone(), stage: Stage::Clean },
        Fill::Absent | Fill::Nothing => Slot::Absent,
    }
}
