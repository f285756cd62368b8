//! What is refused before anything is touched: writes for which the log, or the way to the database, has no room.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use model::Shard;

use super::{AckLevel, WriteError, store::Item, validate::Intent};
use crate::Core;

type Outcome = Result<super::Accepted, WriteError>;

/// Takes out of a batch what can't be accepted now. All writes of a key are of one table, want the same and fare the
/// same, so none of them overtakes another.
pub(super) fn admit<H, L, D>(core: &Core<H, L, D>, by_shard: &mut BTreeMap<Shard, Vec<Item>>, results: &mut [Outcome])
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
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
