//! Why a read has no answer.

use model::{TableRef, Violation};

use crate::{Part, StoreError};

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The table has no such key or columns.
    #[error("the table does not accept the {part}: {}", list(.violations))]
    Invalid {
        /// Where they stand in the request.
        part: Part,
        /// What is wrong with them.
        violations: Vec<Violation>,
    },
    /// The table is not read through us.
    #[error("table {0} is not enabled: enable it first")]
    TableNotEnabled(TableRef),
    /// There is no such record.
    #[error("table {0} has no such record")]
    NotFound(TableRef),
    /// There was no more room for it in the answer to a batch.
    #[error("the answer to the batch has no room for this record: ask for it again")]
    NoRoom,
    /// A store could not serve the read; an older answer is never guessed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}
