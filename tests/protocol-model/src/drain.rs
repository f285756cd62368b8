//! The drain: a partition passes between two of them. It takes records, writes the newest of each key in one
//! transaction of two steps, tells the hot store, and only then commits the offset. What the database refuses is set
//! aside, goes to the dead letters, and is parked.

use crate::{
    database::{Locker, Outcome, Verdict},
    protocol::Protocol,
    rules::Rule,
    state::{Broken, State},
    store::Clean,
    words::{Content, Mutation, Offset, Seat, Table},
};

/// How far a batch has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Gathered,
    /// The transaction holds the lock and has found what is there.
    Begun(Vec<Verdict>),
    /// It has committed; the hot store is to be told.
    Committed(Vec<Clean>),
    /// The hot store has accepted the marks; the offset can be committed.
    Marked,
}

/// What was gathered, with its offsets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Changes {
    /// The newest of each key.
    pub(crate) newest: Vec<(Offset, Mutation)>,
    /// The others, newest first.
    pub(crate) older: Vec<(Offset, Mutation)>,
}

/// What one transaction writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    /// The offset after its last record.
    pub(crate) to: Offset,
    pub(crate) changes: Changes,
    pub(crate) step: Step,
}

/// A record that the database refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Aside {
    pub(crate) at: Offset,
    pub(crate) is: Mutation,
    /// The dead letters have it.
    pub(crate) is_lettered: bool,
}

/// A drain's side of one assignment of the partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Consumer {
    /// Whether it has written its name into the shard row.
    pub(crate) owns: bool,
    /// From where it began to read.
    pub(crate) start: Offset,
    /// What it takes next.
    pub(crate) next: Offset,
    pub(crate) batch: Option<Batch>,
    pub(crate) aside: Vec<Aside>,
}

impl Consumer {
    fn assigned(at: Offset) -> Self {
        Self { owns: false, start: at, next: at, batch: None, aside: Vec::new() }
    }

    /// The one with which every scenario begins.
    pub(crate) fn first() -> Self {
        Self { owns: true, ..Self::assigned(0) }
    }

    /// The lowest offset that is not done.
    fn watermark(&self, rules: &Protocol) -> Offset {
        let aside = self.aside.iter().map(|aside| aside.at).min();
        if rules.on(Rule::ContiguousWatermark) { aside.unwrap_or(self.next) } else { self.next }
    }
}

impl Protocol {
    /// The group gives the partition to a drain, from the committed offset. The other may not have noticed.
    pub(crate) fn assign(&self, s: &mut State, table: Table, to: Seat) {
        s.assigned[table] = to;
        let committed = s.log[table].committed;
        let mut consumer = Consumer::assigned(committed);
        if self.on(Rule::EpochKeptWithOffset) {
            // It makes no difference then, and states that differ in nothing else are one.
            consumer.start = 0;
        }
        s.drains[table][to] = Some(consumer);
        // What it had under way in an earlier life is gone with its connection.
        if s.database.shard[table].locked == Some(Locker::Drain(to)) {
            s.database.shard[table].locked = None;
        }
    }

    /// The assigned drain writes its name into the shard row.
    pub(crate) fn own(&self, s: &mut State, table: Table, seat: Seat) {
        s.database.shard[table].owner = seat;
        if let Some(consumer) = &mut s.drains[table][seat] {
            consumer.owns = true;
        }
    }

    /// Takes the next records and keeps the newest of each key.
    pub(crate) fn gather(&self, s: &mut State, table: Table, seat: Seat, records: Offset) {
        let Some(mut consumer) = s.drains[table][seat].take() else { return };
        let (from, to) = (consumer.next, consumer.next + records);
        let changes = self.changes(s, table, consumer.start, from, to);
        consumer.batch = Some(Batch { to, changes, step: Step::Gathered });
        s.drains[table][seat] = Some(consumer);
        if !self.on(Rule::CommitAfterDatabase) {
            self.commit_offset_at(s, table, seat, to);
        }
    }

