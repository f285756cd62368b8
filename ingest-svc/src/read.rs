//! Reading records: from the hot store, else from the database under a lease.

pub(crate) mod cold;
mod error;

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, RecordId, Slot};
use model::{Content, Row, TableRef};

pub use error::ReadError;

use crate::{Core, Etag, Part};

/// A record that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The columns that were asked for.
    pub row: Row,
    /// Names this version of the record.
    pub etag: Etag,
}

/// Answers reads.
pub struct Reader<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Reader<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<H, L, D> Reader<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// A reader on these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// The newest version of a record, however far the database is behind: some columns of it, or all if none is
    /// named.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, table: &TableRef, key: &Row, columns: &[String]) -> Result<Found, ReadError> {
        let core = &*self.core;
        let enabled = core.directory.table(table).ok_or_else(|| ReadError::TableNotEnabled(table.clone()))?;
        let schema = &enabled.schema;
        let invalid = |part| move |violations| ReadError::Invalid { part, violations };
        let key = schema.accept_key(key).map_err(invalid(Part::Key))?;
        let columns = schema.accept_selection(columns).map_err(invalid(Part::Columns))?;
        let shard = schema.shard_of(&key, core.shards);
        let record = RecordId { namespace: enabled.settings.namespace.clone(), key: key.to_bytes() };

        let answer = core.hot.read(shard, vec![record.clone()]).await.map_err(crate::StoreError::from)?;
        // A shard that is opened again between this read and the fill has another epoch than the etag says: the
        // etag will not match then, which is the safe side.
        let epoch = answer.epoch;
        let slot = match answer.slots.into_iter().next().unwrap_or(Slot::Empty) {
            Slot::Empty | Slot::Leased => cold::look(core, &enabled, shard, &record, &key).await?,
            slot => slot,
        };
        match slot {
            Slot::Image { version, image, .. } => match image.content {
                Content::Row(row) => {
                    let row = if columns.is_empty() { row } else { row.select(&columns) };
                    Ok(Found { row, etag: Etag { version, epoch } })
                }
                Content::Tombstone => Err(ReadError::NotFound(table.clone())),
            },
            Slot::Absent | Slot::Leased | Slot::Empty => Err(ReadError::NotFound(table.clone())),
        }
    }
}
