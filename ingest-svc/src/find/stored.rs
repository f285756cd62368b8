//! What the database finds, by statements of few rows each: rows may be large, and all of a statement's are in memory at once.

use database::{Database, FoundRow, Search};
use model::Key;
use tokio::time::Instant;

use super::{
    FindError,
    accepted::{Accepted, bytes_of},
};
use crate::{
    Core,
    read::{cold::RECORDS_AT_ONCE, database_rows},
};

/// Rows that belong to a page.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// In the order of the database.
    pub(super) rows: Vec<FoundRow>,
    /// Whether there may be more behind the last one.
    pub(super) has_more: bool,
}

/// The next rows behind a key: as many as there is room for, but no more once they are as large as a page may be, or the
/// database has taken as long as it may for one answer.
pub(super) async fn rows<H, L, D: Database>(
    core: &Core<H, L, D>,
    accepted: &Accepted,
    after: Option<&Key>,
    room: usize,
) -> Result<Stored, FindError> {
    let (schema, column, value) = (&accepted.table.schema, &accepted.field, &accepted.value);
    let began = Instant::now();
    let (mut rows, mut bytes): (Vec<FoundRow>, usize) = (Vec::new(), 0);
    loop {
        let limit = RECORDS_AT_ONCE.min(room - rows.len());
        let after = rows.last().map_or(after, |last| Some(&last.key));
        let next = database_rows::find(core, Search { schema, column, value, after, limit }).await?;
        let has_more = next.len() == limit;
        bytes += next.iter().map(|found| bytes_of(&found.row)).sum::<usize>();
        rows.extend(next);
        let is_full = rows.len() == room || bytes > core.options.max_find_bytes;
        if !has_more || is_full || began.elapsed() >= core.options.database_patience {
            return Ok(Stored { rows, has_more });
        }
    }
}
