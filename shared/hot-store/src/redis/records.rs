//! The calls that concern records.

use std::time::Duration;

use bytes::Bytes;
use model::{Epoch, Namespace, Shard, Version};
use tokio::time::Instant;

use super::{
    halts::halt_of,
    indexes::index_argument,
    keys::record_of_name,
    reply::Reply,
    scripts,
    store::RedisStore,
    value::{self, Validity, slot_of},
};
use crate::{
    Answer, Backlog, Clean, CleanOutcome, Dirty, DirtyRecord, Eviction, Fill, HotStoreError, LeaseOutcome, LeaseToken,
    Precondition, RecordId, ShardHeader, Slot, Stamp, Write, WriteOutcome,
};

/// Records of one script call: it keeps a call within the stack of Redis's Lua, and short for everybody else.
pub(super) const RECORDS_PER_CALL: usize = 1000;
/// Payload bytes of one script call.
const BYTES_PER_CALL: usize = 16 << 20;

/// Splits so that no part has too many records or bytes. Nearly always there is one part.
pub(super) fn calls<T>(items: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let (mut part, mut part_bytes) = (Vec::new(), 0);
    for item in items {
        let more = bytes(&item);
        if part.len() == RECORDS_PER_CALL || (part_bytes + more > BYTES_PER_CALL && !part.is_empty()) {
            parts.push(std::mem::take(&mut part));
            part_bytes = 0;
        }
        part_bytes += more;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// TTLs are kept in milliseconds, and Redis knows no TTL of 0.
pub(super) fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 52)
}

/// A write with its payload encoded.
struct EncodedWrite {
    record: RecordId,
    condition: Vec<u8>,
    payload: Bytes,
    index: Option<Vec<u8>>,
}

impl EncodedWrite {
    fn new(write: Write) -> Self {
        let kind = value::kind_of(&write.image);
        let condition = match write.precondition {
            Precondition::None => format!("{kind}n"),
            Precondition::Absent => format!("{kind}a"),
            Precondition::AbsentFromStore => format!("{kind}s"),
            Precondition::Present => format!("{kind}p"),
            Precondition::At { version, epoch } => format!("{kind}@{:016}{:010}", version.get(), epoch.0),
            Precondition::Parked { version, epoch } => format!("{kind}k{:016}{:010}", version.get(), epoch.0),
        };
        let mut condition = condition.into_bytes();
        if let Some(request) = &write.image.request {
            condition.extend_from_slice(request.digest.as_bytes());
            condition.extend_from_slice(request.id.as_str().as_bytes());
        }
        let index = write.index.as_ref().map(index_argument);
        Self { record: write.record, condition, payload: value::payload_of(write.image), index }
    }
}

impl RedisStore {
    pub(super) async fn write_records(
        &self,
        shard: Shard,
        asked: Instant,
        writes: Vec<Write>,
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        let writes: Vec<EncodedWrite> = writes.into_iter().map(EncodedWrite::new).collect();
        let mut outcomes = Vec::with_capacity(writes.len());
        for part in calls(writes, |write| write.payload.len()) {
            match self.write_part(shard, asked, &part).await {
                Ok(written) => outcomes.extend(written),
                Err(error) if outcomes.is_empty() => return Err(error),
                // "Nothing was done" would be wrong for what went before.
                Err(error) => {
                    return Err(HotStoreError::Unknown(format!(
                        "the call broke off after {}: {error}",
                        outcomes.len()
                    )));
                }
            }
        }
        Ok(outcomes)
    }

