//! What this process does not exceed, whatever the store says, which forgets what it granted when it is restarted.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time;

/// The clock that all waiting goes by.
#[derive(Debug, Clone, Copy)]
struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        time::Instant::now().into_std()
    }
}

/// Lets rows pass at a rate, two batches at once: one that the store granted late, and the next that is on time again.
pub(super) struct Cap {
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<std::time::Instant>>>,
}

impl Cap {
    /// For batches of at most `batch_rows` rows. `None` is no limit.
    pub(super) fn new(rows_per_second: Option<f64>, batch_rows: usize) -> Self {
        let burst =
            u32::try_from(batch_rows.saturating_mul(2)).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        // `governor` counts nanoseconds in 64 bits. A limit that lets nothing pass is kept by who asks.
        const LONGEST: f64 = 1e9;
        let longest = LONGEST / f64::from(burst.get());
        let period = |per_second: f64| Duration::from_secs_f64((1.0 / per_second).clamp(0.0, longest));
        // None for a period of nought: a limit beyond a row per nanosecond, which is none.
        let quota = rows_per_second.and_then(|per_second| Quota::with_period(period(per_second)));
        let limiter = quota.map(|quota| RateLimiter::direct_with_clock(quota.allow_burst(burst), RuntimeClock));
        Self { limiter }
    }

    /// Waits until so many may pass.
    pub(super) async fn pass(&self, rows: u32) {
        let (Some(limiter), Some(rows)) = (&self.limiter, NonZeroU32::new(rows)) else { return };
        // The outer error, more rows than the cap ever gives at once, can't be: a batch is less than the burst.
        while let Ok(Err(not_yet)) = limiter.check_n(rows) {
            time::sleep(not_yet.wait_time_from(RuntimeClock.now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn any_number_makes_a_cap() {
        for rate in [0.0, f64::MIN_POSITIVE, 1e-12, 0.01, 1e9, 1e18, f64::MAX, f64::INFINITY] {
            for batch in [0, 1, 500, usize::MAX] {
                Cap::new(Some(rate), batch).pass(1).await;
            }
        }
        Cap::new(None, 1).pass(u32::MAX).await;
    }

    #[tokio::test(start_paused = true)]
    async fn two_batches_pass_at_once_and_then_no_more_than_the_rate() {
        let (cap, begun) = (Cap::new(Some(100.0), 5), time::Instant::now());
        for _ in 0..12 {
            cap.pass(5).await;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(499) && took < Duration::from_millis(520), "{took:?}");
    }
}
