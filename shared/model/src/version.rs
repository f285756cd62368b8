//! Versions order the writes of a shard; epochs tell one life of the hot store from the next.

use std::fmt;

/// The position of a write in its shard's history.
///
/// `max(shard clock + 1, microseconds of the hot store's clock)`, assigned inside the atomic write: it rises
/// strictly within a shard, also when the wall clock steps back, and fits into 53 bits (until the year 2255),
/// so that it survives a double. Version 0 is a row that was there before us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(u64);

impl Version {
    /// The version of a row that nobody wrote through us.
    pub const ZERO: Self = Self(0);
    /// The largest version: 2^53 - 1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// A version from its number, `None` above [`Version::MAX`].
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version just below; of 0, 0.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The version that a shard whose clock stands at `self` gives next, when the store's clock shows
    /// `now_micros` microseconds since 1970.
    #[must_use]
    pub fn next(self, now_micros: u64) -> Self {
        Self((self.0 + 1).max(now_micros).min(Self::MAX.0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a shard in the hot store. Rises with every opening; 0 is "before the first one".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// No fence met yet.
    pub const ZERO: Self = Self(0);

    /// Whether an event of this epoch counts where `in_force` is in force: an event of an earlier epoch is void,
    /// because the fence that put `in_force` in force stood before it.
    pub fn is_void_under(self, in_force: Epoch) -> bool {
        self < in_force
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_version_rises_strictly_whatever_the_wall_clock_does(times in prop::collection::vec(0u64..1 << 52, 1..50)) {
            let mut clock = Version::ZERO;
            for now in times {
                let next = clock.next(now);
                prop_assert!(next > clock);
                prop_assert!(next.get() >= now);
                clock = next;
            }
        }
    }
}
