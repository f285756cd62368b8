//! One key's observations, in the order in which they ended, against what binds them.

mod bounds;
mod image;
mod order;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Finding, Findings, History, Image, Loss, Outcome, Refusal, Sample, Seen, Span, Told,
    timeline::{Observation, Timeline, Write},
};
use bounds::{Bound, Source};

/// Checks one key.
pub(super) fn key(key: &str, timeline: &Timeline<'_>, history: &History, findings: &mut Findings) {
    let (losses, unwritable) = (&history.losses[..], &history.unwritable);
    let mut check = Check {
        key,
        timeline,
        losses,
        unwritable,
        findings,
        bounds: vec![Bound::of_base(timeline.base)],
        images: BTreeMap::new(),
    };
    for observation in &timeline.observations {
        check.observe(observation);
    }
    for observation in &timeline.observations {
        if let Observation::Sample(sample) = observation {
            check.horizon(sample);
        }
    }
    check.versions();
    check.batches();
}

/// Where somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Through us.
    Api,
    /// Into the database itself.
    Database { drained: bool },
    /// At what a watch told: however old, it was so.
    Log,
}

struct Check<'a> {
    key: &'a str,
    timeline: &'a Timeline<'a>,
    losses: &'a [Loss],
    unwritable: &'a BTreeSet<u64>,
    findings: &'a mut Findings,
    /// What is certain so far.
    bounds: Vec<Bound>,
    /// The row that each value was seen in at each version.
    images: BTreeMap<(u64, u64), Image>,
}

impl<'a> Check<'a> {
    fn observe(&mut self, observation: &Observation<'a>) {
        match observation {
            Observation::Sample(sample) => {
                let view = View::Database { drained: sample.drained };
                match sample.row {
                    Some(seen) => self.found(seen, sample.span, view),
                    None => self.absent(sample.span, view, "the database has no row"),
                }
            }
            Observation::Told(told) => self.told(told),
            Observation::Operation(operation) if self.repeats(operation).is_some() => self.repeated(operation),
            Observation::Operation(operation) => match operation.outcome {
                Outcome::Acked { level, stamp } => {
                    self.acked(operation, stamp);
                    self.bounds.push(Bound::of_ack(operation, level, stamp));
                }
                Outcome::Read(Some(seen)) => self.found(seen, operation.span, View::Api),
                Outcome::Read(None) => self.absent(operation.span, View::Api, "NOT_FOUND was read"),
                Outcome::Refused(Refusal::Absent) => {
                    self.absent(operation.span, View::Api, "a write was refused for want of a row");
                }
                Outcome::Refused(Refusal::Exists) => self.exists(operation.span),
                Outcome::Refused(Refusal::Changed | Refusal::Other) | Outcome::Unknown => {}
            },
        }
    }

    /// The newest of what must be seen by whoever looks there then.
    fn floor(&self, span: Span, view: View) -> Bound {
        let refused = self.newest_unwritable();
        let binding = self.bounds.iter().filter(|bound| match (view, bound.source) {
            (View::Database { drained: false }, Source::Ack | Source::Read | Source::Told) => false,
            // What such a write superseded need not have been in the log by itself. What was, is watched there.
            (View::Database { .. }, Source::Ack | Source::Read | Source::Told) if Some(bound.version) <= refused => {
                false
            }
            _ => bound.span.is_before(span) && self.still_binds(bound, span),
        });
        binding.copied().max_by_key(Bound::rank).unwrap_or(Bound::of_base(self.timeline.base))
    }

    /// Whether the hot store can't have forgotten it before `span` was over.
    fn still_binds(&self, bound: &Bound, span: Span) -> bool {
        bound.durable || !self.lossy(Span::new(bound.span.from, span.to))
    }

    fn lossy(&self, span: Span) -> bool {
        self.losses.iter().any(|loss| loss.span.touches(span))
    }

    fn found(&mut self, seen: Seen, span: Span, view: View) {
        let Some(durable) = self.image(seen, span, view) else { return };
        let floor = self.floor(span, view);
        if floor.forbids(seen.version) {
            let what = format!("{span} {seen} was seen, after {floor}");
            match (view, floor.source) {
                _ if floor.deleted => self.resurrected(what),
                (View::Api, _) => self.stale(what),
                (View::Database { .. }, Source::Database) => {
                    self.out_of_order(format!("the database went back: {what}"))
                }
                (View::Database { .. } | View::Log, _) => self.lost(what),
            }
        }
        if let Some(epoch) = seen.epoch {
            self.epoch(epoch, span);
        }
        self.bounds.push(Bound {
            version: seen.version,
            deleted: false,
            span,
            durable: durable || view != View::Api,
            source: if view == View::Api { Source::Read } else { Source::Database },
            epoch: seen.epoch,
            batch: None,
        });
    }

