//! How large a batch may be.

/// Under a limit a batch holds at most a twentieth of a second's worth, or one row, so that what the limit allows
/// flows evenly and a window of one second holds hardly more.
pub(crate) fn batch_rows(configured: usize, rows_per_second: Option<f64>) -> usize {
    const BATCHES_PER_SECOND: f64 = 20.0;
    let limited = match rows_per_second {
        // Saturates where the limit is beyond any batch.
        Some(limit) => (limit / BATCHES_PER_SECOND) as usize,
        None => usize::MAX,
    };
    configured.min(limited).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_is_never_empty_nor_above_a_twentieth_of_the_limit(configured in 1usize..2000, limit in 0.001f64..1e7) {
            let rows = batch_rows(configured, Some(limit));
            prop_assert!((1..=configured).contains(&rows));
            prop_assert!(rows == 1 || rows as f64 <= limit / 20.0);
            prop_assert_eq!(batch_rows(configured, None), configured);
        }
    }
}
