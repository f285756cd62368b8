//! The writing face, and the handle that holds all faces but the group member's.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::Topic;
use rdkafka::{
    ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use super::{
    availability::Availability,
    client::{REQUEST_TIMEOUT, blocking, drop_aside, failed, log_line, refused_settings, topic_shape},
    delivery::{Batch, Ticket, after_hand_over, at_hand_over},
    options::KafkaOptions,
    reader::Reader,
    topic,
};
use crate::log::{
    EventPublisher, LogError, LogReader, LogRecord, LogSettings, Outgoing, Progress, PublishError, TopicPartition,
};

/// How often the brokers are asked while Kafka is taken for unavailable.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Records that wait so long without any getting through make us believe that Kafka is down.
const STALL: Duration = Duration::from_secs(2);

struct Context {
    availability: Arc<Availability>,
    fatal: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.availability.lose("all brokers are down"),
            Some(RDKafkaErrorCode::Fatal) => {
                tracing::error!("the Kafka producer is broken and is made anew: {reason}");
                self.fatal.store(true, Ordering::Release);
            }
            _ => tracing::debug!(target: "librdkafka", %error, "{reason}"),
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let answer = match result {
            Ok(message) if message.offset() >= 0 => {
                self.availability.delivered();
                Ok(message.offset())
            }
            // A duplicate that the broker has long forgotten: it is in the log, nobody knows where.
            Ok(_) => {
                self.availability.delivered();
                Err(PublishError::Unknown("the log has it, but did not tell its offset".into()))
            }
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    self.fatal.store(true, Ordering::Release);
                }
                let error = after_hand_over(error, ticket.bytes);
                match error {
                    PublishError::TooLarge { .. } => self.availability.rejected(),
                    _ => self.availability.given_up(),
                }
                Err(error)
            }
        };
        ticket.batch.settle(ticket.index, answer);
    }
}

type KafkaProducer = ThreadedProducer<Context>;

struct Inner {
    options: KafkaOptions,
    availability: Arc<Availability>,
    /// Replaced when it is broken: an idempotent producer that has lost its sequence stays so.
    producer: Mutex<Arc<KafkaProducer>>,
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
        let producer = new_producer(&options, &availability)?;
        let reader = Reader::new(&options)?;
        let inner = Arc::new(Inner {
            producer: Mutex::new(Arc::new(producer)),
            reader,
            availability,
            topics: Mutex::new(HashMap::new()),
            options,
        });
        let log = Self { inner };
        log.inner.reader.until_answered().await?;
        tokio::spawn(watch(Arc::downgrade(&log.inner), Arc::clone(&log.inner.availability)));
        Ok(log)
    }

    fn producer(&self) -> Arc<KafkaProducer> {
        let producer = Arc::clone(&self.inner.producer.lock().unwrap_or_else(PoisonError::into_inner));
        if producer.client().context().fatal.load(Ordering::Acquire) { self.renew(&producer) } else { producer }
    }

    /// Puts a new producer in the place of a broken one. What was in flight in the old one becomes unknown.
    fn renew(&self, broken: &Arc<KafkaProducer>) -> Arc<KafkaProducer> {
        let mut current = self.inner.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, broken) {
            match new_producer(&self.inner.options, &self.inner.availability) {
                Ok(fresh) => drop_aside(std::mem::replace(&mut *current, Arc::new(fresh))),
                Err(error) => tracing::error!(%error, "the Kafka producer could not be made anew"),
            }
        }
        Arc::clone(&current)
    }

    /// Hands the records over; their answers arrive in the batch.
    fn hand_over(&self, records: &[Outgoing], batch: &Arc<Batch>) {
        let limit = self.inner.options.max_record_bytes();
        let mut producer = self.producer();
        let mut renewed = false;
        let mut full = None;
        for (index, record) in records.iter().enumerate() {
            let bytes = record.key.len() + record.payload.len();
            if bytes > limit {
                batch.settle(index, Err(PublishError::TooLarge { bytes }));
                continue;
            }
            // Once the queue was full nothing of the call follows, so that no later record slips in ahead.
            if let Some(refusal) = &full {
                batch.settle(index, Err(PublishError::clone(refusal)));
                continue;
            }
            let mut result = self.send(&producer, record, batch, index);
            if !renewed && matches!(&result, Err(e) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)) {
                renewed = true;
                producer = self.renew(&producer);
                result = self.send(&producer, record, batch, index);
            }
            if let Err(error) = result {
                let refusal = at_hand_over(&error, bytes);
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    full = Some(refusal.clone());
                }
                batch.settle(index, Err(refusal));
            }
        }
    }

    fn send(
        &self,
        producer: &KafkaProducer,
        record: &Outgoing,
        batch: &Arc<Batch>,
        index: usize,
    ) -> Result<(), KafkaError> {
        let bytes = record.key.len() + record.payload.len();
        let ticket = Box::new(Ticket { batch: Arc::clone(batch), index, bytes });
        let message = BaseRecord::<[u8], [u8], _>::with_opaque_to(record.to.topic.as_str(), ticket)
            .partition(i32::from(record.to.partition))
            .key(&record.key[..])
            .payload(&record.payload[..]);
        self.inner.availability.sending();
        producer.send(message).map_err(|(error, _)| {
            self.inner.availability.not_sent();
            error
        })
    }
}

fn new_producer(options: &KafkaOptions, availability: &Arc<Availability>) -> Result<KafkaProducer, LogError> {
    let context = Context { availability: Arc::clone(availability), fatal: AtomicBool::new(false) };
    ThreadedProducer::from_config_and_context(&options.producer(), context).map_err(|e| refused_settings(&e))
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
        let producer = Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner));
        let topics: Vec<_> = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.iter().map(|(topic, min_in_sync)| (topic.clone(), *min_in_sync)).collect()
        };
        if topics.is_empty() {
            producer.client().fetch_metadata(None, REQUEST_TIMEOUT).map_err(|error| failed("metadata", &error))?;
        }
        for (topic, min_in_sync) in topics {
            // A topic that was deleted holds nobody else up.
            if let Some(shape) = topic_shape(producer.client(), &topic, REQUEST_TIMEOUT)?
                && !(shape.all_led && shape.in_sync >= min_in_sync)
            {
                return Err(LogError::Unavailable(format!("topic {topic} has too few in-sync copies")));
            }
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let producer = self.producer.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop_aside(Arc::clone(producer));
    }
}

impl EventPublisher for KafkaLog {
    fn is_available(&self) -> bool {
        self.inner.availability.is_up()
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
        let producer = self.producer();
        let flushed = blocking(move || {
            let result = producer.flush(within);
            result.map_err(|error| LogError::Unavailable(error.to_string()))
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

    async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Progress>>, LogError> {
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
}
