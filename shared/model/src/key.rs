//! Primary keys and their canonical bytes.

use std::fmt;

use bytes::Bytes;

use crate::{Value, codec, codec::CodecError};

/// The longest canonical key, in bytes: what fits beside a table name into an index of MySQL (3,072 bytes), of
/// the ledger that remembers deletes.
pub const MAX_KEY_BYTES: usize = 1024;

/// A primary key: its values in the order of the table's key columns, already in the columns' own types.
#[derive(Debug, Clone, PartialEq)]
pub struct Key(pub Vec<Value>);

impl Key {
    /// The canonical bytes: two keys are the same key exactly if these are equal.
    ///
    /// Each value is length-prefixed and tagged with its kind, so no two lists of values collide.
    pub fn to_bytes(&self) -> KeyBytes {
        KeyBytes(Bytes::from(codec::encode_key(&self.0)))
    }

    /// The bytes of the group that decides the shard: the values at `positions` of the key.
    pub fn group_bytes(&self, positions: &[usize]) -> Vec<u8> {
        codec::encode_key(positions.iter().filter_map(|&at| self.0.get(at)))
    }
}

/// A key in canonical form, as it stands in the hot store, in the log's record key and in the ledger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyBytes(Bytes);

impl KeyBytes {
    /// Takes bytes that came out of a store.
    pub fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The values again.
    ///
    /// # Errors
    /// If these are not bytes that [`Key::to_bytes`] made.
    pub fn decode(&self) -> Result<Key, CodecError> {
        codec::decode_key(&self.0).map(Key)
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({})", self.0.escape_ascii())
    }
}
