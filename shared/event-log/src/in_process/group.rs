//! The drain group within the process: its members, who owns what, and who shall.
//!
//! A partition changes hands in two steps, as with Kafka's cooperative protocol: first its owner gives it up (in its
//! own `next`, after its progress was committed), then the new owner takes it. A member that doesn't call `next`
//! is expelled after the session timeout if there are others; with its next call it is back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::Topic;
use tokio::time::Instant;

use super::assignor::{MemberId, assign};
use crate::log::TopicPartition;

#[derive(Debug)]
struct Member {
    topics: BTreeSet<Topic>,
    /// Whether it takes part; not after it was expelled, until it calls again.
    present: bool,
    /// Calls of `next` that are going on; more than none means alive.
    calls: u32,
    last_seen: Instant,
    lost: Vec<TopicPartition>,
    /// Its process has died: it never calls again.
    vanished: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Group {
    last_id: MemberId,
    members: BTreeMap<MemberId, Member>,
    owners: BTreeMap<TopicPartition, MemberId>,
    target: BTreeMap<TopicPartition, MemberId>,
    /// Partitions whose progress is being committed now: whoever gets one must see the commit.
    committing: BTreeSet<TopicPartition>,
}

impl Group {
    pub(crate) fn join(&mut self, now: Instant) -> MemberId {
        self.last_id += 1;
        let member = Member {
            topics: BTreeSet::new(),
            present: true,
            calls: 0,
            last_seen: now,
            lost: Vec::new(),
            vanished: false,
        };
        self.members.insert(self.last_id, member);
        self.last_id
    }

    pub(crate) fn subscribe(&mut self, id: MemberId, topics: BTreeSet<Topic>, partitions: &BTreeMap<Topic, u16>) {
        if let Some(member) = self.members.get_mut(&id) {
            member.topics = topics;
        }
        self.rebalance(partitions);
    }

    /// The member goes; what it owned is free.
    pub(crate) fn leave(&mut self, id: MemberId, partitions: &BTreeMap<Topic, u16>) {
        self.members.remove(&id);
        self.owners.retain(|_, owner| *owner != id);
        self.rebalance(partitions);
    }

    /// The member's process has died. What it owned stays with it until it is expelled.
    #[cfg(feature = "memory")]
    pub(crate) fn vanish(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.calls = 0;
            member.vanished = true;
            if !member.present {
                self.members.remove(&id);
            }
        }
    }

    fn rebalance(&mut self, partitions: &BTreeMap<Topic, u16>) {
        let present = self.members.iter().filter(|(_, member)| member.present);
        let subscriptions = present.map(|(id, member)| (*id, member.topics.clone())).collect();
        self.target = assign(partitions, &subscriptions, &self.owners);
    }

