//! What one group member has noted and committed of the partitions that it owns.
//!
//! All backends commit by the same rules: only for a partition that is owned now, only what was noted under the
//! present assignment, never backwards, and with each commit the window that goes with it. The rules live here, apart
//! from any I/O.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::{
    log::{Committed, Progress, TopicPartition},
    window::Window,
};

/// Tells one assignment of a partition from the next one, so that progress that was noted under an earlier one is
/// not taken for progress under the present one.
pub(crate) type AssignmentId = u64;

#[derive(Debug)]
struct Entry {
    assignment: AssignmentId,
    noted: Option<Progress>,
    committed: Option<Committed>,
    in_log: Option<i64>,
    window: Window,
    /// The log is not the one that was taken up: nothing more is committed under this assignment.
    #[cfg(any(feature = "kafka", test))]
    distrusted: bool,
}

impl Entry {
    fn due(&mut self, now: Instant) -> Option<Committed> {
        #[cfg(any(feature = "kafka", test))]
        if self.distrusted {
            return None;
        }
        let before = self.committed;
        if let Some(done) = self.noted.filter(|done| before.is_none_or(|before| done.offset > before.done.offset)) {
            return Some(Committed { done, window: self.window.behind(done, now) });
        }
        let before = before?;
        // The log has deleted what lies before the start: the group's offset shall be in the log, even if no record
        // ever comes.
        if self.in_log.is_some_and(|in_log| in_log < before.done.offset) {
            return Some(before);
        }
        // Nothing was drained for a whole window: once more, so that nobody reads drained records for ever.
        let Committed { done, window } = before;
        (window != done && self.window.behind(done, now) == done).then_some(Committed { done, window: done })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ProgressLedger {
    request_window: Duration,
    owned: BTreeMap<TopicPartition, Entry>,
    last_assignment: AssignmentId,
}

impl ProgressLedger {
    pub(crate) fn new(request_window: Duration) -> Self {
        Self { request_window, owned: BTreeMap::new(), last_assignment: 0 }
    }

    /// Takes a partition over. `committed` is what counts as committed, `in_log` the offset that the log has: another
    /// one if it does not hold that. `first_offset`: where the log begins, if nothing was ever committed.
    pub(crate) fn assign(
        &mut self,
        partition: TopicPartition,
        committed: Option<Committed>,
        in_log: Option<i64>,
        first_offset: i64,
        now: Instant,
    ) -> AssignmentId {
        self.last_assignment += 1;
        let window = Window::inherit(self.request_window, committed, first_offset, now);
        let entry = Entry {
            assignment: self.last_assignment,
            noted: None,
            committed,
            in_log,
            window,
            #[cfg(any(feature = "kafka", test))]
            distrusted: false,
        };
        self.owned.insert(partition, entry);
        self.last_assignment
    }

    /// Whether the partition is owned now.
    #[cfg(any(feature = "kafka", test))]
    pub(crate) fn owns(&self, partition: &TopicPartition) -> bool {
        self.owned.contains_key(partition)
    }

    /// The log is not what it was taken for: nothing more is committed of what is owned now. What is taken up from now
    /// on is taken up anew, so it is trusted, also if that comes before what is owned now was given up.
    #[cfg(any(feature = "kafka", test))]
    pub(crate) fn distrust_all(&mut self) {
        self.owned.values_mut().for_each(|entry| entry.distrusted = true);
    }

    /// Whether progress of the partition may be committed.
    #[cfg(any(feature = "kafka", test))]
    pub(crate) fn trusts(&self, partition: &TopicPartition) -> bool {
        self.owned.get(partition).is_some_and(|entry| !entry.distrusted)
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

    /// The committed offset that the log has, as far as this member knows.
    #[cfg(feature = "kafka")]
    pub(crate) fn in_log(&self, partition: &TopicPartition) -> Option<i64> {
        self.owned.get(partition)?.in_log
    }

    /// What is to be committed now.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(TopicPartition, Committed)> {
        self.owned.iter_mut().filter_map(|(partition, entry)| Some((partition.clone(), entry.due(now)?))).collect()
    }

    /// The same for some partitions.
    pub(crate) fn due_for(&mut self, partitions: &[TopicPartition], now: Instant) -> Vec<(TopicPartition, Committed)> {
        partitions.iter().filter_map(|p| Some((p.clone(), self.owned.get_mut(p)?.due(now)?))).collect()
    }

    /// The log has taken a commit.
    pub(crate) fn confirm(&mut self, partition: &TopicPartition, committed: Committed, now: Instant) {
        if let Some(entry) = self.owned.get_mut(partition)
            // Answers may come late, and in another order.
            && entry.committed.is_none_or(|before| committed.done.offset >= before.done.offset)
        {
            if entry.committed.is_none_or(|before| committed.done.offset > before.done.offset) {
                entry.window.push(committed.done, now);
            }
            entry.committed = Some(committed);
            entry.in_log = Some(committed.done.offset);
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
    use std::collections::HashMap;

    use model::{Epoch, Topic};
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(120);

    fn partition(number: u16) -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition: number }
    }

    fn at(offset: i64) -> Progress {
        Progress { offset, epoch: Epoch(1) }
    }

    fn committed(done: i64, window: i64) -> Committed {
        Committed { done: at(done), window: at(window) }
    }

    #[test]
    fn progress_of_an_earlier_assignment_is_not_committed_under_the_next_one() {
        let now = Instant::now();
        let mut ledger = ProgressLedger::new(WINDOW);
        let first = ledger.assign(partition(0), None, None, 0, now);
        ledger.give_up(&[partition(0)]);
        let second = ledger.assign(partition(0), Some(committed(5, 5)), Some(5), 0, now);
        ledger.note(&partition(0), first, at(9));
        assert_eq!(ledger.due(now), []);
        ledger.note(&partition(0), second, at(6));
        assert_eq!(ledger.due(now), [(partition(0), committed(6, 5))]);
    }

    #[test]
    fn what_was_owned_when_the_log_was_found_to_be_another_is_never_committed_whatever_is_assigned_meanwhile() {
        let now = Instant::now();
        let mut ledger = ProgressLedger::new(WINDOW);
        let old = ledger.assign(partition(0), Some(committed(5, 5)), Some(5), 0, now);
        ledger.note(&partition(0), old, at(9));
        ledger.distrust_all();
        // An assignment that was on its way comes first, then the old one is taken.
        let new = ledger.assign(partition(1), None, None, 0, now);
        ledger.note(&partition(1), new, at(3));
        ledger.note(&partition(0), old, at(10));
        assert!(ledger.trusts(&partition(1)) && !ledger.trusts(&partition(0)));
        let of_the_new_one = Committed { done: at(3), window: Progress::BEGINNING };
        assert_eq!(ledger.due(now), [(partition(1), of_the_new_one)]);
        assert_eq!(ledger.due_for(&[partition(0)], now), []);
        assert_eq!(ledger.give_up(&[partition(0)]), [partition(0)]);
        let again = ledger.assign(partition(0), Some(committed(2, 2)), Some(2), 0, now);
        ledger.note(&partition(0), again, at(4));
        assert_eq!(ledger.due_for(&[partition(0)], now), [(partition(0), committed(4, 2))]);
    }

    #[test]
    fn nothing_is_due_for_a_partition_that_was_given_up() {
        let now = Instant::now();
        let mut ledger = ProgressLedger::new(WINDOW);
        let id = ledger.assign(partition(3), None, None, 0, now);
        ledger.note(&partition(3), id, at(1));
        assert_eq!(ledger.give_up(&[partition(3), partition(4)]), [partition(3)]);
        assert!(!ledger.owns(&partition(3)));
        assert_eq!(ledger.due(now), []);
        assert_eq!(ledger.due_for(&[partition(3)], now), []);
    }

    #[test]
    fn an_idle_partition_is_committed_once_more_when_the_window_has_passed_it() {
        let start = Instant::now();
        let mut ledger = ProgressLedger::new(WINDOW);
        let id = ledger.assign(partition(0), None, None, 3, start);
        ledger.note(&partition(0), id, at(8));
        let beginning = Progress { offset: 3, epoch: Epoch::ZERO };
        assert_eq!(ledger.due(start), [(partition(0), Committed { done: at(8), window: beginning })]);
        ledger.confirm(&partition(0), Committed { done: at(8), window: beginning }, start);
        assert_eq!(ledger.due(start + WINDOW / 2), []);
        assert_eq!(ledger.due(start + WINDOW), [(partition(0), committed(8, 8))]);
        ledger.confirm(&partition(0), committed(8, 8), start + WINDOW);
        assert_eq!(ledger.due(start + WINDOW * 3), []);
    }

    #[test]
    fn a_start_behind_what_was_deleted_is_committed_until_the_log_has_it() {
        let now = Instant::now();
        let mut ledger = ProgressLedger::new(WINDOW);
        ledger.assign(partition(0), Some(committed(8, 8)), Some(5), 8, now);
        assert_eq!(ledger.due(now), [(partition(0), committed(8, 8))]);
        ledger.confirm(&partition(0), committed(5, 2), now);
        assert_eq!(ledger.due(now), [(partition(0), committed(8, 8))], "that was what the log had before");
        ledger.confirm(&partition(0), committed(8, 8), now);
        assert_eq!(ledger.due(now + WINDOW * 2), []);
    }

    #[test]
    fn a_late_answer_to_an_earlier_commit_takes_nothing_back() {
        let now = Instant::now();
        let mut ledger = ProgressLedger::new(WINDOW);
        let id = ledger.assign(partition(0), Some(committed(2, 1)), Some(2), 0, now);
        ledger.note(&partition(0), id, at(9));
        ledger.confirm(&partition(0), committed(9, 1), now);
        ledger.confirm(&partition(0), committed(5, 1), now);
        assert_eq!(ledger.due(now), []);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Assign(u16),
        Note(u16, i64),
        CommitDue,
        Wait(u64),
        GiveUp(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u16..3).prop_map(Step::Assign),
            (0u16..3, 0i64..30).prop_map(|(p, o)| Step::Note(p, o)),
            Just(Step::CommitDue),
            (0u64..90).prop_map(Step::Wait),
            (0u16..3).prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        #[test]
        fn commits_never_go_back_are_made_only_while_owned_and_their_window_is_a_commit_that_is_old_enough(
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut now = Instant::now();
            let mut ledger = ProgressLedger::new(WINDOW);
            let mut ids: HashMap<u16, AssignmentId> = HashMap::new();
            let mut log: HashMap<TopicPartition, Vec<(Instant, Committed)>> = HashMap::new();
            for step in steps {
                match step {
                    Step::Assign(p) => {
                        let committed = log.get(&partition(p)).and_then(|all| Some(all.last()?.1));
                        ids.insert(p, ledger.assign(partition(p), committed, committed.map(|c| c.done.offset), 0, now));
                    }
                    Step::Note(p, offset) => {
                        ledger.note(&partition(p), ids.get(&p).copied().unwrap_or(0), at(offset));
                    }
                    Step::CommitDue => {
                        for (tp, committed) in ledger.due(now) {
                            prop_assert!(ids.contains_key(&tp.partition));
                            let before = log.entry(tp.clone()).or_default();
                            prop_assert!(committed.window.offset <= committed.done.offset);
                            if let Some((_, last)) = before.last() {
                                prop_assert!(last.done.offset <= committed.done.offset && *last != committed);
                                prop_assert!(last.window.offset <= committed.window.offset);
                            }
                            let known = before.iter().any(|(time, earlier)| {
                                earlier.done == committed.window && now - *time >= WINDOW
                            });
                            prop_assert!(known || committed.window == Progress::BEGINNING, "{:?}", committed);
                            before.push((now, committed));
                            ledger.confirm(&tp, committed, now);
                        }
                        prop_assert_eq!(ledger.due(now), []);
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::GiveUp(p) => {
                        ledger.give_up(&[partition(p)]);
                        ids.remove(&p);
                    }
                }
            }
        }
    }
}
