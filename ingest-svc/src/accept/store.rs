//! The second step of a write: into the hot store, where its precondition is checked and its version assigned.

use bytes::Bytes;
use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::future::join_all;
use hot_store::{HotStore, Precondition, RecordId, Slot, Write, WriteOutcome};
use model::{Content, Epoch, Image, Moment, Operation, Row, Shard, Topic, Version};
use planted::Bug;
use tokio::time::Instant;

use super::{
    AckLevel, WriteError, altered,
    draft::Draft,
    merge, not_attempted,
    repeat::{self, Repeat},
    request::Wish,
    rounds::{Manner, next_round},
    validate::{Checked, Intent, fits},
};
use crate::{
    Core, Etag, Part, StoreError, Token,
    read::{
        cold::{self, ColdRecord},
        form::{self, Use},
    },
};

/// A write of a batch, and its place there.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) index: usize,
    pub(super) checked: Checked,
    pub(super) wish: Wish,
}

/// A write that the hot store holds, with its event ready for the log.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) index: usize,
    pub(super) wish: Wish,
    /// Names the version that the request wrote.
    pub(super) etag: Etag,
    pub(super) shard: Shard,
    pub(super) topic: Topic,
    pub(super) record: RecordId,
    pub(super) version: Version,
    pub(super) epoch: Epoch,
    /// Its event; `None` if the log and the drain are done with it.
    pub(super) event: Option<Bytes>,
    /// Whether the database has the write already. Without an event and without this, the database refused it.
    pub(super) is_applied: bool,
    /// The event that names its request, if that may be in no other one.
    pub(super) note: Option<Bytes>,
}

impl Stored {
    /// How far it has come when what belongs into the log is there.
    pub(super) fn level_in_log(&self) -> AckLevel {
        if self.is_applied { AckLevel::Applied } else { AckLevel::Queued }
    }

    /// Names the write for those who wait for it; the level is added when it is known.
    pub(super) fn token(&self) -> Token {
        // Of a repeated request that was superseded, what took its place: after a loss nothing else says that it waits.
        Token {
            shard: self.shard,
            epoch: self.epoch,
            version: self.version,
            logged_only: true,
            namespace: self.record.namespace.clone(),
        }
    }
}

pub(super) type Outcome = (usize, Result<Stored, WriteError>);

/// An item of a round that has no outcome yet.
struct Open {
    item: Item,
    /// What stood in the way last time.
    obstacle: Obstacle,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Cold,
    Race,
}

/// A write that is ready for the hot store.
struct Ready {
    item: Item,
    precondition: Precondition,
    draft: Draft,
    /// If it is not to be written, but only to ask whether its request took effect before: what it is else.
    otherwise: Option<Otherwise>,
}

/// What stands in the way of an update that has been read.
enum Otherwise {
    Refused(WriteError),
    Obstacle(Obstacle),
}

/// No record ever has it: what is written under this condition is not stored.
const NEVER: Precondition = Precondition::At { version: Version::MAX, epoch: Epoch::ZERO };

/// Writes the items of one shard, which were asked for at that moment; those of one key in the given order.
pub(super) async fn write_shard<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    asked: Instant,
    items: Vec<Item>,
    moment: Moment<'_>,
) -> Vec<Outcome>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut outcomes = Vec::with_capacity(items.len());
    let mut repeated = Vec::new();
    let mut pending = items;
    while !pending.is_empty() {
        let (round, rest) = next_round(pending, |item| (&item.checked.record, item.checked.intent.manner()));
        pending = rest;
        if let Err(stopped) = write_round(core, shard, asked, round, moment, &mut outcomes, &mut repeated).await {
            outcomes.extend(pending.into_iter().map(|item| (item.index, Err(not_attempted(&stopped)))));
            break;
        }
    }
    outcomes.extend(repeat::look(core, shard, repeated).await);
    outcomes
}

