//! The limits in force for a table.

use std::time::Duration;

use hot_store::{Limit, Limits, Unit};
use model::TableRef;

/// Batches of one table that are granted and not finished over all replicas, under a limit: a database that stalls isn't
/// hit by what piled up meanwhile, and one that is slow gets less.
pub(super) const GRANTED_AND_UNFINISHED: u32 = 2;

/// Each is per second and over all replicas; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rates {
    /// Rows of the table; 0 lets nothing pass.
    pub(crate) rows: Option<f64>,
    /// Transactions of the table.
    pub(crate) transactions: Option<f64>,
    /// Rows of all tables of the database.
    pub(crate) database_rows: Option<f64>,
    /// The same, by how the database fares.
    pub(crate) adaptive: Option<Adaptive>,
    /// An operator lets nothing pass; the limits stay what they are.
    pub(crate) paused: bool,
}

/// Rows per second of all tables of a database, by how it fares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Adaptive {
    /// Now.
    pub(crate) rows: f64,
    /// At most.
    pub(crate) most: f64,
}

impl Rates {
    /// Whether there is no limit at all.
    pub(crate) fn is_free(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing may pass.
    pub(super) fn is_closed(&self) -> bool {
        self.paused || self.rows == Some(0.0)
    }

    /// The rows of the table that a second can see.
    pub(crate) fn rows_per_second(&self) -> Option<f64> {
        let adaptive = self.adaptive.map(|adaptive| adaptive.rows);
        [self.rows, self.database_rows, adaptive].into_iter().flatten().reduce(f64::min)
    }

    /// The same, however well the database fares.
    pub(super) fn ceiling(&self) -> Self {
        let adaptive = self.adaptive.map(|Adaptive { most, .. }| Adaptive { rows: most, most });
        Self { adaptive, ..*self }
    }

    /// How large a batch may be. Under a limit it holds at most a twentieth of a second's worth, or one row, so that what
    /// the limit allows flows evenly and a window of one second holds hardly more. Where a batch takes longer than that
    /// until it has ended, it holds as much as is due by then: a lane that writes one after the other would otherwise fall
    /// behind. But no more than 80 ms' worth, so that a second still has room for what it adds to the limit.
    pub(crate) fn batch_rows(&self, wanted: usize, takes: Duration) -> usize {
        const SHARE: f64 = 1.0 / 20.0;
        const LONGEST_SHARE: f64 = 0.08;
        let Some(limit) = self.rows_per_second() else { return wanted.max(1) };
        // Saturates where the limit is beyond any batch.
        let due = (limit * takes.as_secs_f64()).ceil() as usize;
        let (usual, most) = ((limit * SHARE) as usize, (limit * LONGEST_SHARE) as usize);
        if due <= usual {
            return wanted.min(usual).max(1);
        }
        // Of sizes that are nearly the same, one of which whole batches fill a second.
        let (second, most, due) = (limit * (1.0 + SHARE), most as f64, due.min(most).max(1) as f64);
        let filled = |rows: f64| (second / rows).floor() * rows;
        let smaller = (second / (second / due).ceil()).floor();
        let larger = (second / (second / due).floor()).floor().min(most).max(due);
        let rows = if smaller >= 0.96 * due {
            smaller
        } else if larger < most && filled(larger + 1.0) > filled(larger) {
            larger + 1.0
        } else {
            larger
        };
        wanted.min(rows as usize).max(1)
    }

    /// As the store knows them.
    pub(super) fn limits(&self, table: &TableRef) -> Limits {
        let rows = Limit {
            name: format!("rows:{}", table.table),
            unit: Unit::Rows,
            per_second: self.rows.unwrap_or(f64::INFINITY),
            unfinished: Some(GRANTED_AND_UNFINISHED),
        };
        let transactions = self.transactions.map(|per_second| Limit {
            name: format!("transactions:{}", table.table),
            unit: Unit::Transactions,
            per_second,
            unfinished: None,
        });
        let adaptive = self.adaptive.map(|adaptive| adaptive.rows);
        let database_rows = [self.database_rows, adaptive].into_iter().flatten().reduce(f64::min);
        let database = database_rows.map(|per_second| Limit {
            name: "rows".to_owned(),
            unit: Unit::Rows,
            per_second,
            unfinished: None,
        });
        let limits = [Some(rows), transactions, database].into_iter().flatten().collect();
        Limits { database: table.database.to_string(), limits }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_is_never_empty_nor_above_its_share_of_the_limit(
            configured in 1usize..2000, limit in 0.001f64..1e7, other in prop::option::of(0.001f64..1e7),
            takes in 0..10_000u64,
        ) {
            for (rows, database_rows) in [(Some(limit), other), (other, Some(limit))] {
                let rates = Rates { rows, database_rows, ..Rates::default() };
                let (least, takes) = (limit.min(other.unwrap_or(limit)), Duration::from_millis(takes));
                let most = rates.batch_rows(configured, takes);
                prop_assert!((1..=configured).contains(&most));
                let share = if takes <= Duration::from_millis(50) { 0.05 } else { 0.08 };
                prop_assert!(most == 1 || most as f64 <= (least * share).max(least * takes.as_secs_f64() + 1.0));
                prop_assert!(most == 1 || most as f64 <= least * 0.08);
                // About what is due when it has ended, if it may be as much.
                let enough = most as f64 / least >= 0.95 * takes.as_secs_f64();
                prop_assert!(enough || most == configured || (most + 1) as f64 > least * 0.08);
            }
            prop_assert_eq!(Rates::default().batch_rows(configured, Duration::ZERO), configured);
        }
    }
}
