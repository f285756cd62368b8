//! The newest version of each key, and what is to be done next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use database::Owner;
use model::{KeyBytes, Shard, Version};
use tokio::time::Instant;

use super::{Entry, Gathered, Ticket, entry::Dependent};

/// More rows than any batch has.
const MAX_SUSPECTS: usize = 8192;

/// One assignment of a partition to this process; another assignment has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(pub(crate) u64);

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
    /// One of them can't be written: half of them come again, then the others as that tells.
    Suspect,
    /// This one alone can't be written now.
    HeldUntil(Instant),
    /// Nor this one, for what another row is: an older version of it may be written before it.
    DependentUntil(Instant),
    /// Nor this older version that was to go before the newest one of its key.
    NoStep,
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
    /// Records that can't be read and are on their way to the dead letters, with what they hold in memory.
    unreadable: BTreeMap<(Shard, Generation, i64), usize>,
    unreadable_bytes: usize,
    waiting_bytes: usize,
    /// What the changes in the queue count for in a batch.
    queued_bytes: usize,
    taken_bytes: usize,
    next_sequence: u64,
    next_suspicion: u64,
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
        let unreadable = std::mem::take(&mut self.unreadable);
        self.unreadable = unreadable.into_iter().filter(|((of, ..), _)| *of != shard).collect();
        self.unreadable_bytes = self.unreadable.values().sum();
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
        let (generation, offset) = (gathered.generation, gathered.offset);
        let (shard, version) = (gathered.change.shard, gathered.change.version);
        if !self.is_assigned(shard, generation) {
            return false;
        }
        self.open.insert((version, shard, generation, offset));
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.merge(Entry::new(gathered, sequence, now))
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
        if let Some(suspicion) = taken.first().and_then(|entry| entry.ticket.suspicion) {
            // Should these land it is one of the others, which needn't be tried together once more.
            let others = self.suspects(suspicion);
            self.set_companions(&others, (others.len() / 2).max(1), Some(suspicion));
        }
        self.taken_bytes += taken.iter().map(|entry| entry.ticket.memory).sum::<usize>();
        taken
    }

    /// Puts entries back that were taken and not written. Those of assignments that are over are dropped.
    pub(crate) fn put_back(&mut self, entries: Vec<Entry>, verdict: Verdict, now: Instant) {
        let half = (entries.len() / 2).max(1);
        let suspicion = self.next_suspicion;
        self.next_suspicion += 1;
        if verdict != Verdict::Innocent
            && let Some(first) = entries.first()
        {
            self.found_among(&first.ticket);
        }
        for mut entry in entries {
            self.taken_bytes -= entry.ticket.memory;
            if !self.is_assigned(entry.change.shard, entry.ticket.generation) {
                self.close(entry.change.shard, &entry.ticket);
                continue;
            }
            match verdict {
                Verdict::Innocent => {}
                Verdict::Suspect => {
                    entry.ticket.attempts += 1;
                    entry.ticket.companions = half;
                    entry.ticket.suspicion = Some(suspicion);
                }
                Verdict::HeldUntil(until) | Verdict::DependentUntil(until) => {
                    entry.ticket.attempts += 1;
                    entry.ticket.failures += 1;
                    entry.ticket.first_refused.get_or_insert(now);
                    entry.ticket.held_until = Some(until);
                    entry.ticket.suspicion = None;
                    // What is refused for something else says nothing of the other row: that is waited for anew.
                    let is_dependent = matches!(verdict, Verdict::DependentUntil(_));
                    for dependent in [&mut entry.ticket.dependent, &mut entry.ticket.dependent_in_all] {
                        let earlier = *dependent;
                        *dependent = is_dependent.then(|| Dependent::refused(earlier, now, until));
                    }
                    if is_dependent {
                        entry = entry.step(until, now);
                    }
                }
                Verdict::NoStep => entry = entry.step_on(now),
            }
            self.merge(entry);
        }
    }

    /// A version of a taken entry has landed that a newer one of its key is to follow ([`Entry::goes_on`]), not before
    /// `until`.
    pub(crate) fn landed(&mut self, entry: Entry, until: Instant) {
        self.taken_bytes -= entry.ticket.memory;
        if self.is_assigned(entry.change.shard, entry.ticket.generation) {
            self.merge(entry.go_on(until));
        } else {
            self.close(entry.change.shard, &entry.ticket);
        }
    }

    /// What can't be written is this entry, or is in the batch that it was taken with: those that were suspected with it
    /// and have not been tried since are as good as any other.
    pub(crate) fn found_among(&mut self, ticket: &Ticket) {
        if let Some(suspicion) = ticket.suspicion {
            let acquitted = self.suspects(suspicion);
            self.set_companions(&acquitted, usize::MAX, None);
        }
    }

    /// Who waits under a suspicion.
    fn suspects(&self, suspicion: u64) -> Vec<KeyBytes> {
        // They are the oldest, and not more than a batch can have.
        let oldest = self.queued().take(MAX_SUSPECTS);
        oldest.filter(|entry| entry.ticket.suspicion == Some(suspicion)).map(|e| e.ticket.key.clone()).collect()
    }

    fn set_companions(&mut self, keys: &[KeyBytes], companions: usize, suspicion: Option<u64>) {
        for key in keys {
            if let Some(entry) = self.waiting.get_mut(key) {
                (entry.ticket.companions, entry.ticket.suspicion) = (companions, suspicion);
            }
        }
    }

    /// Who waits for another row.
    fn dependents(&self) -> impl Iterator<Item = &Entry> {
        let held = self.held.values().filter_map(|key| self.waiting.get(key));
        held.filter(|entry| entry.ticket.dependent_in_all.is_some())
    }

    /// Whether a key has waited for another row for so long.
    pub(crate) fn has_overdue(&self, patience: Duration, now: Instant) -> bool {
        self.dependents().any(|entry| entry.is_overdue(patience, now))
    }

    /// Lets such keys be tried now whose lowest versions are reached; says whether there are any.
    pub(crate) fn hurry_overdue(
        &mut self,
        patience: Duration,
        is_reached: impl Fn(Shard, Version) -> bool,
        now: Instant,
    ) -> bool {
        let later = |entry: &&Entry| entry.ticket.held_until.is_some_and(|until| until > now);
        // What an older version that has just landed gave free, others may have to take first.
        let again = |entry: &&Entry| entry.ticket.dependent.is_some();
        let overdue = self.dependents().filter(later).filter(again).filter(|entry| entry.is_overdue(patience, now));
        let reached = overdue.filter(|entry| is_reached(entry.change.shard, entry.lowest()));
        let keys: Vec<KeyBytes> = reached.map(|entry| entry.ticket.key.clone()).collect();
        for mut entry in keys.iter().filter_map(|key| self.withdraw(key)).collect::<Vec<_>>() {
            entry.ticket.held_until = Some(now);
            self.wait(entry);
        }
        !keys.is_empty()
    }

    /// Whether keys that wait for other rows, with this one that was taken, take up half of so much room: a lane that was
    /// full of them stays so.
    pub(crate) fn is_clogged(&self, taken: &Entry, records: usize, bytes: usize) -> bool {
        let waiting = self.dependents().chain([taken]).map(|entry| (entry.ticket.records.len(), entry.ticket.memory));
        let (of_records, of_bytes) = waiting.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        of_records >= records / 2 || of_bytes >= bytes / 2
    }

    /// A taken entry is done: its records are no longer counted.
    pub(crate) fn release(&mut self, shard: Shard, ticket: &Ticket) {
        self.taken_bytes -= ticket.memory;
        self.close(shard, ticket);
    }

    /// A record that can't be read is on its way to the dead letters; it counts until it is there.
    pub(crate) fn give_up_unreadable(&mut self, shard: Shard, generation: Generation, offset: i64, bytes: usize) {
        if self.is_assigned(shard, generation) && self.unreadable.insert((shard, generation, offset), bytes).is_none() {
            self.unreadable_bytes += bytes;
        }
    }

    /// It is done.
    pub(crate) fn release_unreadable(&mut self, shard: Shard, generation: Generation, offset: i64) {
        if let Some(bytes) = self.unreadable.remove(&(shard, generation, offset)) {
            self.unreadable_bytes -= bytes;
        }
    }

    /// Records that were gathered and are not done.
    pub(crate) fn records(&self) -> usize {
        self.open.len() + self.unreadable.len()
    }

    /// What they hold in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting_bytes + self.taken_bytes + self.unreadable_bytes
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
            held += entry.ticket.origin.bytes;
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
        self.wait(entry.whole().merge(other.whole()));
        true
    }

    fn wait(&mut self, entry: Entry) {
        let Ticket { key, sequence, held_until, origin, .. } = &entry.ticket;
        match held_until {
            Some(until) => {
                self.held.insert((*until, *sequence), key.clone());
            }
            None => {
                self.queue.insert(*sequence, key.clone());
                self.queued_bytes += origin.bytes;
            }
        }
        self.waiting_bytes += entry.ticket.memory;
        self.waiting.insert(key.clone(), entry);
    }

    fn withdraw(&mut self, key: &KeyBytes) -> Option<Entry> {
        let entry = self.waiting.remove(key)?;
        let Ticket { sequence, held_until, origin, .. } = &entry.ticket;
        match held_until {
            Some(until) => {
                self.held.remove(&(*until, *sequence));
            }
            None => {
                self.queue.remove(sequence);
                self.queued_bytes -= origin.bytes;
            }
        }
        self.waiting_bytes -= entry.ticket.memory;
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
