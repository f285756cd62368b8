//! The traits, and what goes into and comes out of their calls.

use std::{future::Future, ops::Range, time::Duration};

use bytes::Bytes;
use futures::stream::BoxStream;
use model::{Epoch, Topic};

/// A partition of a topic. Its number is the number of the shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Topic,
    /// The partition; equals the shard's number.
    pub partition: u16,
}

/// A record to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to; the partition is set explicitly.
    pub to: TopicPartition,
    /// The record key: the canonical bytes of the primary key; empty for a fence.
    pub key: Bytes,
    /// The encoded event.
    pub payload: Bytes,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it lies.
    pub from: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// The record key.
    pub key: Bytes,
    /// The encoded event.
    pub payload: Bytes,
}

/// How far a partition has been worked off: the offset of the next record, and the epoch in force there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// The offset of the first record that is not done.
    pub offset: i64,
    /// The epoch in force just before it.
    pub epoch: Epoch,
}

impl Progress {
    /// Where every partition begins: before its first record, and before the first fence.
    pub const BEGINNING: Self = Self { offset: 0, epoch: Epoch::ZERO };
}

/// What the drain group has committed of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// How far it is drained.
    pub done: Progress,
    /// How far it was drained at least one request window ago, or the earliest that is known of it: who reads from here
    /// on meets every request of the window. Never past `done`. The log keeps what lies between, unless it deletes by
    /// age.
    pub window: Progress,
}

/// Why a record was not acknowledged by the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It is certainly not in the log and never will be.
    #[error("the event log refused the record: {0}")]
    Refused(String),
    /// It may be in the log, or may still get there.
    #[error("the event log did not acknowledge the record: {0}; the outcome is unknown")]
    Unknown(String),
    /// It is larger than the log takes.
    #[error("the record has {bytes} bytes, more than the event log takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Why a call to the log failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It can't be reached, or did not answer in time. Trying again may help.
    #[error("the event log can't be reached: {0}")]
    Unavailable(String),
    /// There is no such topic.
    #[error("the event log has no topic {0}; enable the table again to have it made")]
    NoSuchTopic(Topic),
    /// It has been set up in a way that would break a promise.
    #[error("the event log is not fit for use: {0}")]
    Unfit(String),
    /// This member was fenced, or the log's files are damaged: it has to be started again.
    #[error("the event log refuses this process: {0}")]
    Fatal(String),
}

/// What is to be checked of a topic before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// One node is explicitly allowed: replication below 3 and min.insync.replicas below 2.
    pub allow_single_node: bool,
}

/// The writing face.
pub trait EventPublisher: Send + Sync + 'static {
    /// Whether the log is believed to take records now; cheap, no I/O. While it says no, a write that needs the log
    /// is refused before anything is touched.
    fn is_available(&self) -> bool;

    /// Whether there is room for so many more records, with so many bytes of keys and payloads in all; cheap, no I/O.
    /// While it says no, a write that needs the log is refused before anything is touched. It says no a little before
    /// the log is full: so there is room for those who asked before and have not published yet, and for fences.
    fn has_room(&self, records: usize, bytes: usize) -> bool;

    /// The largest payload that the log takes, in bytes. Topics of dead letters take somewhat larger ones
    /// ([`model::DeadLetter::MAX_OVERHEAD_BYTES`]).
    fn max_payload_bytes(&self) -> usize;

    /// Makes the topic if there is none, and checks its settings (delete, not compact; replication; min.insync;
    /// unclean election off; of dead letters, that they are kept for ever) and its number of partitions.
    fn ensure_topic(
        &self,
        topic: &Topic,
        partitions: u16,
        settings: LogSettings,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Appends records, each durably (acks=all), those of one partition in the given order; answers in the order
    /// of the arguments, with the offset of each.
    fn publish(&self, records: Vec<Outgoing>) -> impl Future<Output = Vec<Result<i64, PublishError>>> + Send;

    /// Waits until everything handed over has been acknowledged or given up, at most so long.
    fn flush(&self, within: Duration) -> impl Future<Output = ()> + Send;
}

/// Records as they are appended: never an empty list, in order per partition, none left out. It ends with its first error,
/// and never otherwise; dropping it ends the reading.
pub type Following = BoxStream<'static, Result<Vec<LogRecord>, LogError>>;

