//! Faults that meet where a rule of the protocol is the only thing between them and a lost write: chance alone brings
//! them together too rarely.

use std::time::Duration;

use rand::{RngExt as _, rngs::SmallRng};
use shock_absorber_tests::proxy::Weather;

use super::{Cast, Fault, Link, Planned, Survives, Victim};

/// Draws one such meeting.
pub(super) fn plan(rng: &mut SmallRng, cast: Cast) -> Vec<Planned> {
    let ingest = Victim::Ingest(rng.random_range(0..cast.ingests));
    let drain = Victim::Drain(rng.random_range(0..cast.drains));
    // Redis dies and forgets at `at`; the rest is arranged around it.
    let at = rng.random_range(300..900);
    let forgets = Fault::KillRedis(forgetting(rng));
    let gone = rng.random_range(30..400);
    match rng.random_range(0..6) {
        // Events are on their way, or come through when their epoch is over.
        0 => vec![
            planned(Fault::Weather(Link::IngestKafka, slow(rng)), at - 250, at + gone + rng.random_range(0..900)),
            planned(forgets, at, at + gone),
        ],
        // The same, and nobody is left who remembers them.
        1 => vec![
            planned(Fault::Weather(Link::IngestKafka, slow(rng)), at - 250, at + gone),
            planned(forgets, at, at + gone),
            planned(Fault::KillOurs, at + rng.random_range(0..40), at + gone + 10),
        ],
        // Batches are gathered, granted, or half-way into the database.
        2 => vec![
            planned(Fault::Weather(Link::DrainDatabase, slow(rng)), at - 250, at + gone + rng.random_range(0..600)),
            planned(Fault::Kill(drain), at + rng.random_range(0..60), at + gone + 60),
            planned(forgets, at, at + gone),
        ],
        // Marks are on their way.
        3 => vec![
            planned(Fault::Weather(Link::DrainRedis, slow(rng)), at - 250, at + gone + rng.random_range(0..600)),
            planned(forgets, at, at + gone),
        ],
        // A replica sleeps through the loss, and wakes up as an opener, a relay and a writer of an epoch that is over.
        4 => vec![
            planned(Fault::Freeze(ingest), at - rng.random_range(1..250), at + gone + rng.random_range(100..1_500)),
            planned(forgets, at, at + gone),
        ],
        // The opener dies half-way, and the store forgets once more.
        _ => {
            let back = at + gone;
            let again = back + rng.random_range(100..500);
            vec![
                planned(forgets, at, back),
                planned(Fault::Kill(ingest), back + rng.random_range(50..350), back + 600),
                planned(Fault::KillRedis(forgetting(rng)), again, again + rng.random_range(30..300)),
            ]
        }
    }
}

fn planned(fault: Fault, from: u64, to: u64) -> Planned {
    Planned { fault, from: Duration::from_millis(from), to: Duration::from_millis(to) }
}

fn forgetting(rng: &mut SmallRng) -> Survives {
    match rng.random_range(0..3) {
        0 => Survives::Without { thousandths: rng.random_range(1..100) },
        1 => Survives::Without { thousandths: rng.random_range(1..1_000) },
        _ => Survives::Nothing,
    }
}

fn slow(rng: &mut SmallRng) -> Weather {
    match rng.random_range(0..3) {
        0 => Weather::Stalled,
        1 => Weather::Latency(Duration::from_millis(rng.random_range(50..400))),
        _ => Weather::Sliced { bytes: rng.random_range(20..200), pause: Duration::from_millis(1) },
    }
}
