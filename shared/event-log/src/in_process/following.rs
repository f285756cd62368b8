//! Following a log within one process as it grows.

use std::{future::Future, sync::Arc};

use futures::{StreamExt as _, stream};

use super::{Room, Shared, ended, records::deleted};
use crate::log::{Following, LogError, LogRecord, TopicPartition};

/// Where records are read that are drained, and no longer in memory.
pub(crate) trait Drained: Send + 'static {
    /// Some records of a partition from an offset on, or from behind it, if that is not kept any more.
    fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
    ) -> impl Future<Output = Result<Vec<LogRecord>, LogError>> + Send;
}

/// See [`LogReader::follow`](crate::LogReader::follow).
pub(crate) fn follow<D: Drained>(shared: Arc<Shared>, drained: D, from: Vec<(TopicPartition, i64)>) -> Following {
    let follower = Follower { shared, drained, positions: from, turn: 0 };
    stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(records) => Some((Ok(records), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Follower<D> {
    shared: Arc<Shared>,
    drained: D,
    /// The offset of the next record of each.
    positions: Vec<(TopicPartition, i64)>,
    /// Where the next delivery begins, so that a busy partition starves no other.
    turn: usize,
}

impl<D: Drained> Follower<D> {
    async fn next(&mut self) -> Result<Vec<LogRecord>, LogError> {
        loop {
            if self.shared.has_ended() {
                return Err(ended());
            }
            // Counted before the look, so that nothing is missed.
            let seen = self.shared.changes();
            let (mut records, behind) = self.look()?;
            if let (true, Some(at)) = (records.is_empty(), behind) {
                let (partition, from) = &self.positions[at];
                records = self.drained.read(partition, *from).await?;
                match records.first() {
                    Some(record) if record.offset == *from => {}
                    // What was drained meanwhile is not in memory any more, and not all of it is in the file either.
                    Some(record) => return Err(deleted(partition, record.offset, *from)),
                    None => return Err(deleted(partition, *from + 1, *from)),
                }
            }
            if records.is_empty() {
                self.shared.changed_since(seen).await;
                continue;
            }
            for record in &records {
                if let Some((_, next)) = self.positions.iter_mut().find(|(partition, _)| *partition == record.from) {
                    *next = record.offset + 1;
                }
            }
            return Ok(records);
        }
    }

    /// What memory holds, and the place of a partition that goes on before that.
    fn look(&mut self) -> Result<(Vec<LogRecord>, Option<usize>), LogError> {
        let records = &self.shared.state().records;
        let (mut found, mut room, mut behind) = (Vec::new(), Room::default(), None);
        let count = self.positions.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let (partition, from) = &self.positions[at];
            let (first, next) =
                records.bounds(partition).ok_or_else(|| LogError::NoSuchTopic(partition.topic.clone()))?;
            if *from > next {
                let TopicPartition { topic, partition } = partition;
                return Err(LogError::Unfit(format!("{topic}/{partition} ends at offset {next} now, before {from}")));
            }
            if *from < first {
                behind = behind.or(Some(at));
            } else {
                records.copy(partition, *from, next, &mut room, &mut found)?;
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        Ok((found, behind))
    }
}
