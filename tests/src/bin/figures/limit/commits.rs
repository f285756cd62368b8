//! What the database says of its commits.

/// A commit: microseconds since 1970 by the database's clock, and its rows.
pub(super) type Commit = (u64, u64);

const SECOND: u64 = 1_000_000;

/// The rows of the busiest second. The commits are in order.
pub(super) fn worst_second(commits: &[Commit]) -> u64 {
    let (mut end, mut rows, mut worst) = (0, 0, 0);
    for &(from, own) in commits {
        while let Some(&(at, more)) = commits.get(end)
            && at < from + SECOND
        {
            rows += more;
            end += 1;
        }
        worst = worst.max(rows);
        rows -= own;
    }
    worst
}

/// The mean rate between two moments.
pub(super) fn per_second(commits: &[Commit], from: u64, to: u64) -> f64 {
    let rows: u64 = commits.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, rows)| rows).sum();
    rows as f64 * 1e6 / to.saturating_sub(from).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_begins_with_a_commit_and_ends_before_the_next_one_begins() {
        assert_eq!(worst_second(&[]), 0);
        assert_eq!(worst_second(&[(7, 3)]), 3);
        let commits = [(0, 1), (10, 2), (SECOND - 1, 4), (SECOND, 8), (SECOND + 9, 16), (SECOND + 10, 32)];
        assert_eq!(worst_second(&commits), 4 + 8 + 16 + 32);
        assert_eq!(worst_second(&commits[..4]), 2 + 4 + 8);
        assert_eq!(worst_second(&commits[..3]), 1 + 2 + 4);
    }

    #[test]
    fn a_rate_counts_what_lies_between() {
        let commits = [(0, 100), (SECOND, 5), (2 * SECOND, 7), (3 * SECOND, 100)];
        assert!((per_second(&commits, SECOND, 3 * SECOND) - 6.0).abs() < 1e-9);
    }
}
