//! The vocabulary of Shock Absorber: tables, keys, values, versions, shards and the stored formats.
//!
//! No I/O happens here. Everything that two processes must agree on (how a key hashes to a shard, how an
//! event or an image is laid out in bytes, what the schema of a table accepts) lives in this crate, so that
//! it can be tested by itself and pinned by golden bytes.

mod chance;
pub mod civil;
mod codec;
mod collation;
mod dead_letter;
mod event;
mod image;
mod index;
mod json_document;
mod jsonb;
mod key;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod names;
mod request;
mod row;
mod schema;
mod shard;
mod uuid;
mod validate;
mod value;
mod version;

pub use chance::Chance;
pub use codec::{CODEC_VERSION, CodecError};
pub use collation::{Collation, Equality, Repertoire};
pub use dead_letter::{DeadLetter, DeadLetterBody, DeadLetterCause, DeadLetterPurge, DeadLetterRecord};
pub use event::{Event, EventBody, Fence, Mutation, RequestNote};
pub use image::{Content, Image, Operation};
pub use index::{IndexId, IndexTerms, MAX_INDEXED_FIELDS, TableIndex, Term, UnindexableField};
pub use key::{Key, KeyBytes, MAX_KEY_BYTES};
pub use names::{ColumnName, DatabaseName, InvalidName, Namespace, TableName, TableRef, Topic};
pub use request::{Request, RequestDigest, RequestId};
pub use row::Row;
pub use schema::{Column, ColumnDefault, ColumnType, Fingerprint, TableSchema, VersionGuard};
pub use shard::{Shard, ShardCount, ShardCountError};
pub use validate::{Moment, Violation, ViolationReason, array_elements};
pub use value::{TimeOfDay, Value, ValueKind};
pub use version::{Epoch, Version};
