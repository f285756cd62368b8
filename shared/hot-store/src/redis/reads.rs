//! Reads of many shards at once.

use std::collections::BTreeSet;

use super::{
    records::{RECORDS_PER_CALL, answer_of},
    reply::Reply,
    scripts,
    store::RedisStore,
};
use crate::{Answer, HotStoreError, RecordId, Slot};
use model::Shard;

/// What is still to be read of a group.
struct Rest<'a> {
    /// Its place among the groups.
    at: usize,
    shard: Shard,
    records: &'a [RecordId],
}

impl RedisStore {
    /// All groups in one pipeline; what found no room in its share of the bytes in another one, until the bytes are used up.
    pub(super) async fn read_groups(
        &self,
        groups: &[(Shard, Vec<RecordId>)],
        max_bytes: usize,
    ) -> Vec<Result<Answer, HotStoreError>> {
        let mut answers: Vec<Option<Result<Answer, HotStoreError>>> = groups.iter().map(|_| None).collect();
        let all = groups.iter().enumerate();
        let mut rest: Vec<Rest<'_>> = all.map(|(at, (shard, records))| Rest { at, shard: *shard, records }).collect();
        let mut left = max_bytes;
        loop {
            let read = self.read_parts(&rest, left / rest.len().max(1)).await;
            let mut again = Vec::new();
            for (Rest { at, shard, records }, part) in rest.into_iter().zip(read) {
                let (bytes, answer) = match part {
                    Ok(part) => part,
                    // What was read of it before is of no use without the rest: it may be of another epoch.
                    Err(error) => {
                        answers[at] = Some(Err(error));
                        continue;
                    }
                };
                left = left.saturating_sub(bytes);
                let slots = answer.slots.len();
                match join(answers[at].take(), answer, shard) {
                    Ok(joined) => {
                        answers[at] = Some(Ok(joined));
                        if slots < records.len() {
                            again.push(Rest { at, shard, records: &records[slots..] });
                        }
                    }
                    Err(error) => answers[at] = Some(Err(error)),
                }
            }
            rest = again;
            if rest.is_empty() || left == 0 {
                break;
            }
        }
        let never_asked = || Err(HotStoreError::Unavailable("it was not asked".to_owned()));
        answers.into_iter().map(|answer| answer.unwrap_or_else(never_asked)).collect()
    }

    /// One script call per group, all in one pipeline on one connection: the first records of each that fit into `bytes`,
    /// and one record at least. With the bytes that they have.
    async fn read_parts(&self, rest: &[Rest<'_>], bytes: usize) -> Vec<Result<(usize, Answer), HotStoreError>> {
        let mut calls = Vec::with_capacity(rest.len());
        let mut first = true;
        for Rest { shard, records, .. } in rest {
            calls.push(self.keys(*shard).map(|keys| {
                let records = &records[..records.len().min(RECORDS_PER_CALL)];
                let mut call = scripts::READ.call(2 + records.len()).arg(&keys.header).arg(&keys.dirty);
                for record in records {
                    call.push(keys.record(record));
                }
                let always = first && !records.is_empty();
                first &= !always;
                call.arg(bytes).arg(u8::from(always))
            }));
        }
        let sendable: Vec<_> = calls.iter().filter_map(|call| call.as_ref().ok()).collect();
        // Which connection is all the same to a read. Not always the same one, or it alone would bear all of these.
        let shards: BTreeSet<Shard> = rest.iter().map(|rest| rest.shard).collect();
        let mut replies = match shards.first() {
            Some(shard) => self.link(*shard).call_all(&sendable).await.into_iter(),
            None => Vec::new().into_iter(),
        };
        let mut read = Vec::with_capacity(rest.len());
        for (Rest { shard, .. }, call) in rest.iter().zip(&calls) {
            read.push(match call {
                Err(error) => Err(error.clone()),
                Ok(_) => match replies.next() {
                    Some(Ok(value)) => Reply::new(*shard, value).and_then(|mut reply| {
                        let bytes = reply.payload_bytes();
                        Ok((bytes, answer_of(&mut reply, None)?))
                    }),
                    Some(Err(error)) => Err(error),
                    None => Err(HotStoreError::Unavailable("a call of a pipeline has no answer".to_owned())),
                },
            });
        }
        read
    }
}

/// What was read of a group by and by.
fn join(before: Option<Result<Answer, HotStoreError>>, answer: Answer, shard: Shard) -> Result<Answer, HotStoreError> {
    match before {
        Some(Ok(before)) if before.epoch != answer.epoch => Err(HotStoreError::Closed { shard }),
        Some(Ok(before)) => {
            let slots: Vec<Slot> = before.slots.into_iter().chain(answer.slots).collect();
            Ok(Answer { slots, removed: before.removed.max(answer.removed), epoch: answer.epoch })
        }
        Some(Err(error)) => Err(error),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::Epoch;

    use super::*;

    #[test]
    fn what_is_removed_between_two_parts_is_not_overlooked() {
        let part = |removed| Answer { epoch: Epoch(1), removed, slots: vec![Slot::Empty] };
        let both = join(Some(Ok(part(5))), part(6), Shard(1)).unwrap();
        assert_eq!(
            both.removed, 6,
            "who looked at 5 before must not take the second slot for one that was always empty"
        );
        assert_eq!(both.slots.len(), 2);
    }
}