impl Intent {
    fn manner(&self) -> Manner {
        match self {
            Self::Store { precondition: Precondition::None, .. } => Manner::Blind,
            Self::Store { .. } => Manner::Conditional,
            Self::Update { .. } => Manner::Update,
        }
    }
}

/// Writes one round, again and again for what turned out cold or lost a race. An error ends the shard's batch.
async fn write_round<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    asked: Instant,
    round: Vec<Item>,
    moment: Moment<'_>,
    outcomes: &mut Vec<Outcome>,
    repeated: &mut Vec<Repeat>,
) -> Result<(), WriteError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut open = round;
    let attempts = core.options.write_attempts.max(1);
    for attempt in 1.. {
        let (ready, mut again) = match prepare(core, shard, open, moment, outcomes).await {
            Ok(prepared) => prepared,
            Err((items, error)) => return Err(fail(items, error, outcomes)),
        };
        if !ready.is_empty() {
            let writes = ready.iter().map(Ready::to_write).collect();
            match core.hot.write(shard, asked, writes).await {
                Err(error) => {
                    let error = WriteError::of_write(error);
                    let unread = again.into_iter().map(|open| open.item);
                    // Those were not part of the call.
                    outcomes.extend(unread.map(|item| (item.index, Err(not_attempted(&error)))));
                    return Err(fail(ready.into_iter().map(|ready| ready.item), error, outcomes));
                }
                Ok(results) => {
                    for (ready, outcome) in ready.into_iter().zip(results) {
                        match judge(ready, outcome) {
                            Judged::Done(outcome) => outcomes.push(outcome),
                            Judged::Repeated(repeat) => repeated.push(repeat),
                            Judged::Again(one) => again.push(one),
                        }
                    }
                }
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        if attempt == attempts {
            outcomes.extend(again.into_iter().map(|open| (open.item.index, Err(open.give_up(attempts)))));
            return Ok(());
        }
        open = warm(core, shard, again, outcomes).await;
    }
    Ok(())
}

fn fail(items: impl IntoIterator<Item = Item>, error: WriteError, outcomes: &mut Vec<Outcome>) -> WriteError {
    outcomes.extend(items.into_iter().map(|item| (item.index, Err(error.clone()))));
    error
}

/// Makes writes of the items: as they are, or, for updates, from what the hot store holds.
#[allow(clippy::type_complexity, reason = "the pair is taken apart at the only call")]
async fn prepare<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    mut items: Vec<Item>,
    moment: Moment<'_>,
    outcomes: &mut Vec<Outcome>,
) -> Result<(Vec<Ready>, Vec<Open>), (Vec<Item>, WriteError)>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let is_update = |item: &&Item| matches!(item.checked.intent, Intent::Update { .. });
    let to_read: Vec<RecordId> = items.iter().filter(is_update).map(|item| item.checked.record.clone()).collect();
    let (epoch, slots) = if to_read.is_empty() {
        (Epoch::ZERO, Vec::new())
    } else {
        match core.hot.read(shard, to_read).await {
            Ok(answer) => (answer.epoch, answer.slots),
            // Nothing was written yet, so a read without an answer is no unknown outcome.
            Err(error) => return Err((items, WriteError::Store(error.into()))),
        }
    };
    let strange = items.iter_mut().filter(|item| matches!(item.checked.intent, Intent::Update { .. })).zip(&slots);
    if let Err(error) = altered::look_again(core, strange).await {
        return Err((items, WriteError::Store(error)));
    }
    let updates = items.iter().filter(is_update).map(|item| &item.checked);
    let mut slots = join_all(updates.zip(slots).map(|(checked, slot)| {
        // An update must not write what it would take for a new column's value.
        form::present(core, &checked.table, &checked.key, slot, Use::Write)
    }))
    .await
    .into_iter();
    let (mut ready, mut again) = (Vec::with_capacity(items.len()), Vec::new());
    let max = core.log.max_payload_bytes();
    for item in items {
        match &item.checked.intent {
            Intent::Store { precondition, draft } => {
                let (precondition, draft) = (*precondition, draft.clone());
                ready.push(Ready { item, precondition, draft, otherwise: None });
            }
            Intent::Update { changes, etag } => {
                let merged =
                    slots.next().unwrap_or(Ok(Slot::Empty)).map_err(WriteError::Store).map_err(Otherwise::Refused);
                let merged =
                    merged.and_then(|slot| merge_into(&item.checked, slot, epoch, changes, *etag, max, moment));
                match merged {
                    Ok((precondition, draft)) => ready.push(Ready { item, precondition, draft, otherwise: None }),
                    // What stands in the way may be its own first attempt.
                    Err(otherwise) if item.checked.request.is_some() => {
                        let draft = probe(&item.checked);
                        ready.push(Ready { item, precondition: NEVER, draft, otherwise: Some(otherwise) });
                    }
                    Err(Otherwise::Obstacle(obstacle)) => again.push(Open { item, obstacle }),
                    Err(Otherwise::Refused(error)) => outcomes.push((item.index, Err(error))),
                }
            }
        }
    }
    Ok((ready, again))
}

