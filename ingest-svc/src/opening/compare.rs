//! What the database holds of records that the log names, so that an opening puts back what is newer.

use database::{Database, DatabaseRow};
use hot_store::Restore;
use model::{Key, Shard, TableSchema, Version};

use super::{
    OpeningError,
    restore::{Newest, Stretch, dirty, record_of},
};
use crate::read::cold::image_of;

/// What the database holds of one record.
pub(super) enum Held {
    /// That.
    Row(DatabaseRow),
    /// A row of this version, in which a value can't be read.
    Unreadable(Version),
}

/// Looks at several records. One that can't be read keeps no shard closed: its version can be read without it.
pub(super) async fn look<D: Database>(
    database: &D,
    schema: &TableSchema,
    keys: &[Key],
) -> Result<Vec<Held>, OpeningError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    match database.read(schema, keys).await {
        Ok(rows) if rows.len() < keys.len() => Err(OpeningError::Incomplete { asked: keys.len(), got: rows.len() }),
        Ok(rows) => Ok(rows.into_iter().map(Held::Row).collect()),
        Err(error) if error.is_unreadable() => {
            let mut held = Vec::with_capacity(keys.len());
            for key in keys {
                held.push(look_at_one(database, schema, key).await?);
            }
            Ok(held)
        }
        Err(error) => Err(error.into()),
    }
}

async fn look_at_one<D: Database>(database: &D, schema: &TableSchema, key: &Key) -> Result<Held, OpeningError> {
    let key = std::slice::from_ref(key);
    let incomplete = OpeningError::Incomplete { asked: 1, got: 0 };
    let error = match database.read(schema, key).await {
        Ok(rows) => return rows.into_iter().next().map(Held::Row).ok_or(incomplete),
        Err(error) if error.is_unreadable() => error,
        Err(error) => return Err(error.into()),
    };
    tracing::error!(table = %schema.table, %error, "a row can't be read; the opening goes on by its version");
    match database.read(&without_values(schema), key).await {
        Ok(rows) => match rows.into_iter().next().ok_or(incomplete)? {
            DatabaseRow::Present { version, .. } => Ok(Held::Unreadable(version)),
            row @ (DatabaseRow::Deleted { .. } | DatabaseRow::Absent) => Ok(Held::Row(row)),
        },
        // Its key is no key of ours, but equal to this one as the database compares them: no write of this record made
        // that row. What the log has of the record is put back, and the drain, which the database refuses it, letters it.
        Err(error) if error.is_unreadable() => Ok(Held::Unreadable(Version::ZERO)),
        Err(error) => Err(error.into()),
    }
}

/// The same table, but of its columns only those of the key.
fn without_values(schema: &TableSchema) -> TableSchema {
    TableSchema {
        columns: schema.key().cloned().collect(),
        key_columns: (0..schema.key_columns.len()).collect(),
        ..schema.clone()
    }
}

/// The purge horizon by which these rows are judged. It is read after them, where one is missing: a purge that is
/// committed between the two would make a purged tombstone look like a write that was never drained.
pub(super) async fn purge_horizon<D: Database>(
    database: &D,
    shard: Shard,
    stretch: &Stretch<'_>,
    held: &[Held],
) -> Result<Version, OpeningError> {
    let known = stretch.row.purge_horizon;
    if !held.iter().any(|held| matches!(held, Held::Row(DatabaseRow::Absent))) {
        return Ok(known);
    }
    let table = std::slice::from_ref(&stretch.table.schema.table.table);
    let now = database.shard_rows(table, shard).await?.pop().ok_or(OpeningError::Incomplete { asked: 1, got: 0 })?;
    Ok(known.max(now.purge_horizon))
}

/// An event at or below the high-water version may be in the database already, or something newer: order in the log
/// is not order of versions, and a slow older event must not bury a newer row.
///
/// Of a row that can't be read the version decides as well. At the event's version it is what the event says. At a
/// higher one nothing is put back, and what the store has of it is dropped: who asks for the record is sent to the
/// database, and learns that it can't be read, which is better than an older answer. At a lower one the event is newer.
pub(super) fn compare(stretch: &Stretch<'_>, horizon: Version, newest: Newest, held: Held) -> Restore {
    let mutation = &newest.mutation;
    let record = || record_of(stretch, mutation);
    match held {
        Held::Unreadable(version) if version > mutation.version => Restore::Gone { record: record(), horizon: version },
        Held::Unreadable(version) if version == mutation.version => {
            Restore::Clean { record: record(), version, image: mutation.image.clone() }
        }
        Held::Unreadable(_) => dirty(stretch, newest),
        Held::Row(row) => match image_of(stretch.table, row) {
            Some((version, image)) if version >= mutation.version => {
                Restore::Clean { record: record(), version, image }
            }
            None if mutation.version <= horizon => Restore::Gone { record: record(), horizon },
            _ => dirty(stretch, newest),
        },
    }
}
