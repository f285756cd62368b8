//! The calls that concern parked records.

use bytes::Bytes;
use model::{Epoch, Namespace, Shard, Version};

use super::{
    keys::record_of_name,
    records::RECORDS_PER_CALL,
    scripts,
    store::RedisStore,
    value::{Validity, slot_of},
};
use crate::{HotStoreError, ParkOutcome, ParkedRecord, Slot, Stage, Stamp};

impl RedisStore {
    pub(super) async fn park_records(&self, shard: Shard, stamps: &[Stamp]) -> Result<Vec<ParkOutcome>, HotStoreError> {
        let keys = self.keys(shard)?;
        let mut outcomes = Vec::with_capacity(stamps.len());
        for part in stamps.chunks(RECORDS_PER_CALL) {
            let mut call = scripts::PARK.call(3 + part.len()).arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued);
            for stamp in part {
                call.push(keys.record(&stamp.record));
            }
            for stamp in part {
                call.push(stamp.version.get());
            }
            let mut reply = self.call(shard, call).await?;
            for outcome in reply.flags(part.len())? {
                outcomes.push(match outcome {
                    b'p' => ParkOutcome::Parked,
                    b's' => ParkOutcome::Superseded,
                    b'g' => ParkOutcome::Gone,
                    other => return Err(reply.corrupt(format!("outcome {other} of parking is not known"))),
                });
            }
        }
        Ok(outcomes)
    }

    pub(super) async fn list_parked(
        &self,
        shard: Shard,
        namespace: &Namespace,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<ParkedRecord>), HotStoreError> {
        let set = self.keys(shard)?.parked(namespace);
        self.list(shard, &set, after, limit, parked_record).await
    }

    pub(super) async fn purge_parked_record(&self, shard: Shard, stamp: &Stamp) -> Result<bool, HotStoreError> {
        let keys = self.keys(shard)?;
        let call = scripts::PURGE_PARKED.call(2).arg(&keys.header).arg(keys.record(&stamp.record));
        Ok(self.call(shard, call.arg(stamp.version.get())).await?.int()? == 1)
    }
}

/// A parked record by its name and value; else what is wrong.
fn parked_record(name: Option<&Bytes>, value: Option<Bytes>, epoch: Epoch) -> Result<ParkedRecord, String> {
    let record = name.and_then(record_of_name).ok_or("its name is none of ours")?;
    match slot_of(value, false, Validity { epoch, lowest: Epoch::ZERO })? {
        Slot::Image { version, image, stage: Stage::Parked } => Ok(ParkedRecord { record, version, image }),
        Slot::Image { .. } => Err("it is not parked".to_owned()),
        Slot::Empty => Err("somebody else has deleted it from Redis".to_owned()),
        Slot::Leased | Slot::Absent => Err("it is no image".to_owned()),
    }
}
