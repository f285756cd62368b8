//! The reading face: bounds, committed offsets, and reading a range. None of it joins the group.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::mpsc;

use super::{
    bounds::{bounds, bounds_of_each, first_since},
    client::{QuietContext, REQUEST_TIMEOUT, blocking, drop_aside, failed, refused_settings, says_no_such_topic},
    commit::{committed_from, list},
    contiguous::{Contiguous, Met},
    options::KafkaOptions,
};
use crate::log::{Committed, LogError, LogRecord, TopicPartition};

/// A consumer of the drain group that subscribes to nothing: it may ask for what the group has committed.
pub(super) type GroupClient = BaseConsumer<QuietContext>;

/// The bounds of each partition by itself are asked for so long: who wants them so goes on with those that came.
const EACH_WITHIN: Duration = Duration::from_secs(4);
/// Consumers kept for the next reading.
const IDLE_READERS: usize = 4;
/// Records handed over at once.
const CHUNK_RECORDS: usize = 500;
/// Without a record, and without the end, for so long a reading fails.
const NO_PROGRESS: Duration = Duration::from_secs(15);

/// See the module.
pub(super) struct Reader {
    options: KafkaOptions,
    client: Arc<GroupClient>,
    idle: Arc<Mutex<Vec<GroupClient>>>,
}

impl Reader {
    pub(super) fn new(options: &KafkaOptions) -> Result<Self, LogError> {
        let client = Arc::new(new_client(options)?);
        Ok(Self { options: options.clone(), client, idle: Arc::default() })
    }

    pub(super) fn client(&self) -> &Arc<GroupClient> {
        &self.client
    }

    /// Waits until a broker answers.
    pub(super) async fn until_answered(&self) -> Result<(), LogError> {
        let (client, brokers) = (Arc::clone(&self.client), self.options.brokers.clone());
        blocking(move || match client.client().fetch_cluster_id(REQUEST_TIMEOUT) {
            Some(_) => Ok(()),
            None => Err(LogError::Unavailable(format!("no broker of {brokers} answers"))),
        })
        .await
    }

    /// First and next offsets, by one question per broker for each end.
    pub(super) async fn bounds(&self, partitions: Vec<TopicPartition>) -> Result<Vec<(i64, i64)>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let client = Arc::clone(&self.client);
        blocking(move || {
            serve(&client);
            bounds(&*client, &partitions)
        })
        .await
    }

    /// Where what was appended at that time or later begins.
    pub(super) async fn first_since(&self, partitions: Vec<TopicPartition>, millis: i64) -> Result<Vec<i64>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let client = Arc::clone(&self.client);
        blocking(move || {
            serve(&client);
            first_since(&*client, &partitions, millis)
        })
        .await
    }

    /// The same, each partition by itself.
    pub(super) async fn bounds_of_each(&self, partitions: &[TopicPartition]) -> Vec<Result<(i64, i64), LogError>> {
        if partitions.is_empty() {
            return Vec::new();
        }
        let (client, asked) = (Arc::clone(&self.client), partitions.to_vec());
        let answers = blocking(move || {
            serve(&client);
            Ok(bounds_of_each(&*client, &asked, EACH_WITHIN))
        });
        answers.await.unwrap_or_else(|error| partitions.iter().map(|_| Err(error.clone())).collect())
    }

    pub(super) async fn committed(&self, partitions: Vec<TopicPartition>) -> Result<Vec<Option<Committed>>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let client = Arc::clone(&self.client);
        blocking(move || {
            serve(&client);
            let answer = client.committed_offsets(list(&partitions), REQUEST_TIMEOUT);
            let answer = answer.map_err(|error| failed("the group's committed offsets", &error))?;
            committed_from(&answer, &partitions)
        })
        .await
    }

    pub(super) async fn read(
        &self,
        partition: TopicPartition,
        from: i64,
        to: i64,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> Result<(), LogError> {
        if from >= to {
            return Ok(());
        }
        let (chunks, mut received) = mpsc::channel::<Vec<LogRecord>>(2);
        let (options, idle) = (self.options.clone(), Arc::clone(&self.idle));
        let reading = tokio::spawn(blocking(move || {
            let client = match idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                Some(client) => client,
                None => new_client(&options)?,
            };
            let outcome = Reading { client: &client, partition: &partition, from, to, chunks }.run();
            put_back(&idle, client, outcome.is_ok());
            outcome
        }));
        while let Some(chunk) = received.recv().await {
            for record in chunk {
                if !each(record) {
                    // The reader notices that nobody listens, and stops.
                    return Ok(());
                }
            }
        }
        match reading.await {
            Ok(outcome) => outcome,
            Err(error) => Err(LogError::Unavailable(format!("the reading was broken off: {error}"))),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop_aside((Arc::clone(&self.client), idle));
    }
}

fn new_client(options: &KafkaOptions) -> Result<GroupClient, LogError> {
    BaseConsumer::from_config_and_context(&options.reader(), QuietContext).map_err(|e| refused_settings(&e))
}

fn put_back(idle: &Mutex<Vec<GroupClient>>, client: GroupClient, healthy: bool) {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if healthy && idle.len() < IDLE_READERS && client.unassign().is_ok() {
        idle.push(client);
    } else {
        drop_aside(client);
    }
}

