//! How often what goes wrong. Each seed has a climate of its own: a run in which one thing goes wrong often, and
//! others never, finds what a run in which everything goes wrong a little does not.

use std::time::Duration;

use rand::{RngExt as _, rngs::SmallRng};

use crate::nature::Place;

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Until it takes effect.
    pub before: Duration,
    /// From its effect to the answer.
    pub after: Duration,
    /// What the caller learns.
    pub end: End,
    /// What of a process that dies before the effect is under way takes effect all the same.
    pub survives_caller: bool,
    /// It takes effect once more, so much later.
    pub again: Option<Duration>,
}

/// What the caller learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The answer.
    Answered,
    /// That nothing was done; and nothing was.
    Refused,
    /// Nothing, though it was done.
    Unanswered,
    /// Nothing, and it was not done.
    Lost,
    /// Nothing; it is done so much later.
    Late(Duration),
}

impl Fate {
    /// It is answered at once.
    pub const FINE: Self =
        Self { before: Duration::ZERO, after: Duration::ZERO, end: End::Answered, survives_caller: true, again: None };

    /// The store can't be reached.
    pub(crate) fn away(rng: &mut SmallRng) -> Self {
        let end = if rng.random_bool(0.8) { End::Refused } else { End::Lost };
        Self { after: Duration::from_millis(rng.random_range(1..20)), end, ..Self::FINE }
    }
}

/// How often calls to one store go wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Weather {
    /// Calls that take time at all, and how many milliseconds at most.
    delayed: f64,
    delay_ms: u64,
    /// Calls that take much longer, and how many milliseconds at most.
    slow: f64,
    slow_ms: u64,
    refused: f64,
    unanswered: f64,
    lost: f64,
    late: f64,
    late_ms: u64,
    twice: f64,
}

/// How often what goes wrong in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Climate {
    weathers: [Weather; 3],
    /// Between two blows of the driver, at most.
    pub blow_every: Duration,
    /// Blows in all.
    pub blow_count: u64,
    /// How often each kind of blow comes, in parts of all.
    pub blows: Blows,
    /// Operations of all clients together.
    pub operations: u64,
    /// Clients at once.
    pub clients: u64,
    /// Keys per table.
    pub keys: u64,
    /// Between two operations of a client, at most.
    pub think: Duration,
    /// Whether the second table is there.
    pub two_tables: bool,
    /// Whether the keys of the second table are unique by construction.
    pub fresh_keys: bool,
    /// Ingest replicas at the beginning.
    pub ingests: u64,
    /// Drains at the beginning.
    pub drains: u64,
    /// How long a statement of the database takes.
    pub statement_time: Duration,
    /// Bytes that the hot store may hold.
    pub hot_bytes: u64,
    /// How long a clean record stays in the hot store.
    pub hot_ttl: Duration,
    /// How long tombstones are kept in the database.
    pub tombstone_retention: Duration,
    /// Whether the drain gathers rather long, or hardly.
    pub batch_age: Duration,
    /// How often what a drain says of its progress is on its way to the database for long: long enough for the hot
    /// store to be lost and opened in between.
    pub slow_upkeep: f64,
    /// Whether there are rows that the database refuses for good.
    pub poison: bool,
    /// Whether an operator pauses tables and drains them down.
    pub operator: bool,
    /// How many of the operations are streams of writes, in parts of all.
    pub streams: f64,
    /// Those who watch tables or keys.
    pub watchers: u64,
}

/// Weights of the blows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blows {
    /// An ingest replica is killed.
    pub kill_ingest: u32,
    /// A drain is killed.
    pub kill_drain: u32,
    /// A process stands still for a while.
    pub pause: u32,
    /// The hot store restarts with everything.
    pub restart_hot: u32,
    /// The hot store restarts without its tail.
    pub lose_tail: u32,
    /// The hot store restarts empty.
    pub lose_all: u32,
    /// The wall clock steps.
    pub step_clock: u32,
    /// Another drain joins, or one leaves.
    pub rebalance: u32,
    /// A store can't be reached for a while.
    pub outage: u32,
    /// Everything is killed at once.
    pub kill_all: u32,
    /// The hot store restarts without its tail, and with a clock that has stepped back.
    pub lose_tail_and_time: u32,
    /// Everything is killed at once, and the log loses its end; the hot store keeps what it has.
    pub cut_power: u32,
}

