//! The figures of a run, from what was observed. Pure.

use std::time::Duration;

use serde::Serialize;

/// What `--json` prints, on one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Writes that were acknowledged.
    pub(crate) acked: u64,
    /// Rows inserted, updated and deleted in the database, counted by triggers there.
    pub(crate) written: u64,
    /// Acknowledged writes that the database was spared.
    pub(crate) coalesced: u64,
    /// Records whose row in the database is not what was acknowledged last, and reads that were older than an ack.
    pub(crate) mismatched: u64,
    /// Rows of the busiest one-second window, wherever it begins.
    pub(crate) max_writes_in_any_second: u64,
    /// The limit, in rows per second.
    pub(crate) limit: u32,
    /// Rows of one transaction at most under that limit.
    pub(crate) batch_rows: u32,
    /// 99th percentile of reads that did not fall into the restart, in milliseconds.
    pub(crate) read_p99_ms: f64,
    /// 99th percentile of acknowledgements that did not fall into the restart, in milliseconds.
    pub(crate) ack_p99_ms: f64,
    /// Median of the same acknowledgements, in milliseconds.
    pub(crate) ack_p50_ms: f64,
    /// How often a process was killed with -9.
    pub(crate) killed: u32,
    /// From the kill until the next acknowledgement, in seconds.
    pub(crate) recovered_s: f64,
    /// From the last acknowledgement until the database had everything, in seconds.
    pub(crate) caught_up_s: f64,
    /// The same stream sent straight to a database that bears `limit` writes per second.
    pub(crate) direct: DirectFigures,
}

/// What happened without Shock Absorber.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct DirectFigures {
    /// Writes sent.
    pub(crate) sent: u64,
    /// Writes whose client gave up before the database had taken them.
    pub(crate) timed_out: u64,
    /// 99th percentile of the time that a client waited, in milliseconds.
    pub(crate) p99_ms: f64,
    /// Median, in milliseconds.
    pub(crate) p50_ms: f64,
    /// How long a client waits before it gives up, in milliseconds.
    pub(crate) timeout_ms: u64,
}

/// The `q` quantile (nearest rank) in milliseconds; 0 of nothing.
pub(crate) fn quantile_ms(times: &mut [Duration], q: f64) -> f64 {
    times.sort_unstable();
    let rank = ((times.len() as f64 * q).ceil() as usize).clamp(1, times.len().max(1));
    times.get(rank - 1).map_or(0.0, |t| (t.as_secs_f64() * 1e6).round() / 1e3)
}

/// How many of these moments (microseconds, in any order) lie in the fullest half-open window of one second.
pub(crate) fn busiest_second(moments: &mut [i64]) -> u64 {
    moments.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, &moment) in moments.iter().enumerate() {
        while moments[first] <= moment - 1_000_000 {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile_ms(&mut times, 0.99), 99.0);
        assert_eq!(quantile_ms(&mut times, 0.5), 50.0);
        assert_eq!(quantile_ms(&mut [], 0.5), 0.0);
    }

    proptest! {
        #[test]
        fn the_busiest_second_is_what_counting_every_window_gives(mut moments in prop::collection::vec(0i64..5_000_000, 0..60)) {
            let by_hand = moments.iter().map(|&from| moments.iter().filter(|&&m| m >= from && m < from + 1_000_000).count()).max();
            prop_assert_eq!(busiest_second(&mut moments), by_hand.unwrap_or(0) as u64);
        }
    }
}
