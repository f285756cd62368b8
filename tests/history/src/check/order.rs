//! Whether a write may have got the version that it was acknowledged with.

use super::Check;
use crate::{BatchPlace, Condition, Operation, Outcome, Refusal, Stamp, timeline::Write};

impl<'a> Check<'a> {
    /// The write that an operation repeats under the same request id.
    pub(super) fn repeats(&self, operation: &Operation) -> Option<Write<'a>> {
        let first = self.timeline.writes.get(*self.timeline.by_value.get(&operation.action.value()?)?)?;
        (!std::ptr::eq(first.operation, operation)).then_some(*first)
    }

    /// A write that is repeated after its answer takes no effect again: it is answered with the version of the first, or
    /// not at all.
    pub(super) fn repeated(&mut self, operation: &Operation) {
        let Some(first) = self.repeats(operation) else { return };
        let twice = match operation.outcome {
            Outcome::Acked { stamp, .. } => first.version != Some(stamp.version),
            Outcome::Refused(refusal) => refusal != Refusal::Other,
            Outcome::Unknown | Outcome::Read(_) => false,
        };
        // A first effect that was lost with its request id may be followed by a second one.
        let lost = !first.durable && self.lossy(first.span.around(operation.span));
        if twice && !lost {
            self.out_of_order(format!("{operation}, although it repeats {}", first.operation));
        }
        if let (Outcome::Acked { level, stamp }, false) = (&operation.outcome, twice) {
            self.bounds.push(super::Bound::of_ack(operation, *level, *stamp));
        }
    }

    pub(super) fn acked(&mut self, operation: &Operation, stamp: Stamp) {
        self.epoch(stamp.epoch, operation.span);
        let comes_after = |bound: &&super::Bound| match (bound.batch, operation.batch) {
            (Some(earlier), Some(later)) if earlier.batch == later.batch => earlier.index < later.index,
            _ => bound.span.is_before(operation.span),
        };
        let before = self.bounds.iter().filter(comes_after).filter(|bound| self.still_binds(bound, operation.span));
        if let Some(newest) = before.copied().max_by_key(super::Bound::rank)
            && newest.version >= stamp.version
        {
            self.out_of_order(format!("{operation}, although {newest}"));
        }
        let Some(write) = self.timeline.writes.iter().find(|write| std::ptr::eq(write.operation, operation)).copied()
        else {
            return;
        };
        if let Condition::At(wanted) = operation.action.condition() {
            self.was_at(&write, wanted, stamp);
        }
        if let Some(row) = operation.action.needs_row() {
            self.found_row(&write, row, stamp);
        }
    }

    /// What took effect of a batch did so in its order, also where that was not acknowledged, but was seen.
    pub(super) fn batches(&mut self) {
        let placed = |write: &Write<'a>| write.version.and(write.operation.batch).map(|place| (place, *write));
        let placed: Vec<(BatchPlace, Write<'a>)> = self.timeline.writes.iter().filter_map(placed).collect();
        for (place, earlier) in &placed {
            let is_later =
                |(other, _): &&(BatchPlace, Write<'_>)| other.batch == place.batch && other.index > place.index;
            for (_, later) in placed.iter().filter(is_later) {
                let is_told = earlier.epoch.is_some() && later.epoch.is_some();
                if !is_told && earlier.version > later.version && !self.lossy(earlier.span.around(later.span)) {
                    let (earlier, later) = (earlier.operation, later.operation);
                    self.out_of_order(format!("{earlier} took effect behind {later}"));
                }
            }
        }
    }

    /// A write that asked for a version found nothing newer.
    fn was_at(&mut self, write: &Write<'_>, wanted: Stamp, got: Stamp) {
        // A write that is sent again, and took effect before an opening, is answered with the opening's epoch. So a later
        // one is wrong only where it was known before the write began.
        let later_was_known = || {
            let later = |bound: &super::Bound| bound.epoch.is_some_and(|epoch| epoch > wanted.epoch);
            self.bounds.iter().any(|bound| later(bound) && bound.span.is_before(write.operation.span))
        };
        if got.epoch < wanted.epoch || (got.epoch > wanted.epoch && later_was_known()) {
            self.out_of_order(format!("{}: the epoch is another one by now", write.operation));
        }
        let overlooked = self.timeline.writes.iter().find(|other| {
            other.version.is_some_and(|version| wanted.version < version && version < got.version)
                && self.stood_before(other, write)
        });
        if let Some(overlooked) = overlooked {
            let overlooked = overlooked.operation;
            self.out_of_order(format!("{}, but in between was {overlooked}", write.operation));
        }
    }

    /// A write that needs a row, or needs that there is none, found it so.
    fn found_row(&mut self, write: &Write<'_>, row: bool, got: Stamp) {
        let leaves = |other: &Write<'_>| !other.deletes();
        let mut before: Vec<&Write<'_>> =
            self.timeline.writes.iter().filter(|other| other.version.is_some_and(|v| v < got.version)).collect();
        before.sort_by_key(|other| std::cmp::Reverse(other.version));
        let mut against = None;
        for other in before {
            if leaves(other) == row {
                return;
            }
            if self.stood_before(other, write) {
                against = Some(other.operation.to_string());
                break;
            }
        }
        let base = self.timeline.base;
        let against = match against {
            Some(against) => against,
            None if base.image.is_some() == row => return,
            None => format!("what was there in the beginning, {base:?}"),
        };
        // One of unknown outcome may have come in between, or the first attempt of one that was lost.
        let late = |other: &Write<'_>| {
            (other.version.is_none() || self.lossy(other.operation.span))
                && leaves(other) == row
                && other.operation.span.from <= write.operation.span.to
        };
        if !self.timeline.writes.iter().any(late) {
            let wanted = if row { "a row" } else { "no row" };
            self.out_of_order(format!("{}: it needs {wanted}, but before it was {against}", write.operation));
        }
    }
}
