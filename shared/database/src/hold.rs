//! What operators have stopped: kept beside the catalog, so that no restart of anything forgets it.

use jiff::Timestamp;
use model::TableRef;

/// What is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldKind {
    /// Nothing is written to the database; writes are accepted.
    Pause,
    /// No writes are accepted; what was accepted is written to the database.
    DrainDown,
}

impl HoldKind {
    /// As it is stored.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn stored(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::DrainDown => "drain_down",
        }
    }

    /// What was stored; `None` if a later release did.
    #[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
    pub(crate) fn from_stored(stored: &str) -> Option<Self> {
        [Self::Pause, Self::DrainDown].into_iter().find(|kind| kind.stored() == stored)
    }
}

/// Of what it is stopped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldScope {
    /// Of every table, also of those that are enabled later.
    Everything,
    /// Of one.
    Table(TableRef),
}

impl HoldScope {
    /// Whether a table is meant.
    pub fn covers(&self, table: &TableRef) -> bool {
        match self {
            Self::Everything => true,
            Self::Table(one) => one == table,
        }
    }
}

/// Something that an operator has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of what.
    pub scope: HoldScope,
    /// What.
    pub kind: HoldKind,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who, as they say.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// All that is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    /// Rises with every change. The list is as new as it at least.
    pub revision: u64,
    /// At most one of each kind per scope: of everything first, then by table.
    pub list: Vec<Hold>,
}

impl Holds {
    /// Those of a kind that concern a table, the one of everything first.
    pub fn of(&self, kind: HoldKind, table: &TableRef) -> impl Iterator<Item = &Hold> {
        self.list.iter().filter(move |hold| hold.kind == kind && hold.scope.covers(table))
    }
}

/// Characters of a reason and of a name that are kept.
pub const MAX_REASON: usize = 400;
/// See [`MAX_REASON`].
pub const MAX_BY: usize = 100;
