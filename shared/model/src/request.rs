//! A client's name for a write, by which a retry is told from another write.

use std::{fmt, sync::Arc};

use xxhash_rust::xxh3::xxh3_128;

use crate::InvalidName;

/// A client's id of a write: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// # Errors
    /// If it is empty, longer than 128 characters, or holds anything but visible ASCII.
    pub fn new(id: &str) -> Result<Self, InvalidName> {
        if (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(Arc::from(id)));
        }
        let name = id.chars().take(80).collect();
        Err(InvalidName { kind: "request", name, problem: "use 1 to 128 visible ASCII characters" })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the client asked for under an id, hashed: the same id with another payload is another request, which is refused
/// rather than taken for a retry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestDigest([u8; Self::BYTES]);

impl RequestDigest {
    /// Its length.
    pub const BYTES: usize = 16;

    /// The digest of what was asked for, laid out as bytes that differ if it differs. Two stored digests of one payload
    /// must be equal also if two releases computed them: XXH3, 128 bits, big-endian. It tells a client's mistakes, not
    /// a forger's work.
    pub fn of(payload: &[u8]) -> Self {
        Self(xxh3_128(payload).to_be_bytes())
    }

    /// A stored one.
    pub const fn from_stored(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestDigest({:032x})", u128::from_be_bytes(self.0))
    }
}

/// A write as its client names it: a retry has the same id and the same digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// The client's id.
    pub id: RequestId,
    /// What was asked for under it.
    pub digest: RequestDigest,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_id_is_visible_ascii() {
        for id in ["", " ", "a b", "ż", "a\n", &"x".repeat(129)] {
            assert!(RequestId::new(id).is_err(), "{id:?}");
        }
        assert_eq!(RequestId::new("r-1").unwrap().as_str(), "r-1");
        RequestId::new(&"x".repeat(128)).unwrap();
    }

    /// Stored digests are compared by later releases.
    #[test]
    fn a_payload_has_the_digest_that_it_always_had() {
        assert_eq!(format!("{:?}", RequestDigest::of(b"")), "RequestDigest(99aa06d3014798d86001c324468d497f)");
        assert_ne!(RequestDigest::of(b"a"), RequestDigest::of(b"b"));
    }
}
