//! The promises, checked in every state: as it is, and after everything has healed from it.

use crate::{
    drain::Consumer,
    log::{Event, highest_version},
    protocol::Protocol,
    rules::Rule,
    state::{Broken, State},
    store::{Slot, Stage},
    words::{Epoch, Key, Mutation, Op, REQUESTS, Seen, TABLES, Table, Version},
    write::Progress,
};

impl Protocol {
    /// The newest write of a key that was acknowledged.
    pub(crate) fn newest_acked(&self, s: &State, key: Key) -> Seen {
        let acked = s.clients.iter().zip(&self.scenario.operations).filter_map(|(progress, asked)| match progress {
            Progress::Acked { version } if asked.key == key => Some(Seen::of(*version, asked.content())),
            _ => None,
        });
        acked.max_by_key(|seen| seen.version).unwrap_or(Seen { version: 0, value: None })
    }

    /// What an instantaneous read would answer.
    fn read_at_once(&self, s: &State, key: Key) -> Seen {
        match s.store.slots[key] {
            Slot::Image(image) => Seen::of(image.is.version, image.is.content),
            Slot::Absent(seen) => seen,
            Slot::Empty | Slot::Leased(_) => s.database.see(key),
        }
    }

    /// Whether the database has this version, or a newer one.
    pub(crate) fn is_applied(&self, s: &State, key: Key, version: Version) -> bool {
        s.database.newest[key].0 >= version
    }

    pub(crate) fn check_read(&self, s: &mut State, acked: Seen, seen: Seen) {
        if seen.version < acked.version {
            s.breaks(Broken::StaleRead);
        }
    }

    /// A new version must be above what was acked of its key.
    pub(crate) fn check_version(&self, s: &mut State, key: Key, version: Version) {
        if version <= self.newest_acked(s, key).version {
            s.breaks(Broken::VersionTooLow);
        }
    }

    /// A request that was acked must never be written again.
    pub(crate) fn check_not_done_before(&self, s: &mut State, op: Op) {
        let asked = self.scenario.operations[op];
        let is_done = s.clients.iter().zip(&self.scenario.operations).any(|(progress, other)| {
            matches!(progress, Progress::Acked { .. }) && other.request == asked.request && other.value == asked.value
        });
        if asked.request.is_some() && is_done {
            s.breaks(Broken::RequestTwice);
        }
    }

    /// What is acked must be what was asked for.
    pub(crate) fn check_ack(&self, s: &mut State, op: Op, version: Version) {
        let asked = self.scenario.operations[op];
        let events = s.log.iter().flat_map(|partition| &partition.events).filter_map(|event| event.mutation);
        let mut same = events.filter(|is| is.key == asked.key && is.version == version).peekable();
        if same.peek().is_some() && same.all(|is| is.content != asked.content()) {
            s.breaks(Broken::AckOfAnother);
        }
    }

    /// What goes into the database must be newer than all that ever was there, and no row may be replaced by a create
    /// that had not seen it.
    pub(crate) fn check_applied(&self, s: &mut State, is: &Mutation) {
        let (version, content) = s.database.newest[is.key];
        if is.version < version || (is.version == version && content.is_some_and(|content| content != is.content)) {
            s.breaks(Broken::DatabaseWentBack);
        }
        if let (Some(created), Some((row, _))) = (is.created, s.database.keys[is.key].row)
            && row < created
        {
            s.breaks(Broken::CreatedOverRow);
        }
        if is.version >= version {
            s.database.newest[is.key] = (is.version, Some(is.content));
        }
    }

    /// Checks a state, and what heals from it.
    pub(crate) fn find_broken(&self, s: &State) -> Option<Broken> {
        if s.broken.is_some() {
            return s.broken;
        }
        let mut healed = s.clone();
        if s.is_open() {
            self.check_fresh(&mut healed);
        }
        self.check_horizon(&mut healed);
        if healed.broken.is_none() {
            self.heal(&mut healed);
        }
        healed.broken
    }

