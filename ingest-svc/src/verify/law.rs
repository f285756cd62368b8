//! What follows of one record from what the log, the hot store and the database were seen to hold: a pure function.
//!
//! The three are looked at one after the other while writes go on, and the order is what makes it safe to conclude: the
//! log's event first, then the hot store, then the database, then the purge horizon, the dead letters, and the hot store
//! again. An event is in the hot store before it is in the log, and what is not in the hot store any more was in the
//! database before. So a record of which the hot store has nothing as new as the event was drained by then; and an image
//! that is there before and after the row was read was there meanwhile, since a version is never given twice.

use database::DatabaseRow;
use hot_store::{Slot, Stage};
use model::{Content, Epoch, Version};

use super::content::{Sameness, Schema};

/// The newest write of a record among those that the log was read for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Logged {
    pub(super) version: Version,
    pub(super) image: model::Image,
    pub(super) epoch: Epoch,
    /// Its epoch is known to be the one in force: nobody has declared it void.
    pub(super) is_in_force: bool,
}

/// What the hot store held at some moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hot {
    pub(super) epoch: Epoch,
    pub(super) slot: HotSlot,
}

/// See [`Hot`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HotSlot {
    /// That.
    Slot(Slot),
    /// Something that can't be read.
    Unreadable,
}

/// What the database held.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Held {
    /// That.
    Row(DatabaseRow),
    /// A row of this version, in which a value can't be read.
    Unreadable(Version),
}

/// What is known of the event by the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letter {
    /// Nobody has asked yet.
    NotAsked,
    /// There is none of this version.
    None,
    /// There is one, and nobody gave it up.
    Kept,
    /// There is one, without its event: an opening of an emptied hot store does not park its record again.
    Cut,
    /// An operator gave it up.
    Purged,
}

/// What was seen of one record, in the order of the fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    pub(super) before: Hot,
    pub(super) row: Held,
    /// The shard's purge horizon.
    pub(super) horizon: Version,
    /// The newest version that the shard has given.
    pub(super) clock: Version,
    /// Whether the drain group has committed the event's offset; asked for only where that matters.
    pub(super) is_committed: bool,
    pub(super) letter: Letter,
    pub(super) after: Hot,
    /// The log was read to its end after the row was: there is no newer event of the record.
    pub(super) is_newest: bool,
}

/// How a record differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceKind {
    /// The database does not have the write, and nothing will bring it there: it counts as drained, and the hot store does
    /// not hold it as dirty. It was lost, or taken away once the hot store had let it go.
    Lost,
    /// The hot store does not hold a write that the drain has not got to yet: reads answer something older until then.
    NotInHotStore,
    /// The database is older than it was: the hot store holds as clean what it does not have (any more).
    Stale,
    /// The database had the row, by what the hot store holds as clean, and has none.
    RowMissing,
    /// The database has a row that was deleted.
    Phantom,
    /// The database has forgotten a delete that it must still know: an old write could bring the row back.
    TombstoneMissing,
    /// Row and event have the same version and not the same content: somebody wrote beside us, or a trigger did.
    ContentDiffers,
    /// The hot store's image has the row's version and not its content: reads answer what the database does not have.
    HotStoreDiffers,
    /// The hot store's image is older than the row: reads answer what was overwritten.
    HotStoreStale,
    /// The database refused the write, nobody gave it up, and the hot store does not hold it as parked.
    ParkedLost,
    /// The database has a version that was never given.
    NeverGiven,
    /// The row is there, and a value of it can't be read.
    RowUnreadable,
    /// What the hot store has of it can't be read.
    HotStoreUnreadable,
}

/// Why nothing can be concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Undecided {
    /// The contents differ, but one was written under an earlier schema of the table.
    EarlierSchema,
    /// It lies where the log begins: the fence that may have made it void is gone.
    MayBeVoid,
    /// It lies where the log begins: the delete that may have followed it is gone, and so is that one's tombstone.
    MayBePurged,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The database has it, and the hot store nothing else.
    Agrees,
    /// It waits for the database.
    Pending,
    /// The database refused it; it waits for an operator.
    Parked,
    /// The database refused it, and an operator gave it up.
    GivenUp,
    /// There is something newer, whose event is met later or was not there yet.
    Superseded,
    /// It changed while it was looked at.
    Moving,
    /// Only who has read the whole log can tell: the row may have been deleted since, and the tombstone been purged.
    AfterTheLog,
    Undecided(Undecided),
    Differs(DifferenceKind),
}

