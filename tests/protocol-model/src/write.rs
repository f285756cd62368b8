//! The write path: the atomic write, the produce, the mark, the ack; and the relay, which closes every gap between.

use crate::{
    log::{Event, Producer},
    protocol::Protocol,
    rules::Rule,
    state::{Broken, State},
    store::Stage,
    words::{Epoch, Key, Mutation, Op, Request, Seen, Version},
};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    Delete,
    /// Reads the hot image and writes conditionally on it.
    Update,
    /// Create in a table with `create_check: hot_store`.
    CreateUnseen,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    Waiting,
    /// An update knows what it builds on.
    Read {
        seen: Seen,
        epoch: Epoch,
    },
    /// Its event is on its way; `claims` is the version that the ack will name.
    Producing {
        version: Version,
        epoch: Epoch,
        claims: Version,
    },
    /// The log has its event.
    Landed {
        version: Version,
        epoch: Epoch,
        claims: Version,
    },
    /// The hot store knew the request, in this epoch.
    Repeated {
        version: Version,
        epoch: Epoch,
    },
    Acked {
        version: Version,
    },
    /// Refused, or of unknown outcome.
    Over,
}

impl Protocol {
    /// Whether the hot store answers: open shards do.
    pub(crate) fn answers(&self, s: &State) -> bool {
        s.is_open() || !self.on(Rule::ClosedAfterRestart)
    }

    /// An update reads.
    pub(crate) fn read_for_update(&self, s: &mut State, op: Op) {
        let Some(image) = s.store.image(self.scenario.operations[op].key) else { return };
        s.clients[op] = Progress::Read { seen: Seen::of(image.is.version, image.is.content), epoch: s.store.epoch };
    }

    /// The atomic write: the request, the precondition, the version, the image. Then the event is produced.
    pub(crate) fn write(&self, s: &mut State, op: Op) {
        let asked = self.scenario.operations[op];
        if let Some(id) = asked.request
            && let Some((version, known)) = s.store.requests[id]
        {
            let epoch = s.store.epoch;
            let is_same = known == asked.value || !self.on(Rule::RequestDigest);
            s.clients[op] = if is_same { Progress::Repeated { version, epoch } } else { Progress::Over };
            return;
        }
        let held = s.store.image(asked.key);
        let is_refused = match (asked.kind, s.clients[op]) {
            (Kind::Update, Progress::Read { seen, epoch }) => {
                let same_version = held.is_some_and(|image| image.is.version == seen.version);
                let same_epoch = epoch == s.store.epoch || !self.on(Rule::ConditionOnEpoch);
                let is_refused = self.on(Rule::ConditionOnVersion) && !(same_version && same_epoch);
                let rests_on_it = held.is_some_and(|image| Seen::of(image.is.version, image.is.content) == seen);
                if !is_refused && !rests_on_it {
                    s.breaks(Broken::UpdateOfAnother);
                }
                is_refused
            }
            (Kind::CreateUnseen, _) => held.is_some_and(|image| !image.is.content.deleted),
            _ => false,
        };
        if is_refused {
            s.clients[op] = Progress::Over;
            return;
        }
        let version = self.next_version(s);
        self.check_version(s, asked.key, version);
        self.check_not_done_before(s, op);
        let is_unseen = asked.kind == Kind::CreateUnseen;
        let known = held.filter(|image| image.is_dirty());
        let goes_on = |of: fn(&Mutation) -> Option<Version>| match known {
            // What the store knows of a dirty record, it knows for sure: only its own `since` goes on.
            Some(image) => of(&image.is),
            None => is_unseen.then_some(version),
        };
        let own = (is_unseen && known.is_none()).then_some(version);
        let is = Mutation {
            key: asked.key,
            version,
            content: asked.content(),
            since: if self.on(Rule::SinceTravels) { goes_on(|is| is.since) } else { own },
            created: goes_on(|is| is.created),
            request: asked.request.map(|id| Request { id, digest: asked.value, version }),
        };
        s.store.write(self, is);
        let epoch = s.store.epoch;
        self.produce(s, Producer::Client(op), self.scenario.table_of[asked.key], Event::of(epoch, is));
        s.clients[op] = Progress::Producing { version, epoch, claims: version };
    }

