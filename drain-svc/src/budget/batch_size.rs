//! How large batches are: larger while transactions are quick and there is a backlog, smaller when they are slow or fail.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Between what the size moves, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeBounds {
    /// Rows of a batch, at least.
    pub(crate) min: usize,
    /// At most.
    pub(crate) max: usize,
    /// A transaction that takes longer makes batches smaller.
    pub(crate) target: Duration,
}

/// The size of one table's batches, for all lanes of this process.
#[derive(Debug)]
pub(super) struct BatchSize {
    bounds: SizeBounds,
    rows: AtomicUsize,
}

impl SizeBounds {
    /// How many steps of growth it takes from nothing to the largest.
    const STEPS: usize = 16;

    fn within(self, rows: usize) -> usize {
        rows.min(self.max).max(self.min.min(self.max)).max(1)
    }

    /// From a quarter on: the first transactions show whether that is too much.
    fn first(self) -> usize {
        self.within(self.max / 4)
    }

    /// Half of what was too much, not of what is allowed by now: several lanes that find the same make one decrease.
    fn after_trouble(self, size: usize, rows: usize) -> usize {
        self.within(size.min(rows / 2))
    }

    /// Only a full batch says that a larger one is wanted.
    fn after_success(self, size: usize, rows: usize, took: Duration) -> usize {
        if took > self.target {
            self.after_trouble(size, rows)
        } else if rows >= size && took <= self.target / 2 {
            self.within(size.saturating_add((self.max / Self::STEPS).max(1)))
        } else {
            size
        }
    }
}

impl BatchSize {
    pub(super) fn new(bounds: SizeBounds) -> Self {
        Self { bounds, rows: AtomicUsize::new(bounds.first()) }
    }

    /// Rows of a batch, at most.
    pub(super) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// The largest that there can be.
    pub(super) fn most(&self) -> usize {
        self.bounds.within(usize::MAX)
    }

    /// A batch was written.
    pub(super) fn succeeded(&self, rows: usize, took: Duration) {
        self.change(|size| self.bounds.after_success(size, rows, took));
    }

    /// A batch failed, for nothing that is wrong with its rows: a deadlock, a timeout, a lost connection.
    pub(super) fn failed(&self, rows: usize) {
        self.change(|size| self.bounds.after_trouble(size, rows));
    }

    fn change(&self, next: impl Fn(usize) -> usize) {
        // It always has a next one.
        let _ = self.rows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |size| Some(next(size)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TARGET: Duration = Duration::from_millis(200);
    const BOUNDS: SizeBounds = SizeBounds { min: 20, max: 500, target: TARGET };

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// What the size is after so many batches of a database that takes so long for a batch and for a row.
    fn settled(size: &BatchSize, batches: usize, batch: Duration, row: Duration) -> usize {
        for _ in 0..batches {
            let rows = size.rows();
            size.succeeded(rows, batch + row * rows as u32);
        }
        size.rows()
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            min in 0..2000usize, max in 0..2000usize,
            batches in prop::collection::vec((0..3000usize, 0..1000u64, any::<bool>()), 0..100),
        ) {
            let size = BatchSize::new(SizeBounds { min, max, target: TARGET });
            for (rows, took, fails) in batches {
                if fails { size.failed(rows) } else { size.succeeded(rows, millis(took)) }
                // One row at least, and where the bounds contradict each other the upper one counts.
                prop_assert!((min.min(max).max(1)..=max.max(1)).contains(&size.rows()), "{}", size.rows());
            }
        }
    }

    #[test]
    fn it_grows_to_the_largest_while_batches_are_full_and_quick_and_only_then() {
        let size = BatchSize::new(BOUNDS);
        assert_eq!(size.rows(), 125);
        for _ in 0..100 {
            size.succeeded(124, millis(1));
            size.succeeded(125, millis(150));
        }
        assert_eq!(size.rows(), 125);
        assert_eq!(settled(&size, 13, millis(5), Duration::from_micros(100)), 500);
    }

    #[test]
    fn it_settles_where_a_transaction_takes_what_it_should() {
        for row in [1, 2, 4] {
            let size = BatchSize::new(BOUNDS);
            let settled = settled(&size, 200, millis(5), millis(row));
            let takes = millis(5) + millis(row) * settled as u32;
            assert!(takes > TARGET / 4 && takes <= TARGET + millis(31 * row), "{settled} rows, {takes:?}");
        }
        assert_eq!(settled(&BatchSize::new(BOUNDS), 20, millis(300), Duration::ZERO), 20, "however small they are");
    }

    #[test]
    fn lanes_that_fail_together_halve_it_once() {
        let size = BatchSize::new(BOUNDS);
        settled(&size, 20, millis(1), Duration::ZERO);
        for _ in 0..8 {
            size.failed(500);
        }
        assert_eq!(size.rows(), 250);
        size.succeeded(250, millis(201));
        assert_eq!(size.rows(), 125);
    }
}