use DifferenceKind::*;

/// Says what follows from what was seen.
pub(super) fn judge(schema: &Schema<'_>, logged: &Logged, look: &Look) -> Verdict {
    if let Some(verdict) = against_hot_store(schema, logged, look) {
        return verdict;
    }
    match against_log(schema, logged, look) {
        // What is void was never accepted. Nothing of the epoch in which the shard is open now is: no fence of a higher one
        // was appended by then.
        Verdict::Differs(kind) if !logged.is_in_force && logged.epoch != look.before.epoch && kind != RowUnreadable => {
            Verdict::Undecided(Undecided::MayBeVoid)
        }
        verdict => verdict,
    }
}

/// The row's version: `None` if there is neither row nor tombstone, 0 for a row of somebody else.
pub(super) fn version_of(row: &Held) -> Option<Version> {
    match row {
        Held::Row(DatabaseRow::Present { version, .. } | DatabaseRow::Deleted { version })
        | Held::Unreadable(version) => Some(*version),
        Held::Row(DatabaseRow::Absent) => None,
    }
}

/// The image that the hot store held all the while the row was read.
fn steady(look: &Look) -> Option<(Version, &model::Image, Stage)> {
    let image = |hot: &'_ Hot| match &hot.slot {
        HotSlot::Slot(Slot::Image { version, stage, .. }) => Some((hot.epoch, *version, *stage)),
        _ => None,
    };
    match &look.before.slot {
        HotSlot::Slot(Slot::Image { version, image: held, stage }) if image(&look.before) == image(&look.after) => {
            Some((*version, held, *stage))
        }
        _ => None,
    }
}

/// What is wrong between the hot store and the database, whatever the log says; `None`: nothing that shows.
fn against_hot_store(schema: &Schema<'_>, logged: &Logged, look: &Look) -> Option<Verdict> {
    if look.before.slot == HotSlot::Unreadable && look.after.slot == HotSlot::Unreadable {
        return Some(Verdict::Differs(HotStoreUnreadable));
    }
    let row = version_of(&look.row);
    if row.is_some_and(|row| row > look.clock) {
        return Some(Verdict::Differs(NeverGiven));
    }
    let (held, image, stage) = steady(look)?;
    if row.is_some_and(|row| row > held) {
        return Some(Verdict::Differs(HotStoreStale));
    }
    if row == Some(held) && stage != Stage::Parked {
        return match same(schema, image, &look.row) {
            None => Some(Verdict::Differs(RowUnreadable)),
            Some(Sameness::Same) => None,
            Some(Sameness::EarlierSchema) => Some(Verdict::Undecided(Undecided::EarlierSchema)),
            Some(Sameness::Different) => Some(Verdict::Differs(who_differs(schema, logged, held, image, &look.row))),
        };
    }
    if stage != Stage::Clean {
        return None;
    }
    // It is clean, and the database does not have its version. Tombstones are purged, and where one was, the hot store
    // holds what it was told of the key in its place, at the horizon of that time.
    let may_be_purged = held <= look.horizon && row.is_none_or(|row| row == Version::ZERO);
    match (&image.content, &look.row) {
        (Content::Tombstone, Held::Row(DatabaseRow::Absent)) if may_be_purged => None,
        (Content::Row(_), Held::Row(DatabaseRow::Present { .. })) if may_be_purged => {
            (same(schema, image, &look.row) == Some(Sameness::Different)).then_some(Verdict::Differs(HotStoreDiffers))
        }
        (Content::Row(_), Held::Row(DatabaseRow::Absent)) => Some(Verdict::Differs(RowMissing)),
        (Content::Tombstone, Held::Row(DatabaseRow::Absent)) => Some(Verdict::Differs(TombstoneMissing)),
        (Content::Tombstone, Held::Row(DatabaseRow::Present { .. })) => Some(Verdict::Differs(Phantom)),
        _ => Some(Verdict::Differs(Stale)),
    }
}