    /// A call of `next` begins. Whether that brought the member back.
    pub(crate) fn enter(&mut self, id: MemberId, now: Instant, partitions: &BTreeMap<Topic, u16>) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.calls += 1;
        member.last_seen = now;
        let back = !std::mem::replace(&mut member.present, true);
        if back {
            self.rebalance(partitions);
        }
        back
    }

    pub(crate) fn exit(&mut self, id: MemberId, now: Instant) {
        if let Some(member) = self.members.get_mut(&id) {
            member.calls = member.calls.saturating_sub(1);
            member.last_seen = now;
        }
    }

    /// Takes from silent members everything, for the others. Whether anything was taken.
    pub(crate) fn expel_silent(&mut self, now: Instant, timeout: Duration, partitions: &BTreeMap<Topic, u16>) -> bool {
        let mut expelled = false;
        if self.members.len() < 2 {
            return expelled;
        }
        for (id, member) in &mut self.members {
            let silent = member.calls == 0 && now.saturating_duration_since(member.last_seen) >= timeout;
            if silent && member.present {
                member.lost.extend(self.owners.iter().filter(|(_, owner)| *owner == id).map(|(p, _)| p.clone()));
                self.owners.retain(|_, owner| owner != id);
                member.present = false;
                expelled = true;
            }
        }
        if expelled {
            self.members.retain(|_, member| member.present || !member.vanished);
            self.rebalance(partitions);
        }
        expelled
    }

    /// When the next silent member is to be expelled, if it stays silent.
    pub(crate) fn next_expulsion(&self, timeout: Duration) -> Option<Instant> {
        let silent = self.members.values().filter(|member| member.present && member.calls == 0);
        silent.map(|member| member.last_seen + timeout).min().filter(|_| self.members.len() > 1)
    }

    /// What was taken from the member, once.
    pub(crate) fn take_lost(&mut self, id: MemberId) -> Vec<TopicPartition> {
        self.members.get_mut(&id).map(|member| std::mem::take(&mut member.lost)).unwrap_or_default()
    }

    /// What the member has to give up.
    pub(crate) fn to_give_up(&self, id: MemberId) -> Vec<TopicPartition> {
        self.owners
            .iter()
            .filter(|(partition, owner)| **owner == id && self.target.get(*partition) != Some(&id))
            .map(|(partition, _)| partition.clone())
            .collect()
    }

    /// The member has committed its progress and gives these up. Answers those that it still had.
    pub(crate) fn give_up(&mut self, id: MemberId, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        let mut given = Vec::new();
        for partition in partitions {
            if self.owners.get(partition) == Some(&id) {
                self.owners.remove(partition);
                given.push(partition.clone());
            }
        }
        given
    }

    /// Takes what is meant for the member and free.
    pub(crate) fn take_over(&mut self, id: MemberId) -> Vec<TopicPartition> {
        let free: Vec<_> = self
            .target
            .iter()
            .filter(|(partition, member)| {
                **member == id && !self.owners.contains_key(*partition) && !self.committing.contains(*partition)
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in &free {
            self.owners.insert(partition.clone(), id);
        }
        free
    }

    pub(crate) fn owns(&self, id: MemberId, partition: &TopicPartition) -> bool {
        self.owners.get(partition) == Some(&id)
    }

    /// Whether the member may commit for the partition; if so the partition changes no hands before
    /// [`Group::commit_ended`].
    #[cfg(any(feature = "embedded", test))]
    pub(crate) fn begin_commit(&mut self, id: MemberId, partition: &TopicPartition) -> bool {
        let may = self.owns(id, partition);
        if may {
            self.committing.insert(partition.clone());
        }
        may
    }

    #[cfg(any(feature = "embedded", test))]
    pub(crate) fn commit_ended(&mut self, partition: &TopicPartition) {
        self.committing.remove(partition);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn orders() -> Topic {
        Topic::new("orders").unwrap()
    }

    fn partitions() -> BTreeMap<Topic, u16> {
        BTreeMap::from([(orders(), 4)])
    }

    fn two_members(now: Instant) -> (Group, MemberId, MemberId) {
        let mut group = Group::default();
        let first = group.join(now);
        group.subscribe(first, BTreeSet::from([orders()]), &partitions());
        assert_eq!(group.take_over(first).len(), 4);
        let second = group.join(now);
        group.subscribe(second, BTreeSet::from([orders()]), &partitions());
        (group, first, second)
    }

    #[test]
    fn a_partition_changes_hands_only_after_it_was_given_up() {
        let (mut group, first, second) = two_members(Instant::now());
        assert_eq!(group.take_over(second), []);
        let moving = group.to_give_up(first);
        assert_eq!(moving.len(), 2);
        assert_eq!(group.give_up(first, &moving), moving);
        assert_eq!(group.take_over(second), moving);
        assert_eq!(group.to_give_up(first), []);
    }

    #[test]
    fn a_silent_member_loses_everything_until_it_calls_again() {
        let start = Instant::now();
        let (mut group, first, second) = two_members(start);
        group.enter(second, start, &partitions());
        assert!(!group.expel_silent(start + TIMEOUT / 2, TIMEOUT, &partitions()));
        assert!(group.expel_silent(start + TIMEOUT, TIMEOUT, &partitions()));
        let lost = group.take_lost(first);
        assert_eq!(lost.len(), 4);
        assert_eq!(group.take_lost(first), []);
        assert!(!group.begin_commit(first, &lost[0]));
        assert_eq!(group.take_over(second), lost);
        assert!(group.enter(first, start + TIMEOUT, &partitions()));
        let back = group.to_give_up(second);
        assert_eq!(back.len(), 2);
        group.give_up(second, &back);
        assert_eq!(group.take_over(first), back);
    }

    #[test]
    fn a_member_within_next_is_never_expelled() {
        let start = Instant::now();
        let (mut group, first, second) = two_members(start);
        group.enter(first, start, &partitions());
        group.enter(second, start, &partitions());
        assert!(!group.expel_silent(start + TIMEOUT * 10, TIMEOUT, &partitions()));
        group.exit(first, start + TIMEOUT * 10);
        assert!(!group.expel_silent(start + TIMEOUT * 10, TIMEOUT, &partitions()));
        assert!(group.expel_silent(start + TIMEOUT * 11, TIMEOUT, &partitions()));
    }

    #[test]
    fn a_lonely_member_is_never_expelled() {
        let start = Instant::now();
        let mut group = Group::default();
        let only = group.join(start);
        group.subscribe(only, BTreeSet::from([orders()]), &partitions());
        group.take_over(only);
        assert!(!group.expel_silent(start + TIMEOUT * 10, TIMEOUT, &partitions()));
    }

    #[test]
    fn a_member_whose_process_died_keeps_its_partitions_for_the_session_timeout_and_is_forgotten() {
        let start = Instant::now();
        let (mut group, first, second) = two_members(start);
        group.enter(first, start, &partitions());
        group.enter(second, start, &partitions());
        assert_eq!(group.next_expulsion(TIMEOUT), None);
        group.exit(first, start + TIMEOUT / 2);
        group.vanish(first);
        assert_eq!(group.next_expulsion(TIMEOUT), Some(start + TIMEOUT / 2 * 3));
        assert!(!group.expel_silent(start + TIMEOUT, TIMEOUT, &partitions()));
        assert_eq!(group.take_over(second), []);
        assert!(group.expel_silent(start + TIMEOUT / 2 * 3, TIMEOUT, &partitions()));
        assert_eq!(group.take_over(second).len(), 4);
        assert_eq!(group.members.len(), 1);
        assert_eq!(group.next_expulsion(TIMEOUT), None);
    }

    #[test]
    fn a_partition_does_not_change_hands_while_its_progress_is_committed() {
        let (mut group, first, second) = two_members(Instant::now());
        let moving = group.to_give_up(first);
        assert!(group.begin_commit(first, &moving[0]));
        group.leave(first, &partitions());
        let taken = group.take_over(second);
        assert_eq!(taken.len(), 3);
        assert!(!taken.contains(&moving[0]));
        group.commit_ended(&moving[0]);
        assert_eq!(group.take_over(second), [moving[0].clone()]);
    }
}