    /// The changes in a stretch of the log, without what is void.
    pub(crate) fn changes(&self, s: &State, table: Table, start: Offset, from: Offset, to: Offset) -> Changes {
        let Changes { mut newest, mut older } = Changes::default();
        for at in from..to {
            let Some(is) = s.log[table].events[at as usize].mutation else { continue };
            if self.on(Rule::DrainSkipsVoid) && self.is_void(s, table, start, at) {
                continue;
            }
            match newest.iter_mut().find(|(_, other)| other.key == is.key) {
                Some(other) if other.1.version < is.version || !self.on(Rule::NewestByVersion) => {
                    older.push(std::mem::replace(other, (at, is)));
                }
                Some(_) => older.push((at, is)),
                None => newest.push((at, is)),
            }
        }
        // Within a batch deletes go first.
        newest.sort_by_key(|(_, is)| (!is.content.deleted, is.key));
        older.sort_by_key(|(_, is)| std::cmp::Reverse(is.version));
        Changes { newest, older }
    }

    /// The transaction begins: the lock, the owner, what is there.
    pub(crate) fn begin_transaction(&self, s: &mut State, table: Table, seat: Seat) {
        let row = s.database.shard[table];
        if row.owner != seat && self.on(Rule::OwnerChecked) {
            s.drains[table][seat] = None;
            return;
        }
        let keys = s.database.keys;
        let Some(batch) = s.drains[table][seat].as_mut().and_then(|consumer| consumer.batch.as_mut()) else { return };
        let judge = |(_, is): &(Offset, Mutation)| self.judge(keys[is.key], is, row.purge_horizon);
        batch.step = Step::Begun(batch.changes.newest.iter().map(judge).collect());
        if self.on(Rule::LockShardRow) {
            s.database.shard[table].locked = Some(Locker::Drain(seat));
        }
    }

    /// The transaction writes and commits.
    pub(crate) fn commit_transaction(&self, s: &mut State, table: Table, seat: Seat) {
        let Some(mut consumer) = s.drains[table][seat].take() else { return };
        let Some(mut batch) = consumer.batch.take() else { return };
        let Step::Begun(verdicts) = batch.step else { return };
        // Without the lock that must show in what becomes of the data.
        if s.database.shard[table].owner != seat && self.on(Rule::LockShardRow) {
            s.breaks(Broken::FormerOwnerCommitted);
        }
        if s.database.shard[table].locked == Some(Locker::Drain(seat)) {
            s.database.shard[table].locked = None;
        }
        let before = s.database;
        match self.apply(s, table, &batch.changes, &verdicts) {
            None => {
                // Rolled back, and to be done again.
                s.database = before;
                batch.step = Step::Gathered;
            }
            Some((cleans, refused)) => {
                if self.on(Rule::RefusedIsKept) {
                    consumer.aside.extend(refused.into_iter().map(|(at, is)| Aside { at, is, is_lettered: false }));
                }
                batch.step = if cleans.is_empty() { Step::Marked } else { Step::Committed(cleans) };
            }
        }
        let to = batch.to;
        let is_done = batch.step != Step::Gathered;
        consumer.batch = Some(batch);
        s.drains[table][seat] = Some(consumer);
        if is_done && !self.on(Rule::CommitAfterClean) {
            self.commit_offset_at(s, table, seat, to);
        }
    }

    /// Writes changes as judged: what the hot store is to be told, and what was refused. `None` if all is to be done
    /// again.
    #[allow(clippy::type_complexity, reason = "two lists, named above")]
    pub(crate) fn apply(
        &self,
        s: &mut State,
        table: Table,
        changes: &Changes,
        verdicts: &[Verdict],
    ) -> Option<(Vec<Clean>, Vec<(Offset, Mutation)>)> {
        let (mut cleans, mut refused) = (Vec::new(), Vec::new());
        for ((at, is), verdict) in changes.newest.iter().zip(verdicts) {
            if self.on(Rule::HighWaterRaised) {
                let high_water = &mut s.database.shard[table].high_water;
                *high_water = (*high_water).max(is.version);
            }
            match self.carry_out(s, is, *verdict) {
                Outcome::Conflict => return None,
                Outcome::Refused => {
                    refused.push((*at, *is));
                    self.apply_older(s, table, is, &changes.older, &mut cleans, &mut refused);
                }
                Outcome::Done => cleans.push(self.clean_after(s, table, is, *verdict)),
            }
        }
        Some((cleans, refused))
    }

