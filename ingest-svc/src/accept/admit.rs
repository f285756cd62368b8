//! What is refused before anything is touched: writes for which the log, or the way to the database, has no room.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use jiff::Timestamp;
use model::{Shard, TableRef};

use super::{AckLevel, WriteError, store::Item, validate::Intent};
use crate::{Core, MaxBacklog};

type Outcome = Result<super::Accepted, WriteError>;

/// Takes out of a batch what can't be accepted now. All writes of a key are of one table, want the same and fare the
/// same, so none of them overtakes another.
pub(super) fn admit<H, L, D>(core: &Core<H, L, D>, by_shard: &mut BTreeMap<Shard, Vec<Item>>, results: &mut [Outcome])
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let now = core.options.wall_clock.now();
    let mut full: BTreeMap<TableRef, Option<String>> = BTreeMap::new();
    for item in by_shard.values().flatten() {
        let table = &item.checked.table.schema.table;
        if !full.contains_key(table) {
            full.insert(table.clone(), excess(core, table, now));
        }
    }
    for (table, problem) in full {
        if let Some(problem) = problem {
            let error = WriteError::BacklogFull { table: table.clone(), problem };
            refuse(by_shard, results, |item| item.checked.table.schema.table == table, &error);
        }
    }
    if !core.log.is_available() {
        return refuse(by_shard, results, needs_log, &WriteError::LogDown);
    }
    let (mut records, mut bytes) = (0, 0);
    for item in by_shard.values().flatten().filter(|item| needs_log(item)) {
        records += 1;
        bytes += item.bytes_about();
    }
    if records > 0 && !core.log.has_room(records, bytes) {
        refuse(by_shard, results, needs_log, &WriteError::LogQueueFull);
    }
}

/// What of a table's backlog is too much to take more.
fn excess<H, L, D>(core: &Core<H, L, D>, table: &TableRef, now: Timestamp) -> Option<String> {
    let MaxBacklog { records, bytes, age } = core.options.rules.of(table).max_backlog;
    // What the log deletes before it is drained would be lost with the hot store.
    let half = core.options.log_retention.map(|retention| retention / 2);
    let age = [age, half].into_iter().flatten().min();
    core.backlogs.of(table).excess(MaxBacklog { records, bytes, age }, now)
}

fn needs_log(item: &Item) -> bool {
    item.wish.required >= AckLevel::Queued
}

fn refuse(
    by_shard: &mut BTreeMap<Shard, Vec<Item>>,
    results: &mut [Outcome],
    is_refused: impl Fn(&Item) -> bool,
    error: &WriteError,
) {
    for items in by_shard.values_mut() {
        items.retain(|item| {
            let refused = is_refused(item);
            if refused {
                results[item.index] = Err(error.clone());
            }
            !refused
        });
    }
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
