//! Budgets in memory.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::Grant;

/// The longest wait that is ever answered; whoever waited so long asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The last grant. Kept instead of the next moment allowed, so that a changed limit holds at once.
#[derive(Debug, Clone, Copy)]
struct LastGrant {
    at: Instant,
    rows: u32,
}

/// All budgets of a store.
#[derive(Debug, Default)]
pub(super) struct Budgets(HashMap<String, LastGrant>);

impl Budgets {
    /// Takes, or says how long to wait. A budget that is not known begins as if a batch had just been granted: what
    /// was granted before a restart is not known any more, and must not be granted twice within a second.
    pub(super) fn take(&mut self, name: &str, rows: u32, rows_per_second: f64, now: Instant) -> Grant {
        if rows == 0 || rows_per_second == f64::INFINITY {
            return Grant::Now;
        }
        let Some(last) = self.0.get_mut(name) else {
            self.0.insert(name.to_owned(), LastGrant { at: now, rows });
            return Grant::After(interval(rows, rows_per_second).min(LONGEST_WAIT));
        };
        let wait = interval(last.rows, rows_per_second).saturating_sub(now.saturating_duration_since(last.at));
        if wait.is_zero() {
            *last = LastGrant { at: now, rows };
            return Grant::Now;
        }
        Grant::After(wait.min(LONGEST_WAIT))
    }

    /// Forgets all, as a restart does.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// For how long a grant of `rows` rows uses the budget up. No rate at all grants nothing, ever.
fn interval(rows: u32, rows_per_second: f64) -> Duration {
    let seconds = f64::from(rows) / rows_per_second;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever asks, how often and for how much: no one-second window sees more than the rate and one batch.
        #[test]
        fn no_window_sees_more_than_the_rate_and_one_batch(
            rate in 0.5_f64..2000.0,
            asks in prop::collection::vec((0_u64..200_000, 1_u32..200), 1..400),
        ) {
            let start = Instant::now();
            let (mut budgets, mut now, mut granted) = (Budgets::default(), start, Vec::new());
            for (pause_micros, rows) in asks {
                now += Duration::from_micros(pause_micros);
                if budgets.take("t", rows, rate, now) == Grant::Now {
                    granted.push((now, rows));
                }
            }
            for (i, &(from, _)) in granted.iter().enumerate() {
                let window = granted[i..].iter().take_while(|(at, _)| *at < from + Duration::from_secs(1));
                let (total, largest) = window.fold((0, 0), |(sum, max), &(_, rows)| (sum + rows, max.max(rows)));
                prop_assert!(f64::from(total) <= rate + f64::from(largest) + 0.01, "{total} rows at {rate}/s");
            }
        }

        /// Whoever waits as told is granted.
        #[test]
        fn who_waits_as_told_is_granted(rate in 0.01_f64..5000.0, rows in 1_u32..500) {
            let mut now = Instant::now();
            let mut budgets = Budgets::default();
            for _ in 0..5 {
                let mut asked = 0;
                while let Grant::After(wait) = budgets.take("t", rows, rate, now) {
                    now += wait;
                    asked += 1;
                    prop_assert!(asked < 100);
                }
            }
        }
    }

    #[test]
    fn less_than_a_row_per_second_works_and_a_raised_limit_holds_at_once() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        assert_eq!(budgets.take("t", 1, 0.1, start), Grant::After(Duration::from_secs(10)));
        let later = start + Duration::from_secs(10);
        assert_eq!(budgets.take("t", 1, 0.1, later), Grant::Now);
        assert_eq!(budgets.take("t", 1, 0.1, later), Grant::After(Duration::from_secs(10)));
        assert_eq!(budgets.take("t", 1, 100.0, later), Grant::After(Duration::from_millis(10)));
    }

    #[test]
    fn a_small_ask_after_a_large_grant_waits_for_the_large_one() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        budgets.take("t", 500, 1000.0, start);
        let granted_at = start + Duration::from_millis(500);
        assert_eq!(budgets.take("t", 500, 1000.0, granted_at), Grant::Now);
        assert_eq!(budgets.take("t", 1, 1000.0, granted_at), Grant::After(Duration::from_millis(500)));
    }

    #[test]
    fn a_rate_that_is_none_grants_nothing() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        for rate in [0.0, -1.0, f64::NAN] {
            for hours in 0..3 {
                let now = start + Duration::from_secs(3600 * hours);
                assert!(matches!(budgets.take("none", 1, rate, now), Grant::After(_)), "{rate}");
            }
        }
    }
}
