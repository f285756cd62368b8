//! The settings of the Kafka backend, and what they are in librdkafka's words.

use std::{fmt, time::Duration};

use model::{DeadLetter, Topic};
use rdkafka::ClientConfig;

use super::protocol::Spoken;
use crate::log::LogError;

/// How members of the drain group share the partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The new one where the brokers offer it and the group may go over to it, else the classic one.
    #[default]
    Auto,
    /// The members assign among themselves (cooperative-sticky); any broker.
    Classic,
    /// The broker assigns (KIP-848); brokers from 4.0. The session timeout is the broker's setting then
    /// (`group.consumer.session.timeout.ms`, 45 s unless it is changed), and members learn of a new assignment with
    /// their next heartbeat (`group.consumer.heartbeat.interval.ms`, 5 s).
    Consumer,
}

/// How to reach brokers that want TLS or a login.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct KafkaSecurity {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub protocol: Option<String>,
    /// For example `SCRAM-SHA-512`.
    pub mechanism: Option<String>,
    /// Who logs in.
    pub username: Option<String>,
    /// The password; never shown.
    pub password: Option<String>,
    /// The file with the certificates of the authorities to trust.
    pub ca: Option<String>,
}

impl fmt::Debug for KafkaSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSecurity")
            .field("protocol", &self.protocol)
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .field("ca", &self.ca)
            .finish()
    }
}

/// The settings of the Kafka backend. `acks` is not among them: it is always `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port,host:port`
    pub brokers: String,
    /// The consumer group of the drain replicas.
    pub group: String,
    /// How the group shares the partitions.
    pub group_protocol: GroupProtocol,
    /// After this silence a member is taken for dead. Classic protocol only.
    pub session_timeout: Duration,
    /// A member that takes nothing for so long, of what it is delivered, is hung: it leaves its partitions to others. Nothing
    /// that a database does counts for it. A group waits for a member's part in a rebalance no longer than this either.
    pub max_poll_interval: Duration,
    /// How long ago that must have been committed which goes with each commit as its request window.
    pub request_window: Duration,
    /// Names a member so that its restart moves no partitions.
    pub group_instance_id: Option<String>,
    /// How long the producer waits for company for a record.
    pub linger: Duration,
    /// After this time an unacknowledged record's outcome is unknown.
    pub delivery_timeout: Duration,
    /// The largest message, key and overhead included.
    pub max_message_bytes: usize,
    /// Copies of the topics that we make, and demanded of those that are there.
    pub replication_factor: u16,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync_replicas: u16,
    /// How long records are kept.
    pub retention: Duration,
    /// Accept fewer copies: for one node on a developer's machine.
    pub allow_single_node: bool,
    /// TLS and login.
    pub security: KafkaSecurity,
}

/// What a record may take up beside key and payload: the headers of a batch and of a record, generously.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// Records that may wait in one producer.
pub(super) const QUEUE_RECORDS: usize = 25_000;

/// By how much a record of this topic may be larger than those of others: whatever was taken in can be dead-lettered.
pub(super) fn more_room(topic: &Topic) -> usize {
    if topic.is_dead_letters() { DeadLetter::MAX_OVERHEAD_BYTES } else { 0 }
}

