//! Whether Kafka is believed to take records now.
//!
//! Belief is drawn from what happens anyway (deliveries, the client's error callback) and lost in three ways: all
//! brokers are down, a record was given up, or records wait and none has got through for a while. It comes back with
//! the next delivery, or by a probe, since nothing is delivered while everything is refused.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// See the module. Times are milliseconds since it was made.
pub(super) struct Availability {
    born: Instant,
    stall_ms: u64,
    up: AtomicBool,
    in_flight: AtomicI64,
    progress_at_ms: AtomicU64,
    lost: Notify,
}

impl Availability {
    pub(super) fn new(stall: Duration) -> Self {
        Self {
            born: Instant::now(),
            stall_ms: u64::try_from(stall.as_millis()).unwrap_or(u64::MAX),
            up: AtomicBool::new(true),
            in_flight: AtomicI64::new(0),
            progress_at_ms: AtomicU64::new(0),
            lost: Notify::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up_at(self.now_ms())
    }

    fn is_up_at(&self, now_ms: u64) -> bool {
        let stalled = self.in_flight.load(Ordering::Relaxed) > 0
            && now_ms.saturating_sub(self.progress_at_ms.load(Ordering::Relaxed)) > self.stall_ms;
        self.up.load(Ordering::Relaxed) && !stalled
    }

    /// A record is about to be handed over.
    pub(super) fn sending(&self) {
        self.sending_at(self.now_ms());
    }

    fn sending_at(&self, now_ms: u64) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) <= 0 {
            self.progress_at_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// It was not taken: nothing is learned from that.
    pub(super) fn not_sent(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// It is in the log.
    pub(super) fn delivered(&self) {
        self.delivered_at(self.now_ms());
    }

    fn delivered_at(&self, now_ms: u64) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.progress_at_ms.store(now_ms, Ordering::Relaxed);
        if !self.up.load(Ordering::Relaxed) {
            self.found();
        }
    }

    /// It was given up for a reason that is not the record's own.
    pub(super) fn given_up(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.lose("a record was given up");
    }

    /// It was refused for itself; the brokers are well.
    pub(super) fn rejected(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The brokers can't be reached.
    pub(super) fn lose(&self, why: &str) {
        if self.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(why, "Kafka is taken for unavailable; writes that need it are refused");
            self.lost.notify_one();
        }
    }

    /// The brokers answer.
    pub(super) fn found(&self) {
        self.progress_at_ms.store(self.now_ms(), Ordering::Relaxed);
        if !self.up.swap(true, Ordering::Relaxed) {
            tracing::info!("Kafka is available again");
        }
    }

    /// Whether the last word was that it is down; a stall doesn't count, it ends by itself.
    pub(super) fn is_lost(&self) -> bool {
        !self.up.load(Ordering::Relaxed)
    }

    /// Waits until it is lost. A loss that nobody waited for is remembered.
    pub(super) async fn until_lost(&self) {
        while !self.is_lost() {
            self.lost.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_given_up_makes_it_unavailable_until_one_gets_through() {
        let kafka = Availability::new(Duration::from_secs(2));
        assert!(kafka.is_up());
        kafka.sending();
        kafka.given_up();
        assert!(!kafka.is_up());
        kafka.sending();
        kafka.delivered();
        assert!(kafka.is_up());
    }

    #[test]
    fn records_that_wait_without_any_progress_make_it_unavailable() {
        let kafka = Availability::new(Duration::from_secs(2));
        kafka.sending_at(10_000);
        assert!(kafka.is_up_at(12_000));
        assert!(!kafka.is_up_at(12_001));
        kafka.sending_at(12_001);
        assert!(!kafka.is_up_at(12_002), "another record in the queue is no progress");
        kafka.delivered_at(12_500);
        assert!(kafka.is_up_at(14_500), "one got through, the other waits since then");
        assert!(!kafka.is_up_at(14_501));
    }

    #[test]
    fn an_idle_producer_is_never_stalled() {
        let kafka = Availability::new(Duration::from_secs(2));
        kafka.sending_at(0);
        kafka.delivered_at(1);
        assert!(kafka.is_up_at(1_000_000));
        kafka.sending_at(1_000_000);
        assert!(kafka.is_up_at(1_000_001), "the silence before it does not count");
    }

    #[test]
    fn a_record_refused_for_itself_changes_nothing() {
        let kafka = Availability::new(Duration::from_secs(2));
        kafka.sending();
        kafka.rejected();
        assert!(kafka.is_up());
    }

    #[tokio::test]
    async fn a_loss_is_noticed_also_by_who_comes_late() {
        let kafka = Availability::new(Duration::from_secs(2));
        kafka.lose("test");
        kafka.until_lost().await;
        assert!(kafka.is_lost());
        kafka.found();
        assert!(!kafka.is_lost());
    }
}
