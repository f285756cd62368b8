//! What comes back from a script.

use ::redis::Value;
use bytes::Bytes;
use model::{Epoch, Shard, Version};

use crate::HotStoreError;

/// A script's answer, taken apart from the front.
pub(super) struct Reply {
    shard: Shard,
    items: std::vec::IntoIter<Value>,
}

impl Reply {
    /// Takes a reply: the words with which scripts refuse become errors.
    pub(super) fn new(shard: Shard, value: Value) -> Result<Self, HotStoreError> {
        let items = match value {
            Value::SimpleString(word) => match word.as_str() {
                "CLOSED" => return Err(HotStoreError::Closed { shard }),
                "SUPERSEDED" => return Err(HotStoreError::Superseded { shard }),
                "LATE" => return Err(HotStoreError::Late),
                "FULL" => return Err(HotStoreError::Full),
                "EVICTS" => {
                    return Err(HotStoreError::Unavailable(
                        "its maxmemory-policy would throw acknowledged writes away: set it to noeviction".to_owned(),
                    ));
                }
                _ => vec![Value::SimpleString(word)],
            },
            Value::Array(items) => items,
            single => vec![single],
        };
        Ok(Self { shard, items: items.into_iter() })
    }

    /// Whether the whole answer is this word.
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.items.as_slice(), [Value::SimpleString(said)] if said == word)
    }

    /// How many items are left.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The bytes of what is left that is no number.
    pub(super) fn payload_bytes(&self) -> usize {
        let bytes = |value: &Value| if let Value::BulkString(bytes) = value { bytes.len() } else { 0 };
        self.items.as_slice().iter().map(bytes).sum()
    }

    pub(super) fn int(&mut self) -> Result<i64, HotStoreError> {
        match self.items.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(self.unexpected("a number", other.as_ref())),
        }
    }

    pub(super) fn count(&mut self) -> Result<u64, HotStoreError> {
        let number = self.int()?;
        u64::try_from(number).map_err(|_| self.corrupt(format!("{number} where a count was expected")))
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, HotStoreError> {
        let number = self.int()?;
        u32::try_from(number).map(Epoch).map_err(|_| self.corrupt(format!("{number} where an epoch was expected")))
    }

    pub(super) fn version(&mut self) -> Result<Version, HotStoreError> {
        let number = self.count()?;
        Version::new(number).ok_or_else(|| self.corrupt(format!("version {number} exceeds 53 bits")))
    }

    /// A version, or -1 for none.
    pub(super) fn version_or_none(&mut self) -> Result<Option<Version>, HotStoreError> {
        match self.items.as_slice().first() {
            Some(Value::Int(-1)) => {
                self.items.next();
                Ok(None)
            }
            _ => self.version().map(Some),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Option<Bytes>, HotStoreError> {
        match self.items.next() {
            Some(Value::Nil) => Ok(None),
            Some(Value::BulkString(bytes)) => Ok(Some(Bytes::from(bytes))),
            other => Err(self.unexpected("bytes", other.as_ref())),
        }
    }

    pub(super) fn text(&mut self) -> Result<Option<String>, HotStoreError> {
        let Some(bytes) = self.bytes()? else { return Ok(None) };
        String::from_utf8(bytes.into()).map(Some).map_err(|_| self.corrupt("bytes where text was expected".to_owned()))
    }

    /// One character for each of `count` records.
    pub(super) fn flags(&mut self, count: usize) -> Result<Bytes, HotStoreError> {
        match self.bytes()? {
            Some(flags) if flags.len() == count => Ok(flags),
            _ => Err(self.corrupt(format!("not one answer for each of {count} records"))),
        }
    }

    pub(super) fn corrupt(&self, problem: String) -> HotStoreError {
        HotStoreError::Corrupt { shard: self.shard, problem }
    }

    fn unexpected(&self, wanted: &str, found: Option<&Value>) -> HotStoreError {
        // Only the kind: the value itself may be a row.
        let found = match found {
            None => "nothing",
            Some(Value::Nil) => "nil",
            Some(Value::Int(_)) => "a number",
            Some(Value::BulkString(_)) => "bytes",
            Some(Value::Array(_)) => "a list",
            Some(_) => "something else",
        };
        self.corrupt(format!("a script answered {found} where {wanted} was expected"))
    }
}
