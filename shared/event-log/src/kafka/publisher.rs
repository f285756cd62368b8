//! The writing face, and the handle that holds all faces but the group member's.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use model::Topic;
use rdkafka::error::RDKafkaErrorCode;

use super::{
    availability::Availability,
    client::{REQUEST_TIMEOUT, blocking},
    delivery::{Batch, Ticket, at_hand_over},
    following::follow,
    lane::Lane,
    options::{KafkaOptions, more_room},
    reader::Reader,
    topic,
};
use crate::log::{
    Committed, EventPublisher, Following, LogError, LogReader, LogRecord, LogSettings, Outgoing, PublishError,
    TopicPartition,
};

/// How often the brokers are asked while Kafka is taken for unavailable.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Producers, and so connections to each broker. librdkafka sends one partition's records per request and a broker
/// serves the requests of one connection one after the other: a batch that touches 64 shards would wait for 64 turns.
const LANES: usize = 8;

/// Records that wait so long without any getting through make us believe that Kafka is down.
const STALL: Duration = Duration::from_secs(2);

struct Inner {
    options: KafkaOptions,
    availability: Arc<Availability>,
    /// Each partition has its lane, so that its records stay in order.
    lanes: Vec<Lane>,
    reader: Reader,
    /// The topics that were checked, and how many in-sync copies each demands: what the probe looks at.
    topics: Mutex<HashMap<Topic, usize>>,
}

/// The log on Kafka: [`EventPublisher`] and [`LogReader`]. Cheap to clone.
#[derive(Clone)]
pub struct KafkaLog {
    inner: Arc<Inner>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Makes the clients and waits until a broker answers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LogError::Unfit`] for settings that can't work, [`LogError::Unavailable`] if no broker answers.
    pub async fn connect(options: KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        let availability = Arc::new(Availability::new(STALL.min(options.delivery_timeout / 2)));
        let lanes = (0..LANES).map(|_| Lane::new(&options, &availability)).collect::<Result<_, _>>()?;
        let reader = Reader::new(&options)?;
        let inner = Arc::new(Inner { lanes, reader, availability, topics: Mutex::new(HashMap::new()), options });
        let log = Self { inner };
        log.inner.reader.until_answered().await?;
        tokio::spawn(watch(Arc::downgrade(&log.inner), Arc::clone(&log.inner.availability)));
        Ok(log)
    }

    /// Hands the records over; their answers arrive in the batch.
    fn hand_over(&self, records: &[Outgoing], batch: &Arc<Batch>) {
        let limit = self.inner.options.max_record_bytes();
        let mut full = None;
        for (index, record) in records.iter().enumerate() {
            let bytes = record.key.len() + record.payload.len();
            if bytes > limit + more_room(&record.to.topic) {
                batch.settle(index, Err(PublishError::TooLarge { bytes }));
                continue;
            }
            // Once a queue was full nothing of the call follows, so that no later record slips in ahead.
            if let Some(refusal) = &full {
                batch.settle(index, Err(PublishError::clone(refusal)));
                continue;
            }
            let lane = &self.inner.lanes[usize::from(record.to.partition) % self.inner.lanes.len()];
            let ticket = Ticket { batch: Arc::clone(batch), index, bytes };
            if let Err(error) = lane.send(record, ticket) {
                let refusal = at_hand_over(&error, bytes);
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    full = Some(refusal.clone());
                }
                batch.settle(index, Err(refusal));
            }
        }
    }
}

/// Asks the brokers while Kafka is taken for unavailable. Ends with the log.
async fn watch(inner: Weak<Inner>, availability: Arc<Availability>) {
    // The loss is waited for in steps, so that a log that is gone is noticed.
    loop {
        let lost = tokio::time::timeout(PROBE_INTERVAL * 4, availability.until_lost()).await.is_ok();
        let Some(inner) = inner.upgrade() else { return };
        if !lost {
            continue;
        }
        let probed = blocking(move || inner.takes_records()).await;
        match probed {
            Ok(()) => availability.found(),
            Err(error) => tracing::debug!(%error, "Kafka is still unavailable"),
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

impl Inner {
    /// Whether the brokers would take records now. Asked through the producer, whose connections are what counts.
    /// Blocks.
    fn takes_records(&self) -> Result<(), LogError> {
        let topics: Vec<_> = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.iter().map(|(topic, min_in_sync)| (topic.clone(), *min_in_sync)).collect()
        };
        for lane in &self.lanes {
            lane.takes_records(&topics)?;
        }
        Ok(())
    }
}

impl EventPublisher for KafkaLog {
    fn is_available(&self) -> bool {
        self.inner.availability.is_up()
    }

    fn has_room(&self, records: usize, bytes: usize) -> bool {
        self.inner.lanes.iter().all(|lane| lane.has_room(records, bytes))
    }

    fn max_payload_bytes(&self) -> usize {
        self.inner.options.max_record_bytes().saturating_sub(model::MAX_KEY_BYTES)
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, settings: LogSettings) -> Result<(), LogError> {
        let min_in_sync =
            topic::ensure(&self.inner.options, self.inner.reader.client(), topic, partitions, settings).await?;
        let mut topics = self.inner.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.insert(topic.clone(), min_in_sync);
        Ok(())
    }

    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let (batch, done) = Batch::new(records.len());
        self.hand_over(&records, &batch);
        drop(records);
        // librdkafka answers for every record within its time-out; the margin is for a client that died.
        let patience = self.inner.options.delivery_timeout + REQUEST_TIMEOUT;
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) | Err(_) => batch.give_up(),
        }
    }

    async fn flush(&self, within: Duration) {
        let inner = Arc::clone(&self.inner);
        let flushed = blocking(move || {
            let deadline = Instant::now() + within;
            inner.lanes.iter().try_for_each(|lane| lane.flush(deadline.saturating_duration_since(Instant::now())))
        });
        if let Err(error) = flushed.await {
            tracing::warn!(%error, ?within, "not everything handed to Kafka was acknowledged in time");
        }
    }
}

impl LogReader for KafkaLog {
    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, LogError> {
        self.inner.reader.bounds(partitions.to_vec()).await
    }

    async fn bounds_of_each(&self, partitions: &[TopicPartition]) -> Vec<Result<(i64, i64), LogError>> {
        self.inner.reader.bounds_of_each(partitions).await
    }

    async fn first_since(&self, partitions: &[TopicPartition], millis: i64) -> Result<Vec<i64>, LogError> {
        self.inner.reader.first_since(partitions.to_vec(), millis).await
    }

    async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        self.inner.reader.committed(partitions.to_vec()).await
    }

    async fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> Result<(), LogError> {
        self.inner.reader.read(partition.clone(), from, to, each).await
    }

    fn follow(&self, from: Vec<(TopicPartition, i64)>) -> Following {
        follow(&self.inner.options, from)
    }
}
