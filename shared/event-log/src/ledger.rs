//! What one group member has noted and committed of the partitions that it owns.
//!
//! Both backends commit by the same rules: only for a partition that is owned now, only what was noted under the
//! present assignment, never backwards. The rules live here, apart from any I/O.

use std::collections::HashMap;

use crate::log::{Progress, TopicPartition};

/// Tells one assignment of a partition from the next one, so that progress that was noted under an earlier one is
/// not taken for progress under the present one.
pub(crate) type AssignmentId = u64;

#[derive(Debug)]
struct Entry {
    assignment: AssignmentId,
    noted: Option<Progress>,
    committed_offset: Option<i64>,
}

impl Entry {
    fn due(&self) -> Option<Progress> {
        self.noted.filter(|noted| self.committed_offset.is_none_or(|committed| noted.offset > committed))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ProgressLedger {
    owned: HashMap<TopicPartition, Entry>,
    last_assignment: AssignmentId,
}

impl ProgressLedger {
    /// Takes a partition over.
    pub(crate) fn assign(&mut self, partition: TopicPartition, committed: Option<Progress>) -> AssignmentId {
        self.last_assignment += 1;
        let entry = Entry {
            assignment: self.last_assignment,
            noted: None,
            committed_offset: committed.map(|progress| progress.offset),
        };
        self.owned.insert(partition, entry);
        self.last_assignment
    }

    /// Whether the partition is owned now.
    #[cfg(any(feature = "kafka", test))]
    pub(crate) fn owns(&self, partition: &TopicPartition) -> bool {
        self.owned.contains_key(partition)
    }

    /// Notes progress. What belongs to an earlier assignment, or lies behind what was noted before, is left out.
    pub(crate) fn note(&mut self, partition: &TopicPartition, assignment: AssignmentId, progress: Progress) {
        if let Some(entry) = self.owned.get_mut(partition)
            && entry.assignment == assignment
            && entry.noted.is_none_or(|noted| progress.offset > noted.offset)
        {
            entry.noted = Some(progress);
        }
    }

    /// What was noted and is not committed yet.
    pub(crate) fn due(&self) -> Vec<(TopicPartition, Progress)> {
        self.owned.iter().filter_map(|(partition, entry)| Some((partition.clone(), entry.due()?))).collect()
    }

    /// The same for some partitions.
    pub(crate) fn due_for(&self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Progress)> {
        partitions.iter().filter_map(|p| Some((p.clone(), self.owned.get(p)?.due()?))).collect()
    }

    /// The log has taken a commit.
    pub(crate) fn confirm(&mut self, partition: &TopicPartition, offset: i64) {
        if let Some(entry) = self.owned.get_mut(partition) {
            entry.committed_offset = Some(entry.committed_offset.map_or(offset, |before| before.max(offset)));
        }
    }

    /// Gives partitions up; answers those that were owned.
    pub(crate) fn give_up(&mut self, partitions: &[TopicPartition]) -> Vec<TopicPartition> {
        partitions.iter().filter(|partition| self.owned.remove(partition).is_some()).cloned().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use model::{Epoch, Topic};
    use proptest::prelude::*;

    use super::*;

    fn partition(number: u16) -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition: number }
    }

    fn at(offset: i64) -> Progress {
        Progress { offset, epoch: Epoch(1) }
    }

    #[test]
    fn progress_of_an_earlier_assignment_is_not_committed_under_the_next_one() {
        let mut ledger = ProgressLedger::default();
        let first = ledger.assign(partition(0), None);
        ledger.give_up(&[partition(0)]);
        let second = ledger.assign(partition(0), Some(at(5)));
        ledger.note(&partition(0), first, at(9));
        assert_eq!(ledger.due(), []);
        ledger.note(&partition(0), second, at(6));
        assert_eq!(ledger.due(), [(partition(0), at(6))]);
    }

    #[test]
    fn nothing_is_due_for_a_partition_that_was_given_up() {
        let mut ledger = ProgressLedger::default();
        let id = ledger.assign(partition(3), None);
        ledger.note(&partition(3), id, at(1));
        assert_eq!(ledger.give_up(&[partition(3), partition(4)]), [partition(3)]);
        assert!(!ledger.owns(&partition(3)));
        assert_eq!(ledger.due(), []);
        assert_eq!(ledger.due_for(&[partition(3)]), []);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Assign(u16),
        Note(u16, i64),
        CommitDue,
        GiveUp(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u16..3).prop_map(Step::Assign),
            (0u16..3, 0i64..30).prop_map(|(p, o)| Step::Note(p, o)),
            Just(Step::CommitDue),
            (0u16..3).prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        #[test]
        fn commits_of_a_partition_rise_strictly_and_only_while_it_is_owned(
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let mut ledger = ProgressLedger::default();
            let mut ids: HashMap<u16, AssignmentId> = HashMap::new();
            let mut log: HashMap<TopicPartition, i64> = HashMap::new();
            for step in steps {
                match step {
                    Step::Assign(p) => {
                        let committed = log.get(&partition(p)).map(|o| at(*o));
                        ids.insert(p, ledger.assign(partition(p), committed));
                    }
                    Step::Note(p, offset) => {
                        ledger.note(&partition(p), ids.get(&p).copied().unwrap_or(0), at(offset));
                    }
                    Step::CommitDue => {
                        for (tp, progress) in ledger.due() {
                            prop_assert!(ids.contains_key(&tp.partition));
                            prop_assert!(log.get(&tp).is_none_or(|before| *before < progress.offset));
                            log.insert(tp.clone(), progress.offset);
                            ledger.confirm(&tp, progress.offset);
                        }
                        prop_assert_eq!(ledger.due(), []);
                    }
                    Step::GiveUp(p) => {
                        ledger.give_up(&[partition(p)]);
                        ids.remove(&p);
                    }
                }
            }
        }
    }
}
