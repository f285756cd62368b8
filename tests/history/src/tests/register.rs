//! Histories of a register that keeps the promises, with delays, unknown outcomes, losses and a database behind it:
//! none has a finding. And of registers that each break one.

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::*;

/// Which promise is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// A loss takes what was queued, too.
    LossTakesAll,
    /// Some reads answer what was before.
    OldReads,
    /// Some conditions are not looked at.
    NoConditions,
    /// Versions start again after a loss.
    ClockReset,
    /// Some updates are built on what was before.
    OldUpdates,
    /// The database takes whatever comes last.
    DatabaseGoesBack,
    /// A refused write takes effect.
    RefusedTakesEffect,
}

#[derive(Clone, Copy)]
struct State {
    version: u64,
    image: Option<Image>,
    at: u64,
    queued_at: u64,
    drained_at: u64,
}

struct Register {
    rng: SmallRng,
    fault: Fault,
    /// All states that were not lost.
    states: Vec<State>,
    clock: u64,
    epoch: u32,
    losses: Vec<u64>,
    story: Story,
}

const END: u64 = 2_000;

/// One call: when it takes effect, and when the answer is there.
struct Call {
    effect: u64,
    from: u64,
    to: u64,
    value: u64,
}

impl Register {
    fn run(seed: u64, fault: Fault) -> Story {
        let mut rng = SmallRng::seed_from_u64(seed);
        let losses = (0..rng.random_range(0..3)).map(|_| rng.random_range(0..END)).collect::<Vec<u64>>();
        let mut calls: Vec<Call> = (1..rng.random_range(10..60))
            .map(|value| {
                let from = rng.random_range(1..END);
                let effect = from + rng.random_range(1..100);
                Call { effect, from, to: effect + rng.random_range(1..60), value }
            })
            .collect();
        calls.sort_by_key(|call| call.effect);
        let mut register =
            Self { rng, fault, states: Vec::new(), clock: 0, epoch: 1, losses: losses.clone(), story: story() };
        for call in calls {
            register.lose_until(call.effect);
            register.call(&call);
        }
        register.lose_until(u64::MAX);
        for loss in losses {
            register.story.loss(loss, loss + 1);
        }
        register.samples();
        register.story
    }

    fn lose_until(&mut self, now: u64) {
        let (due, later): (Vec<u64>, Vec<u64>) = self.losses.iter().partition(|&&loss| loss < now);
        self.losses = later;
        for loss in due {
            let cut = loss.saturating_sub(self.rng.random_range(0..150));
            let takes_all = self.fault == Fault::LossTakesAll;
            self.states.retain(|state| state.at < cut || state.at > loss || (state.queued_at <= loss && !takes_all));
            self.epoch += 1;
            let newest = self.states.iter().map(|state| state.version).max().unwrap_or(0);
            self.clock = if self.fault == Fault::ClockReset { newest / 2 } else { newest };
        }
    }

    fn newest(&self) -> State {
        let nothing = State { version: 0, image: None, at: 0, queued_at: 0, drained_at: 0 };
        self.states.iter().copied().max_by_key(|state| state.version).unwrap_or(nothing)
    }

    /// The state, or sometimes, for a register with that fault, the one before.
    fn look(&mut self, fault: Fault) -> State {
        if self.fault == fault && self.rng.random_bool(0.3) {
            let newest = self.newest().version;
            let before = self.states.iter().filter(|state| state.version < newest).max_by_key(|state| state.version);
            return before.copied().unwrap_or_else(|| self.newest());
        }
        self.newest()
    }

