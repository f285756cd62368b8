//! Budgets in memory. The rules are those of `take.lua`, and both pass the same contract.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{AgreedLimit, Agreement, Ended, Grant, Limit, Limits, PERMIT_LEASE, Permit, PermitId};

/// The longest wait that is ever answered; whoever waited so long asks again.
const LONGEST_WAIT: u64 = 3_600_000_000;
/// For how long what has ended counts, and to what its end is rounded up.
const WINDOW: u64 = 1_000_000;
const STEP: u64 = 10_000;
/// How late a grant may be without any loss to those that follow.
const LATE: u64 = 50_000;
/// For how long who was refused stays in line without asking again.
const PATIENT: u64 = 75_000;

/// All budgets of a store. Moments are microseconds since its first call.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    origin: Option<Instant>,
    meters: BTreeMap<(String, String), Meter>,
    /// What replicas have agreed on, by database.
    agreed: BTreeMap<String, AgreedLimit>,
}

/// One limit's state.
#[derive(Debug)]
struct Meter {
    /// The last grant: when it was due, how much, at which rate. Kept rather than the next moment allowed, so that a
    /// raised limit holds at once.
    at: u64,
    amount: u32,
    rate: f64,
    /// What is granted and unfinished.
    permits: BTreeMap<PermitId, Unfinished>,
    /// What waits for an end of others.
    waiting: BTreeMap<PermitId, Waiting>,
    /// What has ended, by the moment, of late.
    ended: BTreeMap<u64, f64>,
}

#[derive(Debug, Clone, Copy)]
struct Unfinished {
    until: u64,
    amount: u32,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: u64,
    asked: u64,
}

impl Budgets {
    /// Takes what the batch needs of every limit, or nothing.
    pub(super) fn take(&mut self, limits: &Limits, permit: Permit, ended: &[Ended], now: Instant) -> Grant {
        let now = self.tell(limits, permit.rows, &[], ended, now);
        if permit.rows == 0 {
            return Grant::Now(Duration::ZERO);
        }
        let (mut wait, mut busy) = (0, false);
        for limit in &limits.limits {
            match self.meter(limits, limit).map(|meter| meter.look(limit, permit, now)) {
                Some(Look::After(after)) => wait = wait.max(after),
                Some(Look::Busy) | None => busy = true,
            }
        }
        for limit in &limits.limits {
            if let Some(meter) = self.meter(limits, limit) {
                meter.line_up(limit, permit.id, busy, now);
            }
        }
        if wait > 0 || busy {
            return if busy { Grant::Busy } else { Grant::After(Duration::from_micros(wait.min(LONGEST_WAIT))) };
        }
        let mut next = 0;
        for limit in &limits.limits {
            if let Some(meter) = self.meter(limits, limit) {
                next = next.max(meter.grant(limit, permit, now));
            }
        }
        Grant::Now(Duration::from_micros(next.min(LONGEST_WAIT)))
    }

    /// Notes what is held and what has ended; answers what the time is. `asked` is how many rows are about to be asked
    /// for.
    pub(super) fn tell(&mut self, limits: &Limits, asked: u32, held: &[Permit], ended: &[Ended], now: Instant) -> u64 {
        let now = self.moment(now);
        for limit in &limits.limits {
            let name = (limits.database.clone(), limit.name.clone());
            let amount = limit.unit.amount(asked.max(1));
            let meter = self.meters.entry(name).or_insert_with(|| Meter::unseen(limit.per_second, amount, now));
            meter.tell(limit, held, ended, now);
        }
        now
    }

    /// What is agreed on for a database.
    pub(super) fn agreed(&mut self, database: &str, now: Instant) -> Agreement {
        Agreement { limit: self.agreed.get(database).copied(), now: self.moment(now) }
    }

    /// Puts another one in its place, if it is still the one before.
    pub(super) fn agree(&mut self, database: &str, before: Option<AgreedLimit>, after: AgreedLimit) -> bool {
        let is_as_before = self.agreed.get(database).copied() == before;
        if is_as_before {
            self.agreed.insert(database.to_owned(), after);
        }
        is_as_before
    }

    fn moment(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.origin.get_or_insert(now));
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2)
    }

    fn meter(&mut self, limits: &Limits, limit: &Limit) -> Option<&mut Meter> {
        self.meters.get_mut(&(limits.database.clone(), limit.name.clone()))
    }

    /// Forgets all, as a restart does.
    pub(super) fn clear(&mut self) {
        self.meters.clear();
        self.agreed.clear();
    }
}

/// Whether a limit lets a batch pass.
enum Look {
    After(u64),
    Busy,
}

impl Meter {
    /// A limit that is not known begins as if a second's worth and a batch had just been granted.
    fn unseen(rate: f64, amount: u32, now: u64) -> Self {
        let before = if rate.is_finite() { rate.max(0.0) + f64::from(amount) } else { 0.0 };
        let ended = BTreeMap::from([(step(now), before)]);
        Self { at: now, amount, rate, permits: BTreeMap::new(), waiting: BTreeMap::new(), ended }
    }

