//! What is to become of a change: a pure function of the change and of what the database holds.

use model::{Version, VersionGuard};
use planted::Bug;

/// What the database holds for a key, read under the shard's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// The row's own version, if there is a row; 0 in a table whose versions are in the ledger.
    pub(crate) row: Option<Version>,
    /// The version in the ledger, if it has one for this key.
    pub(crate) ledger: Option<Version>,
}

impl Found {
    /// The newest version that we know of this key, `None` if there is neither a row nor an entry in the ledger.
    ///
    /// Somebody else may have put a row (version 0) where our tombstone was, or removed a row that the ledger still
    /// lists: what we wrote last rules all the same.
    pub(crate) fn version(&self) -> Option<Version> {
        self.row.max(self.ledger)
    }
}

/// What the change says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) since: Option<Version>,
    pub(crate) delete: bool,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    /// A row where none is.
    Insert,
    /// A row over the one that is there.
    Update,
    /// Delete the row, leave a tombstone.
    Delete,
    /// No row is there: the tombstone alone.
    Tombstone,
}

impl Write {
    /// Whether a row is there afterwards.
    pub(crate) fn leaves_row(self) -> bool {
        matches!(self, Self::Insert | Self::Update)
    }

    /// Whether the ledger has an entry of the key afterwards: the tombstone of a delete, or the version of a row that
    /// can't keep it itself.
    pub(crate) fn leaves_entry(self, guard: VersionGuard) -> bool {
        if self.leaves_row() { guard == VersionGuard::Ledger } else { !planted::is(Bug::DatabaseTombstoneDropped) }
    }
}

/// What becomes of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Write(Write),
    Same,
    /// What is there is newer, of this version at least.
    Stale {
        current: Version,
    },
    Purged {
        horizon: Version,
    },
    SinceRefused,
}

/// Decides. `purge_horizon` is the shard's.
pub(crate) fn decide(found: Found, asked: Asked, purge_horizon: Version) -> Verdict {
    let current = found.version();
    // A purge goes no higher than what has been decided for good. So this was decided already, and its traces, if it
    // left any, were purged; whoever put the row that is there now did so afterwards.
    let decided = asked.version <= purge_horizon && !planted::is(Bug::NoPurgeHorizon);
    if decided && current.is_none_or(|current| current == Version::ZERO) {
        return match found.row {
            None => Verdict::Purged { horizon: purge_horizon },
            Some(_) => Verdict::Stale { current: purge_horizon },
        };
    }
    if let (Some(since), Some(_), Some(current)) = (asked.since, found.row, current)
        && current < since
    {
        return Verdict::SinceRefused;
    }
    match current {
        _ if planted::is(Bug::NoVersionGuard) => Verdict::Write(write(found, asked)),
        Some(current) if asked.version < current => Verdict::Stale { current },
        Some(current) if asked.version == current => Verdict::Same,
        _ => Verdict::Write(write(found, asked)),
    }
}

