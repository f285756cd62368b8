//! The calls that put back what an opening has found.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use model::{Shard, Version};

use super::{
    keys::{SEPARATOR, ShardKeys},
    records::{calls, millis},
    scripts::{self, Call},
    store::RedisStore,
    value,
};
use crate::{HotStoreError, OpeningToken, Restore};

/// Of a record's version, of up to where the database is behind, and of `since`, as they are written for the script.
const MAX_DIGITS: usize = 80;

/// What is to be done; as `restore.lua` is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
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
struct EncodedRestore {
    key: Vec<u8>,
    action: Action,
    kind: &'static str,
    version: Version,
    behind: Version,
    since: Version,
    payload: Bytes,
}

impl EncodedRestore {
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

/// The call that puts all of it back if none of the records is there; `None` where each must be looked at.
fn all_new(keys: &ShardKeys, token: &OpeningToken, request_window: u64, part: &[EncodedRestore]) -> Option<Call> {
    let of = |action| part.iter().filter(move |restore| restore.action == action);
    let (records, requests) = (|| of(Action::Dirty), || of(Action::Request));
    let (record_count, request_count) = (records().count(), requests().count());
    let prefix = keys.record_prefix.len();
    let namespace = records().next().map_or(&[][..], |first| namespace_of(&first.key[prefix..]));
    let mut met = HashSet::with_capacity(record_count);
    let fits = record_count + request_count == part.len()
        && records().all(|restore| namespace_of(&restore.key[prefix..]) == namespace)
        && records().all(|restore| met.insert(&restore.key[..]));
    if !fits {
        return None;
    }
    let bytes = part.iter().map(|restore| 3 * restore.key.len() + restore.payload.len() + MAX_DIGITS).sum();
    let mut call = scripts::RESTORE_NEW.large_call(2, 9 + 7 * part.len(), bytes);
    call.push(&keys.header);
    call.push(&keys.dirty);
    call.push(&token.0);
    call.push(request_window);
    call.push(record_count);
    call.push(request_count);
    call.push(namespace);
    call.push(records().map(|restore| restore.payload.len()).sum::<usize>());
    let mut text = Vec::new();
    for restore in records() {
        call.push(&restore.key[..]);
        call.push(format!("{}{:016}", restore.kind, restore.version.get()));
        text.clear();
        text.extend_from_slice(format!("{:016}", restore.since.get()).as_bytes());
        text.extend_from_slice(&restore.payload);
        call.push(&text[..]);
    }
    for restore in records() {
        call.push(restore.version.get());
        call.push(&restore.key[prefix..]);
    }
    if records().any(|restore| restore.behind != restore.version) {
        for restore in records() {
            call.push(restore.behind.get());
            call.push(&restore.key[prefix..]);
        }
    }
    for restore in requests() {
        call.push(&restore.key[..]);
    }
    for restore in requests() {
        call.push(format!("{:016}", restore.version.get()));
        call.push(&restore.payload[..]);
    }
    Some(call)
}

/// The namespace in a record's name.
fn namespace_of(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == SEPARATOR).next().unwrap_or_default()
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
            if let Some(call) = all_new(keys, token, self.request_window(), &part)
                && !self.call(shard, call).await?.is_word("HELD")
            {
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
