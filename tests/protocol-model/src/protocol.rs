//! The model: which steps are possible in a state, and what each does.

use stateright::{Model, Property};

use crate::{
    checks::consumers,
    drain, opening,
    reading::Reader,
    rules::Rule,
    scenarios::Scenario,
    state::State,
    store::{Slot, Stage, Store},
    words::{Key, Offset, Op, Seat, Table},
    write::{Kind, Progress},
};

/// The protocol, at the bounds of a scenario, without the rule that was taken away, if any was.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) scenario: Scenario,
    pub(crate) without: Option<Rule>,
}

/// What is checked.
pub(crate) const PROMISES: &str = "the promises hold";

/// One step of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    ReadForUpdate(Op),
    Write(Op),
    Look(Op),
    Mark(Op),
    Land(usize),
    Relay(Key),
    RelayMark(usize),
    ReadCheckpoint,
    WriteCheckpoint,
    Claim(Seat),
    Choose(Seat),
    Begin(Seat),
    SendFences(Seat),
    ReadShardRows(Seat),
    ReadRecord(Seat),
    PutBack(Seat),
    Finish(Seat),
    Assign(Table, Seat),
    Own(Table, Seat),
    Gather(Table, Seat, Offset),
    BeginTransaction(Table, Seat),
    CommitTransaction(Table, Seat),
    MarkClean(Table, Seat),
    CommitOffset(Table, Seat),
    RetryAside(Table, Seat),
    DeadLetter(Table, Seat),
    Park(Table, Seat),
    Expire(Key),
    AskPurge(Table, Seat),
    BeginPurge,
    CommitPurge,
    AskHorizon(Table, Seat),
    NoteHorizon,
    Ask(Seat, Key),
    Load(Seat),
    Fill(Seat),
    ReachDisk,
    LoseAll,
    LoseTail,
    SetClockBack,
}

