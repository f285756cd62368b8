//! What is certain about a key from an instant on.

use std::fmt;

use crate::{Action, Base, BatchPlace, Level, Operation, Span, Stamp};

/// From what it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It was so before.
    Base,
    /// An acknowledgement below APPLIED.
    Ack,
    /// An acknowledgement as APPLIED: the database has it, too.
    Applied,
    /// A read through us.
    Read,
    /// A look into the database.
    Database,
    /// A watch.
    Told,
}

/// When `span` was over, the key's state was this or a newer one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) version: u64,
    /// There was no row at this version, or at one above it that is not known.
    pub(super) deleted: bool,
    pub(super) span: Span,
    /// It holds whatever happens to the hot store.
    pub(super) durable: bool,
    pub(super) source: Source,
    pub(super) epoch: Option<u32>,
    pub(super) batch: Option<BatchPlace>,
}

impl Bound {
    /// What was so before the history began; it ended before everything.
    pub(super) fn of_base(base: Base) -> Self {
        Self {
            version: base.version,
            deleted: base.image.is_none(),
            span: Span::new(0, 0),
            durable: true,
            source: Source::Base,
            epoch: None,
            batch: None,
        }
    }

    pub(super) fn of_ack(operation: &Operation, level: Level, stamp: Stamp) -> Self {
        Self {
            version: stamp.version,
            deleted: matches!(operation.action, Action::Delete { .. }),
            span: operation.span,
            durable: level >= Level::Queued,
            source: if level == Level::Applied { Source::Applied } else { Source::Ack },
            epoch: Some(stamp.epoch),
            batch: operation.batch,
        }
    }

    pub(super) fn rank(&self) -> (u64, bool) {
        (self.version, self.deleted)
    }

    /// Whether a row of that version must not be seen any more.
    pub(super) fn forbids(&self, version: u64) -> bool {
        version < self.version || (version == self.version && self.deleted)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, deleted, span, source, .. } = self;
        let state = if *deleted { "no row" } else { "the row" };
        let source = match source {
            Source::Base => "of the beginning",
            Source::Ack => "acknowledged",
            Source::Applied => "acknowledged as applied",
            Source::Read => "read",
            Source::Database => "seen in the database",
            Source::Told => "told by a watch",
        };
        write!(f, "{state} at version {version} or above had been {source} {span}")
    }
}
