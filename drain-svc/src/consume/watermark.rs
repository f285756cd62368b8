//! How far a partition is done, and which epoch is in force where.

use std::collections::{BTreeSet, VecDeque};

use event_log::Progress;
use model::Epoch;

/// The contiguous watermark of one assigned partition.
///
/// Records finish in any order; the watermark stands at the first that has not. It remembers what is *unfinished*,
/// not what is done beyond it: one record that takes for ever costs no memory as the log grows behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// The epoch in force just before the watermark.
    epoch: Epoch,
    /// Above every record that was delivered.
    end: i64,
    unfinished: BTreeSet<i64>,
    /// Fences at or above the watermark that raised the epoch, in the order of the log; epochs rise with offsets.
    fences: VecDeque<(i64, Epoch)>,
}

impl Watermark {
    /// Where an assignment begins.
    pub(crate) fn new(committed: Option<Progress>) -> Self {
        let Progress { offset, epoch } = committed.unwrap_or(Progress { offset: 0, epoch: Epoch::ZERO });
        Self { epoch, end: offset, unfinished: BTreeSet::new(), fences: VecDeque::new() }
    }

    /// A record that has to be worked off. `false`: this offset was delivered before and is to be left alone.
    pub(crate) fn begin(&mut self, offset: i64) -> bool {
        let new = self.deliver(offset);
        if new {
            self.unfinished.insert(offset);
        }
        new
    }

    /// A record that is done as it comes (void), or `false` if it was delivered before.
    pub(crate) fn pass(&mut self, offset: i64) -> bool {
        let new = self.deliver(offset);
        self.settle();
        new
    }

    /// A fence: done as it comes. It puts its epoch in force for what comes after it, if that epoch is higher than
    /// the one in force.
    pub(crate) fn fence(&mut self, offset: i64, epoch: Epoch) -> bool {
        let raises = epoch > self.in_force();
        let new = self.deliver(offset);
        if new && raises {
            self.fences.push_back((offset, epoch));
        }
        self.settle();
        new
    }

    /// A record that was begun is done.
    pub(crate) fn finish(&mut self, offset: i64) {
        self.unfinished.remove(&offset);
        self.settle();
    }

    /// The epoch in force for the next record that is delivered.
    pub(crate) fn in_force(&self) -> Epoch {
        self.fences.back().map_or(self.epoch, |(_, epoch)| *epoch)
    }

    /// From where a successor has to go on, and with which epoch.
    pub(crate) fn progress(&self) -> Progress {
        Progress { offset: self.first_unfinished(), epoch: self.epoch }
    }

    fn deliver(&mut self, offset: i64) -> bool {
        let new = offset >= self.end;
        if new {
            self.end = offset + 1;
        }
        new
    }

    fn first_unfinished(&self) -> i64 {
        self.unfinished.first().copied().unwrap_or(self.end)
    }

