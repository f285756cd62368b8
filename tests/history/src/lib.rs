//! What clients saw, and whether that can be: a checker of the promises about acknowledged writes and reads.
//!
//! A [`History`] holds what was asked of the system and what came back, with the times of the caller's clock, and
//! [`Sample`]s of the database. [`History::check`] is pure: it knows nothing of the system but its contract.
//!
//! Every key is a register whose states are ordered by version. Each write of a history has a value of its own, so a
//! row that is read names the write that it comes from. What took effect for certain (an acknowledgement, a read, a
//! row in the database) is a lower bound for everything that begins after it was seen. A write of which nobody knows
//! whether it took effect may turn up at any time after it was sent, once, or never.
//!
//! A [`Loss`] is an instant at which the hot store may have forgotten its newest writes. What was seen before it and
//! lay in the hot store only binds nobody after it; what was acknowledged as QUEUED or APPLIED, or was seen in the
//! database, does.

mod check;
mod findings;
mod operation;
mod timeline;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use findings::{Finding, Findings};
pub use operation::{
    Action, BatchPlace, Condition, Image, Level, Operation, Outcome, Part, Refusal, Seen, Span, Stamp,
};

/// A look at the database itself, past us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The record.
    pub key: String,
    /// When it was asked and answered.
    pub span: Span,
    /// Whether everything that was acknowledged before has had the time to get there: nothing was dirty any more.
    pub drained: bool,
    /// The horizon that the database showed for the record's shard before the row was read; 0 for none.
    pub horizon: u64,
    /// The row; its version is 0 if nobody wrote it through us.
    pub row: Option<Seen>,
}

/// A change of which a watch has told: it lies in the log, and counts there for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The record.
    pub key: String,
    /// When it was told.
    pub at: u64,
    /// The version that the write got.
    pub version: u64,
    /// The epoch in which it was written.
    pub epoch: u32,
    /// The row that it left; none if it was deleted.
    pub row: Option<Image>,
}

impl Told {
    pub(crate) fn span(&self) -> Span {
        Span::new(self.at, self.at)
    }

    pub(crate) fn seen(&self) -> Option<Seen> {
        self.row.map(|image| Seen { version: self.version, epoch: Some(self.epoch), image })
    }
}

/// A span of time in which the hot store forgot its newest writes, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// When.
    pub span: Span,
}

/// What a key is known to have been when a history begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The version; of a key without a row one below which nothing may be seen any more.
    pub version: u64,
    /// The row.
    pub image: Option<Image>,
}

/// Everything that is known about one run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The keys that had a row, or a past, before the first operation. Others were never written.
    pub initial: BTreeMap<String, Base>,
    /// What clients asked, in any order.
    pub operations: Vec<Operation>,
    /// Looks at the database, in any order.
    pub samples: Vec<Sample>,
    /// What watches have told, in any order.
    pub told: Vec<Told>,
    /// What the hot store went through.
    pub losses: Vec<Loss>,
    /// Values of rows that the database refuses for good: they are read, and never get there.
    pub unwritable: BTreeSet<u64>,
}

impl History {
    /// Whether what was seen can be.
    pub fn check(&self) -> Findings {
        let mut findings = Findings::default();
        for (key, timeline) in timeline::by_key(self) {
            check::key(key, &timeline, self, &mut findings);
        }
        findings
    }

    /// What is needed of this history to judge the next stretch of the same run: each key as its last drained sample
    /// shows it, and the writes of unknown outcome that were sent at or after `unsettled_since` and have not turned up.
    #[must_use]
    pub fn next(&self, unsettled_since: u64) -> Self {
        let mut initial = self.initial.clone();
        for sample in self.samples.iter().filter(|sample| sample.drained) {
            let seen = sample.row.as_ref().map(|row| (row.version, Some(row.image)));
            let (version, image) = seen.unwrap_or_else(|| {
                let kept = |o: &&Operation| o.key == sample.key && !self.may_have_lost(o);
                let versions = self.operations.iter().filter(kept).filter_map(Operation::acked_version);
                (versions.chain(initial.get(&sample.key).map(|base| base.version)).max().unwrap_or(0), None)
            });
            initial.insert(sample.key.clone(), Base { version, image });
        }
        let operations = self.operations.iter().filter(|o| {
            o.outcome == Outcome::Unknown
                && o.action != Action::Read
                && o.span.from >= unsettled_since
                && !self.has_seen(o)
        });
        let unwritable = self.unwritable.clone();
        Self { operations: operations.cloned().collect(), initial, unwritable, ..Self::default() }
    }

    /// Whether it was acknowledged by the hot store only, which forgot its newest writes then or later.
    fn may_have_lost(&self, operation: &Operation) -> bool {
        matches!(operation.outcome, Outcome::Acked { level: Level::Logged, .. })
            && self.losses.iter().any(|loss| loss.span.to >= operation.span.from)
    }

    fn has_seen(&self, operation: &Operation) -> bool {
        let Some(value) = operation.action.value() else { return false };
        let in_read = |o: &Operation| matches!(&o.outcome, Outcome::Read(Some(seen)) if seen.image.value == value);
        self.operations.iter().any(in_read)
            || self.samples.iter().any(|sample| sample.row.as_ref().is_some_and(|row| row.image.value == value))
    }

    /// Everything about one key in the order in which it began, for people.
    pub fn of_key<'a>(&'a self, key: &'a str) -> impl fmt::Display + 'a {
        OfKey { history: self, key }
    }
}

struct OfKey<'a> {
    history: &'a History,
    key: &'a str,
}

impl fmt::Display for OfKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { history, key } = self;
        writeln!(f, "history of {key}")?;
        if let Some(base) = history.initial.get(*key) {
            writeln!(f, "  before: version {} {:?}", base.version, base.image)?;
        }
        let mut lines: Vec<(u64, String)> = Vec::new();
        for operation in history.operations.iter().filter(|o| o.key == *key) {
            lines.push((operation.span.from, operation.to_string()));
        }
        for sample in history.samples.iter().filter(|sample| sample.key == *key) {
            let row = sample.row.as_ref().map_or_else(|| "no row".to_owned(), Seen::to_string);
            let drained = if sample.drained { " (drained)" } else { "" };
            lines.push((
                sample.span.from,
                format!("{} database{drained}, horizon {}: {row}", sample.span, sample.horizon),
            ));
        }
        for told in history.told.iter().filter(|told| told.key == *key) {
            let Told { at, version, epoch, .. } = told;
            let row = told.seen().map_or_else(|| format!("deleted at {version} epoch {epoch}"), |row| row.to_string());
            lines.push((*at, format!("[{at}] a watch told: {row}")));
        }
        for loss in &history.losses {
            lines.push((loss.span.from, format!("{} the hot store may have lost its newest writes", loss.span)));
        }
        lines.sort();
        lines.iter().try_for_each(|(_, line)| writeln!(f, "  {line}"))
    }
}

#[cfg(test)]
mod tests;
