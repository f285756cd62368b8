//! Bytes of what is stored: events, images, keys and dead letters. Golden fixtures in `fixtures/` pin every released layout.

mod dead_letter;

use bytes::Bytes;
use jiff::{Timestamp, civil};
use prost::Message as _;

use crate::{
    ColumnName, Content, DatabaseName, Epoch, Event, EventBody, Fence, Fingerprint, Image, Key, Mutation, Operation,
    Request, RequestDigest, RequestId, RequestNote, Row, Shard, TableName, TableRef, TimeOfDay, Value, Version,
};

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from proto/shockabsorber/storage/v1")]
mod stored {
    include!(concat!(env!("OUT_DIR"), "/shockabsorber.storage.v1.rs"));
}

use stored::{
    StoredColumn, StoredEvent, StoredFence, StoredImage, StoredMutation, StoredOperation, StoredRequest, StoredValue,
    stored_value::Kind,
};

/// The layout that this build writes. It reads this one and every earlier one.
pub const CODEC_VERSION: u32 = 1;

/// Stored bytes that can't be read. Never a reason to skip them silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not the bytes of such a message at all.
    #[error("the bytes are not a stored {what}: {problem}")]
    Malformed {
        /// What they should have been.
        what: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// Written by a later release.
    #[error("the stored {what} has layout {found}, this release reads up to {CODEC_VERSION}: upgrade this process")]
    TooNew {
        /// What it is.
        what: &'static str,
        /// The layout found.
        found: u32,
    },
    /// Written by a later release, too: it says something of which this one knows nothing.
    #[error("the stored {what} is of a kind that this release does not know: upgrade this process")]
    UnknownKind {
        /// What it is.
        what: &'static str,
    },
}

fn malformed(what: &'static str, problem: impl ToString) -> CodecError {
    CodecError::Malformed { what, problem: problem.to_string() }
}

fn check_layout(what: &'static str, found: u32) -> Result<(), CodecError> {
    match found {
        CODEC_VERSION => Ok(()),
        0 => Err(malformed(what, "it names no layout")),
        found => Err(CodecError::TooNew { what, found }),
    }
}

impl Event {
    /// The bytes of the log record.
    pub fn encode(&self) -> Bytes {
        let mut stored = StoredEvent {
            codec_version: CODEC_VERSION,
            shard: self.shard.0.into(),
            epoch: self.epoch.0,
            ..StoredEvent::default()
        };
        match &self.body {
            EventBody::Mutations(mutations) => stored.mutations = mutations.iter().map(store_mutation).collect(),
            EventBody::Fence(fence) => stored.fence = Some(StoredFence { opener: fence.opener.clone() }),
            EventBody::Requests(notes) => stored.requests = notes.iter().map(store_note).collect(),
        }
        Bytes::from(stored.encode_to_vec())
    }

    /// The event again.
    ///
    /// # Errors
    /// Bytes that are no event, or one of a later release.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let stored = StoredEvent::decode(bytes).map_err(|e| malformed("event", e))?;
        check_layout("event", stored.codec_version)?;
        let shard = Shard(u16::try_from(stored.shard).map_err(|e| malformed("event", e))?);
        let (mutations, requests) = (stored.mutations, stored.requests);
        let body = match (stored.fence, mutations.is_empty(), requests.is_empty()) {
            (Some(fence), true, true) => EventBody::Fence(Fence { opener: fence.opener }),
            (None, false, true) => {
                EventBody::Mutations(mutations.into_iter().map(load_mutation).collect::<Result<_, _>>()?)
            }
            (None, true, false) => EventBody::Requests(requests.into_iter().map(load_note).collect::<Result<_, _>>()?),
            // A later release may have something else to say, which nobody may pass over.
            (None, true, true) => return Err(CodecError::UnknownKind { what: "event" }),
            _ => return Err(malformed("event", "it is more than one of a fence, mutations, and requests")),
        };
        Ok(Self { shard, epoch: Epoch(stored.epoch), body })
    }
}

impl Image {
    /// The bytes that the hot store keeps behind version and epoch.
    pub fn encode(&self) -> Bytes {
        Bytes::from(store_image(self).encode_to_vec())
    }