/// Who is to blame where image and row have one version and not one content: the log tells, if it has that version.
fn who_differs(
    schema: &Schema<'_>,
    logged: &Logged,
    held: Version,
    image: &model::Image,
    row: &Held,
) -> DifferenceKind {
    let is_as_logged = logged.version == held && same(schema, &logged.image, row) == Some(Sameness::Same);
    match (&image.content, row) {
        _ if is_as_logged => HotStoreDiffers,
        (Content::Row(_), Held::Row(DatabaseRow::Deleted { .. })) => RowMissing,
        (Content::Tombstone, _) => Phantom,
        _ if logged.version == held => ContentDiffers,
        _ => HotStoreDiffers,
    }
}

/// Whether the row is the image; `None` if it can't be read.
fn same(schema: &Schema<'_>, image: &model::Image, row: &Held) -> Option<Sameness> {
    match row {
        Held::Row(row) => Some(schema.compare(image, row)),
        Held::Unreadable(_) => None,
    }
}

/// What is wrong between the log and the two others.
fn against_log(schema: &Schema<'_>, logged: &Logged, look: &Look) -> Verdict {
    let row = version_of(&look.row);
    match row {
        Some(row) if row > logged.version => return Verdict::Superseded,
        Some(row) if row == logged.version => return at_same_version(schema, logged, &look.row),
        _ => {}
    }
    // The database is older than the event, or has nothing.
    let (mut is_moving, mut is_parked) = (false, false);
    for hot in [&look.before, &look.after] {
        match &hot.slot {
            HotSlot::Slot(Slot::Image { version, stage, .. }) if *version >= logged.version => match stage {
                Stage::Dirty => return Verdict::Pending,
                Stage::Parked => is_parked = true,
                Stage::Clean => is_moving = true,
            },
            HotSlot::Unreadable => is_moving = true,
            HotSlot::Slot(_) => {}
        }
    }
    if is_parked {
        return Verdict::Parked;
    }
    let is_bare = row.is_none_or(|row| row == Version::ZERO);
    let may_be_purged = is_bare && logged.version <= look.horizon;
    if is_moving {
        // One that is clean all the while, and no difference: what it stands for was purged.
        return if steady(look).is_some() && may_be_purged { Verdict::Agrees } else { Verdict::Moving };
    }
    match (&logged.image.content, &look.row) {
        (Content::Tombstone, _) if may_be_purged => return Verdict::Agrees,
        (Content::Row(_), _) if may_be_purged && !look.is_newest => return Verdict::AfterTheLog,
        _ => {}
    }
    match look.letter {
        Letter::Purged => return Verdict::GivenUp,
        Letter::Cut => return Verdict::Parked,
        Letter::Kept => return Verdict::Differs(ParkedLost),
        Letter::None | Letter::NotAsked => {}
    }
    Verdict::Differs(match (&logged.image.content, &look.row) {
        _ if !look.is_committed => NotInHotStore,
        (Content::Tombstone, Held::Row(DatabaseRow::Absent)) => TombstoneMissing,
        (Content::Tombstone, Held::Row(DatabaseRow::Present { version: Version::ZERO, .. })) => Phantom,
        _ => Lost,
    })
}

fn at_same_version(schema: &Schema<'_>, logged: &Logged, row: &Held) -> Verdict {
    match same(schema, &logged.image, row) {
        None => Verdict::Differs(RowUnreadable),
        Some(Sameness::Same) => Verdict::Agrees,
        Some(Sameness::EarlierSchema) => Verdict::Undecided(Undecided::EarlierSchema),
        Some(Sameness::Different) => Verdict::Differs(match (&logged.image.content, row) {
            (Content::Row(_), Held::Row(DatabaseRow::Deleted { .. })) => RowMissing,
            (Content::Tombstone, _) => Phantom,
            _ => ContentDiffers,
        }),
    }
}

#[cfg(test)]
mod tests;
