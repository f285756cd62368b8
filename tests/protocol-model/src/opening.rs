//! Checkpoints, and the opening of a closed shard, step by step.

use crate::{
    database::Held,
    log::{Event, Producer, highest_version},
    protocol::Protocol,
    rules::Rule,
    state::State,
    store::{Offsets, Opening, Slot, Stage, Start, Store},
    words::{Epoch, Incarnation, KEYS, Key, Mutation, Offset, REQUESTS, Seat, TABLES, Table, Version},
};

/// How far an opener has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The shard is claimed.
    Claimed,
    /// Start and epoch are known.
    Chosen,
    /// Both are in the store; what can't be trusted is deleted.
    Begun,
    /// The fences are on their way.
    Fencing,
    /// Reading, and putting back.
    Reading,
}

/// A replica that opens the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Opener {
    pub(crate) token: u8,
    pub(crate) incarnation: Incarnation,
    pub(crate) step: Step,
    pub(crate) start: Start,
    pub(crate) epoch: Epoch,
    pub(crate) fences: [Option<Offset>; TABLES],
    /// The ends of the partitions when the start was chosen.
    pub(crate) ends: Offsets,
    /// Up to where each partition is read.
    pub(crate) read: Offsets,
    /// A record that is to be put back, and its row and purge horizon if it was compared.
    pub(crate) compared: Option<(Mutation, Option<(Held, Version)>)>,
    /// The note in the same event.
    pub(crate) noted: Option<(Key, Version)>,
    /// The highest version met.
    pub(crate) seen: Version,
    pub(crate) high_water: [Version; TABLES],
    pub(crate) purge_horizon: [Version; TABLES],
    pub(crate) horizon: Version,
}

impl Protocol {
    /// The first half of a checkpoint: the epoch and the log's ends.
    pub(crate) fn read_checkpoint(&self, s: &mut State) {
        let ends = std::array::from_fn(|table| s.end(table));
        s.checkpoint = Some((s.store.epoch, self.on(Rule::CheckpointReadsFirst).then_some(ends)));
        if !self.on(Rule::CheckpointReadsFirst) {
            // What is written now is told the ends later.
            s.store.checkpoint = Some([Offset::MAX; TABLES]);
        }
    }

    /// The second half: into the header, if it is still that epoch.
    pub(crate) fn write_checkpoint(&self, s: &mut State) {
        let Some((epoch, ends)) = s.checkpoint.take() else { return };
        let now = std::array::from_fn(|table| s.end(table));
        let Some(ends) = ends else {
            let late = |store: &mut Store| {
                if store.checkpoint == Some([Offset::MAX; TABLES]) {
                    store.checkpoint = Some(now);
                }
            };
            late(&mut s.store);
            s.on_disk.as_mut().map(late);
            return;
        };
        let may = if self.on(Rule::NoCheckpointWhileClosed) { s.is_open() } else { true };
        if may && s.store.epoch == epoch {
            s.store.checkpoint = Some(ends);
            if !self.on(Rule::EmptyStartsFromCommitted) {
                s.remembered_checkpoint = ends;
            }
        }
    }

    /// Claims the closed shard; whoever claimed it before has lost it.
    pub(crate) fn claim(&self, s: &mut State, seat: Seat) {
        s.tokens += 1;
        let (token, incarnation) = (s.tokens, s.incarnation);
        let start = s.store.opening.filter(|earlier| earlier.incarnation == incarnation).and_then(|it| it.start);
        s.store.opening = Some(Opening { by: seat, token, incarnation, start, epoch: 0 });
        let start = Start { requests: [0; TABLES], records: [0; TABLES], discard: false };
        s.openers[seat] = Some(Opener {
            token,
            incarnation,
            step: Step::Claimed,
            start,
            epoch: 0,
            fences: [None; TABLES],
            ends: [0; TABLES],
            read: [0; TABLES],
            compared: None,
            noted: None,
            seen: 0,
            high_water: [0; TABLES],
            purge_horizon: [0; TABLES],
            horizon: 0,
        });
    }

    /// An earlier opener's start wins, then the surviving checkpoint, then what the drain group has committed.
    pub(crate) fn choose_start(&self, s: &State) -> Start {
        if let Some(start) = s.store.opening.and_then(|opening| opening.start).filter(|_| self.on(Rule::StartStored)) {
            return start;
        }
        let committed: Offsets = std::array::from_fn(|table| s.log[table].committed);
        // The window is as long as the scenario.
        let window = if self.on(Rule::RequestsFromWindow) { [0; TABLES] } else { committed };
        match s.store.checkpoint {
            Some(checkpoint) => {
                let records = if self.on(Rule::StartFromCheckpoint) { checkpoint } else { committed };
                Start { requests: records, records, discard: false }
            }
            None if self.on(Rule::EmptyStartsFromCommitted) => {
                let requests = if self.scenario.has_requests() { window } else { committed };
                Start { requests, records: committed, discard: self.on(Rule::DiscardWithoutCheckpoint) }
            }
            None => {
                let records = s.remembered_checkpoint;
                Start { requests: records, records, discard: self.on(Rule::DiscardWithoutCheckpoint) }
            }
        }
    }

