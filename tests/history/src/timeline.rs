//! A history by key, with what is known about each write.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Base, History, Level, Operation, Outcome, Sample, Seen, Span, Told};

/// Something that was seen of one key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Observation<'a> {
    Operation(&'a Operation),
    Sample(&'a Sample),
    Told(&'a Told),
}

impl Observation<'_> {
    pub(super) fn span(&self) -> Span {
        match self {
            Self::Operation(operation) => operation.span,
            Self::Sample(sample) => sample.span,
            Self::Told(told) => told.span(),
        }
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        match self {
            Self::Operation(Operation { outcome: Outcome::Read(seen), .. }) => *seen,
            Self::Operation(_) => None,
            Self::Sample(sample) => sample.row,
            Self::Told(told) => told.seen(),
        }
    }
}

/// A write that took effect, or may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) operation: &'a Operation,
    /// Where it stands in the key's order, if that is known: then it has taken effect.
    pub(super) version: Option<u64>,
    /// The epoch in which it was written, if it was acknowledged.
    pub(super) epoch: Option<u32>,
    /// It can't be lost by the hot store any more.
    pub(super) durable: bool,
    /// It took effect therein, if it did and that was noticed.
    pub(super) span: Span,
}

impl Write<'_> {
    pub(super) fn deletes(&self) -> bool {
        matches!(self.operation.action, Action::Delete { .. })
    }
}

/// Everything about one key.
#[derive(Debug)]
pub(super) struct Timeline<'a> {
    pub(super) base: Base,
    /// In the order in which they ended: whatever had ended when an observation began stands before it.
    pub(super) observations: Vec<Observation<'a>>,
    /// Without those that were refused.
    pub(super) writes: Vec<Write<'a>>,
    pub(super) refused: BTreeSet<u64>,
    /// Where each value stands in `writes`: the first operation of that value, whatever repeats it.
    pub(super) by_value: BTreeMap<u64, usize>,
}

pub(super) fn by_key(history: &History) -> BTreeMap<&str, Timeline<'_>> {
    let mut observations: BTreeMap<&str, Vec<Observation<'_>>> = BTreeMap::new();
    for operation in &history.operations {
        observations.entry(&operation.key).or_default().push(Observation::Operation(operation));
    }
    for sample in &history.samples {
        observations.entry(&sample.key).or_default().push(Observation::Sample(sample));
    }
    for told in &history.told {
        observations.entry(&told.key).or_default().push(Observation::Told(told));
    }
    let base = |key: &str| history.initial.get(key).copied().unwrap_or(Base { version: 0, image: None });
    observations.into_iter().map(|(key, observations)| (key, timeline(base(key), observations))).collect()
}

fn timeline(base: Base, mut observations: Vec<Observation<'_>>) -> Timeline<'_> {
    observations.sort_by_key(|observation| (observation.span().to, observation.span().from));
    let (mut writes, mut refused, mut by_value) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for observation in &observations {
        let Observation::Operation(operation) = *observation else { continue };
        if operation.action.value().is_some_and(|value| by_value.contains_key(&value)) {
            continue;
        }
        let (version, epoch, durable) = match operation.outcome {
            _ if operation.action == Action::Read => continue,
            Outcome::Acked { level, stamp } => (Some(stamp.version), Some(stamp.epoch), level >= Level::Queued),
            Outcome::Unknown => (None, None, false),
            Outcome::Refused(_) | Outcome::Read(_) => {
                refused.extend(operation.action.value());
                continue;
            }
        };
        if let Some(value) = operation.action.value() {
            by_value.insert(value, writes.len());
        }
        let span = if version.is_some() { operation.span } else { Span::new(operation.span.from, u64::MAX) };
        writes.push(Write { operation, version, epoch, durable, span });
    }
    for observation in &observations {
        let Some(seen) = observation.seen() else { continue };
        let Some(&at) = by_value.get(&seen.image.value) else { continue };
        let write: &mut Write<'_> = &mut writes[at];
        // What a read has shown may have been lost since, and be done again; what the database or a watch has shown may
        // not.
        let counts = matches!(observation, Observation::Sample(_) | Observation::Told(_));
        if write.version.is_none() || (counts && write.epoch.is_none() && !write.durable) {
            write.version = Some(seen.version);
            write.span.to = observation.span().to;
        }
        write.durable |= counts;
    }
    Timeline { base, observations, writes, refused, by_value }
}
