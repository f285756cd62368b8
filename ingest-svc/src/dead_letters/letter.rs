//! A dead letter as operators see it, and what can be asked and done about it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use hot_store::{Slot, Stage};
use jiff::Timestamp;
use model::{DeadLetter, DeadLetterCause, KeyBytes, Shard, TableRef, Topic, Version};

use crate::accept::WriteError;

/// Where a letter lies among the dead letters of its table. Those are kept for ever, so it names the letter for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The shard: the partition.
    pub shard: Shard,
    /// Its offset there; not that of the event that it is about.
    pub offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard.0, self.offset)
    }
}

/// A text that names no letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is no id of a dead letter, as 17-5")]
pub struct InvalidLetterId;

impl FromStr for LetterId {
    type Err = InvalidLetterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (shard, offset) = text.split_once('-').ok_or(InvalidLetterId)?;
        let (shard, offset) =
            (shard.parse().map_err(|_| InvalidLetterId)?, offset.parse().map_err(|_| InvalidLetterId)?);
        let id = Self { shard: Shard(shard), offset };
        // One spelling of each, and no negative offsets.
        if id.to_string() == text && offset >= 0 { Ok(id) } else { Err(InvalidLetterId) }
    }
}

/// A letter of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterName {
    /// The table.
    pub table: TableRef,
    /// The letter.
    pub id: LetterId,
}

/// What became of the record that a letter is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LetterState {
    /// It waits for somebody: the record is parked at this version, or the letter's bytes can't be read.
    Unresolved,
    /// The record is on its way to the database at this version once more, as after a loss of the hot store.
    Retrying,
    /// A newer write took its place, or a replay did.
    Superseded,
    /// The hot store does not have the record any more, or has what the database has.
    Resolved,
    /// It was given up.
    Purged,
}

impl LetterState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unresolved, Self::Retrying, Self::Superseded, Self::Resolved, Self::Purged];

    /// Whether somebody has to do something about it, or may have to.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Unresolved | Self::Retrying)
    }
}

/// A letter without anything of the row.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// Names it.
    pub name: LetterName,
    /// The topic in which the event lay.
    pub topic: Topic,
    /// The event's offset there.
    pub offset: i64,
    /// The version of the write; `None` if the event's bytes don't tell.
    pub version: Option<Version>,
    /// Why it was given up.
    pub cause: DeadLetterCause,
    /// The database's own code; empty if no database refused it.
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
    /// How many transactions with it failed.
    pub attempts: u32,
    /// When it was refused first.
    pub first_refused_at: Timestamp,
    /// When the letter was written.
    pub dead_lettered_at: Timestamp,
    /// The drain replica that wrote it.
    pub replica: String,
    /// What became of the record.
    pub state: LetterState,
}

impl Letter {
    /// What is said of a letter, once its state is known.
    pub(super) fn of(name: LetterName, letter: &DeadLetter, state: LetterState) -> Self {
        Self {
            name,
            topic: letter.topic.clone(),
            offset: letter.offset,
            version: letter.version,
            cause: letter.cause,
            code: letter.code.clone(),
            message: letter.message.clone(),
            attempts: letter.attempts,
            first_refused_at: letter.first_refused_at,
            dead_lettered_at: letter.dead_lettered_at,
            replica: letter.replica.clone(),
            state,
        }
    }
}

/// The state of a letter with a version, by what the hot store holds in its record's place.
pub(super) fn state_by_slot(version: Version, slot: &Slot, is_purged: bool) -> LetterState {
    match slot {
        Slot::Image { version: held, stage: Stage::Parked, .. } if *held == version => LetterState::Unresolved,
        Slot::Image { version: held, stage: Stage::Dirty, .. } if *held == version => LetterState::Retrying,
        _ if is_purged => LetterState::Purged,
        Slot::Image { version: held, .. } if *held > version => LetterState::Superseded,
        _ => LetterState::Resolved,
    }
}

/// Which letters are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterFilter {
    /// Those of one table; `None`: of every table.
    pub table: Option<TableRef>,
    /// Those with one of these causes; empty: with any.
    pub causes: BTreeSet<DeadLetterCause>,
    /// Those that were written at this time or later.
    pub since: Option<Timestamp>,
    /// Those that were written before this time.
    pub until: Option<Timestamp>,
    /// Also those about which nobody has to do anything.
    pub all_states: bool,
}

impl LetterFilter {
    pub(super) fn takes(&self, letter: &DeadLetter) -> bool {
        let at = letter.dead_lettered_at;
        (self.causes.is_empty() || self.causes.contains(&letter.cause))
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }
}

/// What became of the wish to replay or purge a letter.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The record was written again and is queued: it has this version now.
    Replayed(Version),
    /// The record was given up: the next read asks the database.
    Purged,
    /// Nothing was done, as the letter needs nothing: it is [`LetterState::Superseded`], [`LetterState::Resolved`] or
    /// [`LetterState::Purged`].
    Settled(LetterState),
    /// It was not done.
    Failed(Problem),
}

/// Why a letter was not replayed or purged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// There is no such letter.
    #[error("there is no such dead letter")]
    NotFound,
    /// Nobody can tell which record it would write.
    #[error("its bytes can't be read, so there is nothing to write again: it can be shown and purged only")]
    Unreadable,
    /// The drain is at it.
    #[error("the drain is trying this version of the record once more: look again in a moment")]
    Retrying,
    /// The write was not accepted.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be found out, or not be noted.
    #[error(transparent)]
    Letters(#[from] super::DeadLetterError),
    /// The note of the purge may or may not be among the dead letters.
    #[error("the event log did not take the note of the purge, so the record stays as it is: {0}; purge it again")]
    NotNoted(String),
}

/// What is needed to name the write of a letter apart from its offset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Identity {
    Write(KeyBytes, Version),
    Bytes(Topic, i64),
}

impl Identity {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        match letter.version {
            // A copy, since the key of the letter shares the memory of its whole record.
            Some(version) => Self::Write(copied(&letter.key), version),
            None => Self::Bytes(letter.topic.clone(), letter.offset),
        }
    }
}

pub(super) fn copied(key: &KeyBytes) -> KeyBytes {
    KeyBytes::from_stored(bytes::Bytes::copy_from_slice(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = LetterId { shard: Shard(17), offset: 5 };
        assert_eq!((id.to_string().as_str(), "17-5".parse()), ("17-5", Ok(id)));
        for wrong in ["", "17", "17-", "-5", "17--5", "017-5", "+17-5", "17-5 ", "70000-1", "a-b"] {
            assert_eq!(wrong.parse::<LetterId>(), Err(InvalidLetterId), "{wrong:?}");
        }
    }
}
