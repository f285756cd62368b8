//! Etags: a record's version and the epoch in which it was seen, opaque to clients.

use std::{fmt, str::FromStr};

use hot_store::Precondition;
use model::{Epoch, Version};

/// Names one version of a record. After a loss of the hot store's tail a version can come again, the epoch can't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Etag {
    /// The version.
    pub version: Version,
    /// The shard's epoch when it was read or written.
    pub epoch: Epoch,
}

/// Text that is no etag of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an etag that a read or write has answered")]
pub struct InvalidEtag;

impl From<Etag> for Precondition {
    fn from(Etag { version, epoch }: Etag) -> Self {
        Self::At { version, epoch }
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.epoch.0, self.version.get())
    }
}

impl FromStr for Etag {
    type Err = InvalidEtag;

    fn from_str(text: &str) -> Result<Self, InvalidEtag> {
        let (epoch, version) = text.split_once('-').ok_or(InvalidEtag)?;
        let epoch = u32::from_str_radix(epoch, 16).map_err(|_| InvalidEtag)?;
        let version = u64::from_str_radix(version, 16).map_err(|_| InvalidEtag)?;
        let etag = Self { version: Version::new(version).ok_or(InvalidEtag)?, epoch: Epoch(epoch) };
        // One version has one etag: no signs, capitals or leading zeros.
        if etag.to_string() == text { Ok(etag) } else { Err(InvalidEtag) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_etag_reads_back_as_it_was_printed(epoch: u32, version in 0..1_u64 << 53) {
            let etag = Etag { version: Version::new(version).unwrap_or_default(), epoch: Epoch(epoch) };
            prop_assert_eq!(etag.to_string().parse(), Ok(etag));
        }

        #[test]
        fn what_parses_is_what_would_be_printed(text in "[0-9a-fA-F+]{0,18}-?[0-9a-fA-F+]{0,18}") {
            if let Ok(etag) = text.parse::<Etag>() {
                prop_assert_eq!(etag.to_string(), text);
            }
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "-", "1", "1-", "-1", "01-1", "1-01", "1-+1", "F-1", "100000000-1", "1-20000000000000"] {
            assert_eq!(text.parse::<Etag>(), Err(InvalidEtag), "{text}");
        }
    }
}