impl Protocol {
    /// Whether a rule is in force.
    pub(crate) fn on(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn client_actions(&self, s: &State, out: &mut Vec<Action>) {
        let operations = &self.scenario.operations;
        for (op, progress) in s.clients.iter().enumerate() {
            match progress {
                Progress::Waiting if self.answers(s) && self.may_start(s, op) => {
                    if operations[op].kind != Kind::Update {
                        out.push(Action::Write(op));
                    } else if s.store.image(operations[op].key).is_some() {
                        out.push(Action::ReadForUpdate(op));
                    }
                }
                Progress::Read { .. } if self.answers(s) => out.push(Action::Write(op)),
                Progress::Repeated { .. } if self.answers(s) => out.push(Action::Look(op)),
                Progress::Landed { .. } if self.answers(s) => out.push(Action::Mark(op)),
                Progress::Producing { .. } if self.answers(s) && !self.on(Rule::AckAfterLog) => {
                    out.push(Action::Mark(op));
                }
                _ => {}
            }
        }
    }

    /// Of two requests that differ in nothing, the first starts first; and a retry starts after what it retries.
    fn may_start(&self, s: &State, op: Op) -> bool {
        let operations = &self.scenario.operations;
        (0..op).all(|other| {
            let (one, two) = (operations[other], operations[op]);
            let is_retry = one.request.is_some() && one.request == two.request;
            let is_alike = one.request.is_none()
                && two.request.is_none()
                && (one.key, one.kind, one.poison, one.unique) == (two.key, two.kind, two.poison, two.unique)
                && other + 1 == op;
            !(is_retry || is_alike) || s.clients[other] != Progress::Waiting
        })
    }

    fn store_actions(&self, s: &State, out: &mut Vec<Action>) {
        let is_open = s.is_open();
        for which in 0..s.under_way.len() {
            if which == 0 || s.under_way[which] != s.under_way[which - 1] {
                out.push(Action::Land(which));
            }
        }
        for which in 0..s.relayed.len() {
            out.push(Action::RelayMark(which));
        }
        for key in 0..self.scenario.keys {
            if let Some(image) = s.store.image(key)
                && image.is_dirty()
                && image.stage != Stage::Parked
                && is_open
                && s.left.relays > 0
            {
                out.push(Action::Relay(key));
            }
            let may_expire = match s.store.slots[key] {
                Slot::Empty => false,
                Slot::Absent(_) | Slot::Leased(_) => true,
                Slot::Image(image) => !image.is_dirty() || !self.on(Rule::DirtyNeverExpires),
            };
            if may_expire && s.left.expiries > 0 {
                out.push(Action::Expire(key));
            }
            let is_leased = matches!(s.store.slots[key], Slot::Leased(_));
            if let Some(seat) = s.readers.iter().position(|reader| *reader == Reader::Idle)
                && self.answers(s)
                && s.left.reads > 0
                && !is_leased
            {
                out.push(Action::Ask(seat, key));
            }
        }
        for (seat, reader) in s.readers.iter().enumerate() {
            match reader {
                Reader::Idle => {}
                Reader::Leased { .. } => out.push(Action::Load(seat)),
                Reader::Loaded { .. } => out.push(Action::Fill(seat)),
            }
        }
        if s.checkpoint.is_some() {
            out.push(Action::WriteCheckpoint);
        } else if is_open && s.left.checkpoints > 0 {
            out.push(Action::ReadCheckpoint);
        }
    }

    fn opener_actions(&self, s: &State, out: &mut Vec<Action>) {
        if !s.is_open()
            && s.left.claims > 0
            && let Some(seat) = s.openers.iter().position(Option::is_none)
        {
            out.push(Action::Claim(seat));
        }
        for (seat, opener) in s.openers.iter().enumerate() {
            let Some(opener) = opener else { continue };
            match opener.step {
                opening::Step::Claimed => out.push(Action::Choose(seat)),
                opening::Step::Chosen => out.push(Action::Begin(seat)),
                opening::Step::Begun => out.push(Action::SendFences(seat)),
                opening::Step::Fencing => {
                    let is_fenced = opener.fences[..self.scenario.tables].iter().all(Option::is_some);
                    if is_fenced && (0..self.scenario.tables).all(|table| self.is_free(s, table)) {
                        out.push(Action::ReadShardRows(seat));
                    }
                }
                opening::Step::Reading if opener.compared.is_some() => out.push(Action::PutBack(seat)),
                opening::Step::Reading if self.unread(opener).is_some() => out.push(Action::ReadRecord(seat)),
                opening::Step::Reading => out.push(Action::Finish(seat)),
            }
        }
    }

    fn drain_actions(&self, s: &State, out: &mut Vec<Action>) {
        for table in 0..self.scenario.tables {
            if s.left.rebalances > 0 {
                out.push(Action::Assign(table, 1 - s.assigned[table]));
            }
            if s.left.crashes > 0 {
                out.push(Action::Assign(table, s.assigned[table]));
            }
        }
        for (table, seat, consumer) in consumers(s) {
            if table >= self.scenario.tables {
                continue;
            }
            let is_assigned = s.assigned[table] == seat;
            let is_free = self.is_free(s, table);
            if !consumer.owns {
                if is_assigned && is_free {
                    out.push(Action::Own(table, seat));
                }
                continue;
            }
            match consumer.batch.as_ref().map(|batch| &batch.step) {
                None => {
                    let left = s.end(table) - consumer.next;
                    if is_assigned {
                        out.extend((1..=left.min(self.scenario.batch)).map(|n| Action::Gather(table, seat, n)));
                    }
                    if let Some(aside) = consumer.aside.first() {
                        if !aside.is_lettered {
                            out.push(Action::DeadLetter(table, seat));
                            if self.scenario.may_be_accepted_later(s, &aside.is) {
                                out.push(Action::RetryAside(table, seat));
                            }
                        } else if self.answers(s) {
                            out.push(Action::Park(table, seat));
                        }
                    }
                }
                Some(drain::Step::Gathered) if is_free => out.push(Action::BeginTransaction(table, seat)),
                Some(drain::Step::Gathered) => {}
                Some(drain::Step::Begun(_)) => out.push(Action::CommitTransaction(table, seat)),
                Some(drain::Step::Committed(_)) if self.answers(s) => out.push(Action::MarkClean(table, seat)),
                Some(drain::Step::Committed(_)) => {}
                Some(drain::Step::Marked) => out.push(Action::CommitOffset(table, seat)),
            }
            if is_assigned && s.is_open() {
                if s.left.purges > 0 && s.purge.is_none() {
                    out.push(Action::AskPurge(table, seat));
                }
                if s.left.horizons > 0 && s.note.is_none() {
                    out.push(Action::AskHorizon(table, seat));
                }
            }
        }
        match s.purge {
            Some(purge) if purge.found.is_some() => out.push(Action::CommitPurge),
            Some(purge) if self.is_free(s, purge.table) || !self.on(Rule::PurgeUnderLock) => {
                out.push(Action::BeginPurge);
            }
            _ => {}
        }
        if s.note.is_some_and(|note| self.is_free(s, note.table)) {
            out.push(Action::NoteHorizon);
        }
    }

    fn world_actions(&self, s: &State, out: &mut Vec<Action>) {
        if s.left.disk > 0 {
            out.push(Action::ReachDisk);
        }
        if s.left.losses > 0 {
            out.push(Action::LoseAll);
        }
        if s.left.tail_losses > 0 && s.on_disk.is_some() {
            out.push(Action::LoseTail);
        }
        if s.left.clocks_back > 0 {
            out.push(Action::SetClockBack);
        }
    }

    fn take(&self, s: &mut State, action: Action) {
        let left = &mut s.left;
        match action {
            Action::ReadForUpdate(op) => self.read_for_update(s, op),
            Action::Write(op) => self.write(s, op),
            Action::Look(op) => self.look(s, op),
            Action::Mark(op) => self.mark(s, op),
            Action::Land(which) => self.land(s, which),
            Action::Relay(key) => {
                left.relays -= 1;
                self.relay(s, key);
            }
            Action::RelayMark(which) => self.relay_mark(s, which),
            Action::ReadCheckpoint => {
                left.checkpoints -= 1;
                self.read_checkpoint(s);
            }
            Action::WriteCheckpoint => self.write_checkpoint(s),
            Action::Claim(seat) => {
                left.claims -= 1;
                self.claim(s, seat);
            }
            Action::Choose(seat) => self.choose(s, seat),
            Action::Begin(seat) => self.begin(s, seat),
            Action::SendFences(seat) => self.send_fences(s, seat),
            Action::ReadShardRows(seat) => self.read_shard_rows(s, seat),
            Action::ReadRecord(seat) => self.read_record(s, seat),
            Action::PutBack(seat) => self.put_back(s, seat),
            Action::Finish(seat) => self.finish(s, seat),
            Action::Assign(table, seat) => {
                if seat == s.assigned[table] {
                    left.crashes -= 1
                } else {
                    left.rebalances -= 1
                }
                self.assign(s, table, seat);
            }
            Action::Own(table, seat) => self.own(s, table, seat),
            Action::Gather(table, seat, records) => self.gather(s, table, seat, records),
            Action::BeginTransaction(table, seat) => self.begin_transaction(s, table, seat),
            Action::CommitTransaction(table, seat) => self.commit_transaction(s, table, seat),
            Action::MarkClean(table, seat) => self.mark_clean(s, table, seat),
            Action::CommitOffset(table, seat) => self.commit_offset(s, table, seat),
            Action::RetryAside(table, seat) => self.retry_aside(s, table, seat),
            Action::DeadLetter(table, seat) => self.dead_letter(s, table, seat),
            Action::Park(table, seat) => self.park(s, table, seat),
            Action::Expire(key) => {
                left.expiries -= 1;
                self.expire(s, key);
            }
            Action::AskPurge(table, seat) => {
                left.purges -= 1;
                self.ask_purge(s, table, seat);
            }
            Action::BeginPurge => self.begin_purge(s),
            Action::CommitPurge => self.commit_purge(s),
            Action::AskHorizon(table, seat) => {
                left.horizons -= 1;
                self.ask_note(s, table, seat);
            }
            Action::NoteHorizon => self.note(s),
            Action::Ask(seat, key) => {
                left.reads -= 1;
                self.ask(s, seat, key);
            }
            Action::Load(seat) => self.load(s, seat),
            Action::Fill(seat) => self.fill(s, seat),
            Action::ReachDisk => {
                left.disk -= 1;
                s.on_disk = Some(s.store.clone());
            }
            Action::LoseAll => {
                left.losses -= 1;
                restart(s, Store::empty());
            }
            Action::LoseTail => {
                left.tail_losses -= 1;
                let survivor = s.on_disk.clone().unwrap_or_else(Store::empty);
                restart(s, survivor);
            }
            Action::SetClockBack => {
                left.clocks_back -= 1;
                s.wall_clock_is_back = true;
            }
        }
    }
}

/// The hot store starts again with what is left of it, as another incarnation.
fn restart(s: &mut State, survivor: Store) {
    s.store = survivor;
    s.incarnation += 1;
    s.store_lost = true;
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.scenario)]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        if s.broken.is_none() {
            self.client_actions(s, out);
            self.store_actions(s, out);
            self.opener_actions(s, out);
            self.drain_actions(s, out);
            self.world_actions(s, out);
        }
    }

    fn next_state(&self, s: &State, action: Action) -> Option<State> {
        let mut next = s.clone();
        self.take(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(PROMISES, |protocol: &Self, s: &State| protocol.find_broken(s).is_none())]
    }
}