    /// It can be late, and so older than what was seen before; but it is the newest from then on, or something newer is.
    fn told(&mut self, told: &Told) {
        let span = told.span();
        match told.seen() {
            Some(seen) if self.image(seen, span, View::Log).is_none() => return,
            Some(_) => {}
            None => {
                let deletes = |write: &&Write<'_>| {
                    let is_it = write.epoch.is_none() || write.version == Some(told.version);
                    write.deletes()
                        && (is_it || self.lossy(write.operation.span))
                        && write.operation.span.from <= told.at
                };
                if !self.timeline.writes.iter().any(|write| deletes(&write)) {
                    let Told { version, epoch, .. } = told;
                    self.phantom(format!(
                        "{span} a delete at {version} epoch {epoch} was told, which nobody asked for"
                    ));
                    return;
                }
            }
        }
        self.bounds.push(Bound {
            version: told.version,
            deleted: told.row.is_none(),
            span,
            durable: true,
            source: Source::Told,
            epoch: Some(told.epoch),
            batch: None,
        });
    }

    fn absent(&mut self, span: Span, view: View, how: &str) {
        let floor = self.floor(span, view);
        if floor.deleted {
            return;
        }
        // Only a delete can have brought this about.
        let deletes: Vec<Write<'_>> = self.candidates(floor, span).filter(|write| write.deletes()).collect();
        if deletes.is_empty() {
            let what = format!("{span} {how}, after {floor}");
            return if view == View::Api { self.stale(what) } else { self.lost(what) };
        }
        // It stands above the floor, wherever that is; what was lost meanwhile may have been done again since.
        let known = |delete: &Write<'_>| delete.version.filter(|_| !self.lossy(delete.operation.span));
        let least = deletes.iter().map(|delete| known(delete).unwrap_or(floor.version)).min();
        let durable = deletes.iter().all(|delete| delete.durable && known(delete).is_some());
        self.bounds.push(Bound {
            version: least.unwrap_or(floor.version),
            deleted: true,
            span,
            durable: durable || view != View::Api,
            source: if view == View::Api { Source::Read } else { Source::Database },
            epoch: None,
            batch: None,
        });
    }

    fn exists(&mut self, span: Span) {
        let floor = self.floor(span, View::Api);
        if floor.deleted && !self.candidates(floor, span).any(|write| !write.deletes()) {
            let what = format!("{span} a write was refused because of a row, after {floor}");
            if floor.version == 0 { self.phantom(what) } else { self.resurrected(what) }
        }
    }

    /// Writes that may have taken effect above `floor` before `span` was over.
    fn candidates(&self, floor: Bound, span: Span) -> impl Iterator<Item = Write<'a>> {
        let may = move |write: &Write<'_>| {
            write.operation.span.from <= span.to && write.version.is_none_or(|version| version > floor.version)
        };
        self.timeline.writes.iter().copied().filter(may)
    }

    /// Whether a write stood in the store, at its version, when another one took effect at a higher one.
    fn stood_before(&self, earlier: &Write<'_>, later: &Write<'_>) -> bool {
        if earlier.durable && later.durable || earlier.epoch.is_some() && earlier.epoch == later.epoch {
            return true;
        }
        !self.lossy(earlier.span.around(later.span))
    }

    /// The horizon promises that whatever was acknowledged up to it is in the database.
    fn horizon(&mut self, sample: &Sample) {
        let promised = self.timeline.writes.iter().filter(|write| {
            write.epoch.is_some()
                && write.version.is_some_and(|version| version <= sample.horizon)
                && (write.durable || !self.lossy(write.span.around(sample.span)))
        });
        // What the database refuses is passed. What such a write superseded may reach the log behind it, and so the
        // database later.
        let refused = self.newest_unwritable();
        let promised = promised.filter(|write| write.version > refused);
        let Some(newest) = promised.max_by_key(|write| write.version).copied() else { return };
        let version = newest.version.unwrap_or_default();
        let above = Bound { version, ..Bound::of_base(self.timeline.base) };
        let kept = match sample.row {
            Some(seen) => seen.version > version || (seen.version == version && !newest.deletes()),
            None => newest.deletes() || self.candidates(above, sample.span).any(|write| write.deletes()),
        };
        if !kept {
            let horizon = sample.horizon;
            let row = sample.row.map_or_else(|| "no row".to_owned(), |row| row.to_string());
            self.stale(format!(
                "{} the horizon said {horizon}, but the database has {row}, not {}",
                sample.span, newest.operation
            ));
        }
    }

    /// The version of the newest write that the database refuses; without bound where that is not known.
    fn newest_unwritable(&self) -> Option<u64> {
        let is_unwritable =
            |write: &&Write<'_>| write.operation.action.value().is_some_and(|value| self.unwritable.contains(&value));
        self.timeline.writes.iter().filter(is_unwritable).map(|write| write.version.unwrap_or(u64::MAX)).max()
    }

    fn finding(&self, what: String) -> Finding {
        Finding { key: self.key.to_owned(), what }
    }

    fn lost(&mut self, what: String) {
        self.findings.lost.push(self.finding(what));
    }

    fn stale(&mut self, what: String) {
        self.findings.stale.push(self.finding(what));
    }

    fn resurrected(&mut self, what: String) {
        self.findings.resurrected.push(self.finding(what));
    }

    fn phantom(&mut self, what: String) {
        self.findings.phantom.push(self.finding(what));
    }

    fn out_of_order(&mut self, what: String) {
        self.findings.out_of_order.push(self.finding(what));
    }
}
