//! Which writes of one shard may go into the hot store in one call.
//!
//! A call writes in the given order, but what turned out to be cold is tried again later, and an update must have
//! read what was written before it. So within one call nothing may follow a write of the same key that can fail to
//! take effect at once.

use std::collections::HashMap;

use hot_store::RecordId;

/// Writes of one call, at most: a script may not hold up the store.
pub(super) const MAX_ROUND: usize = 128;

/// What decides whether others of the same key may follow in the same call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Takes effect whatever is there.
    Blind,
    /// Depends on what is there, which the store may not know.
    Conditional,
    /// Depends on what was read before the call.
    Update,
}

/// Takes the writes of the next call out of `pending`; returns them and what is left, both in the given order.
/// Writes of one key stay in order over all rounds.
pub(super) fn next_round<T>(pending: Vec<T>, describe: impl Fn(&T) -> (&RecordId, Manner)) -> (Vec<T>, Vec<T>) {
    let (mut round, mut rest) = (Vec::new(), Vec::new());
    // Whether another write of the key may follow in this round.
    let mut open_keys: HashMap<RecordId, bool> = HashMap::new();
    for item in pending {
        let (record, manner) = describe(&item);
        let joins = round.len() < MAX_ROUND
            && match open_keys.get(record) {
                None => true,
                Some(open) => *open && manner != Manner::Update,
            };
        open_keys.insert(record.clone(), joins && manner == Manner::Blind);
        if joins { round.push(item) } else { rest.push(item) }
    }
    (round, rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use model::{KeyBytes, Namespace};
    use proptest::prelude::*;

    fn record(key: u8) -> RecordId {
        RecordId { namespace: Namespace::new("n").unwrap(), key: KeyBytes::from_stored(vec![key].into()) }
    }

    fn manner() -> impl Strategy<Value = Manner> {
        prop_oneof![Just(Manner::Blind), Just(Manner::Conditional), Just(Manner::Update)]
    }

    proptest! {
        #[test]
        fn rounds_keep_the_order_of_each_key_and_end(writes in prop::collection::vec((0_u8..5, manner()), 0..400)) {
            let writes: Vec<_> = writes.into_iter().enumerate().map(|(n, (key, m))| (n, record(key), m)).collect();
            let mut pending = writes.clone();
            let mut done: Vec<(usize, RecordId, Manner)> = Vec::new();
            while !pending.is_empty() {
                let (round, rest) = next_round(pending, |(_, record, manner)| (record, *manner));
                prop_assert!(!round.is_empty() && round.len() <= MAX_ROUND);
                for (at, (_, record, manner)) in round.iter().enumerate() {
                    let before = || round[..at].iter().filter(|(_, r, _)| r == record);
                    prop_assert!(before().all(|(_, _, m)| *m == Manner::Blind));
                    prop_assert!(*manner != Manner::Update || before().count() == 0);
                }
                done.extend(round);
                pending = rest;
            }
            prop_assert_eq!(done.len(), writes.len());
            for key in 0..5 {
                let of_key: Vec<usize> = done.iter().filter(|(_, r, _)| *r == record(key)).map(|(n, ..)| *n).collect();
                prop_assert!(of_key.is_sorted());
            }
        }
    }

    #[test]
    fn blind_writes_of_one_key_share_a_round() {
        let blind = vec![(record(1), Manner::Blind), (record(1), Manner::Blind), (record(1), Manner::Conditional)];
        let (round, rest) = next_round(blind, |(record, manner)| (record, *manner));
        assert_eq!((round.len(), rest.len()), (3, 0));
    }
}
