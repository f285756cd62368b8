//! Where a member takes a partition up: our own rule, so that nothing is skipped without a word.

use rdkafka::Offset;

use crate::log::{Committed, Progress, TopicPartition};

/// Where a partition is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// What counts as committed; `None`: nothing, it begins where the log does.
    pub(super) committed: Option<Committed>,
    /// The offset that the group has committed in this log, if it is of this log.
    pub(super) in_log: Option<i64>,
    /// The first offset that the log has, as far as it is known.
    pub(super) first: i64,
    /// Why that is not what the group has committed.
    pub(super) amiss: Option<Amiss>,
}

/// The log does not hold what the group has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amiss {
    /// Events were deleted before they were drained.
    Deleted { committed: i64, first: i64 },
    /// It ends before what was committed: it is another log, or has lost its tail.
    Anew { committed: i64, next: i64 },
}

impl Start {
    /// From what the group has committed, and the log's first and next offset. If these are not known the committed
    /// offset is believed: the brokers refuse one that is outside.
    pub(super) fn new(committed: Option<Committed>, bounds: Option<(i64, i64)>) -> Self {
        let (first, next) = bounds.unwrap_or((0, i64::MAX));
        let Some(known) = committed else { return Self { committed, in_log: None, first, amiss: None } };
        let Progress { offset, epoch } = known.done;
        if offset > next {
            // No event of an earlier epoch can count in what was written since, and no fence tells that it doesn't.
            let done = Progress { offset: first, epoch };
            let amiss = Some(Amiss::Anew { committed: offset, next });
            return Self { committed: Some(Committed { done, window: done }), in_log: None, first, amiss };
        }
        if offset < first {
            // The fences that were deleted are not known: at least the last known epoch is in force.
            let done = Progress { offset: first, epoch };
            let amiss = Some(Amiss::Deleted { committed: offset, first });
            return Self { committed: Some(Committed { done, window: done }), in_log: Some(offset), first, amiss };
        }
        Self { committed, in_log: Some(offset), first, amiss: None }
    }

    pub(super) fn offset(&self) -> Offset {
        self.committed.map_or(Offset::Beginning, |committed| Offset::Offset(committed.done.offset))
    }

    /// Says loudly what is lost, and what is done about it.
    pub(super) fn complain(&self, partition: &TopicPartition) {
        let TopicPartition { topic, partition } = partition;
        match self.amiss {
            None => {}
            Some(Amiss::Deleted { committed, first }) => tracing::error!(%topic, partition, committed, first,
                "events were deleted from the log before they were drained; it is drained from its first record. Raise \
                 the topic's retention; what was deleted is drained from the hot store, as far as that has it"),
            Some(Amiss::Anew { committed, next }) => tracing::error!(%topic, partition, committed, next,
                "the log ends before what was drained: the topic was made anew or has lost its tail; it is drained \
                 from its beginning"),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Epoch;

    use super::*;

    fn committed(done: i64, window: i64) -> Committed {
        let at = |offset| Progress { offset, epoch: Epoch(3) };
        Committed { done: at(done), window: at(window) }
    }

    #[test]
    fn what_the_log_holds_is_taken_up_where_it_was_left() {
        for (first, next) in [(0, 10), (0, 5), (5, 5), (5, 9)] {
            let start = Start::new(Some(committed(5, 2)), Some((first, next)));
            assert_eq!(start, Start { committed: Some(committed(5, 2)), in_log: Some(5), first, amiss: None });
            assert_eq!(start.offset(), Offset::Offset(5));
        }
        assert_eq!(Start::new(Some(committed(5, 2)), None).offset(), Offset::Offset(5));
        let fresh = Start::new(None, Some((7, 9)));
        assert_eq!((fresh.offset(), fresh.first, fresh.amiss), (Offset::Beginning, 7, None));
    }

    #[test]
    fn what_the_log_does_not_hold_is_named_and_begun_at_its_first_record() {
        let deleted = Start::new(Some(committed(5, 2)), Some((8, 20)));
        assert_eq!(deleted.offset(), Offset::Offset(8));
        assert_eq!(deleted.committed, Some(committed(8, 8)), "in the epoch that was in force when it was known last");
        assert_eq!(deleted.in_log, Some(5));
        assert_eq!(deleted.amiss, Some(Amiss::Deleted { committed: 5, first: 8 }));
        let anew = Start::new(Some(committed(5, 2)), Some((0, 4)));
        assert_eq!((anew.committed, anew.in_log, anew.offset()), (Some(committed(0, 0)), None, Offset::Offset(0)));
        assert_eq!(anew.amiss, Some(Amiss::Anew { committed: 5, next: 4 }));
    }
}
