//! The newest version of each key, and what is to be done next.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use database::{Change, Owner};
use model::{KeyBytes, Shard, Version};
use tokio::time::Instant;

/// One assignment of a partition to this process; another assignment has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) u64);

/// A record of the log on its way into the database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gathered {
    pub(crate) generation: Generation,
    pub(crate) offset: i64,
    /// What it holds in memory, about.
    pub(crate) bytes: usize,
    pub(crate) change: Change,
}

/// All records of one key that are worked off together, by writing the newest of them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The newest version.
    pub(crate) change: Change,
    /// The rest.
    pub(crate) ticket: Ticket,
}

impl Entry {
    /// A newer version makes a fresh start: what was wrong with an older one says nothing of it. A duplicate does not.
    fn supersedes(&self, other: &Entry) -> bool {
        if planted::is(planted::Bug::CoalesceByPosition) {
            let position = |entry: &Entry| entry.ticket.records.iter().map(|(_, offset)| *offset).max();
            return position(self) > position(other);
        }
        let standing = |entry: &Entry| (entry.change.version, entry.ticket.failures, Reverse(entry.ticket.companions));
        standing(self) > standing(other)
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
    bytes: usize,
    /// The place in the queue: that of its oldest record.
    sequence: u64,
    since: Instant,
    /// How many rows a batch may have that holds it: halved each time such a batch was refused.
    companions: usize,
    /// Not before this time, and then alone.
    held_until: Option<Instant>,
}

/// How large a batch may be, and how long one that is not full waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) age: Duration,
}

/// What could be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Take a batch; it would have so many rows.
    Rows(usize),
    /// Nothing before this time, unless more comes.
    At(Instant),
    /// Nothing, unless more comes.
    Nothing,
}

/// What a batch that did not go through means for its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not their fault.
    Innocent,
    /// One of them can't be written: they come again in batches of half the size.
    Suspect,
    /// This one alone can't be written now.
    HeldUntil(Instant),
}

/// The gathered records of one lane.
///
/// A key waits at the place of its oldest record, so that a key that is written all the time is written like any
/// other and none starves. The newest *version* of a key wins, wherever in the log it lay. What is taken stays
/// counted until it is released or put back.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    waiting: BTreeMap<KeyBytes, Entry>,
    queue: BTreeMap<u64, KeyBytes>,
    held: BTreeMap<(Instant, u64), KeyBytes>,
    assigned: BTreeMap<Shard, (Generation, Owner)>,
    /// Every record that was gathered and is neither released nor dropped.
    open: BTreeSet<(Version, Shard, Generation, i64)>,
    waiting_bytes: usize,
    queued_bytes: usize,
    taken_bytes: usize,
    next_sequence: u64,
    /// Whether the last batch was a held one: they take turns with the others.
    held_last: bool,
}

impl Coalescer {
    /// Records of this assignment are taken from now on.
    pub(crate) fn assign(&mut self, shard: Shard, generation: Generation, owner: Owner) {
        self.revoke(shard);
        self.assigned.insert(shard, (generation, owner));
    }

    /// The partition is another's: forgets what is waiting. What was taken is dropped when it is put back, and its
    /// release means nothing any more.
    pub(crate) fn revoke(&mut self, shard: Shard) {
        if self.assigned.remove(&shard).is_none() {
            return;
        }
        let gone: Vec<_> =
            self.waiting.values().filter(|e| e.change.shard == shard).map(|e| e.ticket.key.clone()).collect();
        for entry in gone.iter().filter_map(|key| self.withdraw(key)).collect::<Vec<_>>() {
            self.close(entry.change.shard, &entry.ticket);
        }
    }

    /// Whether this assignment still stands.
    pub(crate) fn is_assigned(&self, shard: Shard, generation: Generation) -> bool {
        self.assigned.get(&shard).is_some_and(|(current, _)| *current == generation)
    }

    /// Who owns the shard, as far as this process knows.
    pub(crate) fn owner(&self, shard: Shard) -> Option<&Owner> {
        self.assigned.get(&shard).map(|(_, owner)| owner)
    }

    /// Takes a record in. One of an assignment that is over is forgotten. Says whether an older record of its key, or
    /// it itself, need not be written any more.
    pub(crate) fn gather(&mut self, gathered: Gathered, now: Instant) -> bool {
        let Gathered { generation, offset, bytes, change } = gathered;
        if !self.is_assigned(change.shard, generation) {
            return false;
        }
        let key = change.key.to_bytes();
        let records = vec![(change.version, offset)];
        self.open.insert((change.version, change.shard, generation, offset));
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let ticket = Ticket {
            key,
            generation,
            records,
            failures: 0,
            bytes,
            sequence,
            since: now,
            companions: usize::MAX,
            held_until: None,
        };
        self.merge(Entry { change, ticket })
    }

    /// What could be done now.
    pub(crate) fn due(&self, limits: Limits, now: Instant) -> Due {
        if self.takes_held(limits, now) {
            return Due::Rows(1);
        }
        let Some(oldest) = self.queued().next() else {
            return self.held.first_key_value().map_or(Due::Nothing, |((until, _), _)| Due::At(*until));
        };
        if !self.batch_is_due(limits, now) {
            let full_age = oldest.ticket.since + limits.age;
            return Due::At(self.held.first_key_value().map_or(full_age, |((until, _), _)| full_age.min(*until)));
        }
        Due::Rows(self.batch(limits.rows, limits.bytes).count())
    }

