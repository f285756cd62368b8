//! What waits of a key: its newest version, those that it superseded, and those that the database refused.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use database::Change;
use model::{DeadLetterCause, KeyBytes, Version};
use tokio::time::Instant;

use super::{Generation, stepping::Ahead};

/// A record of the log on its way into the database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gathered {
    pub(crate) generation: Generation,
    pub(crate) offset: i64,
    /// What the change holds in memory, about.
    pub(crate) bytes: usize,
    pub(crate) change: Change,
    /// The event as it lay in the log: what a dead letter would hold.
    pub(crate) payload: Bytes,
}

/// Where a change comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Origin {
    pub(crate) offset: i64,
    pub(crate) payload: Bytes,
    /// What it holds in memory, about, without the payload.
    pub(crate) bytes: usize,
}

impl Origin {
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.payload.len()
    }
}

/// A version that the database refused for good.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    pub(crate) version: Version,
    /// What it was to be: an older version that lands may make it worth another try.
    pub(super) change: Change,
    pub(crate) origin: Origin,
    pub(crate) reason: Reason,
    /// Transactions with it that failed.
    pub(crate) attempts: u32,
    pub(crate) first_refused: Instant,
}

/// Why something can't be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) cause: DeadLetterCause,
    /// The database's own code, if it was a database that refused it.
    pub(crate) code: String,
    /// In words, without values of the row.
    pub(crate) message: String,
}

/// All records of one key that are worked off together, by writing the newest of them that can be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The newest version that was not refused for good.
    pub(crate) change: Change,
    /// The rest.
    pub(crate) ticket: Ticket,
}

/// What is left of an entry whose change was refused for good.
#[derive(Debug)]
pub(crate) enum GivenUp {
    /// This older version is to be written now.
    UpTo(Entry),
    /// Nothing: all versions are among the refused.
    Wholly(Entry),
}

/// How long a key has been waited for. Only the time counts in which it was tried as it should: while the database was
/// away, or its table paused, the other row had no chance to come either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dependent {
    /// When it was refused first, moved on by the time that does not count.
    since: Instant,
    /// When it was to be tried again.
    until: Instant,
}

impl Dependent {
    /// A try may be so late, for want of budget or in a queue, without anything being amiss.
    const LATE: Duration = Duration::from_secs(10);

    /// Refused, once more or for the first time; to be tried again at `until`.
    pub(super) fn refused(earlier: Option<Self>, now: Instant, until: Instant) -> Self {
        let since = earlier.map_or(now, |earlier| earlier.since + earlier.missed(now));
        Self { since, until }
    }

    fn waited(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since).saturating_sub(self.missed(now))
    }

    fn missed(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.until + Self::LATE)
    }
}

/// What an entry is besides its change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) key: KeyBytes,
    pub(crate) generation: Generation,
    /// Version and offset of every record that the entry stands for.
    pub(crate) records: Vec<(Version, i64)>,
    /// How often the change was refused when it was tried alone.
    pub(crate) failures: u32,
    /// Versions that were refused for good.
    pub(crate) refused: Vec<Refused>,
    /// Where the change comes from.
    pub(super) origin: Origin,
    /// What it superseded before that was written. It is written if all newer versions are refused for good, or before
    /// them if another row is in their way.
    pub(super) older: BTreeMap<Version, (Change, Origin)>,
    /// What all of the entry holds in memory, about.
    pub(super) memory: usize,
    /// How many transactions with the change failed for a row that can't be written.
    pub(super) attempts: u32,
    pub(super) first_refused: Option<Instant>,
    /// For how long versions of the key, this or earlier ones, have been refused for what another row is: what a key is
    /// waited for is not waited for again with each of its versions.
    pub(super) dependent: Option<Dependent>,
    /// The same, but not begun anew when an older version lands.
    pub(super) dependent_in_all: Option<Dependent>,
    /// Whether an older version has landed once after newer ones were given up for what another row is.
    pub(super) had_chance: bool,
    /// The place in the queue: that of its oldest record.
    pub(super) sequence: u64,
    pub(super) since: Instant,
    /// How many rows a batch may have that holds it: fewer while it is suspected.
    pub(super) companions: usize,
    /// Which refused batch it is suspected with.
    pub(super) suspicion: Option<u64>,
    /// Not before this time, and then alone.
    pub(super) held_until: Option<Instant>,
    /// The newest version, while an older one is written before it.
    pub(super) ahead: Option<Box<Ahead>>,
    /// Down to which version the older ones were tried before the newest one, the last time.
    pub(super) stepped_to: Option<Version>,
}

