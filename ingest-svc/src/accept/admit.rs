//! What is refused before anything is touched: writes for which the log, or the way to the database, has no room.

use std::collections::{BTreeMap, BTreeSet};

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, RecordId, Slot, Stage};
use jiff::Timestamp;
use model::{Shard, TableRef};

use super::{AckLevel, WriteError, store::Item, validate::Intent};
use crate::{Core, MaxBacklog};

type Outcome = Result<super::Accepted, WriteError>;

/// Takes out of a batch what can't be accepted now. All writes of a key are of one table, want the same and fare the
/// same, so none of them overtakes another.
pub(super) async fn admit<H, L, D>(
    core: &Core<H, L, D>,
    by_shard: &mut BTreeMap<Shard, Vec<Item>>,
    results: &mut [Outcome],
) where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let now = core.options.wall_clock.now();
    for (shard, items) in by_shard.iter_mut() {
        let mut full: BTreeMap<TableRef, Option<WriteError>> = BTreeMap::new();
        refuse(items, results, |item| {
            let table = &item.checked.table.schema.table;
            if !full.contains_key(table) {
                let problem = excess(core, table, *shard, now);
                let error = problem.map(|problem| WriteError::BacklogFull { table: table.clone(), problem });
                full.insert(table.clone(), error);
            }
            full[table].clone()
        });
        refuse_beside_parked(core, *shard, items, results).await;
    }
    if !core.log.is_available() {
        return refuse_all(by_shard, results, needs_log, &WriteError::LogDown);
    }
    let (mut records, mut bytes) = (0, 0);
    for item in by_shard.values().flatten().filter(|item| needs_log(item)) {
        records += 1;
        bytes += item.bytes_about();
    }
    if records > 0 && !core.log.has_room(records, bytes) {
        refuse_all(by_shard, results, needs_log, &WriteError::LogQueueFull);
    }
}

/// Refuses the writes to tables of which as many records are parked as may, but for those to parked ones: these mend
/// something. Only then the hot store is asked which those are.
async fn refuse_beside_parked<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    items: &mut Vec<Item>,
    results: &mut [Outcome],
) where
    H: HotStore,
{
    let full = |item: &Item| {
        let table = &item.checked.table.schema.table;
        let (max, parked) = (core.options.rules.of(table).max_parked?, core.backlogs.parked(table));
        (parked >= max).then(|| WriteError::ParkedFull { table: table.clone(), parked })
    };
    let records: Vec<RecordId> =
        items.iter().filter(|item| full(item).is_some()).map(|item| item.checked.record.clone()).collect();
    if records.is_empty() {
        return;
    }
    // Who can't ask lets nothing in.
    let slots = core.hot.read(shard, records.clone()).await.map(|answer| answer.slots).unwrap_or_default();
    let is_parked = |slot: &Slot| matches!(slot, Slot::Image { stage: Stage::Parked, .. });
    let parked: BTreeSet<RecordId> =
        records.into_iter().zip(slots).filter(|(_, slot)| is_parked(slot)).map(|(record, _)| record).collect();
    refuse(items, results, |item| full(item).filter(|_| !parked.contains(&item.checked.record)));
}

/// What of a table's backlog is too much to take more into this shard.
fn excess<H, L, D>(core: &Core<H, L, D>, table: &TableRef, shard: Shard, now: Timestamp) -> Option<String> {
    let MaxBacklog { records, bytes, age } = core.options.rules.of(table).max_backlog;
    // What the log deletes before it is drained would be lost with the hot store.
    let half = core.options.log_retention.map(|retention| retention / 2);
    let age = [age, half].into_iter().flatten().min();
    core.backlogs.excess(table, shard, MaxBacklog { records, bytes, age }, now)
}

fn needs_log(item: &Item) -> bool {
    item.wish.required >= AckLevel::Queued
}

fn refuse_all(
    by_shard: &mut BTreeMap<Shard, Vec<Item>>,
    results: &mut [Outcome],
    is_refused: impl Fn(&Item) -> bool,
    error: &WriteError,
) {
    for items in by_shard.values_mut() {
        refuse(items, results, |item| is_refused(item).then(|| error.clone()));
    }
}

fn refuse(items: &mut Vec<Item>, results: &mut [Outcome], mut refusal: impl FnMut(&Item) -> Option<WriteError>) {
    items.retain(|item| match refusal(item) {
        Some(error) => {
            results[item.index] = Err(error);
            false
        }
        None => true,
    });
}

impl Item {
    /// About how large its event will be; an update's row is not known before it was read.
    fn bytes_about(&self) -> usize {
        match &self.checked.intent {
            Intent::Store { draft, .. } => draft.bytes_at_most(&self.checked.record.key),
            Intent::Update { changes, .. } => {
                let key = self.checked.record.key.as_bytes().len();
                2 * (key
                    + model::Key(changes.iter().map(|(_, value)| value.clone()).collect()).to_bytes().as_bytes().len())
            }
        }
    }
}
