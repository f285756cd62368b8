//! Delays between attempts.

use std::time::Duration;

use model::Chance;

/// Exponential delays with jitter, between a first and a last one.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
    chance: Chance,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration, chance: Chance) -> Self {
        Self { initial, max, failures: 0, chance }
    }

    /// How often it was waited since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// It went well: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.delay_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// How long to wait after so many failures that were waited for already.
    pub(crate) fn delay_after(&self, failures: u32) -> Duration {
        let doubled = self.initial.saturating_mul(2_u32.saturating_pow(failures)).min(self.max);
        // Half of it is chance, so that replicas which failed together don't come back together.
        doubled.mul_f64(self.chance.jitter(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_last_and_begin_again_after_a_success() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut backoff = Backoff::new(initial, max, Chance::seeded(1));
        for failure in 0..100 {
            let full = initial.saturating_mul(1 << failure.min(20)).min(max);
            let delay = backoff.next_delay();
            assert!(delay <= full && delay >= full / 2, "{delay:?} after {failure} failures");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= initial);
    }
}
