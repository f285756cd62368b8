//! Why nothing could be looked for.

use model::{ColumnName, TableRef, Violation};

use crate::{Part, StoreError};

/// Why nothing could be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// The table has no such columns, or the field no such value.
    #[error("the table does not accept the {part}: {}", .violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// Where they stand in the request.
        part: Part,
        /// What is wrong with them.
        violations: Vec<Violation>,
    },
    /// Nothing is equal to NULL.
    #[error("no value of {0} is equal to NULL: look for a value")]
    Null(ColumnName),
    /// The field is not declared.
    #[error(
        "field {field} of table {table} is not declared, so that a find would look at every row: name it among the indexed_fields of EnableTable"
    )]
    NotDeclared {
        /// The table.
        table: TableRef,
        /// The field.
        field: String,
    },
    /// The database has no index for it any more.
    #[error(
        "no index of the database begins with column {field} of table {table} any more, so that a find would look at every row: make one, which is noticed within ten times `table_refresh`"
    )]
    Unindexed {
        /// The table.
        table: TableRef,
        /// The field.
        field: ColumnName,
    },
    /// More are asked for than are found at once.
    #[error("{limit} records are asked for at once, the server finds {most}: ask for them in pages")]
    TooMany {
        /// So many are asked for.
        limit: usize,
        /// So many may be.
        most: usize,
    },
    /// The page token is none that this query has answered.
    #[error(
        "the page token is none that a find with this table, field and value has answered, or the table was altered since: begin without one"
    )]
    PageToken,
    /// The table is not read through us.
    #[error("table {0} is not enabled: enable it first")]
    TableNotEnabled(TableRef),
    /// The index over what the database does not have yet is being made.
    #[error(
        "the index over what the database does not have yet of table {0} is being made, as after each restart of the hot store: try again"
    )]
    IndexNotReady(TableRef),
    /// A store could not serve the find.
    #[error(transparent)]
    Store(#[from] StoreError),
}
