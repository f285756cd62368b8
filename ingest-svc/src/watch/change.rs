//! What is asked for, and what is told.

use std::collections::BTreeSet;

use jiff::Timestamp;
use model::{
    ColumnName, Content, Epoch, Key, KeyBytes, Mutation, Operation, Row, ShardCount, TableRef, TableSchema, Version,
};
use tokio::sync::mpsc;

use super::{WatchError, WatchToken};
use crate::{Etag, Part};

/// Keys that one watch names at most.
pub const MAX_KEYS: usize = 100;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchRequest {
    /// The table.
    pub table: TableRef,
    /// The columns of the primary keys of the records whose changes are wanted; none: of all.
    pub keys: Vec<Row>,
    /// The columns wanted of each row; none: all.
    pub columns: Vec<String>,
    /// Where to go on; `None`: from now.
    pub from: Option<WatchToken>,
    /// A message with so many bytes of events is told, and another one begun.
    pub max_bytes: usize,
}

/// A write that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The columns of the primary key.
    pub key: Row,
    /// What the write did.
    pub operation: Operation,
    /// The row after it, the columns that were wanted; `None` if it was deleted.
    pub row: Option<Row>,
    /// Rises with each change of the record.
    pub version: Version,
    /// Names this version of the record.
    pub etag: Etag,
    /// When it was written, by the hot store's clock.
    pub written_at: Timestamp,
}

/// Something that is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Changes, in the order in which they are to be looked at.
    pub changes: Vec<Change>,
    /// Where to go on behind them.
    pub token: WatchToken,
    /// All that the log had when the watch began was told.
    pub is_live: bool,
}

/// Where it is told.
pub type Tell = mpsc::Sender<Told>;

/// Which changes are wanted, and what of them.
#[derive(Debug)]
pub(super) struct Filter {
    /// `None`: those of all records.
    keys: Option<BTreeSet<KeyBytes>>,
    named: Vec<Key>,
    columns: Vec<ColumnName>,
}

impl Filter {
    pub(super) fn of(request: &WatchRequest, schema: &TableSchema) -> Result<Self, WatchError> {
        let columns = schema.accept_selection(&request.columns);
        let columns = columns.map_err(|violations| WatchError::Invalid { part: Part::Columns, violations })?;
        let key = |(at, row): (usize, &Row)| {
            schema.accept_key(row).map_err(|violations| WatchError::InvalidKey { at, violations })
        };
        let named: Vec<Key> = request.keys.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        let keys = (!named.is_empty()).then(|| named.iter().map(Key::to_bytes).collect());
        Ok(Self { keys, named, columns })
    }

    /// Where the changes of these records lie.
    pub(super) fn partitions(&self, schema: &TableSchema, shards: ShardCount) -> Vec<u16> {
        if self.keys.is_none() {
            return shards.all().map(|shard| shard.0).collect();
        }
        let shards: BTreeSet<u16> = self.named.iter().map(|key| schema.shard_of(key, shards).0).collect();
        shards.into_iter().collect()
    }

    pub(super) fn takes(&self, key: &KeyBytes) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.contains(key))
    }

    /// A write as it is told.
    pub(super) fn show(&self, schema: &TableSchema, epoch: Epoch, mutation: &Mutation) -> Result<Change, WatchError> {
        let Mutation { key: Key(key), version, image, .. } = mutation;
        if schema.key().len() != key.len() {
            return Err(WatchError::OtherKey(schema.table.clone()));
        }
        let row = match &image.content {
            Content::Row(row) if self.columns.is_empty() => Some(row.clone()),
            Content::Row(row) => Some(row.select(&self.columns)),
            Content::Tombstone => None,
        };
        let micros = i64::try_from(version.get()).unwrap_or(i64::MAX);
        Ok(Change {
            key: schema.key().map(|column| column.name.clone()).zip(key.iter().cloned()).collect(),
            operation: image.operation,
            row,
            version: *version,
            etag: Etag { version: *version, epoch },
            written_at: Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX),
        })
    }
}
