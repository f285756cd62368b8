//! The calls that put back what an opening has found.

use std::time::Duration;

use bytes::Bytes;
use model::{Shard, Version};

use super::{
    keys::ShardKeys,
    records::{calls, millis},
    scripts,
    store::RedisStore,
    value,
};
use crate::{HotStoreError, OpeningToken, Restore};

/// What is to be done; as `restore.lua` is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Dirty,
    Unqueued,
    Parked,
    Clean,
    Gone,
    Behind,
    Request,
}

impl Action {
    fn letter(self) -> &'static str {
        match self {
            Self::Dirty => "D",
            Self::Unqueued => "U",
            Self::Parked => "P",
            Self::Clean => "C",
            Self::Gone => "G",
            Self::Behind => "B",
            Self::Request => "Q",
        }
    }
}

/// What is to be put back, as the scripts get it.
pub(super) struct EncodedRestore {
    pub(super) key: Vec<u8>,
    pub(super) action: Action,
    pub(super) kind: &'static str,
    pub(super) version: Version,
    pub(super) behind: Version,
    pub(super) since: Version,
    pub(super) payload: Bytes,
}

impl EncodedRestore {
    /// The record's name, if it is about a record.
    pub(super) fn name(&self, keys: &ShardKeys) -> &[u8] {
        self.key.get(keys.record_prefix.len()..).unwrap_or_default()
    }

    fn new(keys: &ShardKeys, restore: Restore) -> Self {
        let none = Self {
            key: Vec::new(),
            action: Action::Gone,
            kind: "",
            version: Version::ZERO,
            behind: Version::ZERO,
            since: Version::ZERO,
            payload: Bytes::new(),
        };
        match restore {
            Restore::Dirty { record, version, behind, image } => Self {
                key: keys.record(&record),
                action: Action::Dirty,
                kind: value::kind_of(&image),
                version,
                behind,
                since: image.since.unwrap_or(Version::ZERO),
                payload: value::payload_of(image),
            },
            Restore::Parked { record, version, image } => Self {
                key: keys.record(&record),
                action: Action::Parked,
                kind: value::parked_kind_of(&image),
                version,
                behind: version,
                since: image.since.unwrap_or(Version::ZERO),
                payload: value::payload_of(image),
            },
            Restore::Unqueued { record, version, behind, image } => {
                Self { action: Action::Unqueued, ..Self::new(keys, Restore::Dirty { record, version, behind, image }) }
            }
            Restore::Clean { record, version, image } => Self {
                key: keys.record(&record),
                action: Action::Clean,
                kind: value::kind_of(&image),
                version,
                payload: value::payload_of(image),
                ..none
            },
            Restore::Gone { record, horizon } => {
                Self { key: keys.record(&record), action: Action::Gone, version: horizon, ..none }
            }
            Restore::Behind { record, version } => {
                Self { key: keys.record(&record), action: Action::Behind, behind: version, ..none }
            }
            Restore::Request { namespace, request, version } => Self {
                key: keys.request(&namespace, &request.id),
                action: Action::Request,
                version,
                payload: Bytes::copy_from_slice(request.digest.as_bytes()),
                ..none
            },
        }
    }
}

impl RedisStore {
    pub(super) async fn restore_records(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> Result<(), HotStoreError> {
        let keys = self.keys(shard)?;
        let records = records.into_iter().map(|restore| EncodedRestore::new(keys, restore)).collect();
        for part in calls(records, |record: &EncodedRestore| record.payload.len()) {
            let part = self.restore_new(shard, token, part).await?;
            if part.is_empty() {
                continue;
            }
            let mut call = scripts::RESTORE.call(3 + part.len()).arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued);
            for restore in &part {
                call.push(&restore.key[..]);
            }
            call.push(&token.0);
            call.push(millis(ttl));
            call.push(self.request_window());
            for restore in &part {
                call.push(restore.action.letter());
                call.push(restore.kind);
                call.push(restore.version.get());
                call.push(restore.behind.get());
                call.push(restore.since.get());
                call.push(&restore.payload[..]);
            }
            self.call(shard, call).await?;
        }
        Ok(())
    }
}