    /// Draws an epoch.
    pub(crate) fn draw_epoch(&self, s: &mut State) -> Epoch {
        if !self.on(Rule::EpochFromDatabase) {
            return s.store.epoch + 1;
        }
        s.database.epochs_drawn = s.database.epochs_drawn.max(s.store.epoch) + 1;
        s.database.epochs_drawn
    }

    /// Chooses the start and draws the next epoch.
    pub(crate) fn choose(&self, s: &mut State, seat: Seat) {
        let start = self.choose_start(s);
        let epoch = self.draw_epoch(s);
        // Kept only where it is used, so that states that differ in nothing else are one.
        let ends = if self.on(Rule::ReadUpToFence) { [0; TABLES] } else { std::array::from_fn(|table| s.end(table)) };
        if let Some(opener) = &mut s.openers[seat] {
            *opener = Opener { step: Step::Chosen, start, epoch, ends, read: start.requests, ..*opener };
        }
    }

    /// Whether the shard is still this opener's.
    fn has_token(&self, s: &State, opener: &Opener) -> bool {
        let same_life = opener.incarnation == s.incarnation || !self.on(Rule::TokenBoundToIncarnation);
        s.store.opening.is_some_and(|opening| opening.token == opener.token) && same_life
    }

    /// Stores start and epoch in the header, and deletes what can't be trusted.
    pub(crate) fn begin(&self, s: &mut State, seat: Seat) {
        let Some(mut opener) = s.openers[seat] else { return };
        let is_mine = self.has_token(s, &opener);
        if !is_mine && self.on(Rule::HeaderBeforeFence) {
            s.openers[seat] = None;
            return;
        }
        opener.step = Step::Begun;
        s.openers[seat] = Some(opener);
        if is_mine {
            let stored = s.store.opening.and_then(|it| it.start).filter(|_| self.on(Rule::StartStored));
            let resumes = stored.is_some_and(|start| start.discard);
            self.begin_in_store(&mut s.store, opener.start, resumes);
            if let Some(opening) = &mut s.store.opening {
                *opening = Opening { start: Some(opener.start), epoch: opener.epoch, ..*opening };
            }
        }
    }

    /// Who resumes an opening that discarded keeps what that one has put back.
    pub(crate) fn begin_in_store(&self, store: &mut Store, start: Start, resumes: bool) {
        let discards = start.discard && !resumes;
        for slot in &mut store.slots {
            if discards || (!matches!(slot, Slot::Image(_)) && self.on(Rule::DropLeases)) {
                *slot = Slot::Empty;
            }
        }
        if discards {
            store.requests = [None; REQUESTS];
        }
    }

    /// Sends the fences.
    pub(crate) fn send_fences(&self, s: &mut State, seat: Seat) {
        let Some(mut opener) = s.openers[seat] else { return };
        opener.step = Step::Fencing;
        for table in 0..self.scenario.tables {
            if self.on(Rule::Fence) && (table == 0 || self.on(Rule::FenceEveryPartition)) {
                self.produce(s, Producer::Opener(seat), table, Event::fence(opener.epoch));
            } else {
                opener.fences[table] = Some(s.end(table));
            }
        }
        s.openers[seat] = Some(opener);
    }

    pub(crate) fn fence_landed(&self, s: &mut State, seat: Seat, table: Table, epoch: Epoch, offset: Offset) {
        if let Some(opener) = &mut s.openers[seat]
            && opener.step == Step::Fencing
            && opener.epoch == epoch
        {
            opener.fences[table] = Some(offset);
        }
    }

    /// All fences are in the log: the shard rows are told of the epoch, and read, in one transaction that waits for their
    /// locks.
    pub(crate) fn read_shard_rows(&self, s: &mut State, seat: Seat) {
        let Some(mut opener) = s.openers[seat] else { return };
        opener.step = Step::Reading;
        for (table, row) in s.database.shard.iter_mut().enumerate() {
            opener.high_water[table] = row.high_water;
            if !self.on(Rule::PurgeHorizonWithRow) {
                opener.purge_horizon[table] = row.purge_horizon;
            }
            opener.horizon = opener.horizon.max(row.horizon);
            row.epoch = row.epoch.max(opener.epoch);
        }
        s.openers[seat] = Some(opener);
    }

    /// Up to where an opener reads a partition.
    fn read_until(&self, opener: &Opener, table: Table) -> Offset {
        let fence = opener.fences[table].unwrap_or(0);
        if self.on(Rule::ReadUpToFence) { fence } else { opener.ends[table].min(fence) }
    }

