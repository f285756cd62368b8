//! How a limit follows the database's health: slowly up, whatever it is now by the same amount, the more the longer all has
//! been well, and quickly down, by half.
//!
//! It is one law for all replicas together: each of them takes the next step from what is agreed on, whoever took the last
//! one. So it counts time, not steps.

use std::time::Duration;

use hot_store::AgreedLimit;

/// At most one decrease in so long: what a decrease brings about shows only then.
const REACTION: u64 = micros(Duration::from_millis(1500));
/// For so long nothing may have been wrong before the limit is raised.
const CALM: u64 = micros(Duration::from_secs(2));
/// From the lowest limit to the highest, if all looks find it healthy; where transactions scatter, some do not.
const RECOVERY: u64 = micros(Duration::from_secs(15));
/// The longest time for which one step raises the limit: what lies further back, nobody has seen to be healthy.
const LONGEST_STEP: u64 = micros(Duration::from_secs(2));
/// When nobody has said for so long how the database fares, it is not known any more.
const FORGOTTEN: u64 = micros(Duration::from_secs(60));

/// Between what a limit moves, in rows per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The lowest limit: above 0.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

/// How a replica finds the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// As quick as it uses to be.
    Good,
    /// Neither good nor bad: the limit stays.
    Fair,
    /// Nothing was tried.
    Unclear,
    /// Slow, or attempts fail.
    Bad,
}

/// Where nothing is known, it begins at the lowest.
pub(super) fn begin(bounds: Bounds, now: u64) -> AgreedLimit {
    AgreedLimit { per_second: bounds.min, raised: now, lowered: now, troubled: now }
}

/// What is to be agreed on next; `None` if that is what there is.
pub(super) fn next(current: AgreedLimit, health: Health, bounds: Bounds, now: u64) -> Option<AgreedLimit> {
    // A moment that lies ahead is one of a clock that stepped back.
    let [raised, lowered, troubled] = [current.raised, current.lowered, current.troubled].map(|at| at.min(now));
    if raised.max(troubled) + FORGOTTEN < now {
        return Some(begin(bounds, now));
    }
    let per_second = within(current.per_second, bounds);
    match health {
        Health::Unclear => None,
        Health::Fair => (raised < now).then_some(AgreedLimit { per_second, raised: now, lowered, troubled }),
        Health::Bad if now < lowered + REACTION => {
            Some(AgreedLimit { per_second, raised: now, lowered, troubled: now })
        }
        Health::Bad => {
            let per_second = within(per_second / 2.0, bounds);
            Some(AgreedLimit { per_second, raised: now, lowered: now, troubled: now })
        }
        Health::Good => {
            let calm = troubled + CALM;
            let since = raised.max(calm).max(now.saturating_sub(LONGEST_STEP));
            if now <= since {
                return None;
            }
            let more = (bounds.max - bounds.min) * (way(now - calm) - way(since - calm));
            Some(AgreedLimit { per_second: within(per_second + more, bounds), raised: now, lowered, troubled })
        }
    }
}

/// How much of the way from the lowest limit to the highest there is after so long without trouble: little at first, for
/// where others still need the database, the limit shall not be far above what it bears before that shows.
fn way(calm: u64) -> f64 {
    let part = calm as f64 / RECOVERY as f64;
    if part < 1.0 { part * part } else { 2.0 * part - 1.0 }
}

/// Also what is agreed on between other bounds, or is no number.
pub(super) fn within(per_second: f64, bounds: Bounds) -> f64 {
    per_second.min(bounds.max).max(bounds.min)
}

const fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const BOUNDS: Bounds = Bounds { min: 10.0, max: 1010.0 };

    fn health() -> impl Strategy<Value = Health> {
        prop_oneof![Just(Health::Good), Just(Health::Fair), Just(Health::Unclear), Just(Health::Bad)]
    }

    fn bounds() -> impl Strategy<Value = Bounds> {
        (0.001..1e4f64, 0.0..1e6f64).prop_map(|(min, more)| Bounds { min, max: min + more })
    }

    /// Replicas that look every half second, each at its own moment, and all find the same: what is agreed on over time.
    fn run(replicas: u64, seconds: u64, bounds: Bounds, health: impl Fn(u64) -> Health) -> Vec<(u64, AgreedLimit)> {
        let mut looks: Vec<u64> = (0..replicas)
            .flat_map(|replica| (0..seconds * 2).map(move |turn| turn * SECOND / 2 + replica * 137_911 % (SECOND / 2)))
            .collect();
        looks.sort_unstable();
        let mut current = begin(bounds, 0);
        let mut all = Vec::new();
        for now in looks {
            current = next(current, health(now), bounds, now).unwrap_or(current);
            all.push((now, current));
        }
        all
    }

    fn last(all: &[(u64, AgreedLimit)]) -> f64 {
        all.last().unwrap().1.per_second
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_whatever_was_there_before(
            bounds in bounds(), per_second in any::<f64>(), moments in prop::array::uniform3(any::<u32>()),
            steps in prop::collection::vec((health(), 0..5 * SECOND), 1..100), start in any::<u32>(),
        ) {
            let [raised, lowered, troubled] = moments.map(u64::from);
            let mut current = AgreedLimit { per_second, raised, lowered, troubled };
            let mut now = u64::from(start);
            for (health, passed) in steps {
                now += passed;
                prop_assert!((bounds.min..=bounds.max).contains(&within(current.per_second, bounds)));
                if let Some(after) = next(current, health, bounds, now) {
                    prop_assert!((bounds.min..=bounds.max).contains(&after.per_second));
                    current = after;
                }
            }
        }

        /// However many say so, and however often: one decrease in a reaction's time, and no increase faster than the slope.
        #[test]
        fn it_never_rises_or_falls_faster_for_more_replicas(
            looks in prop::collection::vec((health(), 1..SECOND / 2), 10..300),
        ) {
            let (mut current, mut now) = (begin(BOUNDS, 0), 0);
            let mut decreases = Vec::new();
            for (health, passed) in looks {
                now += passed;
                let before = current;
                current = next(current, health, BOUNDS, now).unwrap_or(current);
                if current.per_second < before.per_second {
                    decreases.push(now);
                    prop_assert!(current.per_second >= before.per_second / 2.0);
                    prop_assert_eq!(health, Health::Bad);
                }
                let most = BOUNDS.min + (BOUNDS.max - BOUNDS.min) * now as f64 / RECOVERY as f64;
                prop_assert!(current.per_second <= most + 1e-6, "{} after {now}", current.per_second);
            }
            prop_assert!(decreases.windows(2).all(|pair| pair[1] - pair[0] >= REACTION), "{decreases:?}");
        }

        /// While anyone finds trouble nobody raises, whatever others find; and it goes down to the lowest.
        #[test]
        fn it_gives_way_while_one_of_many_replicas_is_in_trouble(replicas in 1..12u64, healthy in 0..11u64) {
            let mut current = AgreedLimit { per_second: BOUNDS.max, ..begin(BOUNDS, 0) };
            for turn in 0..40 * replicas {
                let now = 2 * SECOND + turn * SECOND / 2 / replicas;
                let health = if turn % replicas == healthy % replicas { Health::Bad } else { Health::Good };
                let before = current;
                current = next(current, health, BOUNDS, now).unwrap_or(current);
                // The first second's worth may be raised before anyone has said so.
                prop_assert!(turn < replicas || current.per_second <= before.per_second);
            }
            prop_assert!((current.per_second - BOUNDS.min).abs() < 1e-9, "{}", current.per_second);
        }
    }

    #[test]
    fn from_the_lowest_to_the_highest_takes_20_seconds_at_most_and_15_at_least_for_any_number_of_replicas() {
        for replicas in [1, 2, 3, 8, 64] {
            let all = run(replicas, 40, BOUNDS, |_| Health::Good);
            let full = all.iter().find(|(_, limit)| limit.per_second >= BOUNDS.max).unwrap().0;
            assert!((15 * SECOND..20 * SECOND).contains(&full), "{full} with {replicas} replicas");
            let half = all.iter().find(|(_, limit)| limit.per_second >= 510.0).unwrap().0;
            assert!((11 * SECOND..=14 * SECOND).contains(&half), "{half} with {replicas} replicas");
        }
    }

    #[test]
    fn under_lasting_trouble_it_halves_every_reaction_time_and_afterwards_it_is_back_in_time() {
        for replicas in [1, 3, 8, 64] {
            let bad = |now: u64| (60 * SECOND..90 * SECOND).contains(&now);
            let all = run(replicas, 130, BOUNDS, |now| if bad(now) { Health::Bad } else { Health::Good });
            let at = |second: u64| all.iter().rfind(|(now, _)| *now < second * SECOND).unwrap().1.per_second;
            assert!((at(60) - BOUNDS.max).abs() < 1e-9);
            let (three, nine) = (at(63), at(69));
            assert!((BOUNDS.max / 4.0..=BOUNDS.max / 2.0).contains(&three), "{three} with {replicas} replicas");
            assert!((BOUNDS.max / 65.0..=BOUNDS.max / 16.0).contains(&nine), "{nine} with {replicas} replicas");
            assert!((at(90) - BOUNDS.min).abs() < 1e-9);
            assert!((at(115) - BOUNDS.max).abs() < 1e-9, "{} with {replicas} replicas", at(115));
        }
    }

    #[test]
    fn what_nobody_spoke_of_for_a_minute_begins_anew_at_the_lowest() {
        let full = AgreedLimit { per_second: BOUNDS.max, ..begin(BOUNDS, 0) };
        assert_eq!(next(full, Health::Unclear, BOUNDS, 59 * SECOND), None);
        for health in [Health::Unclear, Health::Good, Health::Bad] {
            let later = next(full, health, BOUNDS, 61 * SECOND).unwrap();
            assert_eq!(later, begin(BOUNDS, 61 * SECOND), "{health:?}");
        }
        // And not in a leap either once somebody does.
        assert!(last(&run(3, 5, BOUNDS, |_| Health::Good)) <= BOUNDS.min + 200.0 + 1e-6);
    }

    #[test]
    fn a_database_that_is_a_little_slower_for_hours_keeps_its_limit() {
        let full = AgreedLimit { per_second: BOUNDS.max, ..begin(BOUNDS, 0) };
        let mut current = full;
        for second in 1..7200 {
            current = next(current, Health::Fair, BOUNDS, second * SECOND).unwrap_or(current);
        }
        assert_eq!(current.per_second, BOUNDS.max);
    }

    #[test]
    fn a_clock_that_steps_back_stops_nothing() {
        let ahead = AgreedLimit { per_second: 500.0, ..begin(BOUNDS, 1000 * SECOND) };
        let lower = next(ahead, Health::Bad, BOUNDS, 5 * SECOND).unwrap();
        let (mut current, mut now) = (lower, 5 * SECOND);
        while now < 12 * SECOND {
            now += SECOND / 2;
            current = next(current, Health::Good, BOUNDS, now).unwrap_or(current);
        }
        assert!(current.per_second > 580.0, "{current:?}");
    }
}
