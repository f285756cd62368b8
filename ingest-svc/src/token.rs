//! Tokens: a write, its shard and its table, opaque to clients, by which they wait until the database has it.

use std::{fmt, str::FromStr};

use model::{Epoch, Namespace, Shard, Version};

use crate::accept::AckLevel;

/// Names an acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token {
    /// The shard.
    pub shard: Shard,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// Its version.
    pub version: Version,
    /// Whether it was acknowledged as LOGGED only, so that a loss of the hot store may have taken it along.
    pub logged_only: bool,
    /// Its table.
    pub namespace: Namespace,
}

/// Text that is no token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token that a write has answered")]
pub struct InvalidToken;

impl Token {
    /// The token of a write that has come so far.
    pub(crate) fn reached(self, level: AckLevel) -> Self {
        Self { logged_only: level == AckLevel::Logged, ..self }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.logged_only { 'l' } else { 'q' };
        write!(f, "{level}-{:x}-{:x}-{:x}-{}", self.shard.0, self.epoch.0, self.version.get(), self.namespace)
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.splitn(5, '-');
        let mut next = || parts.next().ok_or(InvalidToken);
        let logged_only = match next()? {
            "l" => true,
            "q" => false,
            _ => return Err(InvalidToken),
        };
        let shard = u16::from_str_radix(next()?, 16).map_err(|_| InvalidToken)?;
        let epoch = u32::from_str_radix(next()?, 16).map_err(|_| InvalidToken)?;
        let version = u64::from_str_radix(next()?, 16).map_err(|_| InvalidToken)?;
        let token = Self {
            shard: Shard(shard),
            epoch: Epoch(epoch),
            version: Version::new(version).ok_or(InvalidToken)?,
            logged_only,
            namespace: Namespace::new(next()?).map_err(|_| InvalidToken)?,
        };
        // A write has one token: no signs, capitals or leading zeros.
        if token.to_string() == text { Ok(token) } else { Err(InvalidToken) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_reads_back_as_it_was_printed(
            shard: u16, epoch: u32, version in 0..1_u64 << 53, logged_only: bool, namespace in "[a-z.-]{1,20}",
        ) {
            let token = Token {
                shard: Shard(shard),
                epoch: Epoch(epoch),
                version: Version::new(version).unwrap(),
                logged_only,
                namespace: Namespace::new(namespace).unwrap(),
            };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "q", "q-1-1-1", "q-1-1-1-", "x-1-1-1-n", "q-01-1-1-n", "q-1-1-+1-n", "q-1-1-20000000000000-n"]
        {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{text}");
        }
    }
}
