//! Who gets which partition: evenly per topic, and moving as little as possible.

use std::collections::{BTreeMap, BTreeSet};

use model::Topic;

use crate::log::TopicPartition;

/// Numbers the members of the group in the order in which they joined.
pub(crate) type MemberId = u64;

/// Whom each partition shall belong to. Partitions of a topic that nobody subscribes to belong to nobody.
pub(super) fn assign(
    topics: &BTreeMap<Topic, u16>,
    subscriptions: &BTreeMap<MemberId, BTreeSet<Topic>>,
    owners: &BTreeMap<TopicPartition, MemberId>,
) -> BTreeMap<TopicPartition, MemberId> {
    let mut load: BTreeMap<MemberId, usize> = subscriptions.keys().map(|member| (*member, 0)).collect();
    let mut target = BTreeMap::new();
    for (topic, count) in topics {
        let members: Vec<MemberId> =
            subscriptions.iter().filter(|(_, topics)| topics.contains(topic)).map(|(member, _)| *member).collect();
        if members.is_empty() {
            continue;
        }
        let partitions: Vec<TopicPartition> =
            (0..*count).map(|partition| TopicPartition { topic: topic.clone(), partition }).collect();
        let mut quota = quotas(&members, &partitions, owners, &load);
        for member in &members {
            *load.entry(*member).or_default() += quota.get(member).copied().unwrap_or(0);
        }
        let mut homeless = Vec::new();
        for partition in partitions {
            match owners.get(&partition).and_then(|owner| Some((*owner, quota.get_mut(owner)?))) {
                Some((owner, left)) if *left > 0 => {
                    *left -= 1;
                    target.insert(partition, owner);
                }
                _ => homeless.push(partition),
            }
        }
        let mut places = quota.into_iter().flat_map(|(member, left)| std::iter::repeat_n(member, left));
        for partition in homeless {
            if let Some(member) = places.next() {
                target.insert(partition, member);
            }
        }
    }
    target
}

/// How many partitions of one topic each member gets: the same, and one more for as many as are needed. Those who
/// have more already come first, then those who have the least of other topics.
fn quotas(
    members: &[MemberId],
    partitions: &[TopicPartition],
    owners: &BTreeMap<TopicPartition, MemberId>,
    load: &BTreeMap<MemberId, usize>,
) -> BTreeMap<MemberId, usize> {
    let (base, extra) = (partitions.len() / members.len(), partitions.len() % members.len());
    let has = |member: MemberId| partitions.iter().filter(|p| owners.get(p) == Some(&member)).count();
    let mut ranked: Vec<_> =
        members.iter().map(|member| (has(*member) <= base, load.get(member).copied().unwrap_or(0), *member)).collect();
    ranked.sort_unstable();
    ranked.into_iter().enumerate().map(|(rank, (_, _, member))| (member, base + usize::from(rank < extra))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: usize) -> Topic {
        Topic::new(format!("topic-{number}")).unwrap()
    }

    fn subscribed(all: &[Vec<usize>]) -> BTreeMap<MemberId, BTreeSet<Topic>> {
        (1..).zip(all).map(|(id, topics)| (id, topics.iter().map(|t| topic(*t)).collect())).collect()
    }

    /// The topics that each member subscribes to.
    type Subscriptions = Vec<Vec<usize>>;

    fn group() -> impl Strategy<Value = (BTreeMap<Topic, u16>, Subscriptions, Subscriptions)> {
        let member = prop::collection::vec(0usize..3, 0..4);
        (
            prop::collection::vec(1u16..20, 3)
                .prop_map(|counts| counts.into_iter().enumerate().map(|(t, n)| (topic(t), n)).collect()),
            prop::collection::vec(member.clone(), 0..5),
            prop::collection::vec(member, 0..5),
        )
    }

    proptest! {
        #[test]
        fn every_partition_has_one_subscribed_owner_and_shares_are_even(
            (topics, before, after) in group()
        ) {
            let owners = assign(&topics, &subscribed(&before), &BTreeMap::new());
            let members = subscribed(&after);
            let target = assign(&topics, &members, &owners);
            for (topic, count) in &topics {
                let eligible: Vec<_> = members.iter().filter(|(_, s)| s.contains(topic)).map(|(m, _)| *m).collect();
                let mut shares: BTreeMap<MemberId, usize> = eligible.iter().map(|m| (*m, 0)).collect();
                for partition in 0..*count {
                    let owner = target.get(&TopicPartition { topic: topic.clone(), partition });
                    prop_assert_eq!(owner.is_some(), !eligible.is_empty());
                    if let Some(owner) = owner {
                        *shares.get_mut(owner).unwrap() += 1;
                    }
                }
                if let (Some(most), Some(least)) = (shares.values().max(), shares.values().min()) {
                    prop_assert!(most - least <= 1, "{:?}", shares);
                }
            }
        }

        #[test]
        fn nothing_moves_without_need((topics, members, _) in group()) {
            let members = subscribed(&members);
            let first = assign(&topics, &members, &BTreeMap::new());
            prop_assert_eq!(&assign(&topics, &members, &first), &first);
        }

        #[test]
        fn a_new_member_takes_only_its_share(count in 1u16..64, old in 1usize..6) {
            let topics = BTreeMap::from([(topic(0), count)]);
            let before = assign(&topics, &subscribed(&vec![vec![0]; old]), &BTreeMap::new());
            let after = assign(&topics, &subscribed(&vec![vec![0]; old + 1]), &before);
            let newcomer = (old + 1) as MemberId;
            for (partition, owner) in &after {
                prop_assert!(*owner == newcomer || before.get(partition) == Some(owner));
            }
        }

        #[test]
        fn partitions_of_a_leaving_member_go_to_others_and_nothing_else_moves(count in 1u16..64, old in 2usize..6) {
            let topics = BTreeMap::from([(topic(0), count)]);
            let mut members = subscribed(&vec![vec![0]; old]);
            let before = assign(&topics, &members, &BTreeMap::new());
            members.remove(&1);
            let after = assign(&topics, &members, &before);
            for (partition, owner) in &before {
                prop_assert!(*owner == 1 || after.get(partition) == Some(owner));
            }
        }
    }
}