    /// `max(clock + 1, microseconds of the store's clock)`.
    fn next_version(&self, s: &mut State) -> Version {
        let now = if s.wall_clock_is_back { 1 } else { s.wall_clock + 1 };
        let version = if self.on(Rule::ClockNeverFalls) { now.max(s.store.clock + 1) } else { now };
        s.wall_clock = s.wall_clock.max(version);
        version
    }

    pub(crate) fn client_landed(&self, s: &mut State, op: Op, event: Event) {
        if let Progress::Producing { version, epoch, claims } = s.clients[op]
            && event.epoch == epoch
            && (event.mutation.is_some_and(|is| is.version == version) || event.request.is_some())
        {
            s.clients[op] = Progress::Landed { version, epoch, claims };
        }
    }

    /// Marks queued, if the shard is still in the epoch of the write. Then QUEUED is answered.
    pub(crate) fn mark(&self, s: &mut State, op: Op) {
        let (Progress::Landed { version, epoch, claims } | Progress::Producing { version, epoch, claims }) =
            s.clients[op]
        else {
            return;
        };
        if s.store.epoch == epoch || !self.on(Rule::MarkUnderItsEpoch) {
            s.store.mark_queued(self, self.scenario.operations[op].key, version);
            self.ack(s, op, claims);
        } else {
            s.clients[op] = Progress::Over;
        }
    }

    /// A repeated request: what has become of the version that it names?
    pub(crate) fn look(&self, s: &mut State, op: Op) {
        let Progress::Repeated { version, epoch } = s.clients[op] else { return };
        if !self.on(Rule::RepeatedIsQueuedFirst) {
            return self.ack(s, op, version);
        }
        if s.store.epoch != epoch && self.on(Rule::RepeatedInOneEpoch) {
            s.clients[op] = Progress::Over;
            return;
        }
        let asked = self.scenario.operations[op];
        let image = s.store.image(asked.key);
        // Clean, or gone: it was applied, or superseded by what was.
        if !image.is_some_and(|image| image.is_dirty()) && !self.is_applied(s, asked.key, version) {
            s.breaks(Broken::AckedNotApplied);
        }
        let unqueued = image.filter(|image| image.stage == Stage::Unqueued).map(|image| image.is);
        // Of its own version the log has an event, or is to get one. A newer one may be in the log without it.
        let is_superseded = image.is_none_or(|image| image.is.version != version);
        let own = asked.request.filter(|_| is_superseded && self.on(Rule::SupersededRequestLogged));
        let request = own.map(|id| Request { id, digest: asked.value, version });
        if unqueued.is_none() && request.is_none() {
            return self.ack(s, op, version);
        }
        let epoch = s.store.epoch;
        let noted = request.map(|_| asked.key).filter(|_| self.on(Rule::NoteNamesRecord));
        let event = Event { epoch, mutation: unqueued, request, noted };
        self.produce(s, Producer::Client(op), self.scenario.table_of[asked.key], event);
        let produced = unqueued.map_or(version, |is| is.version);
        s.clients[op] = Progress::Producing { version: produced, epoch, claims: version };
    }

    fn ack(&self, s: &mut State, op: Op, version: Version) {
        s.clients[op] = Progress::Acked { version };
        self.check_ack(s, op, version);
    }

    /// The relay produces a dirty image again, unchanged, under the current epoch.
    pub(crate) fn relay(&self, s: &mut State, key: Key) {
        if let Some(image) = s.store.image(key) {
            let epoch = s.store.epoch;
            self.produce(s, Producer::Relay, self.scenario.table_of[key], Event::of(epoch, image.is));
        }
    }

    pub(crate) fn relay_landed(&self, s: &mut State, event: Event) {
        if let Some(is) = event.mutation {
            s.relayed.push((is.key, is.version, event.epoch));
            s.relayed.sort_unstable();
        }
    }

    /// What the relay has produced is marked queued.
    pub(crate) fn relay_mark(&self, s: &mut State, which: usize) {
        let (key, version, epoch) = s.relayed.remove(which);
        if s.is_open() && (s.store.epoch == epoch || !self.on(Rule::MarkUnderItsEpoch)) {
            s.store.mark_queued(self, key, version);
        }
    }
}