    async fn write_part(
        &self,
        shard: Shard,
        asked: Instant,
        writes: &[EncodedWrite],
    ) -> Result<Vec<WriteOutcome>, HotStoreError> {
        let keys = self.keys(shard)?;
        let not_after = self.not_after(shard, asked).await?;
        let mut call = scripts::WRITE.call(3 + writes.len()).arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued);
        for write in writes {
            call.push(keys.record(&write.record));
        }
        call.push(self.request_window());
        call.push(not_after);
        for write in writes {
            call.push(&write.condition[..]);
            call.push(&write.payload[..]);
        }
        if writes.iter().any(|write| write.index.is_some()) {
            for write in writes {
                call.push(write.index.as_deref().unwrap_or_default());
            }
        }
        let answer = self.call(shard, call).await;
        if matches!(answer, Err(HotStoreError::Late)) {
            // Perhaps it is not late at all, but the server's clock was put forward.
            self.clock().forget();
        }
        let mut reply = answer?;
        let epoch = reply.epoch()?;
        self.clock().learn(reply.count()?);
        let outcomes = writes.iter().map(|_| write_outcome(&mut reply, epoch));
        outcomes.collect()
    }

    pub(super) async fn read_records(&self, shard: Shard, records: &[RecordId]) -> Result<Answer, HotStoreError> {
        let keys = self.keys(shard)?;
        let mut answer = Answer { epoch: Epoch::ZERO, removed: 0, slots: Vec::with_capacity(records.len()) };
        let mut parts = records.chunks(RECORDS_PER_CALL);
        // An empty call still answers whether the shard is open, and its epoch.
        let mut next = Some(parts.next().unwrap_or_default());
        while let Some(part) = next {
            let mut call = scripts::READ.call(2 + part.len()).arg(&keys.header).arg(&keys.dirty);
            for record in part {
                call.push(keys.record(record));
            }
            let mut reply = self.call(shard, call).await?;
            let read = answer_of(&mut reply, Some(part.len()))?;
            if !answer.slots.is_empty() && answer.epoch != read.epoch {
                return Err(HotStoreError::Closed { shard });
            }
            (answer.epoch, answer.removed) = (read.epoch, read.removed);
            answer.slots.extend(read.slots);
            next = parts.next();
        }
        Ok(answer)
    }

    pub(super) async fn mark_records_queued(
        &self,
        shard: Shard,
        epoch: Epoch,
        stamps: &[Stamp],
    ) -> Result<Vec<bool>, HotStoreError> {
        let keys = self.keys(shard)?;
        let mut marked = Vec::with_capacity(stamps.len());
        // Without any stamps the epoch is asked for all the same.
        let first = stamps.len().min(RECORDS_PER_CALL);
        let (first, rest) = stamps.split_at(first);
        for part in std::iter::once(first).chain(rest.chunks(RECORDS_PER_CALL)) {
            let mut call = scripts::MARK_QUEUED.call(2 + part.len()).arg(&keys.header).arg(&keys.unqueued);
            for stamp in part {
                call.push(keys.record(&stamp.record));
            }
            call.push(epoch.0);
            for stamp in part {
                call.push(stamp.version.get());
            }
            let flags = self.call(shard, call).await?.flags(part.len())?;
            marked.extend(flags.iter().map(|&flag| flag == b'1'));
        }
        Ok(marked)
    }

    pub(super) async fn lease_record(
        &self,
        shard: Shard,
        record: &RecordId,
        ttl: Duration,
    ) -> Result<LeaseOutcome, HotStoreError> {
        let keys = self.keys(shard)?;
        let token = LeaseToken(format!("{:032x}", rand::random::<u128>()));
        let call = scripts::LEASE.call(3).arg(&keys.header).arg(&keys.dirty).arg(keys.record(record));
        let mut reply = self.call(shard, call.arg(&token.0).arg(millis(ttl))).await?;
        if reply.is_word("GRANTED") {
            return Ok(LeaseOutcome::Granted(token));
        }
        let valid = Validity { epoch: reply.epoch()?, lowest: reply.epoch()? };
        let dirty = reply.flags(1)?;
        Ok(LeaseOutcome::Taken(slot(&mut reply, dirty[0], valid)?))
    }

    pub(super) async fn fill_record(
        &self,
        shard: Shard,
        record: &RecordId,
        token: &LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> Result<bool, HotStoreError> {
        let keys = self.keys(shard)?;
        let (kind, version, payload) = match fill {
            Fill::Image { version, image } => (value::kind_of(&image), version, value::payload_of(image)),
            Fill::Absent => ("A", Version::ZERO, Bytes::new()),
            Fill::Nothing => ("N", Version::ZERO, Bytes::new()),
        };
        let call = scripts::FILL.call(2).arg(&keys.header).arg(keys.record(record)).arg(&token.0);
        let call = call.arg(kind).arg(version.get()).arg(&payload[..]).arg(millis(ttl));
        Ok(self.call(shard, call).await?.int()? == 1)
    }

    pub(super) async fn mark_records_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> Result<Vec<CleanOutcome>, HotStoreError> {
        let keys = self.keys(shard)?;
        let cleans: Vec<(RecordId, Version, &str, Bytes)> = cleans
            .into_iter()
            .map(|Clean { record, version, newer }| match newer {
                Some(image) => (record, version, value::kind_of(&image), value::payload_of(image)),
                None => (record, version, "", Bytes::new()),
            })
            .collect();
        let mut outcomes = Vec::with_capacity(cleans.len());
        for part in calls(cleans, |(.., payload)| payload.len()) {
            let mut call =
                scripts::MARK_CLEAN.call(3 + part.len()).arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued);
            for (record, ..) in &part {
                call.push(keys.record(record));
            }
            call.push(millis(ttl));
            for (_, version, kind, payload) in &part {
                call.push(version.get());
                call.push(kind);
                call.push(&payload[..]);
            }
            let mut reply = self.call(shard, call).await?;
            for outcome in reply.flags(part.len())? {
                outcomes.push(match outcome {
                    b'c' => CleanOutcome::Cleaned,
                    b'n' => CleanOutcome::Newer,
                    b'g' => CleanOutcome::Gone,
                    other => return Err(reply.corrupt(format!("outcome {other} of a mark is not known"))),
                });
            }
        }
        Ok(outcomes)
    }

    pub(super) async fn evict_records(
        &self,
        shard: Shard,
        records: &[RecordId],
    ) -> Result<Vec<Eviction>, HotStoreError> {
        let keys = self.keys(shard)?;
        let mut evictions = Vec::with_capacity(records.len());
        // An empty call still answers whether the shard is open.
        let first = records.len().min(RECORDS_PER_CALL);
        let (first, rest) = records.split_at(first);
        for part in std::iter::once(first).chain(rest.chunks(RECORDS_PER_CALL)) {
            let mut call = scripts::EVICT.call(2 + part.len()).arg(&keys.header).arg(&keys.dirty);
            for record in part {
                call.push(keys.record(record));
            }
            let mut reply = self.call(shard, call).await?;
            for outcome in reply.flags(part.len())? {
                evictions.push(match outcome {
                    b'e' => Eviction::Evicted,
                    b'n' => Eviction::NotHeld,
                    b'u' => Eviction::Undrained,
                    b'p' => Eviction::Parked,
                    other => return Err(reply.corrupt(format!("outcome {other} of an eviction is not known"))),
                });
            }
        }
        Ok(evictions)
    }

    pub(super) async fn list_dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> Result<(Epoch, Vec<DirtyRecord>), HotStoreError> {
        let keys = self.keys(shard)?;
        let set = match which {
            Dirty::Unqueued => &keys.unqueued,
            Dirty::All => &keys.dirty,
        };
        self.list(shard, set, after, limit, dirty_record).await
    }

    /// A page of a set of records by version: what `read` makes of each name and value.
    pub(super) async fn list<T>(
        &self,
        shard: Shard,
        set: &str,
        after: Version,
        limit: usize,
        read: impl Fn(Option<&Bytes>, Option<Bytes>, Epoch) -> Result<T, String>,
    ) -> Result<(Epoch, Vec<T>), HotStoreError> {
        let keys = self.keys(shard)?;
        let limit = limit.min(RECORDS_PER_CALL);
        let mut after = after;
        loop {
            let call = scripts::DIRTY.call(2).arg(&keys.header).arg(set);
            let mut reply = self.call(shard, call.arg(&keys.record_prefix).arg(after.get()).arg(limit)).await?;
            let (epoch, last) = (reply.epoch()?, reply.version_or_none()?);
            let mut found = Vec::with_capacity(reply.len() / 2);
            while reply.len() > 0 {
                let (name, value) = (reply.bytes()?, reply.bytes()?);
                match read(name.as_ref(), value, epoch) {
                    Ok(record) => found.push(record),
                    // It must not keep the rest from being relayed.
                    Err(problem) => tracing::error!(
                        %shard, name = %name.unwrap_or_default().escape_ascii(), problem,
                        "a record that the database does not have can't be read",
                    ),
                }
            }
            match last {
                // An empty page would be taken for the end.
                Some(last) if found.is_empty() => after = last,
                _ => return Ok((epoch, found)),
            }
        }
    }

    pub(super) async fn read_backlog(
        &self,
        shard: Shard,
        namespaces: &[Namespace],
    ) -> Result<(Epoch, Vec<Backlog>), HotStoreError> {
        let mut call = scripts::BACKLOG.call(1).arg(&self.keys(shard)?.header);
        for namespace in namespaces {
            call.push(namespace.as_str());
        }
        let mut reply = self.call(shard, call).await?;
        let (epoch, clock) = (reply.epoch()?, reply.version()?);
        let backlogs = namespaces.iter().map(|_| {
            let (records, bytes, oldest) = (reply.count()?, reply.count()?, reply.version_or_none()?);
            let (parked, lowest_parked) = (reply.count()?, reply.version_or_none()?);
            let horizon = oldest.map_or(clock, Version::before);
            Ok(Backlog { records, bytes, oldest, horizon, parked, lowest_parked })
        });
        Ok((epoch, backlogs.collect::<Result<_, HotStoreError>>()?))
    }

    pub(super) async fn read_header(&self, shard: Shard) -> Result<ShardHeader, HotStoreError> {
        let keys = self.keys(shard)?;
        let call = scripts::HEADER.call(3).arg(&keys.header).arg(&keys.dirty).arg(&keys.unqueued);
        let mut reply = self.call(shard, call).await?;
        Ok(ShardHeader {
            open: reply.int()? == 1,
            epoch: reply.epoch()?,
            clock: reply.version()?,
            dirty: reply.count()?,
            unqueued: reply.count()?,
            oldest_dirty: reply.version_or_none()?,
            halt: halt_of(&mut reply)?,
        })
    }
}

