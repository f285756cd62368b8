//! The first step of a write: everything that can be said against it without asking a store.

use std::sync::Arc;

use database::{CatalogTable, CreateCheck};
use hot_store::{Precondition, RecordId};
use model::{
    Content, Fingerprint, Image, Key, MAX_KEY_BYTES, Moment, Operation, Request, Row, Shard, ShardCount, Violation,
    ViolationReason,
};

use super::{Change, Require, WriteError, WriteRequest, digest::digest_of, draft::Draft};
use crate::{Etag, Part};

/// A write that the table accepts.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) table: Arc<CatalogTable>,
    pub(super) fingerprint: Fingerprint,
    pub(super) record: RecordId,
    pub(super) shard: Shard,
    pub(super) key: Key,
    pub(super) request: Option<Request>,
    pub(super) intent: Intent,
}

/// What it is going to do.
#[derive(Debug, Clone)]
pub(super) enum Intent {
    /// Store this image, if the precondition holds.
    Store { precondition: Precondition, draft: Draft },
    /// Read, merge, store.
    Update { changes: Row, etag: Option<Etag> },
}

/// Checks a write against its table and the log's limit.
pub(super) fn check(
    table: Arc<CatalogTable>,
    request: WriteRequest,
    shards: ShardCount,
    max_payload_bytes: usize,
    moment: Moment<'_>,
) -> Result<Checked, WriteError> {
    let schema = &table.schema;
    let fingerprint = table.fingerprint();
    let named = request.request_id.as_ref().map(|id| Request { id: id.clone(), digest: digest_of(&request) });
    let invalid = |part| move |violations| WriteError::Invalid { part, violations };
    let image = |content, operation| Image { content, operation, fingerprint, request: named.clone(), since: None };
    enum Plan {
        Store(Precondition, Image),
        Update(Row, Option<Etag>),
    }
    let (key, plan) = match request.change {
        Change::Create { row } => {
            let (key, row) = accept_row(&table, row, moment).map_err(invalid(Part::Row))?;
            let precondition = match table.settings.create_check {
                CreateCheck::Database => Precondition::Absent,
                CreateCheck::HotStore => Precondition::AbsentFromStore,
            };
            (key, Plan::Store(precondition, image(Content::Row(row), Operation::Create)))
        }
        Change::Put { row, precondition } => {
            let (key, row) = accept_row(&table, row, moment).map_err(invalid(Part::Row))?;
            let precondition = match precondition {
                None => Precondition::None,
                Some(Require::Exists(true)) => Precondition::Present,
                Some(Require::Exists(false)) => Precondition::Absent,
                Some(Require::Etag(etag)) => etag.into(),
            };
            (key, Plan::Store(precondition, image(Content::Row(row), Operation::Put)))
        }
        Change::Update { key, changes, precondition } => {
            let key = schema.accept_key(&key).map_err(invalid(Part::Key))?;
            let changes = schema.accept_changes(&key, changes, moment.now).map_err(invalid(Part::Changes))?;
            let etag = match precondition {
                None | Some(Require::Exists(true)) => None,
                Some(Require::Exists(false)) => {
                    return Err(WriteError::Unsupported(
                        "an update of a record that must not exist can't succeed: use create or put".to_owned(),
                    ));
                }
                Some(Require::Etag(etag)) => Some(etag),
            };
            (key, Plan::Update(changes, etag))
        }
        Change::Delete { key, precondition } => {
            let key = schema.accept_key(&key).map_err(invalid(Part::Key))?;
            let precondition = match precondition {
                None => Precondition::None,
                Some(Require::Exists(true)) => Precondition::Present,
                Some(Require::Exists(false)) => {
                    return Err(WriteError::Unsupported(
                        "a delete of a record that must not exist would do nothing: leave it out".to_owned(),
                    ));
                }
                Some(Require::Etag(etag)) => etag.into(),
            };
            (key, Plan::Store(precondition, image(Content::Tombstone, Operation::Delete)))
        }
    };
    let record = RecordId { namespace: table.settings.namespace.clone(), key: key.to_bytes() };
    let shard = schema.shard_of(&key, shards);
    let intent = match plan {
        Plan::Update(changes, etag) => Intent::Update { changes, etag },
        Plan::Store(precondition, image) => {
            let draft = Draft { table: schema.table.clone(), shard, key: key.clone(), image };
            fits(&draft, &record, max_payload_bytes)?;
            Intent::Store { precondition, draft }
        }
    };
    Ok(Checked { fingerprint, record, shard, key, request: named, intent, table })
}

/// The record that a write is about, if its key can be told by itself: without a look at its other columns.
pub(super) fn record_of(table: &CatalogTable, change: &Change) -> Option<RecordId> {
    let schema = &table.schema;
    let key = match change {
        Change::Create { row } | Change::Put { row, .. } => {
            let columns: Vec<_> = schema.key().map(|column| column.name.clone()).collect();
            schema.accept_key(&row.select(&columns))
        }
        Change::Update { key, .. } | Change::Delete { key, .. } => schema.accept_key(key),
    };
    Some(RecordId { namespace: table.settings.namespace.clone(), key: key.ok()?.to_bytes() })
}

/// The event must fit the log before anything is stored, or it could never leave the hot store.
pub(super) fn fits(draft: &Draft, record: &RecordId, max_payload_bytes: usize) -> Result<(), WriteError> {
    let bytes = draft.bytes_at_most(&record.key);
    if bytes > max_payload_bytes {
        return Err(WriteError::TooLarge { bytes, max: max_payload_bytes });
    }
    Ok(())
}

fn accept_row(table: &CatalogTable, row: Row, moment: Moment<'_>) -> Result<(Key, Row), Vec<Violation>> {
    let schema = &table.schema;
    let row = schema.accept_row(row, moment)?;
    let too_long = |problem: String| {
        let column = schema.key().next().map_or_else(String::new, |c| c.name.to_string());
        vec![Violation { column, reason: ViolationReason::OutOfRange, problem }]
    };
    let key = schema.key_of(&row).ok_or_else(|| too_long("the row lacks a column of the primary key".to_owned()))?;
    if key.to_bytes().as_bytes().len() > MAX_KEY_BYTES {
        return Err(too_long(format!("the primary key is longer than {MAX_KEY_BYTES} bytes")));
    }
    Ok((key, row))
}
