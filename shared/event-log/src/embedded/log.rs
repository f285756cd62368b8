//! The handle of the embedded log: its writing and its reading face.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use model::Topic;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    options::EmbeddedOptions,
    round::{Job, Reading},
    source::EmbeddedSource,
    writer::{self, Opened},
};
use crate::{
    in_process::{Drained, Limits, Room, deleted, ended, follow},
    log::{
        Committed, EventPublisher, Following, LogError, LogReader, LogRecord, LogSettings, Outgoing, PublishError,
        TopicPartition,
    },
};

/// Jobs that wait for the writer.
const WAITING_JOBS: usize = 1024;
/// Bytes of records that wait for the writer.
const WAITING_BYTES: usize = 64 << 20;

struct Inner {
    options: EmbeddedOptions,
    jobs: mpsc::Sender<Job>,
    waiting_bytes: Arc<Semaphore>,
    opened: Opened,
}

/// The embedded log: [`EventPublisher`] and [`LogReader`]; [`EmbeddedLog::join`] makes a member of the drain group.
/// Cheap to clone; it ends when it is closed, or with its last handle and member.
#[derive(Clone)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Locks the directory, opens the file, and checks all that is in it.
    ///
    /// # Errors
    /// [`LogError::Fatal`] if another process has the directory, or the file is damaged or can't be used.
    pub async fn open(options: EmbeddedOptions) -> Result<Self, LogError> {
        let (jobs, received) = mpsc::channel(WAITING_JOBS);
        let (opened, outcome) = oneshot::channel();
        let for_writer = options.clone();
        let no_thread = |error: std::io::Error| LogError::Unavailable(format!("no thread for the event log: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        thread::Builder::new()
            .name("event-log-writer".into())
            .spawn(move || runtime.block_on(writer::run(for_writer, received, opened)))
            .map_err(no_thread)?;
        let opened = outcome.await.unwrap_or_else(|_| Err(ended()))?;
        let waiting_bytes = Arc::new(Semaphore::new(WAITING_BYTES));
        Ok(Self { inner: Arc::new(Inner { options, jobs, waiting_bytes, opened }) })
    }

    /// Joins the drain group as a new member; `name` is for the logs.
    pub fn join(&self, name: &str) -> EmbeddedSource {
        EmbeddedSource::new(name, &self.inner.options, &self.inner.opened.shared, self.inner.jobs.clone())
    }

    /// Undrained bytes now, and the most there may be.
    pub fn fill(&self) -> (u64, u64) {
        (self.inner.opened.shared.state().records.undrained_bytes(), self.inner.options.max_log_bytes)
    }

    /// Reads records that are drained: the next ones that the file holds together.
    async fn read_drained(&self, partition: &TopicPartition, from: i64) -> Result<Vec<LogRecord>, LogError> {
        let (done, outcome) = oneshot::channel();
        let reading = Reading { partition: partition.clone(), from, done };
        self.inner.jobs.send(Job::Read(reading)).await.map_err(|_| ended())?;
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Does what was asked before, then closes the file and unlocks the directory. Other handles refuse everything
    /// afterwards.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.inner.jobs.send(Job::Close { done }).await.is_ok() {
            // An answer that doesn't come means that the writer has ended already.
            let _ = closed.await;
        }
    }
}

impl EventPublisher for EmbeddedLog {
    fn is_available(&self) -> bool {
        !self.inner.opened.shared.has_ended()
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        let Inner { options, opened, waiting_bytes, .. } = &*self.inner;
        let waiting = (WAITING_BYTES - waiting_bytes.available_permits()) as u64;
        let undrained = opened.shared.state().records.undrained_bytes();
        let in_file = opened.file_bytes.load(Ordering::Relaxed);
        [(undrained, options.max_log_bytes), (in_file, options.max_file_bytes())].into_iter().all(|(used, most)| {
            let limits = Limits { log_bytes: most, message_bytes: options.max_message_bytes };
            limits.have_room(used + waiting, records, bytes)
        })
    }

    fn max_payload_bytes(&self) -> usize {
        self.inner.options.max_message_bytes.saturating_sub(model::MAX_KEY_BYTES)
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, _settings: LogSettings) -> Result<(), LogError> {
        let (done, outcome) = oneshot::channel();
        let job = Job::EnsureTopic { topic: topic.clone(), partitions, done };
        self.inner.jobs.send(job).await.map_err(|_| ended())?;
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }

    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        let count = records.len();
        let refused = || vec![Err(PublishError::Refused(ended().to_string())); count];
        if count == 0 {
            return Vec::new();
        }
        let bytes: usize = records.iter().map(|record| record.key.len() + record.payload.len()).sum();
        let permits = u32::try_from(bytes.clamp(1, WAITING_BYTES)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.inner.waiting_bytes).acquire_many_owned(permits).await else {
            return refused();
        };
        let (done, outcome) = oneshot::channel();
        if self.inner.jobs.send(Job::Append { records, done, permit }).await.is_err() {
            return refused();
        }
        outcome.await.unwrap_or_else(|_| vec![Err(PublishError::Unknown(ended().to_string())); count])
    }

    async fn flush(&self, within: Duration) {
        let flushed = async {
            let (done, outcome) = oneshot::channel();
            if self.inner.jobs.send(Job::Barrier { done }).await.is_ok() {
                // No answer: the writer has ended, and with it everything that waited.
                let _ = outcome.await;
            }
        };
        if tokio::time::timeout(within, flushed).await.is_err() {
            tracing::warn!(?within, "the embedded event log did not get everything to the disk in time");
        }
    }
}

impl LogReader for EmbeddedLog {
    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, LogError> {
        let records = &self.inner.opened.shared.state().records;
        // What is drained is kept in the file until the window has passed it.
        let low = |partition, first| records.committed(partition).map_or(first, |committed| committed.window.offset);
        partitions
            .iter()
            .map(|partition| {
                let bounds = records.bounds(partition).map(|(first, next)| (low(partition, first), next));
                bounds.ok_or_else(|| LogError::NoSuchTopic(partition.topic.clone()))
            })
            .collect()
    }

    async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        let records = &self.inner.opened.shared.state().records;
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
            let (first, next) = {
                let records = &self.inner.opened.shared.state().records;
                let (first, next) =
                    records.bounds(partition).ok_or_else(|| LogError::NoSuchTopic(partition.topic.clone()))?;
                if position >= first {
                    records.copy(partition, position, to, &mut Room::default(), &mut chunk)?;
                }
                (first, next)
            };
            if position < first {
                chunk = self.read_drained(partition, position).await?;
                chunk.retain(|record| record.offset < to);
                let begins = chunk.first().map_or(first, |record| record.offset);
                if begins != position {
                    return Err(deleted(partition, begins, position));
                }
            }
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
        follow(Arc::clone(&self.inner.opened.shared), self.clone(), from)
    }
}

impl Drained for EmbeddedLog {
    async fn read(&self, partition: &TopicPartition, from: i64) -> Result<Vec<LogRecord>, LogError> {
        self.read_drained(partition, from).await
    }
}
