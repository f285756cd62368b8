//! The gate before a table's transactions.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use hot_store::{Budget, Grant};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::backoff::Backoff;

/// Batches of one table that are granted and not finished, under a limit: a database that stalls isn't hit by what
/// piled up meanwhile, and one that is slow gets less.
const GRANTED_AND_UNFINISHED: usize = 2;

/// Leave to write so many rows now, until it is dropped.
pub(crate) struct Granted {
    pub(crate) rows: usize,
    _unfinished: Option<OwnedSemaphorePermit>,
}

/// The clock that all waiting goes by.
#[derive(Debug, Clone, Copy)]
struct RuntimeClock;

impl Clock for RuntimeClock {
    type Instant = std::time::Instant;

    fn now(&self) -> Self::Instant {
        time::Instant::now().into_std()
    }
}

/// Lets batches of one table pass, no faster than its limit over all replicas.
pub(crate) struct Gate<B> {
    name: String,
    limit: Option<Limit>,
    budget: Arc<B>,
    backoff: Backoff,
}

struct Limit {
    rows_per_second: f64,
    unfinished: Arc<Semaphore>,
    /// One batch of this process asks at a time, in the order in which they came.
    queue: Mutex<()>,
    /// Caps this process at the limit whatever the store says, which forgets what it granted when it is restarted.
    cap: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<std::time::Instant>>,
    burst: NonZeroU32,
}

impl<B: Budget> Gate<B> {
    /// A gate for batches of at most `batch_rows` rows.
    pub(crate) fn new(
        name: String,
        rows_per_second: Option<f64>,
        batch_rows: usize,
        budget: Arc<B>,
        backoff: Backoff,
    ) -> Self {
        let limit = rows_per_second.and_then(|rows_per_second| {
            let burst = u32::try_from(batch_rows).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
            let period = Duration::try_from_secs_f64(1.0 / rows_per_second).unwrap_or(Duration::MAX);
            // None for a period of nought: a limit beyond a row per nanosecond, which is none.
            let quota = Quota::with_period(period)?.allow_burst(burst);
            Some(Limit {
                rows_per_second,
                unfinished: Arc::new(Semaphore::new(GRANTED_AND_UNFINISHED)),
                queue: Mutex::new(()),
                cap: RateLimiter::direct_with_clock(quota, RuntimeClock),
                burst,
            })
        });
        Self { name, limit, budget, backoff }
    }

    /// Waits until a batch may be written. `rows` says how many rows it would have; it is asked again whenever the
    /// store is, for what waits grows (or goes to another owner) meanwhile. Cancel-safe.
    pub(crate) async fn pass(&self, rows: impl Fn() -> usize) -> Granted {
        let Some(limit) = &self.limit else {
            return Granted { rows: rows(), _unfinished: None };
        };
        // The semaphore is never closed.
        let unfinished = limit.unfinished.clone().acquire_owned().await.ok();
        let _turn = limit.queue.lock().await;
        let mut backoff = self.backoff.clone();
        loop {
            let wanted = u32::try_from(rows()).unwrap_or(u32::MAX).min(limit.burst.get());
            if wanted == 0 {
                return Granted { rows: 0, _unfinished: None };
            }
            match self.budget.take(&self.name, wanted, limit.rows_per_second).await {
                Ok(Grant::Now) => {
                    if backoff.failures() > 0 {
                        tracing::info!(table = self.name, "the hot store grants the drain's budget again");
                    }
                    limit.wait_for_cap(wanted).await;
                    return Granted { rows: wanted as usize, _unfinished: unfinished };
                }
                Ok(Grant::After(wait)) => time::sleep(wait).await,
                Err(error) => {
                    if backoff.failures() == 0 {
                        tracing::warn!(
                            table = self.name,
                            %error,
                            "the drain pauses: it takes its budget from the hot store, which does not answer"
                        );
                    }
                    time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }
}

impl Limit {
    async fn wait_for_cap(&self, rows: u32) {
        let Some(rows) = NonZeroU32::new(rows) else { return };
        // The outer error, more rows than the cap ever gives at once, can't be: a batch is at most the burst.
        while let Ok(Err(not_yet)) = self.cap.check_n(rows) {
            time::sleep(not_yet.wait_time_from(RuntimeClock.now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU32, Ordering};

    use hot_store::HotStoreError;
    use model::Chance;
    use tokio::time::Instant;

    use super::*;

    /// Fails at first, then grants everything at once, as a store does that has lost its memory.
    struct Generous {
        failures: AtomicU32,
    }

    impl Budget for Generous {
        async fn take(&self, _: &str, _: u32, _: f64) -> Result<Grant, HotStoreError> {
            let failing =
                self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            if failing { Err(HotStoreError::Unavailable("down".into())) } else { Ok(Grant::Now) }
        }
    }

    fn gate(limit: Option<f64>, rows: usize, failures: u32) -> Gate<Generous> {
        let budget = Arc::new(Generous { failures: AtomicU32::new(failures) });
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2), Chance::seeded(1));
        Gate::new("main.payments".into(), limit, rows, budget, backoff)
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_never_exceeds_the_limit_by_more_than_a_batch_whatever_the_store_grants() {
        let (limit, batch) = (1000.0, 50);
        let gate = gate(Some(limit), batch, 0);
        let begun = Instant::now();
        let mut rows = 0;
        for _ in 0..7 {
            rows += gate.pass(|| batch).await.rows;
            let allowed = begun.elapsed().as_secs_f64() * limit + batch as f64;
            assert!(rows as f64 <= allowed + 1.0, "{rows} rows, {allowed} allowed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_batches_are_granted_and_unfinished_at_most() {
        let gate = gate(Some(1e6), 1, 0);
        let first = gate.pass(|| 1).await;
        let _second = gate.pass(|| 1).await;
        let third = gate.pass(|| 1);
        tokio::pin!(third);
        let early = time::timeout(Duration::from_millis(50), third.as_mut()).await;
        assert!(early.is_err());
        drop(first);
        assert_eq!(third.await.rows, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_while_the_store_is_away_and_passes_freely_without_a_limit() {
        let limited = gate(Some(1e6), 5, 3);
        assert_eq!(limited.pass(|| 5).await.rows, 5);
        assert_eq!(limited.budget.failures.load(Ordering::Relaxed), 0);
        let free = gate(None, 5, u32::MAX);
        assert_eq!(free.pass(|| 5).await.rows, 5);
    }
}
