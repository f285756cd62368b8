//! The shard: the unit in which records are ordered, owned, fenced, closed and healed.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

/// How many shards an installation has. Fixed when it is first started; stored, and compared at every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCount(u16);

/// A number of shards that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} shards are not possible: use 1 to 1024")]
pub struct ShardCountError(pub u32);

impl ShardCount {
    /// What an installation gets that does not say otherwise.
    pub const DEFAULT: Self = Self(64);

    /// # Errors
    /// Outside 1..=1024.
    pub fn new(count: u32) -> Result<Self, ShardCountError> {
        match u16::try_from(count) {
            Ok(small) if (1..=1024).contains(&small) => Ok(Self(small)),
            _ => Err(ShardCountError(count)),
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// All shards, from the first to the last.
    pub fn all(self) -> impl DoubleEndedIterator<Item = Shard> + Clone {
        (0..self.0).map(Shard)
    }

    /// The shard of a group, by its canonical bytes: XXH3-64 modulo the number of shards.
    pub fn shard_of(self, group: &[u8]) -> Shard {
        Shard((xxh3_64(group) % u64::from(self.0)) as u16)
    }
}

/// One shard: a hash tag in Redis, the partition of that number in every topic, a row per table in `_sa_shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_to_the_shards_they_have_always_hashed_to() {
        // Golden: a change here would send the records of every installation to other shards.
        let count = ShardCount::DEFAULT;
        let shards: Vec<u16> =
            [&b""[..], b"a", b"payment-1", b"payment-2"].iter().map(|g| count.shard_of(g).0).collect();
        assert_eq!(shards, [2, 31, 13, 40]);
    }

    #[test]
    fn zero_and_too_many_shards_are_refused() {
        assert!(ShardCount::new(0).is_err());
        assert!(ShardCount::new(1025).is_err());
        assert_eq!(ShardCount::new(1024).map(ShardCount::get), Ok(1024));
    }
}