impl Entry {
    pub(super) fn new(gathered: Gathered, sequence: u64, now: Instant) -> Self {
        let Gathered { generation, offset, bytes, change, payload } = gathered;
        let origin = Origin { offset, payload, bytes };
        let ticket = Ticket {
            key: change.key.to_bytes(),
            generation,
            records: vec![(change.version, offset)],
            failures: 0,
            refused: Vec::new(),
            memory: origin.memory(),
            origin,
            older: BTreeMap::new(),
            attempts: 0,
            first_refused: None,
            dependent: None,
            dependent_in_all: None,
            had_chance: false,
            sequence,
            since: now,
            companions: usize::MAX,
            suspicion: None,
            held_until: None,
            ahead: None,
            stepped_to: None,
        };
        Self { change, ticket }
    }

    /// Whether another row was waited for, for so long. A version that lands may give free what the newer ones wait for: that
    /// is waited for anew, but a key that is written all the time is not waited for more than twice as long in all.
    pub(crate) fn is_overdue(&self, patience: Duration, now: Instant) -> bool {
        let in_all = self.ticket.dependent_in_all;
        self.dependent_for(now) >= patience || in_all.is_some_and(|it| it.waited(now) >= patience.saturating_mul(2))
    }

    /// For how long another row has been in the way of the key by now, whichever of its versions was tried.
    pub(super) fn dependent_for(&self, now: Instant) -> Duration {
        self.ticket.dependent.map_or(Duration::ZERO, |dependent| dependent.waited(now))
    }

    /// The lowest version that it stands for.
    pub(crate) fn lowest(&self) -> Version {
        self.ticket.records.iter().map(|(version, _)| *version).min().unwrap_or(self.change.version)
    }

    /// The change was refused for good: the next older one takes its place, to be tried alone. If the key was waited for
    /// in vain, that is its only try.
    ///
    /// It is due at once, among those that were held: they take turns with the others, who so wait for one of them at a
    /// time and not for all versions of the key.
    pub(crate) fn give_up(mut self, reason: Reason, now: Instant) -> GivenUp {
        let ticket = &mut self.ticket;
        ticket.refused.push(Refused {
            version: self.change.version,
            change: self.change.clone(),
            origin: ticket.origin.clone(),
            reason,
            attempts: ticket.attempts + 1,
            first_refused: ticket.first_refused.unwrap_or(now),
        });
        if planted::is(planted::Bug::OlderDropped) {
            return GivenUp::Wholly(self);
        }
        let Some((_, (change, origin))) = ticket.older.pop_last() else { return GivenUp::Wholly(self) };
        ticket.origin = origin;
        (ticket.failures, ticket.attempts, ticket.first_refused, ticket.held_until) = (0, 0, None, Some(now));
        (ticket.companions, ticket.suspicion) = (1, None);
        self.change = change;
        GivenUp::UpTo(self)
    }

    /// A newer version makes a fresh start: what was wrong with an older one says nothing of it. A duplicate does not.
    fn supersedes(&self, other: &Entry) -> bool {
        if planted::is(planted::Bug::CoalesceByPosition) {
            let position = |entry: &Entry| entry.ticket.records.iter().map(|(_, offset)| *offset).max();
            return position(self) > position(other);
        }
        let standing = |entry: &Entry| (entry.change.version, entry.ticket.failures, Reverse(entry.ticket.companions));
        standing(self) > standing(other)
    }

    /// Both as one: the newest change of them, and all that belongs to either.
    pub(super) fn merge(self, other: Entry) -> Self {
        let (mut newest, older) = if self.supersedes(&other) { (self, other) } else { (other, self) };
        let Entry { change, ticket } = older;
        newest.ticket.records.extend(ticket.records);
        newest.ticket.sequence = newest.ticket.sequence.min(ticket.sequence);
        newest.ticket.since = newest.ticket.since.min(ticket.since);
        newest.ticket.dependent = newest.ticket.dependent.into_iter().chain(ticket.dependent).min();
        let in_all = newest.ticket.dependent_in_all.into_iter().chain(ticket.dependent_in_all);
        newest.ticket.dependent_in_all = in_all.min();
        newest.ticket.had_chance |= ticket.had_chance;
        // What is new is not tried before what was not yet: a key that is written all the time has always more of it.
        newest.ticket.stepped_to = newest.ticket.stepped_to.or(ticket.stepped_to);
        newest.ticket.refused.extend(ticket.refused);
        newest.ticket.memory += ticket.memory;
        let mut superseded = ticket.older;
        // The larger of the two takes the other in: a key that is written all the time has many.
        if superseded.len() > newest.ticket.older.len() {
            std::mem::swap(&mut superseded, &mut newest.ticket.older);
        }
        for (change, origin) in superseded.into_values().chain([(change, ticket.origin)]) {
            if change.version == newest.change.version {
                newest.ticket.memory -= origin.memory();
            } else if let Some((_, again)) = newest.ticket.older.insert(change.version, (change, origin)) {
                newest.ticket.memory -= again.memory();
            }
        }
        newest
    }
}