/// What an update makes of a record: the row to write, and under which condition.
fn merge_into(
    checked: &Checked,
    slot: Slot,
    epoch: Epoch,
    changes: &Row,
    etag: Option<Etag>,
    max_payload_bytes: usize,
    moment: Moment<'_>,
) -> Result<(Precondition, Draft), Otherwise> {
    let table = &checked.table.schema.table;
    match slot {
        Slot::Empty | Slot::Leased => Err(Otherwise::Obstacle(Obstacle::Cold)),
        Slot::Absent | Slot::Image { image: Image { content: Content::Tombstone, .. }, .. } => {
            Err(Otherwise::Refused(WriteError::NotFound(table.clone())))
        }
        Slot::Image { version, image: Image { content: Content::Row(row), fingerprint, .. }, .. } => {
            let read = Etag { version, epoch };
            if etag.is_some_and(|etag| etag != read) {
                return Err(Otherwise::Refused(WriteError::Aborted(table.clone())));
            }
            let draft = update(checked, row, fingerprint, changes.clone(), max_payload_bytes, moment);
            let condition = if planted::is(Bug::UpdateWithoutCondition) { Precondition::None } else { read.into() };
            draft.map(|draft| (condition, draft)).map_err(Otherwise::Refused)
        }
    }
}

/// What names the request and nothing else; for a condition that never holds.
fn probe(checked: &Checked) -> Draft {
    let image = Image {
        content: Content::Tombstone,
        operation: Operation::Update,
        fingerprint: checked.fingerprint,
        request: checked.request.clone(),
        since: None,
    };
    Draft { table: checked.table.schema.table.clone(), shard: checked.shard, key: checked.key.clone(), image }
}

fn update(
    checked: &Checked,
    stored: Row,
    stored_under: model::Fingerprint,
    changes: Row,
    max_payload_bytes: usize,
    moment: Moment<'_>,
) -> Result<Draft, WriteError> {
    let schema = &checked.table.schema;
    let row = merge::after_image(schema, checked.fingerprint, stored, stored_under, changes, moment)
        .map_err(|violations| WriteError::Invalid { part: Part::Changes, violations })?;
    let image = Image {
        content: Content::Row(row),
        operation: Operation::Update,
        fingerprint: checked.fingerprint,
        request: checked.request.clone(),
        since: None,
    };
    let draft = Draft { table: schema.table.clone(), shard: checked.shard, key: checked.key.clone(), image };
    fits(&draft, &checked.record, max_payload_bytes)?;
    Ok(draft)
}

enum Judged {
    Done(Outcome),
    Repeated(Repeat),
    Again(Open),
}

