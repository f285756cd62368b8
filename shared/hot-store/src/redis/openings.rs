//! The calls that open a shard, and the checkpoint that they start from.

use std::time::Duration;

use bytes::Bytes;
use model::{Epoch, Shard, Version};

use super::{
    keys::ShardKeys,
    points,
    records::{RECORDS_PER_CALL, calls, dirty_record, millis},
    scripts,
    store::RedisStore,
    value::{self, is_too_new},
};
use crate::{
    Checkpoint, Claim, DirtyRecord, HotStoreError, OpeningStart, OpeningToken, Restore, SetAside, SetAsidePage,
};

/// Once a page of what is set aside is so large, nothing is added to it.
const BYTES_PER_PAGE: usize = 4 << 20;

/// What is to be put back, as the script gets it.
struct EncodedRestore {
    key: Vec<u8>,
    action: &'static str,
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
            action: "",
            kind: "",
            version: Version::ZERO,
            behind: Version::ZERO,
            since: Version::ZERO,
            payload: Bytes::new(),
        };
        match restore {
            Restore::Dirty { record, version, behind, image } => Self {
                key: keys.record(&record),
                action: "D",
                kind: value::kind_of(&image),
                version,
                behind,
                since: image.since.unwrap_or(Version::ZERO),
                payload: value::payload_of(image),
            },
            Restore::Parked { record, version, image } => Self {
                key: keys.record(&record),
                action: "P",
                kind: value::parked_kind_of(&image),
                version,
                behind: version,
                since: image.since.unwrap_or(Version::ZERO),
                payload: value::payload_of(image),
            },
            Restore::Unqueued { record, version, behind, image } => {
                Self { action: "U", ..Self::new(keys, Restore::Dirty { record, version, behind, image }) }
            }
            Restore::Clean { record, version, image } => Self {
                key: keys.record(&record),
                action: "C",
                kind: value::kind_of(&image),
                version,
                payload: value::payload_of(image),
                ..none
            },
            Restore::Gone { record, horizon } => {
                Self { key: keys.record(&record), action: "G", version: horizon, ..none }
            }
            Restore::Behind { record, version } => {
                Self { key: keys.record(&record), action: "B", behind: version, ..none }
            }
            Restore::Request { namespace, request, version } => Self {
                key: keys.request(&namespace, &request.id),
                action: "Q",
                version,
                payload: Bytes::copy_from_slice(request.digest.as_bytes()),
                ..none
            },
        }
    }
}

impl RedisStore {
    pub(super) async fn store_checkpoint(
        &self,
        shard: Shard,
        epoch: Epoch,
        checkpoint: &Checkpoint,
    ) -> Result<(), HotStoreError> {
        let call = scripts::CHECKPOINT.call(1).arg(&self.keys(shard)?.header);
        self.call(shard, call.arg(epoch.0).arg(points::to_text(&checkpoint.0))).await?;
        Ok(())
    }

    pub(super) async fn claim_shard(&self, shard: Shard, token: &OpeningToken) -> Result<Option<Claim>, HotStoreError> {
        // Each connection has seen to it; but one through a proxy may outlive the server behind that.
        self.leave_torn_file_behind().await?;
        let call = scripts::CLAIM.call(1).arg(&self.keys(shard)?.header).arg(&token.0);
        let mut reply = self.call(shard, call).await?;
        if reply.is_word("OPEN") {
            return Ok(None);
        }
        let epoch = reply.epoch()?;
        let checkpoint = reply.text()?.map(|text| points::from_text(&text)).transpose();
        let start = reply.text()?.map(|text| points::from_text(&text)).transpose();
        let discard = reply.text()?.is_some_and(|flag| flag == "1");
        let corrupt = |problem| HotStoreError::Corrupt { shard, problem };
        Ok(Some(Claim {
            epoch,
            checkpoint: checkpoint.map_err(corrupt)?.map(Checkpoint),
            resumed: start.map_err(corrupt)?.map(|points| OpeningStart { points, discard }),
        }))
    }

    pub(super) async fn begin_shard(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: &OpeningStart,
    ) -> Result<(), HotStoreError> {
        let keys = self.keys(shard)?;
        let call = scripts::BEGIN_OPENING.call(4);
        let call = call.arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued).arg(&keys.aside);
        let call = call.arg(&token.0).arg(epoch.0).arg(points::to_text(&start.points)).arg(u8::from(start.discard));
        let reply = self.call(shard, call).await?;
        if reply.is_word("BEHIND") {
            return Err(reply.corrupt(format!("epoch {epoch} was drawn to open it, but its header has a higher one")));
        }
        Ok(())
    }

    pub(super) async fn list_set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        let keys = self.keys(shard)?;
        let call = scripts::SET_ASIDE.call(2).arg(&keys.header).arg(&keys.aside).arg(&token.0);
        let call = call.arg(&keys.record_prefix).arg(skip).arg(limit.min(RECORDS_PER_CALL)).arg(BYTES_PER_PAGE);
        let mut reply = self.call(shard, call).await?;
        let mut page = SetAsidePage { is_last: reply.int()? == 1, ..SetAsidePage::default() };
        while reply.len() > 0 {
            let (name, behind, value) = (reply.bytes()?, reply.version()?, reply.bytes()?);
            // Passed over, it would read as what the database has, and an event of the log would take its place.
            if value.as_ref().is_some_and(is_too_new) {
                return Err(reply.corrupt(
                    "what the database does not have was stored by a later release: this shard can only be opened by a \
                     process of that release, upgrade this one"
                        .to_owned(),
                ));
            }
            // What is set aside was dirty, and is void by now.
            match dirty_record(name.as_ref(), value, Epoch::ZERO) {
                Ok(DirtyRecord { record, version, image }) => {
                    page.records.push(SetAside { record, version, behind, image });
                }
                Err(problem) => {
                    page.unreadable += 1;
                    tracing::error!(
                        %shard, name = %name.unwrap_or_default().escape_ascii(), problem,
                        "a record that the database does not have can't be read; it stays aside",
                    );
                }
            }
        }
        Ok(page)
    }

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
            let mut call = scripts::RESTORE.call(3 + part.len()).arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued);
            for restore in &part {
                call.push(&restore.key[..]);
            }
            call.push(&token.0);
            call.push(millis(ttl));
            call.push(self.request_window());
            for restore in &part {
                call.push(restore.action);
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

    pub(super) async fn finish_shard(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: &Checkpoint,
    ) -> Result<(), HotStoreError> {
        let call = scripts::FINISH_OPENING.call(1).arg(&self.keys(shard)?.header);
        let call = call.arg(&token.0).arg(clock.get()).arg(points::to_text(&checkpoint.0));
        self.call(shard, call).await?;
        Ok(())
    }
}
