//! Requests that took effect before: what became of them decides how they are answered, not what was answered then.

use bytes::Bytes;
use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, RecordId, Slot, Stage};
use model::{Epoch, Event, EventBody, Image, RequestNote, Shard, Version};
use planted::Bug;

use super::{
    WriteError,
    draft::Draft,
    store::{Item, Outcome, Stored},
};
use crate::{Core, Etag};

/// A write whose request the hot store knows.
pub(super) struct Repeat {
    pub(super) item: Item,
    /// The version that its first attempt wrote.
    pub(super) etag: Etag,
    /// The epoch in which the store said so.
    pub(super) current: Epoch,
}

/// Looks at the records of requests that took effect before.
///
/// While a record is dirty its event is produced again, as it stands now: nobody can tell whether that of the first
/// attempt came through, and a newer version takes the first one's place in everything that is promised. What is clean
/// was drained, and what is gone was clean before it went.
///
/// The event of the newer version does not name the request, and its own may never have come: so it is noted in the log
/// before it is answered. Otherwise an opening that has nothing but the log would not put it back, and the next retry
/// would take effect once more, over what superseded it. Only LOGGED, which promises nothing of the log, is answered
/// without that while the log is away. The note names the record, too: while that waits for the
/// database, readers there must not be told that they see what the request wrote, or newer.
///
/// All of that holds only if the store still knows the request
/// in the epoch in which it shows the record: otherwise it may have lost both, and the record is somebody else's.
pub(super) async fn look<H, L, D>(core: &Core<H, L, D>, shard: Shard, repeats: Vec<Repeat>) -> Vec<Outcome>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    if repeats.is_empty() {
        return Vec::new();
    }
    let records: Vec<RecordId> = repeats.iter().map(|repeat| repeat.item.checked.record.clone()).collect();
    let answer = match core.hot.read(shard, records).await {
        Ok(answer) => answer,
        Err(error) => {
            return repeats.iter().map(|repeat| (repeat.item.index, Err(unknown(&error.to_string())))).collect();
        }
    };
    let mut slots = answer.slots.into_iter();
    let found = repeats.into_iter().map(|repeat| {
        let slot = slots.next().unwrap_or(Slot::Empty);
        let index = repeat.item.index;
        if answer.epoch != repeat.current {
            return (index, Err(unknown("its shard was opened again meanwhile")));
        }
        (index, standing(repeat, slot))
    });
    found.collect()
}

fn standing(repeat: Repeat, slot: Slot) -> Result<Stored, WriteError> {
    let own = repeat.etag.version;
    match slot {
        _ if planted::is(Bug::RequestAnsweredFromMemory) => Ok(stored(repeat, own, None, true, None)),
        Slot::Image { version, .. } if version < own => {
            Err(unknown("the hot store holds an older version of the record than the request wrote"))
        }
        Slot::Image { version, image, stage: Stage::Dirty } => {
            let note = if version == own { None } else { Some(note_of(&repeat)?) };
            let event = event_of(&repeat.item, image, version, repeat.current);
            Ok(stored(repeat, version, Some(event), false, note))
        }
        // Drained, or parked: the event that names it was in the log.
        Slot::Image { version, stage, .. } if version == own => {
            Ok(stored(repeat, own, None, stage == Stage::Clean, None))
        }
        // What took its place may be parked, which is not in the database.
        Slot::Image { stage, .. } => {
            let note = note_of(&repeat)?;
            Ok(stored(repeat, own, None, stage == Stage::Clean, Some(note)))
        }
        Slot::Absent | Slot::Leased | Slot::Empty => {
            let note = note_of(&repeat)?;
            Ok(stored(repeat, own, None, true, Some(note)))
        }
    }
}

fn note_of(repeat: &Repeat) -> Result<Bytes, WriteError> {
    let checked = &repeat.item.checked;
    let request = checked.request.clone().ok_or_else(|| unknown("the hot store knows a request that was not named"))?;
    let table = checked.table.schema.table.clone();
    let note = RequestNote { table, key: Some(checked.key.clone()), request, version: repeat.etag.version };
    let event = Event { shard: checked.shard, epoch: repeat.current, body: EventBody::Requests(vec![note]) };
    Ok(event.encode())
}

fn event_of(item: &Item, image: Image, version: Version, epoch: Epoch) -> Bytes {
    let checked = &item.checked;
    let since = image.since;
    let table = checked.table.schema.table.clone();
    Draft { table, shard: checked.shard, key: checked.key.clone(), image }.seal(version, epoch, since)
}

fn stored(repeat: Repeat, version: Version, event: Option<Bytes>, is_applied: bool, note: Option<Bytes>) -> Stored {
    let Repeat { item, etag, current } = repeat;
    Stored {
        index: item.index,
        wish: item.wish,
        etag,
        shard: item.checked.shard,
        topic: item.checked.table.settings.topic.clone(),
        record: item.checked.record,
        version,
        epoch: current,
        event,
        is_applied,
        note,
    }
}

/// The request took effect, so nothing was refused; how safe it is could not be seen.
fn unknown(problem: &str) -> WriteError {
    WriteError::OutcomeUnknown(format!("it took effect before, and it can't be told how safe it is: {problem}"))
}