    /// The image again.
    ///
    /// # Errors
    /// Bytes that are no image, or one of a later release.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        load_image(StoredImage::decode(bytes).map_err(|e| malformed("image", e))?)
    }
}

fn store_mutation(mutation: &Mutation) -> StoredMutation {
    StoredMutation {
        database: mutation.table.database.to_string(),
        table: mutation.table.table.to_string(),
        key: mutation.key.0.iter().map(store_value).collect(),
        version: mutation.version.get(),
        image: Some(store_image(&mutation.image)),
    }
}

fn load_mutation(stored: StoredMutation) -> Result<Mutation, CodecError> {
    Ok(Mutation {
        table: load_table("mutation", stored.database, stored.table)?,
        key: Key(stored.key.into_iter().map(load_value).collect::<Result<_, _>>()?),
        version: load_version(stored.version)?,
        image: load_image(stored.image.ok_or_else(|| malformed("mutation", "it has no image"))?)?,
    })
}

fn store_note(note: &RequestNote) -> StoredRequest {
    StoredRequest {
        database: note.table.database.to_string(),
        table: note.table.table.to_string(),
        request_id: note.request.id.as_str().to_owned(),
        request_digest: Bytes::copy_from_slice(note.request.digest.as_bytes()),
        version: note.version.get(),
        key: note.key.iter().flat_map(|key| &key.0).map(store_value).collect(),
    }
}

fn load_note(stored: StoredRequest) -> Result<RequestNote, CodecError> {
    let request = load_request(&stored.request_id, &stored.request_digest)?;
    let key = stored.key.into_iter().map(load_value).collect::<Result<Vec<_>, _>>()?;
    Ok(RequestNote {
        table: load_table("request", stored.database, stored.table)?,
        key: if key.is_empty() { None } else { Some(Key(key)) },
        request: request.ok_or_else(|| malformed("request", "it has no id or no digest"))?,
        version: load_version(stored.version)?,
    })
}

fn load_table(what: &'static str, database: String, table: String) -> Result<TableRef, CodecError> {
    let database = DatabaseName::new(database).map_err(|e| malformed(what, e))?;
    let table = TableName::new(table).map_err(|e| malformed(what, e))?;
    Ok(TableRef { database, table })
}

fn load_version(number: u64) -> Result<Version, CodecError> {
    Version::new(number).ok_or_else(|| malformed("version", "it exceeds 53 bits"))
}

fn store_image(image: &Image) -> StoredImage {
    let columns = match &image.content {
        Content::Tombstone => Vec::new(),
        Content::Row(row) => row
            .iter()
            .map(|(name, value)| StoredColumn { name: name.to_string(), value: Some(store_value(value)) })
            .collect(),
    };
    let operation = match image.operation {
        Operation::Fill => StoredOperation::Unspecified,
        Operation::Create => StoredOperation::Create,
        Operation::Put => StoredOperation::Put,
        Operation::Update => StoredOperation::Update,
        Operation::Delete => StoredOperation::Delete,
    };
    StoredImage {
        codec_version: CODEC_VERSION,
        schema_fingerprint: image.fingerprint.0,
        operation: operation.into(),
        tombstone: image.content == Content::Tombstone,
        columns,
        request_id: image.request.as_ref().map_or_else(String::new, |request| request.id.as_str().to_owned()),
        request_digest: image
            .request
            .as_ref()
            .map_or_else(Bytes::new, |request| Bytes::copy_from_slice(request.digest.as_bytes())),
        since: image.since.map_or(0, Version::get),
    }
}

fn load_image(stored: StoredImage) -> Result<Image, CodecError> {
    check_layout("image", stored.codec_version)?;
    let operation = match stored.operation() {
        StoredOperation::Unspecified => Operation::Fill,
        StoredOperation::Create => Operation::Create,
        StoredOperation::Put => Operation::Put,
        StoredOperation::Update => Operation::Update,
        StoredOperation::Delete => Operation::Delete,
    };
    let content = if stored.tombstone {
        Content::Tombstone
    } else {
        let columns = stored.columns.into_iter().map(|column| {
            let name = ColumnName::new(column.name).map_err(|e| malformed("column", e))?;
            Ok((name, load_value(column.value.unwrap_or_default())?))
        });
        Content::Row(columns.collect::<Result<Row, CodecError>>()?)
    };
    let request = load_request(&stored.request_id, &stored.request_digest)?;
    let since = if stored.since == 0 { None } else { Some(load_version(stored.since)?) };
    Ok(Image { content, operation, fingerprint: Fingerprint(stored.schema_fingerprint), request, since })
}

