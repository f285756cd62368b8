//! How many rows a statement takes.
//!
//! A prepared statement is cached by its text. With any number of rows per statement nearly every batch would
//! prepare anew, and push the others out of the cache; so there are only a few shapes, the powers of two.

use std::ops::Range;

/// The largest shape. Beyond it a statement saves little, and what it costs the server to keep it prepared grows.
const LARGEST: usize = 256;

/// What a statement must stay below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Placeholders.
    pub(crate) placeholders: usize,
    /// Bytes, text and parameters.
    pub(crate) bytes: usize,
}

/// The largest shape with so many placeholders per row beside `fixed` ones.
fn largest(limits: Limits, per_row: usize, fixed: usize) -> usize {
    let fitting = limits.placeholders.saturating_sub(fixed) / per_row.max(1);
    1 << fitting.clamp(1, LARGEST).ilog2()
}

/// Cuts rows into statements of exactly a power of two; for statements in which no row may occur twice.
pub(crate) fn exact(limits: Limits, per_row: usize, row_bytes: &[usize]) -> Vec<Range<usize>> {
    let largest = largest(limits, per_row, 0);
    let (mut ranges, mut start) = (Vec::new(), 0);
    while start < row_bytes.len() {
        let mut rows = 1 << (row_bytes.len() - start).min(largest).ilog2();
        while rows > 1 && row_bytes[start..start + rows].iter().sum::<usize>() > limits.bytes {
            rows /= 2;
        }
        ranges.push(start..start + rows);
        start += rows;
    }
    ranges
}

/// Cuts `items` for statements that don't mind an item twice: few statements, each filled up to a power of two with
/// its last item.
pub(crate) fn padded<T>(
    limits: Limits,
    per_item: usize,
    fixed: usize,
    items: &[T],
) -> impl Iterator<Item = impl Iterator<Item = &T> + Clone> {
    items.chunks(largest(limits, per_item, fixed)).map(|chunk| {
        let filling = chunk.len().next_power_of_two() - chunk.len();
        chunk.iter().chain(chunk.last().into_iter().cycle().take(filling))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exact_shapes_cover_every_row_once_within_the_limits(
            row_bytes in prop::collection::vec(1usize..5_000, 0..700),
            per_row in 1usize..300,
            placeholders in 300usize..70_000,
            bytes in 5_000usize..100_000,
        ) {
            let limits = Limits { placeholders, bytes };
            let ranges = exact(limits, per_row, &row_bytes);
            let mut next = 0;
            for range in ranges {
                prop_assert_eq!(range.start, next);
                prop_assert!(range.len().is_power_of_two() && range.len() <= LARGEST);
                prop_assert!(range.len() * per_row <= placeholders);
                prop_assert!(row_bytes[range.clone()].iter().sum::<usize>() <= bytes);
                next = range.end;
            }
            prop_assert_eq!(next, row_bytes.len());
        }

        #[test]
        fn padded_shapes_cover_every_item_and_repeat_only_the_last(
            count in 0usize..700, per_item in 1usize..200, placeholders in 300usize..70_000,
        ) {
            let items: Vec<usize> = (0..count).collect();
            let limits = Limits { placeholders, bytes: usize::MAX };
            let mut seen = Vec::new();
            for chunk in padded(limits, per_item, 3, &items) {
                let chunk: Vec<usize> = chunk.copied().collect();
                prop_assert!(chunk.len().is_power_of_two());
                prop_assert!(chunk.len() * per_item + 3 <= placeholders);
                let mut distinct = chunk.clone();
                distinct.dedup();
                seen.extend(distinct);
            }
            prop_assert_eq!(seen, items);
        }
    }
}
