//! What the hot store holds for a record.

use crate::{Fingerprint, Request, Row, Version};

/// What a write did. For those who read the events; the database only needs the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A row that was absent.
    Create,
    /// An upsert.
    Put,
    /// Some columns of a row that was present.
    Update,
    /// A delete.
    Delete,
    /// Nobody's write: a row read from the database.
    Fill,
}

/// The record itself after a write.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Every column of the row.
    Row(Row),
    /// The record was deleted. A tombstone hides the row that the database still has.
    Tombstone,
}

/// The full after-image of a write, without the version, which the store assigns.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The row, or that it is gone.
    pub content: Content,
    /// What the write did.
    pub operation: Operation,
    /// The schema under which the row was validated.
    pub fingerprint: Fingerprint,
    /// The client's name for the write, if it gave one.
    pub request: Option<Request>,
    /// For a create that was checked in the hot store only: apply where the row is absent or has at least this
    /// version, else the record goes to the dead letters.
    pub since: Option<Version>,
}

impl Image {
    /// Whether a client gave it as a whole record: then a column that it does not name was to have its default.
    pub fn is_whole(&self) -> bool {
        match self.operation {
            Operation::Create | Operation::Put => matches!(self.content, Content::Row(_)),
            Operation::Update | Operation::Delete | Operation::Fill => false,
        }
    }
}
