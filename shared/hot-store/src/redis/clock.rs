//! The server's time, as far as its answers tell.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Older answers count as none: a clock that was set meanwhile shall not mislead for longer where nothing is written.
const FRESH: Duration = Duration::from_secs(10);

/// What the answers of one server tell of its clock.
#[derive(Debug, Default)]
pub(super) struct ServerClock(Mutex<Option<Seen>>);

/// What one answer told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    micros: u64,
    /// When the answer was there; it was given before.
    at: Instant,
}

impl ServerClock {
    /// An answer that has just arrived told this time, in microseconds. The last one counts, in whichever direction it
    /// differs from what was expected: the server's clock was set.
    pub(super) fn learn(&self, micros: u64) -> Seen {
        let seen = Seen { micros, at: Instant::now() };
        self.set(Some(seen));
        seen
    }

    /// What is known has turned out to be wrong.
    pub(super) fn forget(&self) {
        self.set(None);
    }

    /// The last answer, if it is not too old to go by.
    pub(super) fn last(&self) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).filter(|seen| seen.at.elapsed() <= FRESH)
    }

    fn set(&self, seen: Option<Seen>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

impl Seen {
    /// The server's time at that moment: never later than it was, unless the server's clock was set back since the
    /// answer. It may be too early, by what the answer took, and by how long this machine stood still (the monotonic
    /// clock does not go on then).
    pub(super) fn at(self, moment: Instant) -> u64 {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let later = micros(moment.saturating_duration_since(self.at));
        self.micros.saturating_add(later).saturating_sub(micros(self.at.saturating_duration_since(moment)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::time::advance;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(clock: &ServerClock, moment: Instant) -> Option<u64> {
        clock.last().map(|seen| seen.at(moment))
    }

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_from_the_last_answer_and_back_from_it() {
        let clock = ServerClock::default();
        let before = Instant::now();
        assert_eq!(at(&clock, before), None);
        advance(Duration::from_secs(3)).await;
        clock.learn(100 * SECOND);
        assert_eq!(at(&clock, before), Some(97 * SECOND));
        advance(Duration::from_secs(4)).await;
        assert_eq!(at(&clock, Instant::now()), Some(104 * SECOND));
        assert_eq!(at(&clock, before), Some(97 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_is_followed_at_once_in_both_directions() {
        let clock = ServerClock::default();
        for told in [1000, 5000, 10] {
            clock.learn(told * SECOND);
            assert_eq!(at(&clock, Instant::now()), Some(told * SECOND));
        }
        clock.forget();
        assert_eq!(at(&clock, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_is_asked_for_again() {
        let clock = ServerClock::default();
        clock.learn(100 * SECOND);
        advance(FRESH).await;
        assert!(at(&clock, Instant::now()).is_some());
        advance(Duration::from_millis(1)).await;
        assert_eq!(at(&clock, Instant::now()), None);
    }
}
