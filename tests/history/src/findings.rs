//! What can't be, if the promises are kept.

use std::fmt;

/// One thing that can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The record.
    pub key: String,
    /// What was seen, and what forbids it.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Everything that can't be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// A write that must be in the database by now, or a newer one of its key, is not.
    pub lost: Vec<Finding>,
    /// An answer is older than what had been acknowledged or seen when it was asked for.
    pub stale: Vec<Finding>,
    /// A row is there again that was deleted.
    pub resurrected: Vec<Finding>,
    /// A row that nobody wrote, or that was refused.
    pub phantom: Vec<Finding>,
    /// Versions, epochs or preconditions that contradict the order in which things took effect.
    pub out_of_order: Vec<Finding>,
}

impl Findings {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Each with the name of its kind.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Finding)> {
        let kinds = [
            ("lost", &self.lost),
            ("stale", &self.stale),
            ("resurrected", &self.resurrected),
            ("phantom", &self.phantom),
            ("out of order", &self.out_of_order),
        ];
        kinds.into_iter().flat_map(|(kind, findings)| findings.iter().map(move |finding| (kind, finding)))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all().try_for_each(|(kind, finding)| writeln!(f, "{kind}: {finding}"))
    }
}