    fn check_fresh(&self, s: &mut State) {
        for key in 0..self.scenario.keys {
            if !self.read_at_once(s, key).is_fresh(self.newest_acked(s, key)) {
                s.breaks(Broken::StaleRead);
            }
        }
    }

    /// Every acked write up to the horizon is in its table, or superseded there.
    fn check_horizon(&self, s: &mut State) {
        for (progress, asked) in s.clients.iter().zip(&self.scenario.operations) {
            if let Progress::Acked { version } = *progress
                && version <= s.database.shard[self.scenario.table_of[asked.key]].horizon
                && !self.is_applied(s, asked.key, version)
            {
                return s.breaks(Broken::HorizonNotTrue);
            }
        }
    }

    /// Everything works again and comes to rest. What was under way in processes is gone; what was under way to the
    /// log lands late; then the whole log is replayed.
    fn heal(&self, s: &mut State) {
        for row in &mut s.database.shard {
            row.locked = None;
        }
        if !s.is_open() {
            self.open_at_once(s);
        }
        self.check_fresh(s);
        if self.on(Rule::RelayUnqueued) {
            self.relay_at_once(s, |stage| stage == Stage::Unqueued);
        }
        self.drain_at_once(s);
        self.check_at_rest(s);
        if !s.store_lost {
            self.check_all_clean(s);
        }
        if self.on(Rule::RelayDrainedPast) {
            self.relay_at_once(s, |stage| stage != Stage::Parked && stage != Stage::Clean);
            self.drain_at_once(s);
        }
        self.check_all_clean(s);
        for produce in std::mem::take(&mut s.under_way) {
            s.log[produce.table].events.push(produce.event);
        }
        self.drain_at_once(s);
        self.check_at_rest(s);
        self.check_requests(s);
        self.check_replay(s);
    }

    fn open_at_once(&self, s: &mut State) {
        let resumes = s.store.opening.filter(|opening| opening.incarnation == s.incarnation);
        if resumes.is_none() {
            s.store.opening = None;
        }
        let start = self.choose_start(s);
        let epoch = self.draw_epoch(s);
        let has_begun = resumes.and_then(|it| it.start).is_some_and(|start| start.discard);
        self.begin_in_store(&mut s.store, start, has_begun);
        let mut clock = s.store.clock;
        for table in 0..self.scenario.tables {
            let row = s.database.shard[table];
            if self.on(Rule::ClockAboveHighWater) {
                clock = clock.max(row.high_water);
            }
            for at in start.requests[table]..s.end(table) {
                let event = s.log[table].events[at as usize];
                if self.on(Rule::ClockAboveSeen) {
                    clock = clock.max(highest_version(&[event]));
                }
                if self.on(Rule::OpenerSkipsVoid) && self.is_void(s, table, start.requests[table], at) {
                    continue;
                }
                s.store.put_back_requests(self, &event);
                if at < start.records[table] {
                    continue;
                }
                if let Some(is) = event.mutation {
                    let compare = is.version <= row.high_water && self.on(Rule::CompareWithRow);
                    let compared = compare.then_some((s.database.keys[is.key], row.purge_horizon));
                    self.put_back_in_store(&mut s.store, is, compared, Stage::Queued);
                }
                if let Some(note) = event.note() {
                    s.store.put_back_note(note);
                }
            }
        }
        self.put_back_dead_letters(s, start);
        self.fence_at_once(s, epoch);
        s.store.clock = clock;
        s.store.epoch = epoch;
        s.store.open_for = s.incarnation;
        s.store.opening = None;
    }

    fn fence_at_once(&self, s: &mut State, epoch: Epoch) {
        if self.on(Rule::Fence) {
            let fenced = if self.on(Rule::FenceEveryPartition) { self.scenario.tables } else { 1 };
            for partition in &mut s.log[..fenced] {
                partition.events.push(Event::fence(epoch));
            }
        }
    }