    fn call(&mut self, call: &Call) {
        let state = self.newest();
        let seen =
            |state: State, epoch| state.image.map(|image| Seen { version: state.version, epoch: Some(epoch), image });
        let condition = match self.rng.random_range(0..5) {
            0 => Condition::Exists(true),
            1 => Condition::At(Stamp {
                version: state.version.saturating_sub(self.rng.random_range(0..2)),
                epoch: self.epoch,
            }),
            _ => Condition::None,
        };
        let value = call.value;
        let part = if self.rng.random() { Part::Left } else { Part::Right };
        let action = match self.rng.random_range(0..9) {
            0..3 => Action::Read,
            3 => Action::Create { value },
            4..6 => Action::Put { value, condition },
            6 => Action::Update { value, part, condition },
            _ => Action::Delete { condition },
        };
        if action == Action::Read {
            let state = self.look(Fault::OldReads);
            let read = Outcome::Read(seen(state, self.epoch));
            self.story.op(call.from, call.to, action, read);
            return;
        }
        let refusal = match (action.needs_row(), action.condition()) {
            (Some(true), _) if state.image.is_none() => Some(Refusal::Absent),
            (Some(false), _) if state.image.is_some() => Some(Refusal::Exists),
            (_, Condition::At(stamp)) if stamp.version != state.version => Some(Refusal::Changed),
            _ => None,
        };
        let skip =
            self.fault == Fault::NoConditions && !(matches!(action, Action::Update { .. }) && state.image.is_none());
        let refusal = refusal.filter(|_| !(skip && self.rng.random_bool(0.5)));
        if let Some(refusal) = refusal {
            self.story.op(call.from, call.to, action, Outcome::Refused(refusal));
            return;
        }
        let image = match action {
            Action::Create { value } | Action::Put { value, .. } => Some(Image::whole(value)),
            Action::Update { value, part, .. } => {
                let old = self.look(Fault::OldUpdates).image.or(state.image).unwrap_or(Image::whole(0));
                Some(old.updated(value, part))
            }
            Action::Delete { .. } | Action::Read => None,
        };
        self.clock += 1;
        let (version, epoch) = (self.clock, self.epoch);
        let queued_at = call.effect + self.rng.random_range(1..80);
        let drained_at = queued_at + self.rng.random_range(1..300);
        self.states.push(State { version, image, at: call.effect, queued_at, drained_at });
        // The next loss decides whether it is queued in the epoch in which it was written.
        let in_time = |at: u64| self.losses.iter().all(|&loss| loss < call.effect || loss > at);
        let stamp = Stamp { version, epoch };
        let ack = |level| Outcome::Acked { level, stamp };
        let (to, outcome) = match self.rng.random_range(0..4) {
            0 => (call.to, ack(Level::Logged)),
            1 if in_time(queued_at) => (call.to.max(queued_at + 1), ack(Level::Queued)),
            2 if in_time(queued_at) => (call.to.max(drained_at + 1), ack(Level::Applied)),
            _ if self.fault == Fault::RefusedTakesEffect => (call.to, Outcome::Refused(Refusal::Other)),
            // Perhaps nobody waited until it took effect.
            _ => (self.rng.random_range(call.from..=call.to), Outcome::Unknown),
        };
        self.story.op(call.from, to, action, outcome);
    }

    fn samples(&mut self) {
        let mut times: Vec<u64> = (0..12).map(|_| self.rng.random_range(0..END)).collect();
        times.push(END * 2);
        for at in times {
            let there = self.states.iter().filter(|state| state.drained_at <= at);
            let goes_back = self.fault == Fault::DatabaseGoesBack;
            let row = there.max_by_key(|state| if goes_back { state.drained_at } else { state.version });
            let row = row.and_then(|state| Some(Seen { version: state.version, epoch: None, image: state.image? }));
            let missing = self.states.iter().filter(|state| state.drained_at > at).map(|state| state.version).min();
            let horizon = missing.unwrap_or(self.newest().version + 1) - 1;
            self.story.sample(at, at > END, row).horizon(horizon);
        }
    }
}

#[test]
fn a_register_that_keeps_the_promises_has_no_finding() {
    for seed in 0..4_000 {
        let story = Register::run(seed, Fault::None);
        let findings = story.history.check();
        assert!(findings.is_empty(), "seed {seed}: {findings}{}", story.history.of_key("k"));
    }
}

#[test]
fn a_register_that_breaks_one_is_found_out() {
    let kinds: [(Fault, &[&str]); 7] = [
        (Fault::LossTakesAll, &["lost", "stale"]),
        (Fault::OldReads, &["stale", "resurrected"]),
        (Fault::NoConditions, &["out of order"]),
        (Fault::ClockReset, &["out of order"]),
        (Fault::OldUpdates, &["out of order"]),
        (Fault::DatabaseGoesBack, &["out of order", "lost"]),
        (Fault::RefusedTakesEffect, &["phantom"]),
    ];
    for (fault, kinds) in kinds {
        let mut found = std::collections::BTreeMap::<&str, usize>::new();
        for seed in 0..500 {
            for (kind, _) in Register::run(seed, fault).history.check().all() {
                *found.entry(kind).or_default() += 1;
            }
        }
        for kind in kinds {
            assert!(found.get(kind).is_some_and(|&number| number > 20), "{fault:?}: {found:?}");
        }
    }
}