/// What the store's answer means for the one who asked for the write.
fn judge(ready: Ready, outcome: WriteOutcome) -> Judged {
    let Ready { item, precondition, draft, otherwise } = ready;
    let table = &item.checked.table.schema.table;
    // Who named an etag, or what is parked, wants that version and no other.
    let insists = match &item.checked.intent {
        Intent::Store { .. } => matches!(precondition, Precondition::At { .. } | Precondition::Parked { .. }),
        Intent::Update { etag, .. } => etag.is_some(),
    };
    match (otherwise, outcome) {
        (None, _) | (_, WriteOutcome::Repeated { .. } | WriteOutcome::Reused) => {}
        (Some(Otherwise::Refused(error)), _) => return Judged::Done((item.index, Err(error))),
        (Some(Otherwise::Obstacle(obstacle)), _) => return Judged::Again(Open { item, obstacle }),
    }
    let error = match outcome {
        WriteOutcome::Stored { version, epoch, since } => {
            let stored = Stored {
                index: item.index,
                wish: item.wish,
                etag: Etag { version, epoch },
                shard: item.checked.shard,
                topic: item.checked.table.settings.topic.clone(),
                record: item.checked.record,
                version,
                epoch,
                event: Some(draft.seal(version, epoch, since)),
                is_applied: false,
                note: None,
            };
            return Judged::Done((item.index, Ok(stored)));
        }
        WriteOutcome::Repeated { version, epoch, current } => {
            return Judged::Repeated(Repeat { item, etag: Etag { version, epoch }, current });
        }
        WriteOutcome::Reused => match &item.checked.request {
            Some(request) => WriteError::RequestIdReused(request.id.clone()),
            None => WriteError::OutcomeUnknown("the hot store answered for a request that was not named".to_owned()),
        },
        WriteOutcome::Cold => return Judged::Again(Open { item, obstacle: Obstacle::Cold }),
        WriteOutcome::Halted => WriteError::DrainingDown(table.clone()),
        WriteOutcome::Exists => WriteError::AlreadyExists(table.clone()),
        WriteOutcome::Missing | WriteOutcome::Changed if insists => WriteError::Aborted(table.clone()),
        WriteOutcome::Missing => WriteError::NotFound(table.clone()),
        WriteOutcome::Changed => return Judged::Again(Open { item, obstacle: Obstacle::Race }),
    };
    Judged::Done((item.index, Err(error)))
}

/// Brings cold records into the hot store; those that can't be brought fail.
async fn warm<H, L, D>(core: &Core<H, L, D>, shard: Shard, again: Vec<Open>, outcomes: &mut Vec<Outcome>) -> Vec<Item>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let loads = again.iter().map(|open| async move {
        match open.obstacle {
            Obstacle::Race => Ok(()),
            Obstacle::Cold => {
                let checked = &open.item.checked;
                let (record, key) = (checked.record.clone(), checked.key.clone());
                cold::warm(core, &checked.table, ColdRecord { shard, record, key }).await
            }
        }
    });
    let loaded = join_all(loads).await;
    let mut warm = Vec::with_capacity(again.len());
    for (open, loaded) in again.into_iter().zip(loaded) {
        match loaded {
            Ok(()) => warm.push(open.item),
            Err(error) => outcomes.push((open.item.index, Err(error.into()))),
        }
    }
    warm
}

impl Open {
    fn give_up(&self, attempts: u32) -> WriteError {
        let table = self.item.checked.table.schema.table.clone();
        match self.obstacle {
            Obstacle::Race => WriteError::Conflict { table, attempts },
            Obstacle::Cold => WriteError::Store(StoreError::Contended { table }),
        }
    }
}

impl Ready {
    fn to_write(&self) -> Write {
        Write {
            record: self.item.checked.record.clone(),
            precondition: self.precondition,
            image: self.draft.image.clone(),
            index: self.item.checked.table.index.as_ref().map(|index| match &self.draft.image.content {
                Content::Row(row) => index.terms(row),
                Content::Tombstone => index.nothing(),
            }),
        }
    }
}
