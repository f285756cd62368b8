//! Whether anything is missing between the records that come.
//!
//! Our topics are not compacted and nobody writes transactions into them, so offsets are contiguous in what the log
//! keeps. What retention deletes makes no gap: the brokers answer that the offset is out of range. A gap is a batch
//! that was lost, or one that the client could not read and went on behind.

use std::ops::Range;

/// The offsets of one partition, as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contiguous {
    /// `None`: wherever the log begins.
    next: Option<i64>,
    /// From here it was asked for again.
    asked_again: Option<i64>,
}

/// What an offset says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Met {
    /// It is the next one.
    Next,
    /// It came before.
    Known,
    /// Some before it did not come. It is to be left alone, and all be asked for again from there.
    Gap(Range<i64>),
    /// They did not come the second time either. It counts as the next one.
    Missing(Range<i64>),
}

impl Contiguous {
    pub(super) fn from(next: Option<i64>) -> Self {
        Self { next, asked_again: None }
    }

    pub(super) fn meet(&mut self, offset: i64) -> Met {
        match self.next {
            Some(next) if offset < next => return Met::Known,
            Some(next) if offset > next && self.asked_again != Some(next) => {
                self.asked_again = Some(next);
                return Met::Gap(next..offset);
            }
            _ => {}
        }
        match self.next.replace(offset + 1) {
            Some(next) if offset > next => Met::Missing(next..offset),
            _ => Met::Next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_order_is_next_from_wherever_it_begins() {
        for first in [None, Some(7)] {
            let mut partition = Contiguous::from(first);
            for offset in 7..12 {
                assert_eq!(partition.meet(offset), Met::Next);
            }
            assert_eq!(partition.meet(9), Met::Known, "and it is not taken back");
            assert_eq!(partition.meet(12), Met::Next);
        }
    }

    #[test]
    fn a_gap_is_asked_for_again_and_may_be_none_then() {
        let mut partition = Contiguous::from(Some(3));
        assert_eq!(partition.meet(5), Met::Gap(3..5));
        for offset in 3..7 {
            assert_eq!(partition.meet(offset), Met::Next);
        }
        assert_eq!(partition.meet(9), Met::Gap(7..9), "each gap is asked for");
    }

    #[test]
    fn a_gap_that_stays_is_missing_and_only_what_did_not_come() {
        let mut partition = Contiguous::from(Some(3));
        assert_eq!(partition.meet(6), Met::Gap(3..6));
        // The second time a part of it comes: the rest is a gap of its own.
        assert_eq!(partition.meet(3), Met::Next);
        assert_eq!(partition.meet(6), Met::Gap(4..6));
        assert_eq!(partition.meet(6), Met::Missing(4..6));
        assert_eq!(partition.meet(7), Met::Next);
        assert_eq!(partition.meet(9), Met::Gap(8..9));
        assert_eq!(partition.meet(10), Met::Missing(8..10), "whatever comes then, it is more than nothing");
        assert_eq!(partition.meet(9), Met::Known, "it was told to be missing");
    }
}