/// The reading face for those who are in no group: checkpoints, openings, and who watches.
pub trait LogReader: Send + Sync + 'static {
    /// The first offset that the log still has and the offset of the next record to come, per partition. What an
    /// aborted or open transaction hides counts as there.
    fn bounds(&self, partitions: &[TopicPartition]) -> impl Future<Output = Result<Vec<(i64, i64)>, LogError>> + Send;

    /// The same for each partition by itself, within seconds: one without a leader or a topic costs no other one its
    /// answer.
    fn bounds_of_each(
        &self,
        partitions: &[TopicPartition],
    ) -> impl Future<Output = Vec<Result<(i64, i64), LogError>>> + Send {
        async move {
            match self.bounds(partitions).await {
                Ok(bounds) => bounds.into_iter().map(Ok).collect(),
                Err(LogError::NoSuchTopic(_)) => {
                    let mut answers = Vec::with_capacity(partitions.len());
                    for partition in partitions {
                        let bounds = self.bounds(std::slice::from_ref(partition)).await;
                        let none = || LogError::Unavailable("no answer came back".into());
                        answers.push(bounds.and_then(|bounds| bounds.first().copied().ok_or_else(none)));
                    }
                    answers
                }
                Err(error) => partitions.iter().map(|_| Err(error.clone())).collect(),
            }
        }
    }

    /// What the drain group has committed.
    fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> impl Future<Output = Result<Vec<Option<Committed>>, LogError>> + Send;

    /// An offset of each partition behind which, or at which, everything lies that was appended at that time or later, in
    /// milliseconds since 1970. A log that keeps no times answers where its partitions begin.
    fn first_since(
        &self,
        partitions: &[TopicPartition],
        millis: i64,
    ) -> impl Future<Output = Result<Vec<i64>, LogError>> + Send {
        async move {
            let _ = millis;
            Ok(self.bounds(partitions).await?.into_iter().map(|(first, _)| first).collect())
        }
    }

    /// Reads a partition from `from` up to, not including, `to`: calls `each` for the records in order, none left out:
    /// where one does not come the reading fails. `each` breaks off by `false`. Only a record at `to - 1` or behind it proves that all were read, so one must be there: an opening
    /// appends a fence, and reads up to that.
    fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// What lies in these partitions from these offsets on, and what will be appended to them, for as long as somebody
    /// listens; no faster than it is taken. An offset that the log no longer has, or does not have yet, is an error.
    fn follow(&self, from: Vec<(TopicPartition, i64)>) -> Following;
}

/// A partition that a group member got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which.
    pub partition: TopicPartition,
    /// From where it goes on; `None`: nothing was ever committed, it starts at the log's beginning with epoch 0.
    pub committed: Option<Progress>,
}

/// What happens to a group member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    /// Records of assigned partitions, in order per partition. At least one.
    Records(Vec<LogRecord>),
    /// Records of an assigned partition that can't be had, though they were asked for twice and later ones are there. The
    /// next record of the partition is the one behind them.
    Missing(TopicPartition, Range<i64>),
    /// New partitions; their records come after this. Others stay.
    Assigned(Vec<Assignment>),
    /// Partitions that go to others; the noted progress has been committed. No record of them comes after this.
    Revoked(Vec<TopicPartition>),
    /// Partitions that others have already; nothing was or may be committed for them.
    Lost(Vec<TopicPartition>),
}

/// The face of one member of the drain group.
pub trait EventSource: Send + 'static {
    /// Subscribes to exactly these topics from now on.
    fn subscribe(&mut self, topics: &[Topic]) -> impl Future<Output = Result<(), LogError>> + Send;

    /// The next thing that happens. Must be called all the time, also while everything is paused: that is what
    /// keeps the membership. Cancel-safe.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while calling again may help; a member that has ended says [`LogError::Fatal`] from
    /// then on.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, LogError>> + Send;

    /// Stops the delivery of these partitions. Records that were already on their way may still come.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Goes on where delivery was stopped; nothing is left out.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Notes how far assigned partitions are done. Committed on a timer, before a partition is given up, and at
    /// [`EventSource::close`]; never for a lost one.
    fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]);

    /// Commits what was noted and leaves the group, at most so long.
    fn close(self, within: Duration) -> impl Future<Output = Result<(), LogError>> + Send;
}