impl KafkaOptions {
    /// The defaults of the product for these brokers and this group.
    pub fn new(brokers: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            group: group.into(),
            group_protocol: GroupProtocol::Auto,
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(60),
            request_window: Duration::from_secs(120),
            group_instance_id: None,
            linger: Duration::ZERO,
            delivery_timeout: Duration::from_secs(10),
            max_message_bytes: 1_000_000,
            replication_factor: 3,
            min_insync_replicas: 2,
            retention: Duration::from_secs(7 * 24 * 3600),
            allow_single_node: false,
            security: KafkaSecurity::default(),
        }
    }

    /// The most that key and payload of one record may have together, but for [`more_room`].
    pub(super) fn max_record_bytes(&self) -> usize {
        self.max_message_bytes.saturating_sub(RECORD_OVERHEAD_BYTES)
    }

    /// Kilobytes of records that may wait in one producer.
    fn queue_kbytes(&self) -> usize {
        8192.max(self.max_message_bytes / 256)
    }

    /// Bytes of records that may wait in one producer.
    pub(super) fn queue_bytes(&self) -> usize {
        self.queue_kbytes() << 10
    }

    /// What is wrong with them, if anything.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let unfit = |problem: &str| Err(LogError::Unfit(problem.to_owned()));
        if self.brokers.trim().is_empty() {
            return unfit("kafka.brokers is empty; name at least one host:port");
        }
        if self.group.trim().is_empty() {
            return unfit("kafka.group is empty; name the consumer group of the drain replicas");
        }
        if self.max_message_bytes < 4096 {
            return unfit("kafka.max_message_bytes is below 4096; raise it");
        }
        if self.delivery_timeout < Duration::from_millis(100) || self.delivery_timeout <= self.linger {
            return unfit("kafka.delivery_timeout must be at least 100ms and longer than kafka.linger");
        }
        let protocol = self.security.protocol.as_deref().unwrap_or("plaintext").to_ascii_lowercase();
        match protocol.as_str() {
            "plaintext" => {}
            "ssl" | "sasl_plaintext" | "sasl_ssl" if cfg!(feature = "kafka-tls") => {}
            "ssl" | "sasl_plaintext" | "sasl_ssl" => {
                return unfit("kafka.security_protocol needs a build with the feature kafka-tls");
            }
            _ => return unfit("kafka.security_protocol must be plaintext, ssl, sasl_plaintext or sasl_ssl"),
        }
        Ok(())
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "shock-absorber")
            .set("message.max.bytes", (self.max_message_bytes + DeadLetter::MAX_OVERHEAD_BYTES).to_string())
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "10000")
            // After an outage we want to be back within a second, not within ten.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false");
        let security = &self.security;
        for (key, value) in [
            ("security.protocol", &security.protocol),
            ("sasl.mechanism", &security.mechanism),
            ("sasl.username", &security.username),
            ("sasl.password", &security.password),
            ("ssl.ca.location", &security.ca),
        ] {
            if let Some(value) = value {
                config.set(key, value);
            }
        }
        config
    }

    pub(super) fn admin(&self) -> ClientConfig {
        self.base()
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let timeout_ms = self.delivery_timeout.as_millis();
        let mut config = self.base();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", format!("{:.3}", self.linger.as_secs_f64() * 1000.0))
            .set("message.timeout.ms", timeout_ms.to_string())
            .set("request.timeout.ms", timeout_ms.min(5000).to_string())
            .set("retry.backoff.ms", "50")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .set("queue.buffering.max.messages", QUEUE_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", self.queue_kbytes().to_string());
        config
    }

    fn consumer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("allow.auto.create.topics", "false")
            // Nobody writes transactions here; what somebody else's open transaction would hide must not make the
            // log look shorter than it is.
            .set("isolation.level", "read_uncommitted")
            .set("fetch.max.bytes", (16 << 20).max(self.max_message_bytes).to_string())
            .set("queued.min.messages", "20000")
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.error.backoff.ms", "100");
        config
    }

    /// A consumer that asks and reads, but joins nothing.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer();
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "error");
        config
    }

    /// A consumer that goes on reading what is appended. It reads for all who watch a topic, and takes it at once: so
    /// little of it is to wait within the client.
    pub(super) fn follower(&self) -> ClientConfig {
        let mut config = self.consumer();
        config
            .set("auto.offset.reset", "error")
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "8192");
        config
    }

    /// A member of the drain group.
    pub(super) fn member(&self, spoken: Spoken) -> ClientConfig {
        let mut config = self.consumer();
        // Where to begin is decided by us; an offset that the log does not have is never passed over.
        config.set("auto.offset.reset", "error");
        let session_ms = self.session_timeout.as_millis().max(1000);
        config.set("max.poll.interval.ms", self.max_poll_interval.as_millis().max(session_ms).to_string());
        match spoken {
            Spoken::Classic => {
                config
                    .set("partition.assignment.strategy", "cooperative-sticky")
                    .set("session.timeout.ms", session_ms.to_string())
                    .set("heartbeat.interval.ms", (session_ms / 10).clamp(100, 3000).to_string());
            }
            Spoken::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
        if let Some(id) = &self.group_instance_id {
            config.set("group.instance.id", id);
        }
        config
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_shown() {
        let mut options = KafkaOptions::new("127.0.0.1:9092", "drain");
        options.security.password = Some("hunter2".into());
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("redacted"), "{shown}");
    }

    #[test]
    fn the_new_group_protocol_leaves_out_what_it_refuses() {
        let options = KafkaOptions::new("127.0.0.1:9092", "drain");
        let classic = options.member(Spoken::Classic);
        assert_eq!(classic.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(classic.get("session.timeout.ms"), Some("10000"));
        let config = options.member(Spoken::Consumer);
        for refused in ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"] {
            assert_eq!(config.get(refused), None, "{refused}");
        }
        assert!(config.create_native_config().is_ok());
    }

    #[test]
    fn librdkafka_knows_every_setting() {
        let options = KafkaOptions::new("127.0.0.1:9092", "drain");
        let readers = [options.reader(), options.follower(), options.member(Spoken::Classic)];
        for config in [options.admin(), options.producer()].into_iter().chain(readers) {
            config.create_native_config().unwrap();
        }
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let good = KafkaOptions::new("127.0.0.1:9092", "drain");
        assert_eq!(good.check(), Ok(()));
        for (bad, named) in [
            (KafkaOptions { brokers: " ".into(), ..good.clone() }, "kafka.brokers"),
            (KafkaOptions { group: String::new(), ..good.clone() }, "kafka.group"),
            (KafkaOptions { max_message_bytes: 10, ..good.clone() }, "kafka.max_message_bytes"),
            (KafkaOptions { delivery_timeout: Duration::ZERO, ..good.clone() }, "kafka.delivery_timeout"),
            (
                KafkaOptions {
                    security: KafkaSecurity { protocol: Some("telnet".into()), ..KafkaSecurity::default() },
                    ..good.clone()
                },
                "kafka.security_protocol",
            ),
        ] {
            let Err(LogError::Unfit(message)) = bad.check() else { panic!("{named} was accepted") };
            assert!(message.contains(named), "{message}");
        }
    }
}