/// An id without a digest is of a release that did not compare payloads; nothing can be told from it.
fn load_request(id: &str, digest: &[u8]) -> Result<Option<Request>, CodecError> {
    if id.is_empty() || digest.is_empty() {
        return Ok(None);
    }
    let id = RequestId::new(id).map_err(|e| malformed("request id", e))?;
    let digest = digest.try_into().map_err(|_| malformed("request digest", "it has another length than 16 bytes"))?;
    Ok(Some(Request { id, digest: RequestDigest::from_stored(digest) }))
}

fn store_value(value: &Value) -> StoredValue {
    let kind = match value {
        Value::Null => None,
        Value::Bool(b) => Some(Kind::BoolValue(*b)),
        Value::Int64(n) => Some(Kind::Int64Value(*n)),
        Value::Uint64(n) => Some(Kind::Uint64Value(*n)),
        Value::Double(x) => Some(Kind::DoubleValue(*x)),
        Value::Decimal(text) => Some(Kind::DecimalValue(text.clone())),
        Value::Text(text) => Some(Kind::StringValue(text.clone())),
        Value::Bytes(bytes) => Some(Kind::BytesValue(bytes.clone())),
        Value::Timestamp(at) => Some(Kind::TimestampMicros(at.as_microsecond())),
        Value::DateTime(at) => Some(Kind::DatetimeValue(at.to_string())),
        Value::Date(at) => Some(Kind::DateValue(at.to_string())),
        Value::Time(at) => Some(Kind::TimeMicros(at.micros)),
        Value::Json(text) => Some(Kind::JsonValue(text.clone())),
    };
    StoredValue { kind }
}

fn load_value(stored: StoredValue) -> Result<Value, CodecError> {
    let Some(kind) = stored.kind else { return Ok(Value::Null) };
    Ok(match kind {
        Kind::BoolValue(b) => Value::Bool(b),
        Kind::Int64Value(n) => Value::Int64(n),
        Kind::Uint64Value(n) => Value::Uint64(n),
        Kind::DoubleValue(x) => Value::Double(x),
        Kind::DecimalValue(text) => Value::Decimal(text),
        Kind::StringValue(text) => Value::Text(text),
        Kind::BytesValue(bytes) => Value::Bytes(bytes),
        Kind::TimestampMicros(micros) => {
            Value::Timestamp(Timestamp::from_microsecond(micros).map_err(|e| malformed("timestamp", e))?)
        }
        Kind::DatetimeValue(text) => {
            Value::DateTime(text.parse::<civil::DateTime>().map_err(|e| malformed("datetime", e))?)
        }
        Kind::DateValue(text) => Value::Date(text.parse::<civil::Date>().map_err(|e| malformed("date", e))?),
        Kind::TimeMicros(micros) => Value::Time(TimeOfDay { micros }),
        Kind::JsonValue(text) => Value::Json(text),
    })
}

/// A key's values, each as a varint length and the bytes of its `StoredValue`: unambiguous, and the same bytes for
/// the same values, since a `StoredValue` has one field and prost writes it one way.
pub(crate) fn encode_key<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend_from_slice(&store_value(value).encode_length_delimited_to_vec());
    }
    bytes
}

pub(crate) fn decode_key(mut bytes: &[u8]) -> Result<Vec<Value>, CodecError> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(load_value(StoredValue::decode_length_delimited(&mut bytes).map_err(|e| malformed("key", e))?)?);
    }
    Ok(values)
}

/// One value as it is stored, by itself.
#[cfg(any(test, feature = "laws"))]
pub(crate) fn decode_value(bytes: &[u8]) -> Result<Value, CodecError> {
    load_value(StoredValue::decode(bytes).map_err(|e| malformed("value", e))?)
}

#[cfg(test)]
pub(crate) fn encode_value(value: &Value) -> Vec<u8> {
    store_value(value).encode_to_vec()
}