    /// Takes the next batch, at most so many rows: the oldest keys, or one that was held. Empty if nothing is due.
    pub(crate) fn take(&mut self, rows: usize, limits: Limits, now: Instant) -> Vec<Entry> {
        let keys: Vec<KeyBytes> = if rows == 0 {
            Vec::new()
        } else if self.takes_held(limits, now) {
            self.held_last = true;
            self.held.first_key_value().map(|(_, key)| key.clone()).into_iter().collect()
        } else if self.batch_is_due(limits, now) {
            self.held_last = false;
            self.batch(rows.min(limits.rows), limits.bytes).map(|entry| entry.ticket.key.clone()).collect()
        } else {
            Vec::new()
        };
        let taken: Vec<Entry> = keys.iter().filter_map(|key| self.withdraw(key)).collect();
        self.taken_bytes += taken.iter().map(|entry| entry.ticket.bytes).sum::<usize>();
        taken
    }

    /// Puts entries back that were taken and not written. Those of assignments that are over are dropped.
    pub(crate) fn put_back(&mut self, entries: Vec<Entry>, verdict: Verdict) {
        let half = (entries.len() / 2).max(1);
        for mut entry in entries {
            self.taken_bytes -= entry.ticket.bytes;
            if !self.is_assigned(entry.change.shard, entry.ticket.generation) {
                self.close(entry.change.shard, &entry.ticket);
                continue;
            }
            match verdict {
                Verdict::Innocent => {}
                Verdict::Suspect => entry.ticket.companions = half,
                Verdict::HeldUntil(until) => {
                    entry.ticket.failures += 1;
                    entry.ticket.held_until = Some(until);
                }
            }
            self.merge(entry);
        }
    }

    /// A taken entry is done: its records are no longer counted.
    pub(crate) fn release(&mut self, shard: Shard, ticket: &Ticket) {
        self.taken_bytes -= ticket.bytes;
        self.close(shard, ticket);
    }

    /// Records that were gathered and are not done.
    pub(crate) fn records(&self) -> usize {
        self.open.len()
    }

    /// What they hold in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting_bytes + self.taken_bytes
    }

    /// The oldest version that is not done.
    pub(crate) fn oldest(&self) -> Option<Version> {
        self.open.first().map(|(version, ..)| *version)
    }

    /// The oldest version of a shard that is not done.
    pub(crate) fn oldest_of(&self, shard: Shard) -> Option<Version> {
        self.open.iter().find(|(_, of, ..)| *of == shard).map(|(version, ..)| *version)
    }

    fn queued(&self) -> impl Iterator<Item = &Entry> {
        self.queue.values().filter_map(|key| self.waiting.get(key))
    }

    fn takes_held(&self, limits: Limits, now: Instant) -> bool {
        let due = self.held.first_key_value().is_some_and(|((until, _), _)| *until <= now);
        due && !(self.held_last && self.batch_is_due(limits, now))
    }

    fn batch_is_due(&self, limits: Limits, now: Instant) -> bool {
        let full = self.queue.len() >= limits.rows || self.queued_bytes >= limits.bytes;
        self.queued().next().is_some_and(|oldest| full || oldest.ticket.since + limits.age <= now)
    }

    /// The oldest entries that fit together: one at least.
    fn batch(&self, rows: usize, bytes: usize) -> impl Iterator<Item = &Entry> {
        let (mut taken, mut held, mut most) = (0_usize, 0_usize, rows.max(1));
        self.queued().take_while(move |entry| {
            most = most.min(entry.ticket.companions);
            held += entry.ticket.bytes;
            let fits = taken < most && (taken == 0 || held <= bytes);
            taken += 1;
            fits
        })
    }

    /// Lets an entry wait, as one with whatever waits of its key.
    fn merge(&mut self, entry: Entry) -> bool {
        let Some(other) = self.withdraw(&entry.ticket.key) else {
            self.wait(entry);
            return false;
        };
        let (mut newest, older) = if entry.supersedes(&other) { (entry, other) } else { (other, entry) };
        newest.ticket.records.extend(older.ticket.records);
        newest.ticket.sequence = newest.ticket.sequence.min(older.ticket.sequence);
        newest.ticket.since = newest.ticket.since.min(older.ticket.since);
        self.wait(newest);
        true
    }

    fn wait(&mut self, entry: Entry) {
        let Ticket { key, sequence, held_until, bytes, .. } = &entry.ticket;
        match held_until {
            Some(until) => {
                self.held.insert((*until, *sequence), key.clone());
            }
            None => {
                self.queue.insert(*sequence, key.clone());
                self.queued_bytes += bytes;
            }
        }
        self.waiting_bytes += bytes;
        self.waiting.insert(key.clone(), entry);
    }

    fn withdraw(&mut self, key: &KeyBytes) -> Option<Entry> {
        let entry = self.waiting.remove(key)?;
        let Ticket { sequence, held_until, bytes, .. } = &entry.ticket;
        match held_until {
            Some(until) => {
                self.held.remove(&(*until, *sequence));
            }
            None => {
                self.queue.remove(sequence);
                self.queued_bytes -= bytes;
            }
        }
        self.waiting_bytes -= bytes;
        Some(entry)
    }

    fn close(&mut self, shard: Shard, ticket: &Ticket) {
        for (version, offset) in &ticket.records {
            self.open.remove(&(*version, shard, ticket.generation, *offset));
        }
    }
}

#[cfg(test)]
mod tests;
