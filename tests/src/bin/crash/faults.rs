//! What happens in a cycle, and when: drawn from the seed.

mod together;

use std::{fmt, time::Duration};

use rand::{RngExt as _, rngs::SmallRng, seq::IndexedRandom as _};
use shock_absorber_tests::proxy::Weather;

/// One of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Ingest(usize),
    Drain(usize),
    Redis,
    Kafka,
    Database,
}

/// What a killed Redis finds when it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    /// All that it has acknowledged.
    Everything,
    /// Its file without the last so many thousandths of what was written in this cycle, and perhaps of earlier ones.
    Without { thousandths: u64 },
    /// Nothing.
    Nothing,
}

/// A connection between two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    ClientIngest(usize),
    IngestRedis,
    IngestKafka,
    IngestDatabase,
    DrainRedis,
    DrainKafka,
    DrainDatabase,
}

impl Link {
    pub(crate) const ALL: [Self; 8] = [
        Self::ClientIngest(0),
        Self::ClientIngest(1),
        Self::IngestRedis,
        Self::IngestKafka,
        Self::IngestDatabase,
        Self::DrainRedis,
        Self::DrainKafka,
        Self::DrainDatabase,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9; comes back at its end.
    Kill(Victim),
    /// kill -9 of Redis, which comes back with what survives.
    KillRedis(Survives),
    /// Both ingest replicas and all drains.
    KillOurs,
    /// Everything.
    KillAll(Survives),
    /// SIGSTOP; SIGCONT at its end.
    Freeze(Victim),
    /// On a link, until its end.
    Weather(Link, Weather),
    /// Every connection of a link is reset, once.
    Reset(Link),
    /// Redis's wall clock stands so many seconds beside the machine's from then on.
    SetClock { seconds: i64 },
}

/// A fault, from when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}..{} ms", self.fault, self.from.as_millis(), self.to.as_millis())
    }
}

/// What may be hurt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) ingests: usize,
    pub(crate) drains: usize,
}

/// Draws the faults of a cycle.
pub(crate) fn plan(rng: &mut SmallRng, cast: Cast) -> Vec<Planned> {
    if rng.random_bool(0.03) {
        // By itself: a lease whose reader dies while the clock goes back an hour would last that hour.
        return vec![set_clock(rng, Duration::from_millis(600))];
    }
    let mut planned: Vec<Planned> = if rng.random_bool(0.35) {
        together::plan(rng, cast)
    } else {
        let number = [1, 1, 2, 2, 3].choose(rng).copied().unwrap_or(1);
        (0..number).map(|_| one(rng, cast)).collect()
    };
    // A JVM takes seconds to come back: once is enough.
    let mut broker_dies = false;
    planned.retain(|planned| {
        let again = broker_dies && kills_broker(planned.fault);
        broker_dies |= kills_broker(planned.fault);
        !again
    });
    let dies = |p: &&Planned| matches!(p.fault, Fault::KillRedis(_) | Fault::KillAll(_));
    if let Some(from) = planned.iter().find(dies).map(|planned| planned.from)
        && rng.random_bool(0.3)
    {
        // It comes back on a machine with another idea of the time.
        planned.push(set_clock(rng, from + Duration::from_millis(1)));
    }
    planned
}

fn set_clock(rng: &mut SmallRng, at: Duration) -> Planned {
    let seconds = [-3_600, -60, 0, 0, 60, 3_600].choose(rng).copied().unwrap_or(0);
    Planned { fault: Fault::SetClock { seconds }, from: at, to: at }
}

pub(crate) fn kills_broker(fault: Fault) -> bool {
    matches!(fault, Fault::Kill(Victim::Kafka) | Fault::KillAll(_))
}

fn one(rng: &mut SmallRng, cast: Cast) -> Planned {
    let fault = match rng.random_range(0..100) {
        0..11 => Fault::Kill(Victim::Ingest(rng.random_range(0..cast.ingests))),
        11..22 => Fault::Kill(Victim::Drain(rng.random_range(0..cast.drains))),
        22..45 => Fault::KillRedis(survives(rng)),
        45..49 => Fault::Kill(Victim::Kafka),
        49..56 => Fault::Kill(Victim::Database),
        56..59 => Fault::KillOurs,
        59..61 => Fault::KillAll(survives(rng)),
        61..77 => Fault::Freeze(victim(rng, cast)),
        77..81 => Fault::Reset(link(rng)),
        _ => Fault::Weather(link(rng), weather(rng)),
    };
    let from = Duration::from_millis(rng.random_range(50..900));
    let longest = match fault {
        // Longer than a session, sometimes: whoever wakes up is not the owner any more, and does not know.
        Fault::Freeze(Victim::Drain(_) | Victim::Ingest(_)) if rng.random_bool(0.2) => 5_000,
        Fault::Freeze(_) | Fault::Weather(..) => 1_500,
        _ => 900,
    };
    Planned { fault, from, to: from + Duration::from_millis(rng.random_range(30..longest)) }
}

fn survives(rng: &mut SmallRng) -> Survives {
    match rng.random_range(0..100) {
        0..35 => Survives::Everything,
        35..55 => Survives::Without { thousandths: rng.random_range(1..50) },
        55..75 => Survives::Without { thousandths: rng.random_range(1..1_000) },
        // As after the restore of an old copy.
        75..82 => Survives::Without { thousandths: rng.random_range(1_000..3_000) },
        _ => Survives::Nothing,
    }
}

fn victim(rng: &mut SmallRng, cast: Cast) -> Victim {
    match rng.random_range(0..10) {
        0..3 => Victim::Ingest(rng.random_range(0..cast.ingests)),
        3..6 => Victim::Drain(rng.random_range(0..cast.drains)),
        6..8 => Victim::Redis,
        8 => Victim::Kafka,
        _ => Victim::Database,
    }
}

fn link(rng: &mut SmallRng) -> Link {
    Link::ALL.choose(rng).copied().unwrap_or(Link::IngestRedis)
}

fn weather(rng: &mut SmallRng) -> Weather {
    match rng.random_range(0..4) {
        0 => Weather::Latency(Duration::from_millis(rng.random_range(1..120))),
        1 => {
            let pause = Duration::from_micros(rng.random_range(0..2_000));
            Weather::Sliced { bytes: rng.random_range(1..64), pause }
        }
        2 => Weather::Stalled,
        _ => Weather::Cut,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_again_and_each_kind_comes_up() {
        let cast = Cast { ingests: 2, drains: 3 };
        let draw = |seed| plan(&mut SmallRng::seed_from_u64(seed), cast);
        let all: Vec<Planned> = (0..500).flat_map(draw).collect();
        assert_eq!(all, (0..500).flat_map(draw).collect::<Vec<_>>());
        assert!(all.iter().all(|planned| planned.from <= planned.to));
        let has = |wanted: fn(&Fault) -> bool| all.iter().any(|planned| wanted(&planned.fault));
        assert!(has(|fault| matches!(fault, Fault::KillAll(_))));
        assert!(has(|fault| matches!(fault, Fault::KillRedis(Survives::Nothing))));
        assert!(has(|fault| matches!(fault, Fault::KillRedis(Survives::Without { .. }))));
        assert!(has(|fault| matches!(fault, Fault::Freeze(Victim::Drain(_)))));
        assert!(has(|fault| matches!(fault, Fault::SetClock { seconds: -3_600 })));
        assert!(has(|fault| matches!(fault, Fault::Weather(Link::DrainKafka, Weather::Stalled))));
    }
}