    /// Fences that the watermark has passed count from now on, and only now: a successor that starts below a fence
    /// meets it itself.
    fn settle(&mut self) {
        let offset = self.first_unfinished();
        while let Some(&(fence, epoch)) = self.fences.front()
            && fence < offset
        {
            self.epoch = epoch;
            self.fences.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::Index};

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Kind {
        Work,
        Void,
        Fence(u32),
    }

    fn log() -> impl Strategy<Value = Vec<(i64, Kind)>> {
        let kind = prop_oneof![4 => Just(Kind::Work), 1 => Just(Kind::Void), 2 => (0u32..6).prop_map(Kind::Fence)];
        // Gaps: offsets that the log used for itself.
        prop::collection::vec((1i64..4, kind), 1..40).prop_map(|steps| {
            let mut offset = 9;
            steps
                .into_iter()
                .map(|(gap, kind)| {
                    offset += gap;
                    (offset, kind)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn it_never_passes_an_unfinished_record_and_knows_the_epoch_at_every_point(
            log in log(),
            start_epoch in 0u32..4,
            order in prop::collection::vec(any::<Index>(), 80),
        ) {
            let start = Progress { offset: 10, epoch: Epoch(start_epoch) };
            let mut mark = Watermark::new(Some(start));
            let mut undelivered = log.iter();
            let mut unfinished: Vec<i64> = Vec::new();
            let mut delivered = 0;
            let mut last = mark.progress();
            prop_assert_eq!(last, start);
            for pick in order {
                // The next step is a delivery, or the end of any one of the records in work.
                let at = pick.index(unfinished.len() + 1);
                if at < unfinished.len() {
                    mark.finish(unfinished.swap_remove(at));
                } else if let Some((offset, kind)) = undelivered.next() {
                    delivered += 1;
                    match kind {
                        Kind::Work => {
                            prop_assert!(mark.begin(*offset));
                            unfinished.push(*offset);
                        }
                        Kind::Void => prop_assert!(mark.pass(*offset)),
                        Kind::Fence(epoch) => prop_assert!(mark.fence(*offset, Epoch(*epoch))),
                    }
                    prop_assert!(!mark.begin(*offset), "a second delivery is told from the first");
                }
                let now = mark.progress();
                prop_assert!(now.offset >= last.offset && now.epoch >= last.epoch, "{:?} after {:?}", now, last);
                let behind = log[..delivered].last().map_or(10, |(offset, _)| offset + 1);
                prop_assert_eq!(now.offset, unfinished.iter().min().copied().unwrap_or(behind));
                let epoch_below = |end: i64| {
                    log[..delivered].iter().filter(|(offset, _)| *offset < end).fold(start.epoch, |epoch, (_, kind)| {
                        match kind {
                            Kind::Fence(fence) => epoch.max(Epoch(*fence)),
                            _ => epoch,
                        }
                    })
                };
                prop_assert_eq!(now.epoch, epoch_below(now.offset));
                prop_assert_eq!(mark.in_force(), epoch_below(i64::MAX));
                last = now;
            }
        }
    }

    proptest! {
        /// Through any number of assignments, each from what the one before it had committed: nothing below a commit
        /// is unfinished, nothing void is worked off and nothing else is taken for void.
        #[test]
        fn what_is_committed_was_worked_off_whatever_fails_ends_late_or_comes_again(
            log in log(),
            start_epoch in 0u32..4,
            steps in prop::collection::vec((0u8..8, any::<Index>()), 0..200),
        ) {
            let start = Progress { offset: 10, epoch: Epoch(start_epoch) };
            let mut mark = Watermark::new(Some(start));
            let mut committed = start;
            let mut next = 0;
            // What this assignment works on, and what former ones still do.
            let (mut unfinished, mut former): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
            let mut done: BTreeSet<i64> = BTreeSet::new();
            let in_force_at = |offset: i64| {
                log.iter().take_while(|(at, _)| *at < offset).fold(start.epoch, |epoch, (_, kind)| match kind {
                    Kind::Fence(fence) => epoch.max(Epoch(*fence)),
                    _ => epoch,
                })
            };
            for (step, pick) in steps {
                match step {
                    0..=2 => {
                        let Some((offset, kind)) = log.get(next) else { continue };
                        next += 1;
                        prop_assert_eq!(mark.in_force(), in_force_at(*offset));
                        match kind {
                            Kind::Work => {
                                prop_assert!(mark.begin(*offset));
                                unfinished.push(*offset);
                            }
                            Kind::Void => prop_assert!(mark.pass(*offset)),
                            Kind::Fence(epoch) => prop_assert!(mark.fence(*offset, Epoch(*epoch))),
                        }
                    }
                    // The log delivers something once more.
                    3 if next > 0 => {
                        let (offset, kind) = log[pick.index(next)];
                        let new = match kind {
                            Kind::Work => mark.begin(offset),
                            Kind::Void => mark.pass(offset),
                            Kind::Fence(epoch) => mark.fence(offset, Epoch(epoch)),
                        };
                        prop_assert!(!new);
                    }
                    4 | 5 if !unfinished.is_empty() => {
                        let offset = unfinished.swap_remove(pick.index(unfinished.len()));
                        mark.finish(offset);
                        // Twice is once.
                        mark.finish(offset);
                        done.insert(offset);
                    }
                    // A transaction of a former assignment ends late: done, but not counted here.
                    6 if !former.is_empty() => {
                        done.insert(former.swap_remove(pick.index(former.len())));
                    }
                    7 => {
                        if pick.index(2) == 0 {
                            committed = mark.progress();
                        }
                        mark = Watermark::new(Some(committed));
                        former.append(&mut unfinished);
                        next = log.iter().take_while(|(offset, _)| *offset < committed.offset).count();
                    }
                    _ => {}
                }
                let now = mark.progress();
                prop_assert!(now >= committed, "{:?} after {:?}", now, committed);
                prop_assert_eq!(now.epoch, in_force_at(now.offset));
                for (offset, kind) in log.iter().filter(|(offset, _)| *offset < now.offset) {
                    prop_assert!(!matches!(kind, Kind::Work) || done.contains(offset), "{} is not done", offset);
                }
            }
        }
    }

    #[test]
    fn a_fence_above_an_unfinished_record_is_in_force_but_not_committed() {
        let mut mark = Watermark::new(None);
        assert!(mark.begin(0));
        assert!(mark.fence(1, Epoch(3)));
        assert_eq!(mark.in_force(), Epoch(3));
        assert_eq!(mark.progress(), Progress { offset: 0, epoch: Epoch::ZERO });
        mark.finish(0);
        assert_eq!(mark.progress(), Progress { offset: 2, epoch: Epoch(3) });
    }
}
