//! What all librdkafka clients share: where their log lines go, and what their errors mean to us.

use std::{thread, time::Duration};

use model::Topic;
use rdkafka::{
    ClientContext,
    client::Client,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::log::LogError;

/// How long one question to the brokers may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a line of librdkafka to `tracing`.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// A client that nobody waits for: its errors only go to the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for QuietContext {}

/// A client could not even be made: the settings are wrong.
pub(super) fn refused_settings(error: &KafkaError) -> LogError {
    match error {
        // The value may be a secret: leave it out.
        KafkaError::ClientConfig(_, description, key, _) => {
            LogError::Unfit(format!("the Kafka client refuses the setting {key}: {description}"))
        }
        other => LogError::Unfit(format!("the Kafka client could not be made: {other}")),
    }
}

/// The brokers did not answer, or not as hoped.
pub(super) fn failed(what: &str, error: &KafkaError) -> LogError {
    match error.rdkafka_error_code() {
        Some(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed),
        ) => LogError::Unfit(format!("{what}: {code}; grant our Kafka user the right")),
        Some(code) => LogError::Unavailable(format!("{what}: {code}")),
        None => LogError::Unavailable(format!("{what}: {error}")),
    }
}

/// Whether the code says that there is no such topic or partition.
pub(super) fn says_no_such_topic(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// Whether a broker leads each partition of the topic, and how many partitions and copies it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TopicShape {
    pub(super) partitions: usize,
    /// Of the partition with the fewest.
    pub(super) replicas: usize,
    /// Of the partition with the fewest.
    pub(super) in_sync: usize,
    pub(super) all_led: bool,
}

/// Asks for the topic's metadata. `None`: there is no such topic. Blocks.
pub(super) fn topic_shape<C: ClientContext>(
    client: &Client<C>,
    topic: &Topic,
    timeout: Duration,
) -> Result<Option<TopicShape>, LogError> {
    let what = || format!("metadata of topic {topic}");
    let metadata = match client.fetch_metadata(Some(topic.as_str()), timeout) {
        Ok(metadata) => metadata,
        Err(error) if says_no_such_topic(&error) => return Ok(None),
        Err(error) => return Err(failed(&what(), &error)),
    };
    let Some(found) = metadata.topics().iter().find(|candidate| candidate.name() == topic.as_str()) else {
        return Ok(None);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(failed(&what(), &KafkaError::MetadataFetch(code))),
    }
    let partitions = found.partitions();
    if partitions.is_empty() {
        return Ok(None);
    }
    Ok(Some(TopicShape {
        partitions: partitions.len(),
        replicas: partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
        in_sync: partitions.iter().map(|p| p.isr().len()).min().unwrap_or(0),
        all_led: partitions.iter().all(|p| p.leader() >= 0),
    }))
}

/// Drops a client where it may hang (rust-rdkafka#453) without holding anybody up.
pub(super) fn drop_aside<T: Send + 'static>(client: T) {
    // Without a thread the client is dropped here, by the failed spawn: slower, and just as well.
    if thread::Builder::new().name("kafka-client-drop".into()).spawn(move || drop(client)).is_err() {
        tracing::warn!("no thread could be started to drop a Kafka client");
    }
}

/// Runs a question that blocks, off the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(question).await {
        Ok(answer) => answer,
        Err(error) => Err(LogError::Unavailable(format!("the question to Kafka was broken off: {error}"))),
    }
}