fn write(found: Found, asked: Asked) -> Write {
    match (asked.delete, found.row.is_some()) {
        (false, false) => Write::Insert,
        (false, true) => Write::Update,
        (true, true) => Write::Delete,
        (true, false) => Write::Tombstone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(n: u64) -> Version {
        Version::new(n).unwrap_or_default()
    }

    fn put(version: u64) -> Asked {
        Asked { version: v(version), since: None, delete: false }
    }

    /// What one key's state becomes, as the statements that carry out a verdict leave it.
    fn carry_out(found: Found, asked: Asked, guard: VersionGuard, horizon: Version) -> Found {
        let Verdict::Write(write) = decide(found, asked, horizon) else { return found };
        let in_row = if guard == VersionGuard::Column { asked.version } else { Version::ZERO };
        match write {
            Write::Insert | Write::Update => {
                Found { row: Some(in_row), ledger: (guard == VersionGuard::Ledger).then_some(asked.version) }
            }
            Write::Delete | Write::Tombstone => Found { row: None, ledger: Some(asked.version) },
        }
    }

    fn changes() -> impl Strategy<Value = Vec<Asked>> {
        prop::collection::vec((1u64..20, any::<bool>()), 1..30).prop_map(|raw| {
            // The same version is always the same change.
            raw.iter().map(|(n, _)| Asked { delete: n % 3 == 0, ..put(*n) }).collect()
        })
    }

    proptest! {
        #[test]
        fn any_order_with_any_repetition_ends_at_the_newest(
            changes in changes(), column in any::<bool>(), row_before in any::<bool>()
        ) {
            let guard = if column { VersionGuard::Column } else { VersionGuard::Ledger };
            let start = Found { row: row_before.then_some(Version::ZERO), ledger: None };
            let end = changes.iter().fold(start, |found, asked| carry_out(found, *asked, guard, Version::ZERO));
            let newest = changes.iter().max_by_key(|asked| asked.version).copied().unwrap_or(put(1));
            prop_assert_eq!(end.version(), Some(newest.version));
            prop_assert_eq!(end.row.is_none(), newest.delete);
            let replayed = changes.iter().fold(end, |found, asked| carry_out(found, *asked, guard, Version::ZERO));
            prop_assert_eq!(replayed, end);
        }

        #[test]
        fn the_version_never_falls(
            row in prop::option::of(0u64..10), ledger in prop::option::of(1u64..10),
            version in 1u64..10, since in prop::option::of(1u64..10), delete in any::<bool>(), horizon in 0u64..10,
        ) {
            let found = Found { row: row.map(v), ledger: ledger.map(v) };
            let asked = Asked { version: v(version), since: since.map(v), delete };
            let after = carry_out(found, asked, VersionGuard::Column, v(horizon));
            prop_assert!(after.version() >= found.version());
            if let Verdict::Write(_) = decide(found, asked, v(horizon)) {
                prop_assert!(found.version().is_none_or(|current| current < asked.version));
            }
        }
    }

    #[test]
    fn a_row_that_nobody_wrote_through_us_is_older_than_anything() {
        let found = Found { row: Some(Version::ZERO), ledger: None };
        assert_eq!(decide(found, put(101), v(100)), Verdict::Write(Write::Update));
    }

    #[test]
    fn a_tombstone_rules_also_where_somebody_else_put_a_row() {
        let found = Found { row: Some(Version::ZERO), ledger: Some(v(9)) };
        assert_eq!(decide(found, put(5), v(0)), Verdict::Stale { current: v(9) });
        assert_eq!(decide(found, put(10), v(0)), Verdict::Write(Write::Update));
    }

    #[test]
    fn nothing_is_inserted_at_or_below_the_purge_horizon() {
        assert_eq!(decide(Found::default(), put(7), v(7)), Verdict::Purged { horizon: v(7) });
        assert_eq!(decide(Found::default(), put(8), v(7)), Verdict::Write(Write::Insert));
    }

    #[test]
    fn what_was_decided_before_a_purge_is_not_written_over_the_row_of_somebody_else() {
        let found = Found { row: Some(Version::ZERO), ledger: None };
        let stale = Verdict::Stale { current: v(100) };
        assert_eq!(decide(found, put(100), v(100)), stale);
        assert_eq!(decide(found, Asked { delete: true, ..put(50) }, v(100)), stale);
        assert_eq!(decide(found, Asked { since: Some(v(50)), ..put(50) }, v(100)), stale);
        let ours = Found { row: Some(v(40)), ledger: None };
        assert_eq!(decide(ours, put(50), v(100)), Verdict::Write(Write::Update), "only what has no version");
    }

    #[test]
    fn since_lets_pass_an_absent_row_and_one_at_or_above_it() {
        let asked = |version, since| Asked { since: Some(v(since)), ..put(version) };
        let row = |n| Found { row: Some(v(n)), ledger: None };
        assert_eq!(decide(Found::default(), asked(5, 5), v(0)), Verdict::Write(Write::Insert));
        assert_eq!(decide(row(4), asked(5, 5), v(0)), Verdict::SinceRefused);
        assert_eq!(decide(row(0), asked(5, 5), v(0)), Verdict::SinceRefused);
        assert_eq!(decide(row(5), asked(6, 5), v(0)), Verdict::Write(Write::Update));
        assert_eq!(decide(row(5), asked(5, 5), v(0)), Verdict::Same);
        assert_eq!(decide(row(9), asked(6, 5), v(0)), Verdict::Stale { current: v(9) });
        let tombstone = Found { row: None, ledger: Some(v(4)) };
        assert_eq!(decide(tombstone, asked(5, 5), v(0)), Verdict::Write(Write::Insert));
        assert_eq!(
            decide(Found { ledger: Some(v(7)), ..tombstone }, asked(5, 5), v(0)),
            Verdict::Stale { current: v(7) }
        );
    }
}