impl Climate {
    /// The climate of a seed.
    pub(crate) fn draw(rng: &mut SmallRng) -> Self {
        let mut weathers = [Weather::draw(rng), Weather::draw(rng), Weather::draw(rng)];
        if rng.random_bool(0.4) {
            // What is produced slowly lands behind what was produced later, and behind fences.
            let log = &mut weathers[Place::Log as usize];
            (log.slow, log.slow_ms) = (rng.random_range(0.05..0.3), rng.random_range(100..700));
        }
        let mut weight = |chance: f64, most: u32| if rng.random_bool(chance) { rng.random_range(1..=most) } else { 0 };
        let blows = Blows {
            kill_ingest: weight(0.7, 4),
            kill_drain: weight(0.7, 4),
            pause: weight(0.5, 4),
            restart_hot: weight(0.3, 2),
            lose_tail: weight(0.5, 4),
            lose_all: weight(0.3, 2),
            step_clock: weight(0.4, 2),
            rebalance: weight(0.5, 3),
            outage: weight(0.5, 3),
            kill_all: weight(0.2, 1),
            lose_tail_and_time: weight(0.2, 2),
            cut_power: 0,
        };
        let slow_upkeep = if rng.random_bool(0.2) { 0.4 } else { 0.0 };
        let blows = Blows {
            // What is late does no harm where no version comes again.
            lose_tail_and_time: blows.lose_tail_and_time.max(if slow_upkeep > 0.0 { 3 } else { 0 }),
            ..blows
        };
        let millis = |rng: &mut SmallRng, of: &[u64]| Duration::from_millis(of[rng.random_range(0..of.len())]);
        Self {
            weathers,
            blow_every: millis(rng, &[200, 500, 1200]),
            blow_count: rng.random_range(1..=12),
            blows,
            operations: rng.random_range(16..=40),
            clients: rng.random_range(2..=5),
            keys: rng.random_range(1..=3),
            think: millis(rng, &[20, 60, 200]),
            two_tables: rng.random_bool(0.3),
            fresh_keys: rng.random_bool(0.5),
            ingests: rng.random_range(1..=2),
            drains: rng.random_range(1..=2),
            statement_time: millis(rng, &[0, 0, 1, 30]),
            hot_bytes: if rng.random_bool(0.1) { rng.random_range(200..1500) } else { 1 << 30 },
            hot_ttl: millis(rng, &[30, 200, 1000, 60_000]),
            tombstone_retention: millis(rng, &[0, 100, 1000, 60_000]),
            batch_age: millis(rng, &[1, 5, 40]),
            slow_upkeep,
            poison: false,
            operator: false,
            streams: 0.0,
            watchers: 0,
        }
    }

    /// Some rows are refused for good. What was parked is not put back in a store that an opening finds empty.
    pub(crate) fn with_poison(self) -> Self {
        Self { poison: true, blows: Blows { lose_all: 0, ..self.blows }, ..self }
    }

    /// An operator pauses tables and drains them down.
    pub(crate) fn with_operator(self) -> Self {
        Self { operator: true, ..self }
    }

    /// Some clients send streams of writes.
    pub(crate) fn with_streams(self) -> Self {
        Self { streams: 0.2, ..self }
    }

    /// Somebody watches.
    pub(crate) fn with_watchers(self, watchers: u64) -> Self {
        Self { watchers, ..self }
    }

    /// The power fails now and then. What is queued is in two places, the log and the hot store, and the log loses its
    /// end then: so the hot store loses nothing in such a run.
    pub(crate) fn with_power_cuts(self) -> Self {
        let blows = Blows { lose_tail: 0, lose_all: 0, lose_tail_and_time: 0, cut_power: 4, ..self.blows };
        Self { blows, ..self }
    }

    /// What becomes of a call.
    pub(crate) fn fate(&self, place: Place, rng: &mut SmallRng) -> Fate {
        self.weathers[place as usize].fate(rng)
    }
}

impl Weather {
    fn draw(rng: &mut SmallRng) -> Self {
        if rng.random_bool(0.2) {
            // Fine: only short delays.
            return Self {
                delayed: 0.5,
                delay_ms: 2,
                slow: 0.0,
                slow_ms: 1,
                refused: 0.0,
                unanswered: 0.0,
                lost: 0.0,
                late: 0.0,
                late_ms: 1,
                twice: 0.0,
            };
        }
        let mut some =
            |chance: f64, of: [f64; 3]| if rng.random_bool(chance) { of[rng.random_range(0..3)] } else { 0.0 };
        let delayed = some(0.9, [0.2, 0.5, 0.9]);
        let slow = some(0.6, [0.005, 0.02, 0.08]);
        let refused = some(0.4, [0.005, 0.02, 0.05]);
        let unanswered = some(0.6, [0.005, 0.02, 0.06]);
        let lost = some(0.4, [0.005, 0.01, 0.03]);
        let late = some(0.5, [0.005, 0.02, 0.08]);
        let twice = some(0.4, [0.02, 0.1, 0.3]);
        Self {
            delayed,
            delay_ms: [1, 3, 10][rng.random_range(0..3)],
            slow,
            slow_ms: [50, 200, 1000][rng.random_range(0..3)],
            refused,
            unanswered,
            lost,
            late,
            late_ms: [50, 500, 3000][rng.random_range(0..3)],
            twice,
        }
    }

    fn fate(&self, rng: &mut SmallRng) -> Fate {
        let delay = |rng: &mut SmallRng| {
            let dice: f64 = rng.random();
            let millis = if dice < self.slow {
                rng.random_range(1..=self.slow_ms)
            } else if dice < self.slow + self.delayed {
                rng.random_range(0..=self.delay_ms)
            } else {
                0
            };
            Duration::from_millis(millis)
        };
        let (before, after) = (delay(rng), delay(rng));
        let mut dice: f64 = rng.random();
        let mut falls = |probability: f64| {
            let falls = dice < probability;
            dice -= probability;
            falls
        };
        let end = if falls(self.refused) {
            End::Refused
        } else if falls(self.unanswered) {
            End::Unanswered
        } else if falls(self.lost) {
            End::Lost
        } else if falls(self.late) {
            End::Late(Duration::from_millis(rng.random_range(1..=self.late_ms)))
        } else {
            End::Answered
        };
        let again = (self.twice > 0.0 && rng.random_bool(self.twice))
            .then(|| Duration::from_millis(rng.random_range(0..=self.late_ms)));
        Fate { before, after, end, survives_caller: rng.random_bool(0.8), again }
    }
}
