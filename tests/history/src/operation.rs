//! What a client asked, and what came back.

use std::fmt;

/// From an instant to another, on the clock of whoever keeps the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// When it was asked.
    pub from: u64,
    /// When the answer was there; [`u64::MAX`] if none came.
    pub to: u64,
}

impl Span {
    /// From an instant to another.
    pub fn new(from: u64, to: u64) -> Self {
        Self { from, to }
    }

    /// Whether this had ended when the other one began.
    pub(super) fn is_before(self, other: Self) -> bool {
        self.to < other.from
    }

    /// From the first of both to the last.
    pub(super) fn around(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    pub(super) fn touches(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            u64::MAX => write!(f, "[{}..]", self.from),
            to => write!(f, "[{}..{to}]", self.from),
        }
    }
}

/// What an etag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The version.
    pub version: u64,
    /// The shard's epoch when it was read or written.
    pub epoch: u32,
}

/// One of the two columns that updates change, each update one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Left,
    /// The second.
    Right,
}

impl Part {
    /// The one that an update leaves alone.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// A row: each column holds the value of the write that wrote it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Set by every write of the row.
    pub value: u64,
    /// Set by creates, puts, and updates of this part.
    pub left: u64,
    /// Set by creates, puts, and updates of this part.
    pub right: u64,
}

impl Image {
    /// What a create or put of that value leaves.
    pub fn whole(value: u64) -> Self {
        Self { value, left: value, right: value }
    }

    /// What an update with that value makes of this row.
    #[must_use]
    pub fn updated(self, value: u64, part: Part) -> Self {
        match part {
            Part::Left => Self { value, left: value, ..self },
            Part::Right => Self { value, right: value, ..self },
        }
    }

    pub(super) fn part(&self, part: Part) -> u64 {
        match part {
            Part::Left => self.left,
            Part::Right => self.right,
        }
    }
}

/// A row that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub version: u64,
    /// The shard's epoch, where the answer names one; the database's rows have none.
    pub epoch: Option<u32>,
    /// The row.
    pub image: Image,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Image { value, left, right } = self.image;
        write!(f, "value {value} ({left}, {right}) at {}", self.version)?;
        self.epoch.map_or(Ok(()), |epoch| write!(f, " epoch {epoch}"))
    }
}

/// What must hold for a write to take effect, besides what its kind asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// There is a row, or there is none.
    Exists(bool),
    /// The record is still at this version, in this epoch.
    At(Stamp),
}

/// What was asked. Values are unique among all writes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Takes effect if there is no row.
    Create {
        /// The value of all columns.
        value: u64,
    },
    /// Takes effect if the condition holds.
    Put {
        /// The value of all columns.
        value: u64,
        /// The condition.
        condition: Condition,
    },
    /// Takes effect if there is a row and the condition holds.
    Update {
        /// The value of what it changes.
        value: u64,
        /// What it changes.
        part: Part,
        /// The condition.
        condition: Condition,
    },
    /// Takes effect, also where there is no row, if the condition holds.
    Delete {
        /// The condition.
        condition: Condition,
    },
    /// A read of the whole row.
    Read,
}

impl Action {
    /// The value that is read where this write stands; none for deletes and reads.
    pub fn value(&self) -> Option<u64> {
        match *self {
            Self::Create { value } | Self::Put { value, .. } | Self::Update { value, .. } => Some(value),
            Self::Delete { .. } | Self::Read => None,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        match *self {
            Self::Put { condition, .. } | Self::Update { condition, .. } | Self::Delete { condition } => condition,
            Self::Create { .. } => Condition::Exists(false),
            Self::Read => Condition::None,
        }
    }

    /// Whether the write needs a row (`true`) or needs that there is none (`false`).
    pub(super) fn needs_row(&self) -> Option<bool> {
        match (self, self.condition()) {
            (_, Condition::Exists(exists)) => Some(exists),
            (Self::Update { .. }, _) => Some(true),
            _ => None,
        }
    }
}

/// How safe a write is for whom it was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// In the hot store.
    Logged,
    /// In the log.
    Queued,
    /// In the database.
    Applied,
}

/// Why a write had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is a row already.
    Exists,
    /// There is no row.
    Absent,
    /// It is not at the version that was asked for.
    Changed,
    /// For want of a store, of room, of a table...
    Other,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The write took effect.
    Acked {
        /// The level that was reached.
        level: Level,
        /// Its version, and the epoch in which it was written.
        stamp: Stamp,
    },
    /// The write certainly had no effect and never will have one; or the read was not answered.
    Refused(Refusal),
    /// The write may have taken effect, or may still do so.
    Unknown,
    /// What was read; `None`: there is no such record.
    Read(Option<Seen>),
}

/// Items of one batch take effect in their order where they concern the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlace {
    /// Which batch.
    pub batch: u64,
    /// Which item of it.
    pub index: u32,
}

/// One operation of one client. Several attempts of a write under one request id are one operation: acknowledged if
/// one of them was, refused if all of them were. What is repeated after it was acknowledged is an operation of its own,
/// of the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// The record.
    pub key: String,
    /// What was asked.
    pub action: Action,
    /// From the first attempt to the last answer.
    pub span: Span,
    /// Its place in a batch.
    pub batch: Option<BatchPlace>,
    /// What came back.
    pub outcome: Outcome,
}

impl Operation {
    /// The version that a write was acknowledged with.
    pub fn acked_version(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acked { stamp, .. } => Some(stamp.version),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} client {}", self.span, self.client)?;
        if let Some(BatchPlace { batch, index }) = self.batch {
            write!(f, " batch {batch}.{index}")?;
        }
        match self.action {
            Action::Create { value } => write!(f, " creates {value}")?,
            Action::Put { value, .. } => write!(f, " puts {value}")?,
            Action::Update { value, part, .. } => write!(f, " updates {part:?} to {value}")?,
            Action::Delete { .. } => write!(f, " deletes")?,
            Action::Read => write!(f, " reads")?,
        }
        match self.action.condition() {
            Condition::None => {}
            Condition::Exists(exists) => write!(f, " if exists={exists}")?,
            Condition::At(Stamp { version, epoch }) => write!(f, " if at {version} epoch {epoch}")?,
        }
        match &self.outcome {
            Outcome::Acked { level, stamp } => {
                write!(f, ": {level:?} at {} epoch {}", stamp.version, stamp.epoch)
            }
            Outcome::Refused(refusal) => write!(f, ": refused, {refusal:?}"),
            Outcome::Unknown => write!(f, ": unknown"),
            Outcome::Read(None) => write!(f, ": not found"),
            Outcome::Read(Some(seen)) => write!(f, ": {seen}"),
        }
    }
}