    fn tell(&mut self, limit: &Limit, held: &[Permit], ended: &[Ended], now: u64) {
        let ended_ago = |Ended { permit, ago }: &Ended| {
            let ago = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
            (permit.id, limit.unit.amount(permit.rows), now.saturating_sub(ago))
        };
        for (id, amount, at) in ended.iter().map(ended_ago) {
            self.permits.remove(&id);
            *self.ended.entry(step(at)).or_default() += f64::from(amount);
        }
        for permit in held {
            let until = now + lease();
            self.permits.insert(permit.id, Unfinished { until, amount: limit.unit.amount(permit.rows) });
        }
        let expired: Vec<PermitId> = self.permits.iter().filter(|(_, p)| p.until <= now).map(|(id, _)| *id).collect();
        for id in expired {
            if let Some(Unfinished { until, amount }) = self.permits.remove(&id) {
                *self.ended.entry(step(until)).or_default() += f64::from(amount);
            }
        }
        self.ended = self.ended.split_off(&(now + 1).saturating_sub(WINDOW));
        self.waiting.retain(|_, waiting| waiting.asked + PATIENT > now);
    }

    /// Puts what is refused in line, where it keeps its place, and takes out what is not.
    fn line_up(&mut self, limit: &Limit, id: PermitId, busy: bool, now: u64) {
        if busy && limit.unfinished.is_some() {
            self.waiting.entry(id).or_insert(Waiting { since: now, asked: now }).asked = now;
        } else {
            self.waiting.remove(&id);
        }
    }

    /// How many wait for longer. They go first: or whoever ends one batch and asks for the next in one call would keep
    /// all others out.
    fn ahead_of(&self, id: PermitId, now: u64) -> usize {
        let mine = (self.waiting.get(&id).map_or(now, |waiting| waiting.since), id);
        self.waiting.iter().filter(|(other, waiting)| **other != id && (waiting.since, **other) < mine).count()
    }

    fn look(&self, limit: &Limit, permit: Permit, now: u64) -> Look {
        let rate = limit.per_second;
        let taken = self.permits.len() + self.ahead_of(permit.id, now);
        if limit.unfinished.is_some_and(|most| taken >= most as usize) {
            return Look::Busy;
        }
        if rate.is_nan() || rate <= 0.0 {
            return Look::After(LONGEST_WAIT);
        }
        if rate.is_infinite() {
            return Look::After(0);
        }
        let unfinished: f64 = self.permits.values().map(|permit| f64::from(permit.amount)).sum();
        // The batch itself may add a twentieth of a second's worth, or one; what it has beyond that must find room.
        let beyond = (f64::from(limit.unit.amount(permit.rows)) - (rate / 20.0).max(1.0)).max(0.0);
        let room = (rate - beyond).max(0.0);
        if unfinished > room {
            return Look::Busy;
        }
        let mut wait = self.due(rate).saturating_sub(now);
        let mut excess = unfinished + self.ended.values().sum::<f64>() - room;
        for (at, amount) in &self.ended {
            if excess <= 0.0 {
                break;
            }
            excess -= amount;
            wait = wait.max((at + WINDOW).saturating_sub(now));
        }
        Look::After(wait)
    }

    /// Grants, and says how long it is until the next batch is due.
    fn grant(&mut self, limit: &Limit, permit: Permit, now: u64) -> u64 {
        let (rate, amount) = (limit.per_second, limit.unit.amount(permit.rows));
        self.permits.insert(permit.id, Unfinished { until: now + lease(), amount });
        self.at = self.due(rate).max(now.saturating_sub(LATE));
        (self.amount, self.rate) = (amount, rate);
        self.due(rate).saturating_sub(now)
    }

    /// When the next batch is due, at this rate.
    fn due(&self, rate: f64) -> u64 {
        let interval = f64::from(self.amount) * 1e6 / rate.max(self.rate);
        // Saturates: a wait of centuries.
        self.at.saturating_add(interval.ceil() as u64)
    }
}

fn step(at: u64) -> u64 {
    at.div_ceil(STEP) * STEP
}

