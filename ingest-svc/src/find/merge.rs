//! One order over what the shards have: by the bytes of the keys.

use hot_store::FoundInShard;
use model::{KeyBytes, Shard};

/// What belongs to a page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Candidates {
    /// In the order of the keys' bytes.
    pub(super) keys: Vec<(Shard, KeyBytes)>,
    /// Behind which the next page begins; `None`: no shard has more.
    pub(super) next: Option<KeyBytes>,
}

/// The lowest keys of all shards, of which each has told its lowest `asked`; at most `limit`.
pub(super) fn merge(found: &[FoundInShard], asked: usize, limit: usize) -> Candidates {
    let keys_of = |shard: &FoundInShard| shard.keys.clone().unwrap_or_default();
    // A shard that has told as many as it was asked for may have more, above its last one: beyond that nothing is known.
    let frontier = found.iter().map(keys_of).filter(|keys| keys.len() >= asked).filter_map(|keys| keys.last().cloned());
    let frontier = frontier.min();
    let mut keys: Vec<(Shard, KeyBytes)> =
        found.iter().flat_map(|shard| keys_of(shard).into_iter().map(|key| (shard.shard, key))).collect();
    keys.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
    if let Some(frontier) = &frontier {
        keys.retain(|(_, key)| key <= frontier);
    }
    let is_cut = keys.len() > limit;
    keys.truncate(limit);
    let next = if is_cut || frontier.is_some() { keys.last().map(|(_, key)| key.clone()) } else { None };
    Candidates { keys, next }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{Epoch, Version};
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> KeyBytes {
        KeyBytes::from_stored(Bytes::from(vec![number]))
    }

    /// What shards with these keys tell of those above `after`.
    fn asked(shards: &[Vec<u8>], after: Option<&KeyBytes>, limit: usize) -> Vec<FoundInShard> {
        let told = |(shard, keys): (usize, &Vec<u8>)| {
            let mut keys: Vec<KeyBytes> = keys.iter().map(|number| key(*number)).collect();
            keys.sort_unstable();
            keys.retain(|key| after.is_none_or(|after| key > after));
            keys.truncate(limit);
            let (shard, epoch, clock) = (Shard(shard as u16), Epoch::ZERO, Version::ZERO);
            FoundInShard { shard, epoch, clock, removed: 0, keys: Some(keys) }
        };
        shards.iter().enumerate().map(told).collect()
    }

    proptest! {
        #[test]
        fn pages_have_every_key_once_and_in_order(
            keys in prop::collection::btree_map(any::<u8>(), 0..4_usize, 0..60), ask in 1..6_usize, limit in 1..9_usize,
        ) {
            let mut shards = vec![Vec::new(); 4];
            keys.iter().for_each(|(number, shard)| shards[*shard].push(*number));
            let (mut met, mut after) = (Vec::new(), None);
            loop {
                let page = merge(&asked(&shards, after.as_ref(), ask), ask, limit);
                prop_assert!(page.keys.len() <= limit);
                met.extend(page.keys.into_iter().map(|(_, key)| key));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(met, keys.keys().map(|number| key(*number)).collect::<Vec<_>>());
        }
    }
}
