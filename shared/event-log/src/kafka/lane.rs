//! One producer with its connections. Several of them share the partitions.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::Topic;
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use super::{
    availability::Availability,
    client::{REQUEST_TIMEOUT, drop_aside, failed, log_line, topic_shape},
    delivery::{Ticket, after_hand_over},
    options::{KafkaOptions, QUEUE_RECORDS},
    polled::PolledProducer,
};
use crate::log::{LogError, Outgoing, PublishError};

struct Context {
    availability: Arc<Availability>,
    fatal: AtomicBool,
    /// What was handed over and has no answer yet, as librdkafka counts it.
    waiting_records: AtomicUsize,
    waiting_bytes: AtomicUsize,
}

impl Context {
    fn waits(&self, bytes: usize) {
        self.waiting_records.fetch_add(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn waits_no_more(&self, bytes: usize) {
        self.waiting_records.fetch_sub(1, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
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
        self.waits_no_more(ticket.bytes);
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

type KafkaProducer = PolledProducer<Context>;

/// See the module.
pub(super) struct Lane {
    options: KafkaOptions,
    availability: Arc<Availability>,
    /// Replaced when it is broken: an idempotent producer that has lost its sequence stays so.
    producer: Mutex<Arc<KafkaProducer>>,
}

impl Lane {
    pub(super) fn new(options: &KafkaOptions, availability: &Arc<Availability>) -> Result<Self, LogError> {
        let producer = Mutex::new(Arc::new(new_producer(options, availability)?));
        Ok(Self { options: options.clone(), availability: Arc::clone(availability), producer })
    }

    fn producer(&self) -> Arc<KafkaProducer> {
        let producer = Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner));
        if producer.client().context().fatal.load(Ordering::Acquire) { self.renew(&producer) } else { producer }
    }

    /// Puts a new producer in the place of a broken one. What was in flight in the old one becomes unknown.
    fn renew(&self, broken: &Arc<KafkaProducer>) -> Arc<KafkaProducer> {
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, broken) {
            match new_producer(&self.options, &self.availability) {
                Ok(fresh) => drop_aside(std::mem::replace(&mut *current, Arc::new(fresh))),
                Err(error) => tracing::error!(%error, "the Kafka producer could not be made anew"),
            }
        }
        Arc::clone(&current)
    }

    /// Hands a record over. An error means that it never left us.
    pub(super) fn send(&self, record: &Outgoing, ticket: Ticket) -> Result<(), KafkaError> {
        let producer = self.producer();
        match self.send_by(&producer, record, Box::new(ticket)) {
            Err((error, ticket)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => {
                self.send_by(&self.renew(&producer), record, ticket).map_err(|(error, _)| error)
            }
            result => result.map_err(|(error, _)| error),
        }
    }

    fn send_by(
        &self,
        producer: &KafkaProducer,
        record: &Outgoing,
        ticket: Box<Ticket>,
    ) -> Result<(), (KafkaError, Box<Ticket>)> {
        let message = BaseRecord::<[u8], [u8], _>::with_opaque_to(record.to.topic.as_str(), ticket)
            .partition(i32::from(record.to.partition))
            .key(&record.key[..])
            .payload(&record.payload[..]);
        self.availability.sending();
        let (context, bytes) = (producer.client().context(), record.key.len() + record.payload.len());
        context.waits(bytes);
        producer.send(message).map_err(|(error, message)| {
            context.waits_no_more(bytes);
            self.availability.not_sent();
            (error, message.delivery_opaque)
        })
    }

    /// Whether the queue would take so much, and a part of it would still be free.
    pub(super) fn has_room(&self, records: usize, bytes: usize) -> bool {
        let producer = Arc::clone(&self.producer.lock().unwrap_or_else(PoisonError::into_inner));
        let context = producer.client().context();
        let of_records = (context.waiting_records.load(Ordering::Relaxed), records, QUEUE_RECORDS);
        let of_bytes = (context.waiting_bytes.load(Ordering::Relaxed), bytes, self.options.queue_bytes());
        // What does not fit into an empty queue is not a matter of room.
        [of_records, of_bytes].into_iter().all(|(waiting, more, limit)| waiting == 0 || waiting + more <= limit / 8 * 7)
    }

    /// Whether the brokers would take records for these topics, each with how many in-sync copies it demands. Asked
    /// through the producer: its connections are what counts. Blocks.
    pub(super) fn takes_records(&self, topics: &[(Topic, usize)]) -> Result<(), LogError> {
        let producer = self.producer();
        if topics.is_empty() {
            producer.client().fetch_metadata(None, REQUEST_TIMEOUT).map_err(|error| failed("metadata", &error))?;
        }
        for (topic, min_in_sync) in topics {
            // A topic that was deleted holds nobody else up.
            if let Some(shape) = topic_shape(producer.client(), topic, REQUEST_TIMEOUT)?
                && !(shape.all_led && shape.in_sync >= *min_in_sync)
            {
                return Err(LogError::Unavailable(format!("topic {topic} has too few in-sync copies")));
            }
        }
        Ok(())
    }

    /// Waits until everything handed over is answered. Blocks.
    pub(super) fn flush(&self, within: Duration) -> Result<(), LogError> {
        self.producer().flush(within).map_err(|error| LogError::Unavailable(error.to_string()))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A producer's drop waits for its thread, and a while for its records.
        let producer = self.producer.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop_aside(Arc::clone(producer));
    }
}

fn new_producer(options: &KafkaOptions, availability: &Arc<Availability>) -> Result<KafkaProducer, LogError> {
    let context = Context {
        availability: Arc::clone(availability),
        fatal: AtomicBool::new(false),
        waiting_records: AtomicUsize::new(0),
        waiting_bytes: AtomicUsize::new(0),
    };
    PolledProducer::new(&options.producer(), context)
}