/// What the script that reads has answered: of so many records, or, if that is not given, of as many as it says.
pub(super) fn answer_of(reply: &mut Reply, records: Option<usize>) -> Result<Answer, HotStoreError> {
    let valid = Validity { epoch: reply.epoch()?, lowest: reply.epoch()? };
    let removed = reply.count()?;
    let records = records.unwrap_or(reply.len().saturating_sub(1));
    let dirty = reply.flags(records)?;
    let slots = dirty.into_iter().map(|dirty| slot(reply, dirty, valid)).collect::<Result<_, _>>()?;
    Ok(Answer { epoch: valid.epoch, removed, slots })
}

fn slot(reply: &mut Reply, dirty: u8, valid: Validity) -> Result<Slot, HotStoreError> {
    let value = reply.bytes()?;
    slot_of(value, dirty == b'1', valid).map_err(|problem| reply.corrupt(problem))
}

/// A dirty record by its name and value; else what is wrong.
pub(super) fn dirty_record(name: Option<&Bytes>, value: Option<Bytes>, epoch: Epoch) -> Result<DirtyRecord, String> {
    let record = name.and_then(record_of_name).ok_or("its name is none of ours")?;
    // What is dirty is never void: an opening that discards empties the dirty set.
    match slot_of(value, true, Validity { epoch, lowest: Epoch::ZERO })? {
        Slot::Image { version, image, .. } => Ok(DirtyRecord { record, version, image }),
        Slot::Empty => Err("somebody else has deleted it from Redis".to_owned()),
        Slot::Leased | Slot::Absent => Err("it is no image".to_owned()),
    }
}