    fn relay_at_once(&self, s: &mut State, which: fn(Stage) -> bool) {
        for key in 0..self.scenario.keys {
            if let Some(image) = s.store.image(key).filter(|image| which(image.stage)) {
                let event = Event::of(s.store.epoch, image.is);
                s.log[self.scenario.table_of[key]].events.push(event);
                s.store.mark_queued(self, key, image.is.version);
            }
        }
    }

    /// A drain of its own takes what is not committed, record by record, and what is refused goes to the dead letters.
    fn drain_at_once(&self, s: &mut State) {
        for table in 0..self.scenario.tables {
            let start = s.log[table].committed;
            for at in start..s.end(table) {
                self.drain_one(s, table, start, at, true);
            }
            s.log[table].committed = s.end(table);
        }
    }

    fn drain_one(&self, s: &mut State, table: Table, start: u8, at: u8, tells_the_store: bool) {
        let changes = self.changes(s, table, start, at, at + 1);
        let Some((_, is)) = changes.newest.first().copied() else { return };
        let horizon = s.database.shard[table].purge_horizon;
        let verdict = self.judge(s.database.keys[is.key], &is, horizon);
        let Some((cleans, refused)) = self.apply(s, table, &changes, &[verdict]) else { return };
        if !tells_the_store {
            return;
        }
        for clean in cleans {
            s.store.mark_clean(self, clean);
        }
        for (_, is) in refused {
            if self.on(Rule::RefusedIsKept) {
                s.dead_letters.push(is);
                s.store.park(self, is.key, is.version);
            }
        }
    }

    /// Promise 1: an acked write is in the database, or the dead letters have it; promise 2.
    fn check_at_rest(&self, s: &mut State) {
        for key in 0..self.scenario.keys {
            let acked = self.newest_acked(s, key);
            let is_lettered = s.dead_letters.iter().any(|is| is.key == key && is.version >= acked.version);
            if !s.database.see(key).is_fresh(acked) && !is_lettered {
                s.breaks(Broken::AckedWriteLost);
            }
        }
        self.check_fresh(s);
    }

    fn check_all_clean(&self, s: &mut State) {
        for key in 0..self.scenario.keys {
            if s.store.image(key).is_some_and(|image| image.is_dirty() && image.stage != Stage::Parked) {
                s.breaks(Broken::StaysDirty);
            }
        }
    }

    /// Of the events that count, those of one request have one version.
    fn check_requests(&self, s: &mut State) {
        if !self.scenario.has_requests() {
            return;
        }
        let mut versions: [Option<Version>; REQUESTS] = [None; REQUESTS];
        for table in 0..self.scenario.tables {
            for at in 0..s.end(table) {
                let event = s.log[table].events[at as usize];
                if event.epoch != s.log[table].in_force(at) {
                    continue;
                }
                for request in event.requests() {
                    match versions[request.id] {
                        Some(version) if version != request.version => return s.breaks(Broken::RequestTwice),
                        _ => versions[request.id] = Some(request.version),
                    }
                }
            }
        }
    }

    /// Promise 3: the whole log, read again from its beginning, changes nothing.
    fn check_replay(&self, s: &mut State) {
        for is_first in [true, false] {
            let before = s.database.keys;
            for table in 0..self.scenario.tables {
                for at in 0..s.end(table) {
                    self.drain_one(s, table, 0, at, false);
                }
            }
            for (key, (before, after)) in before.iter().zip(s.database.keys).enumerate() {
                let version = after.version();
                let is_lettered = s.dead_letters.iter().any(|is| is.key == key && Some(is.version) == version);
                // What was refused may be accepted by now: that is a replay of a dead letter.
                if *before != after && !(is_first && is_lettered) {
                    s.broken.get_or_insert(Broken::ReplayChanged);
                }
            }
        }
    }
}

/// The consumers that a partition has.
pub(crate) fn consumers(s: &State) -> impl Iterator<Item = (Table, usize, &Consumer)> {
    (0..TABLES).flat_map(move |table| {
        s.drains[table].iter().enumerate().filter_map(move |(seat, consumer)| Some((table, seat, consumer.as_ref()?)))
    })
}
