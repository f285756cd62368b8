//! So many records per second, and none to make up for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Keeps a rate.
#[derive(Debug)]
pub(super) struct Pace {
    per_record: Duration,
    free_at: Instant,
}

impl Pace {
    /// So many per second, at least one.
    pub(super) fn of(records_per_second: u32) -> Self {
        Self { per_record: Duration::from_secs(1) / records_per_second.max(1), free_at: Instant::now() }
    }

    /// Waits until what was done before has had its time, and takes the time for so many more.
    pub(super) async fn take(&mut self, records: u64) {
        sleep_until(self.free_at).await;
        let takes = self.per_record.saturating_mul(u32::try_from(records).unwrap_or(u32::MAX));
        // What others were waited for is not made up for: the rate is what the stores bear at any time.
        self.free_at = Instant::now().max(self.free_at) + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pause_is_not_made_up_for() {
        let begun = Instant::now();
        let mut pace = Pace::of(1000);
        for _ in 0..5 {
            pace.take(20).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(80), "the last one's time is still to come");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.take(50).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(100));
    }
}