    /// The newest version of a key was refused: the next older one that was gathered takes its place.
    fn apply_older(
        &self,
        s: &mut State,
        table: Table,
        newest: &Mutation,
        older: &[(Offset, Mutation)],
        cleans: &mut Vec<Clean>,
        refused: &mut Vec<(Offset, Mutation)>,
    ) {
        if !self.on(Rule::NextOlderApplied) {
            return;
        }
        for (at, is) in older.iter().filter(|(_, is)| is.key == newest.key) {
            let verdict = self.judge(s.database.keys[is.key], is, s.database.shard[table].purge_horizon);
            match self.carry_out(s, is, verdict) {
                Outcome::Refused => refused.push((*at, *is)),
                Outcome::Conflict => {}
                Outcome::Done => return cleans.push(self.clean_after(s, table, is, verdict)),
            }
        }
    }

    /// What the hot store is told of a change that is done.
    fn clean_after(&self, s: &State, table: Table, is: &Mutation, verdict: Verdict) -> Clean {
        let key = is.key;
        if verdict == Verdict::Purged && self.on(Rule::PurgedIsGone) {
            let version = s.database.shard[table].purge_horizon;
            return Clean { key, version, newer: Some(Content { value: 0, deleted: true }) };
        }
        match s.database.keys[key].current() {
            Some((version, content)) if version > is.version => Clean { key, version, newer: Some(content) },
            _ => Clean { key, version: is.version, newer: None },
        }
    }

    /// The hot store takes the marks.
    pub(crate) fn mark_clean(&self, s: &mut State, table: Table, seat: Seat) {
        let Some(batch) = s.drains[table][seat].as_mut().and_then(|consumer| consumer.batch.as_mut()) else { return };
        if let Step::Committed(cleans) = std::mem::replace(&mut batch.step, Step::Marked) {
            for clean in cleans {
                s.store.mark_clean(self, clean);
            }
        }
    }

    /// The batch is done, and the watermark is committed; nothing for a lost assignment.
    pub(crate) fn commit_offset(&self, s: &mut State, table: Table, seat: Seat) {
        let Some(consumer) = &mut s.drains[table][seat] else { return };
        if let Some(batch) = consumer.batch.take() {
            consumer.next = consumer.next.max(batch.to);
        }
        let watermark = consumer.watermark(self);
        if s.assigned[table] == seat {
            self.commit_offset_at(s, table, seat, watermark);
        } else {
            s.drains[table][seat] = None;
        }
    }

    fn commit_offset_at(&self, s: &mut State, table: Table, seat: Seat, at: Offset) {
        if s.assigned[table] == seat {
            s.log[table].committed = s.log[table].committed.max(at);
        }
    }

    /// A record that was set aside goes to the dead letters.
    pub(crate) fn dead_letter(&self, s: &mut State, table: Table, seat: Seat) {
        if let Some(aside) = first_aside(s, table, seat) {
            aside.is_lettered = true;
            let is = aside.is;
            if !s.dead_letters.contains(&is) {
                s.dead_letters.push(is);
                s.dead_letters.sort_unstable();
            }
        }
    }

    /// The hot store parks it; then it is done.
    pub(crate) fn park(&self, s: &mut State, table: Table, seat: Seat) {
        if let Some(aside) = first_aside(s, table, seat).copied() {
            s.store.park(self, aside.is.key, aside.is.version);
            if let Some(consumer) = &mut s.drains[table][seat] {
                consumer.aside.remove(0);
            }
            self.commit_offset(s, table, seat);
        }
    }

    /// It is tried again first.
    pub(crate) fn retry_aside(&self, s: &mut State, table: Table, seat: Seat) {
        if let Some(consumer) = &mut s.drains[table][seat] {
            let aside = consumer.aside.remove(0);
            let changes = Changes { newest: vec![(aside.at, aside.is)], older: Vec::new() };
            consumer.batch = Some(Batch { to: consumer.next, changes, step: Step::Gathered });
        }
    }
}

fn first_aside(s: &mut State, table: Table, seat: Seat) -> Option<&mut Aside> {
    s.drains[table][seat].as_mut()?.aside.first_mut()
}