fn write_outcome(reply: &mut Reply, epoch: Epoch) -> Result<WriteOutcome, HotStoreError> {
    let (code, detail) = (reply.int()?, reply.version()?);
    Ok(match code {
        -1 => WriteOutcome::Exists,
        -2 => WriteOutcome::Missing,
        -3 => WriteOutcome::Changed,
        -4 => WriteOutcome::Cold,
        -5 => WriteOutcome::Repeated { version: detail, epoch: reply.epoch()?, current: epoch },
        -6 => WriteOutcome::Reused,
        -7 => WriteOutcome::Halted,
        version => {
            let version = u64::try_from(version).ok().and_then(Version::new);
            let version = version.ok_or_else(|| reply.corrupt(format!("outcome {code} of a write is not known")))?;
            WriteOutcome::Stored { version, epoch, since: (detail > Version::ZERO).then_some(detail) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_split_by_records_and_by_bytes() {
        let sizes = |items: Vec<usize>| calls(items, |&bytes| bytes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        assert_eq!(sizes(vec![1; 2500]), [1000, 1000, 500]);
        assert_eq!(sizes(vec![10 << 20, 10 << 20, 1 << 20]), [1, 2]);
        assert_eq!(sizes(vec![40 << 20, 1]), [1, 1]);
    }

    #[test]
    fn no_ttl_is_shorter_than_what_redis_can_keep() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(2500)), 2);
        assert_eq!(millis(Duration::MAX), 1 << 52);
    }
}
