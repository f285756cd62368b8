//! Which versions were told.

use std::collections::{HashMap, VecDeque};

use model::{KeyBytes, Version};
use xxhash_rust::xxh3::xxh3_128;

/// So many changes are remembered.
const REMEMBERED: usize = 4096;

/// The newest version told of each key, of the last changes that were told. What is older, or the same, is left out: the
/// log's order is not that of versions, since a slow produce can put an older version behind a newer one.
///
/// A key is remembered by its digest: one of these per watch, and keys may be long.
#[derive(Debug, Default)]
pub(super) struct Sent {
    versions: HashMap<u128, Version>,
    order: VecDeque<(u128, Version)>,
}

impl Sent {
    /// Whether it is newer than what was told of the key, as far as that is remembered; it counts as told then.
    pub(super) fn is_news(&mut self, key: &KeyBytes, version: Version) -> bool {
        let key = xxh3_128(key.as_bytes());
        match self.versions.get_mut(&key) {
            Some(told) if *told >= version => return false,
            Some(told) => *told = version,
            None => drop(self.versions.insert(key, version)),
        }
        self.order.push_back((key, version));
        if self.order.len() > REMEMBERED
            && let Some((key, version)) = self.order.pop_front()
            && self.versions.get(&key) == Some(&version)
        {
            self.versions.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{Key, Value};

    use super::*;

    fn key(n: usize) -> KeyBytes {
        Key(vec![Value::Int64(n as i64)]).to_bytes()
    }

    fn version(n: u64) -> Version {
        Version::new(n).unwrap()
    }

    #[test]
    fn what_is_older_or_the_same_is_no_news() {
        let mut sent = Sent::default();
        assert!(sent.is_news(&key(1), version(5)));
        assert!(!sent.is_news(&key(1), version(5)));
        assert!(!sent.is_news(&key(1), version(4)));
        assert!(sent.is_news(&key(2), version(4)));
        assert!(sent.is_news(&key(1), version(6)));
        assert!(!sent.is_news(&key(1), version(5)));
    }

    #[test]
    fn a_key_is_remembered_from_its_last_change_on_and_memory_is_bounded() {
        let mut sent = Sent::default();
        assert!(sent.is_news(&key(0), version(5)));
        for n in 1..REMEMBERED {
            assert!(sent.is_news(&key(n), version(1)));
        }
        assert!(sent.is_news(&key(0), version(6)), "it is told anew");
        for n in REMEMBERED..2 * REMEMBERED - 1 {
            assert!(sent.is_news(&key(n), version(1)));
            assert!(!sent.is_news(&key(0), version(6)));
        }
        assert!(sent.is_news(&key(9_999_999), version(1)));
        assert!(sent.is_news(&key(0), version(6)), "it is forgotten");
        assert!(sent.versions.len() <= REMEMBERED && sent.order.len() <= REMEMBERED);
    }
}
