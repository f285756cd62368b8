//! The calls that open a shard, and the checkpoint that they start from.

use model::{Epoch, Shard, Version};

use super::{
    points,
    records::{RECORDS_PER_CALL, dirty_record},
    scripts,
    store::RedisStore,
    value::is_too_new,
};
use crate::{Checkpoint, Claim, DirtyRecord, HotStoreError, OpeningStart, OpeningToken, SetAside, SetAsidePage};

/// Once a page of what is set aside is so large, nothing is added to it.
const BYTES_PER_PAGE: usize = 4 << 20;

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
