//! Writes that a shard takes no more, since an operator has its tables drained down.

use std::collections::BTreeSet;

use model::Namespace;

/// Of which tables a shard takes no writes. It is compared in the very step that would write: once it is in force, no
/// writer has to know of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Halt {
    /// Which of the operators' wishes it follows: a lower one never replaces a higher. Below 2^53.
    pub revision: u64,
    /// Which tables.
    pub tables: HaltedTables,
}

/// The tables of a [`Halt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaltedTables {
    /// Every one.
    All,
    /// Those in these namespaces; mostly none.
    These(BTreeSet<Namespace>),
}

impl Default for HaltedTables {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl HaltedTables {
    /// Whether a table's writes are refused.
    pub fn covers(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains(namespace),
        }
    }
}