    /// The partition that an opener has still to read.
    pub(crate) fn unread(&self, opener: &Opener) -> Option<Table> {
        (0..self.scenario.tables).find(|&table| opener.read[table] < self.read_until(opener, table))
    }

    /// Reads the next record, and its row if the database may have it or something newer.
    pub(crate) fn read_record(&self, s: &mut State, seat: Seat) {
        let Some(mut opener) = s.openers[seat] else { return };
        let Some(table) = self.unread(&opener) else { return };
        let at = opener.read[table];
        opener.read[table] += 1;
        let event = s.log[table].events[at as usize];
        opener.seen = opener.seen.max(highest_version(&[event]));
        let is_void = self.is_void(s, table, opener.start.requests[table], at) && self.on(Rule::OpenerSkipsVoid);
        // Below the committed offset only requests are put back.
        let counts = !is_void && at >= opener.start.records[table];
        if !is_void && event.requests().next().is_some() {
            if self.on(Rule::StepsUnderToken) && !self.has_token(s, &opener) {
                s.openers[seat] = None;
                return;
            }
            s.store.put_back_requests(self, &event);
            if let Some(note) = event.note().filter(|_| counts && event.mutation.is_none()) {
                s.store.put_back_note(note);
            }
        }
        if let Some(is) = event.mutation.filter(|_| counts) {
            let compare = is.version <= opener.high_water[table] && self.on(Rule::CompareWithRow);
            let horizon = if self.on(Rule::PurgeHorizonWithRow) {
                s.database.shard[table].purge_horizon
            } else {
                opener.purge_horizon[table]
            };
            opener.compared = Some((is, compare.then_some((s.database.keys[is.key], horizon))));
            opener.noted = event.note();
        }
        s.openers[seat] = Some(opener);
    }

    /// Puts the record back that was read last.
    pub(crate) fn put_back(&self, s: &mut State, seat: Seat) {
        let Some(mut opener) = s.openers[seat] else { return };
        let Some((is, compared)) = opener.compared.take() else { return };
        let noted = opener.noted.take();
        if self.on(Rule::StepsUnderToken) && !self.has_token(s, &opener) {
            s.openers[seat] = None;
            return;
        }
        self.put_back_in_store(&mut s.store, is, compared, Stage::Queued);
        if let Some(note) = noted {
            s.store.put_back_note(note);
        }
        s.openers[seat] = Some(opener);
    }

    /// What the store is told of a record of the log.
    pub(crate) fn put_back_in_store(
        &self,
        store: &mut Store,
        is: Mutation,
        compared: Option<(Held, Version)>,
        stage: Stage,
    ) {
        match compared.map(|(held, horizon)| (held.current(), horizon)) {
            Some((Some((version, content)), _)) if version >= is.version => {
                store.put_back_clean(self, is.key, version, content);
            }
            Some((None, horizon)) if is.version <= horizon => {
                store.put_back_gone(is.key, horizon);
            }
            _ => store.put_back_dirty(self, is, stage),
        }
    }

    /// Seeds the clock and opens.
    pub(crate) fn finish(&self, s: &mut State, seat: Seat) {
        let Some(opener) = s.openers[seat].take() else { return };
        if self.on(Rule::StepsUnderToken) && !self.has_token(s, &opener) {
            return;
        }
        self.put_back_dead_letters(s, opener.start);
        if self.on(Rule::ClockAboveSeen) {
            s.store.clock = s.store.clock.max(opener.seen);
        }
        if self.on(Rule::ClockAboveHighWater) {
            s.store.clock = opener.high_water.into_iter().fold(s.store.clock, Version::max);
        }
        if self.on(Rule::ClockAboveHorizon) {
            s.store.clock = s.store.clock.max(opener.horizon);
        }
        s.store.epoch = opener.epoch;
        s.store.checkpoint = Some(opener.fences.map(|fence| fence.unwrap_or(0)));
        s.store.open_for = s.incarnation;
        s.store.opening = None;
    }

    /// What the database refused is in no row, and may be below the committed offset.
    pub(crate) fn put_back_dead_letters(&self, s: &mut State, start: Start) {
        if start.discard && self.on(Rule::DeadLettersPutBack) {
            for is in s.dead_letters.clone() {
                let horizon = s.database.shard[self.scenario.table_of[is.key]].purge_horizon;
                let compared = (s.database.keys[is.key], horizon);
                self.put_back_in_store(&mut s.store, is, Some(compared), Stage::Parked);
            }
        }
    }

    /// Whether what lies at `at` is void for somebody who began to read at `start`.
    pub(crate) fn is_void(&self, s: &State, table: Table, start: Offset, at: Offset) -> bool {
        let partition = &s.log[table];
        let in_force = self.in_force(partition, start, at);
        // Who keeps no epoch with the start knows none before the first fence.
        in_force != 0 && partition.events[at as usize].epoch != in_force
    }
}

const _: () = assert!(KEYS >= TABLES);
