//! The handle of the memory log: its writing and its reading face.

use std::{fmt, sync::Arc, time::Duration};

use model::Topic;

use super::{MemoryLogOptions, MemorySource};
use crate::{
    in_process::{Drained, Limits, Records, Room, Shared, deleted, follow},
    log::{
        Committed, EventPublisher, Following, LogError, LogReader, LogRecord, LogSettings, Outgoing, PublishError,
        TopicPartition,
    },
};

struct Inner {
    options: MemoryLogOptions,
    limits: Limits,
    shared: Arc<Shared>,
}

/// The log in memory: [`EventPublisher`] and [`LogReader`]; [`MemoryLog::member`] makes a member of the drain group.
/// Clones are the same log.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Inner>,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(MemoryLogOptions::default())
    }
}

impl MemoryLog {
    /// An empty log without topics.
    pub fn new(options: MemoryLogOptions) -> Self {
        let limits = Limits { log_bytes: options.max_log_bytes, message_bytes: options.max_message_bytes };
        Self { inner: Arc::new(Inner { options, limits, shared: Arc::new(Shared::new(Records::default())) }) }
    }

    /// Joins the drain group as a new member; `name` is for the logs. Dropped without
    /// [`EventSource::close`](crate::EventSource::close) it has died: it commits nothing more, and its partitions go to
    /// others after the session timeout.
    pub fn member(&self, name: &str) -> MemorySource {
        MemorySource::new(name, &self.inner.options, &self.inner.shared)
    }

    /// Loses the last records of a partition, as many as that and not what is drained: as Kafka may in a power cut, which
    /// forces nothing to the disk. Members that live go on behind it; a power cut kills them, too.
    pub fn lose_last(&self, partition: &TopicPartition, many: usize) {
        self.inner.shared.state().records.lose_last(partition, many);
    }

    /// Undrained bytes now, and the most there may be.
    pub fn fill(&self) -> (u64, u64) {
        (self.inner.shared.state().records.undrained_bytes(), self.inner.options.max_log_bytes)
    }
}

impl EventPublisher for MemoryLog {
    fn is_available(&self) -> bool {
        true
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        let undrained = self.inner.shared.state().records.undrained_bytes();
        self.inner.limits.have_room(undrained, records, bytes)
    }

    fn max_payload_bytes(&self) -> usize {
        self.inner.options.max_message_bytes.saturating_sub(model::MAX_KEY_BYTES)
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, _settings: LogSettings) -> Result<(), LogError> {
        {
            let topics = &mut self.inner.shared.state().records.topics;
            Records::check_topic(topic, topics.get(topic).copied(), partitions)?;
            topics.insert(topic.clone(), partitions);
        }
        self.inner.shared.changed();
        Ok(())
    }

    async fn publish(&self, outgoing: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        let append = |record: &Outgoing| {
            let records = &mut self.inner.shared.state().records;
            records.admit(record, records.held(), &self.inner.limits)?;
            Ok(records.append(record))
        };
        let answers = outgoing.iter().map(append).collect();
        self.inner.shared.changed();
        answers
    }

    async fn flush(&self, _within: Duration) {}
}

impl LogReader for MemoryLog {
    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, LogError> {
        let records = &self.inner.shared.state().records;
        partitions
            .iter()
            .map(|partition| records.bounds(partition).ok_or_else(|| LogError::NoSuchTopic(partition.topic.clone())))
            .collect()
    }

    async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        let records = &self.inner.shared.state().records;
        Ok(partitions.iter().map(|partition| records.committed(partition)).collect())
    }

    async fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> Result<(), LogError> {
        let mut position = from;
        while position < to {
            let mut chunk = Vec::new();
            let next = {
                let records = &self.inner.shared.state().records;
                let bounds = records.bounds(partition);
                records.copy(partition, position, to, &mut Room::default(), &mut chunk)?;
                bounds.ok_or_else(|| LogError::NoSuchTopic(partition.topic.clone()))?.1
            };
            if chunk.is_empty() {
                let TopicPartition { topic, partition } = partition;
                return Err(LogError::Unavailable(format!(
                    "{topic}/{partition} ends at offset {next} now, before {to}"
                )));
            }
            position += chunk.len() as i64;
            for record in chunk {
                if !each(record) {
                    return Ok(());
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn follow(&self, from: Vec<(TopicPartition, i64)>) -> Following {
        follow(Arc::clone(&self.inner.shared), Forgotten, from)
    }
}

/// What is drained and not kept is gone.
struct Forgotten;

impl Drained for Forgotten {
    async fn read(&self, partition: &TopicPartition, from: i64) -> Result<Vec<LogRecord>, LogError> {
        Err(deleted(partition, from + 1, from))
    }
}