/// Lets a client that is asked but never polled get rid of its log lines and errors.
fn serve(client: &GroupClient) {
    for _ in 0..64 {
        // With nothing assigned no records come, only events, which the context takes.
        let _ = client.poll(Duration::ZERO);
    }
}

struct Reading<'a> {
    client: &'a GroupClient,
    partition: &'a TopicPartition,
    from: i64,
    to: i64,
    chunks: mpsc::Sender<Vec<LogRecord>>,
}

impl Reading<'_> {
    /// Blocks until everything was handed over, or nobody listens any more.
    fn run(&self) -> Result<(), LogError> {
        let TopicPartition { topic, partition } = self.partition;
        let (first, _) = self.ends()?;
        if first > self.from {
            return Err(gone(self.partition, self.from, first));
        }
        let mut assignment = TopicPartitionList::new();
        let assigned = assignment
            .add_partition_offset(topic.as_str(), i32::from(*partition), Offset::Offset(self.from))
            .and_then(|()| self.client.assign(&assignment));
        assigned.map_err(|error| failed(&format!("reading {topic}/{partition}"), &error))?;

        let mut chunk = Vec::new();
        let mut contiguous = Contiguous::from(Some(self.from));
        let mut last_progress = Instant::now();
        loop {
            // Wait only with empty hands: what is there is handed over as soon as no more is ready.
            let wait = if chunk.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
            match self.client.poll(wait) {
                Some(Ok(message)) => {
                    let ours = message.topic() == topic.as_str() && message.partition() == i32::from(*partition);
                    if !ours {
                        continue;
                    }
                    match contiguous.meet(message.offset()) {
                        Met::Next => {}
                        Met::Known => continue,
                        // The next attempt is the second time.
                        Met::Gap(offsets) | Met::Missing(offsets) => return Err(missing(self.partition, &offsets)),
                    }
                    last_progress = Instant::now();
                    let last = message.offset() >= self.to - 1;
                    if message.offset() < self.to {
                        chunk.push(LogRecord {
                            from: self.partition.clone(),
                            offset: message.offset(),
                            key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
                            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
                        });
                    }
                    if last {
                        self.hand_over(&mut chunk);
                        return Ok(());
                    }
                    if chunk.len() >= CHUNK_RECORDS && !self.hand_over(&mut chunk) {
                        return Ok(());
                    }
                }
                // Only a record at the end of the range, or behind it, ends the reading. The end that is met here is
                // that of some moment before, or that of a leader which doesn't show its last records yet: however
                // far the log reaches by now, records may be missing. The client goes on fetching.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    if !self.hand_over(&mut chunk) {
                        return Ok(());
                    }
                    let (_, next) = self.ends()?;
                    if next < self.to {
                        return Err(LogError::Unavailable(format!(
                            "{topic}/{partition} ends at offset {next} now, before {}",
                            self.to
                        )));
                    }
                }
                Some(Err(error)) => self.judge(&error)?,
                None if !chunk.is_empty() && !self.hand_over(&mut chunk) => return Ok(()),
                None if self.chunks.is_closed() => return Ok(()),
                None if last_progress.elapsed() > NO_PROGRESS => {
                    return Err(LogError::Unavailable(format!(
                        "reading {topic}/{partition}: no record came that shows that all before offset {} are read",
                        self.to
                    )));
                }
                None => {}
            }
        }
    }

    fn ends(&self) -> Result<(i64, i64), LogError> {
        bounds(self.client, std::slice::from_ref(self.partition))?
            .pop()
            .ok_or_else(|| LogError::Unavailable("no end of the log came back".into()))
    }

    /// Whether somebody still listens.
    fn hand_over(&self, chunk: &mut Vec<LogRecord>) -> bool {
        chunk.is_empty() || self.chunks.blocking_send(std::mem::take(chunk)).is_ok()
    }

    fn judge(&self, error: &KafkaError) -> Result<(), LogError> {
        let TopicPartition { topic, partition } = self.partition;
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let (first, _) = self.ends()?;
                Err(gone(self.partition, self.from, first))
            }
            _ if says_no_such_topic(error) => Err(LogError::NoSuchTopic(topic.clone())),
            _ => match failed(&format!("reading {topic}/{partition}"), error) {
                // librdkafka goes on trying; so do we, as long as there is hope.
                LogError::Unavailable(why) => {
                    tracing::debug!("{why}");
                    Ok(())
                }
                fatal => Err(fatal),
            },
        }
    }
}

/// Who went on without these records would take what is older for the newest.
pub(super) fn missing(at: &TopicPartition, offsets: &Range<i64>) -> LogError {
    let TopicPartition { topic, partition } = at;
    let Range { start, end } = offsets;
    LogError::Unavailable(format!(
        "{topic}/{partition}: the records from offset {start} to {end}, that one excluded, do not come though later \
         ones do. The brokers have lost them or can't read them, or somebody writes transactions into the topic. If it \
         stays so and they are gone for good, see that the database has what lies before {start}, then accept the loss \
         by deleting the partition's records before {end} (kafka-delete-records)"
    ))
}

/// What was to be read is deleted.
pub(super) fn gone(at: &TopicPartition, from: i64, first: i64) -> LogError {
    let TopicPartition { topic, partition } = at;
    LogError::Unfit(format!(
        "{topic}/{partition} begins at offset {first}: what was to be read from {from} is deleted; raise the topic's \
         retention"
    ))
}