fn lease() -> u64 {
    u64::try_from(PERMIT_LEASE.as_micros()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::Unit;

    const SECOND: u64 = 1_000_000;

    /// How a replica fares, turn by turn: how long it lets pass before it asks again, how long its batch takes, when
    /// within that it is committed, and how long it takes until the end is told.
    #[derive(Debug, Clone, Copy)]
    struct Turn {
        idle: u64,
        took: u64,
        committed: f64,
        told: u64,
        rows: u32,
    }

    /// What becomes of replicas that live through these turns, over and over: the commits, by time.
    fn live(rate: f64, unfinished: u32, replicas: &[Vec<Turn>], until: u64) -> Vec<(u64, u32)> {
        enum Step {
            Ask,
            Tell(Ended, u64),
        }
        let limits = Limits {
            database: "main".to_owned(),
            limits: vec![Limit {
                name: "t".to_owned(),
                unit: Unit::Rows,
                per_second: rate,
                unfinished: Some(unfinished),
            }],
        };
        let (origin, mut budgets, mut commits) = (Instant::now(), Budgets::default(), Vec::new());
        let mut steps: BTreeMap<(u64, u64), (usize, Step)> = BTreeMap::new();
        let (mut serial, mut turns) = (0, vec![0; replicas.len()]);
        let mut plan = |steps: &mut BTreeMap<_, _>, at, replica, step| {
            serial += 1;
            steps.insert((at, serial), (replica, step));
        };
        (0..replicas.len()).for_each(|replica| plan(&mut steps, 0, replica, Step::Ask));
        let mut ids: Vec<u64> = (0..replicas.len() as u64).collect();
        while let Some(((at, _), (replica, step))) = steps.pop_first() {
            if at > until {
                break;
            }
            let now = origin + Duration::from_micros(at);
            let turn = replicas[replica][turns[replica] % replicas[replica].len()];
            match step {
                Step::Tell(ended, ended_at) => {
                    let ended = Ended { ago: Duration::from_micros(at - ended_at), ..ended };
                    budgets.tell(&limits, 1, &[], &[ended], now);
                }
                Step::Ask => {
                    let permit = Permit { id: PermitId(ids[replica]), rows: turn.rows };
                    match budgets.take(&limits, permit, &[], now) {
                        Grant::Now(_) => {
                            commits.push((at + (turn.took as f64 * turn.committed) as u64, turn.rows));
                            let ended = at + turn.took;
                            let told = Step::Tell(Ended { permit, ago: Duration::ZERO }, ended);
                            plan(&mut steps, ended + turn.told, replica, told);
                            turns[replica] += 1;
                            ids[replica] += replicas.len() as u64;
                            plan(&mut steps, at + turn.idle.max(100), replica, Step::Ask);
                        }
                        Grant::After(wait) => {
                            let wait = wait.as_micros() as u64;
                            assert!(wait > 0);
                            plan(&mut steps, at + wait, replica, Step::Ask);
                        }
                        Grant::Busy => plan(&mut steps, at + 5000, replica, Step::Ask),
                    }
                }
            }
        }
        commits.sort_unstable();
        commits
    }

    fn turn(longest: u64, rows: std::ops::Range<u32>) -> impl Strategy<Value = Turn> {
        let idle = prop_oneof![4 => 0..1000u64, 1 => 0..300_000u64];
        // Shorter than a permit's lease: what is held up for longer renews it.
        let took = prop_oneof![6 => 0..20_000u64, 2 => 0..300_000u64, 1 => 0..longest];
        let committed = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
        let told = prop_oneof![4 => Just(300u64), 1 => 0..100_000u64];
        (idle, took, committed, told, rows).prop_map(|(idle, took, committed, told, rows)| Turn {
            idle,
            took,
            committed,
            told,
            rows,
        })
    }

    fn worst_second(commits: &[(u64, u32)]) -> u32 {
        let second = |i: usize| commits[i..].iter().take_while(move |(at, _)| *at < commits[i].0 + SECOND);
        (0..commits.len()).map(|i| second(i).map(|(_, rows)| rows).sum()).max().unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// However long batches take, whenever within that they are committed, and whoever asks when.
        #[test]
        fn no_second_sees_more_commits_than_the_rate_and_a_twentieth_of_it(
            rate in prop_oneof![0.3..3.0f64, 3.0..30.0f64, 30.0..3000.0f64],
            unfinished in 1..5u32,
            shares in prop::collection::vec(prop::collection::vec(turn(9_000_000, 1..500), 1..20), 1..8),
            part in 1.0..25.0f64,
        ) {
            let most = ((rate / part) as u32).max(1);
            let bounded = |turn: &Turn| Turn { rows: turn.rows.min(most), ..*turn };
            let replicas: Vec<Vec<Turn>> = shares.iter().map(|turns| turns.iter().map(bounded).collect()).collect();
            let commits = live(rate, unfinished, &replicas, 15 * SECOND);
            let worst = worst_second(&commits);
            prop_assert!(f64::from(worst) <= rate + (rate / 20.0).max(1.0) + 1e-6, "{worst} rows at {rate}/s");
        }

        /// With a backlog, and a database that is quick enough for two batches at once.
        #[test]
        fn the_rate_is_reached(
            rate in prop_oneof![Just(5.0), Just(50.0), 20.0..4000.0f64], replicas in 1..8usize,
            took in prop::collection::vec(1000..30_000u64, 20), late in prop::collection::vec(0..5_000u64, 20),
        ) {
            let rows = ((rate / 20.0) as u32).max(1);
            let turns: Vec<Turn> = took.iter().zip(&late)
                .map(|(&took, &late)| Turn { idle: late, took, committed: 1.0, told: 1000, rows }).collect();
            let commits = live(rate, 2, &vec![turns; replicas], 25 * SECOND);
            let total: u32 = commits.iter().filter(|(at, _)| *at > 5 * SECOND).map(|(_, rows)| rows).sum();
            prop_assert!(f64::from(total) >= 0.97 * rate * 20.0 - 2.0 * f64::from(rows), "{total} rows in 20 s at {rate}/s");
        }
    }
}
