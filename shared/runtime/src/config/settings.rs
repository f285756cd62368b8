//! The settings, in the order and with the names of `default.yaml`. What they mean is said there.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    duration,
    secret::{ConnectionUrl, Secret},
    tables::TablesSettings,
};

/// Everything that can be set. Made by [`Settings::load`]; serialised without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How many shards records hash to.
    pub shards: u32,
    /// The ingest service.
    pub ingest: IngestSettings,
    /// The drain service.
    pub drain: DrainSettings,
    /// For how long a request id is remembered.
    #[serde(with = "duration::text")]
    pub request_window: Duration,
    /// How often replicas look for changed tables.
    #[serde(with = "duration::text")]
    pub table_refresh: Duration,
    /// From the first signal to the end.
    #[serde(with = "duration::text")]
    pub shutdown_deadline: Duration,
    /// The hot store.
    pub redis: RedisSettings,
    /// The event log.
    pub kafka: KafkaSettings,
    /// The databases; the first one holds the catalog.
    pub databases: Vec<DatabaseSettings>,
    /// What is set per table.
    pub tables: TablesSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
    /// The single-process edition.
    pub embedded: EmbeddedSettings,
}

/// `ingest`: the service that accepts writes and answers reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestSettings {
    /// Where the gRPC API listens.
    pub listen: SocketAddr,
    /// Where metrics and health are served.
    pub admin_listen: SocketAddr,
    /// Larger messages are refused.
    pub max_message_bytes: usize,
    /// Items of one BatchWrite or BatchGetRecords, keys of one EvictRecords.
    pub max_batch_items: usize,
    /// Requests being worked on at once; half of them may wait for the database.
    pub max_in_flight: usize,
    /// Streams of writes that are open at once.
    pub max_streams: usize,
    /// Writes of one stream without a result that was taken.
    pub stream_items: usize,
    /// Their bytes.
    pub stream_bytes: usize,
    /// A stream on which nothing happens for so long is ended.
    #[serde(with = "duration::text")]
    pub stream_idle: Duration,
    /// Cold reads of the database at once.
    pub max_cold_reads: usize,
    /// How long a cold read waits for the database's answer.
    #[serde(with = "duration::text")]
    pub database_patience: Duration,
    /// After a database or a table did not answer, nobody asks it for so long; zero: all do.
    #[serde(with = "duration::text")]
    pub outage_pause: Duration,
    /// Watches at once.
    pub max_watches: usize,
    /// A watch that has nothing to tell says so after this time, with a new token.
    #[serde(with = "duration::text")]
    pub watch_progress: Duration,
    /// Records of one page of FindRecords.
    pub max_find_records: usize,
    /// Bytes of the rows of one page of FindRecords, which ends before the one that would go beyond, but has one.
    pub max_find_bytes: usize,
    /// How long a reader may take to fill a cold record.
    #[serde(with = "duration::text")]
    pub lease_ttl: Duration,
    /// How long an absent row is remembered.
    #[serde(with = "duration::text")]
    pub absent_ttl: Duration,
    /// Records of one sweep of one shard by the relay.
    pub relay_batch: usize,
    /// How often the relay sweeps.
    #[serde(with = "duration::text")]
    pub relay_interval: Duration,
    /// How often checkpoints are written.
    #[serde(with = "duration::text")]
    pub checkpoint_interval: Duration,
    /// gRPC server reflection.
    pub reflection: bool,
}

/// `drain`: the service that writes to the databases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainSettings {
    /// Where metrics and health are served.
    pub admin_listen: SocketAddr,
    /// The name of this replica; empty for the host's.
    pub replica: String,
    /// Rows per second and table over all replicas; 0 is no limit. It may be below 1.
    pub rows_per_second: f64,
    /// Transactions per second and table over all replicas; 0 is no limit.
    pub transactions_per_second: f64,
    /// Rows of one transaction.
    pub batch_rows: usize,
    /// What slow transactions make of it at least.
    pub min_batch_rows: usize,
    /// A transaction that takes longer is slow.
    #[serde(with = "duration::text")]
    pub batch_target: Duration,
    /// Bytes of one transaction.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more.
    #[serde(with = "duration::text")]
    pub batch_age: Duration,
    /// Writer lanes per table and replica.
    pub lanes: usize,
    /// Records gathered per lane.
    pub lane_capacity: usize,
    /// The first delay between attempts.
    #[serde(with = "duration::text")]
    pub retry_initial: Duration,
    /// The longest delay between attempts.
    #[serde(with = "duration::text")]
    pub retry_max: Duration,
    /// How long a row is tried again, at least, that another row stands in the way of.
    #[serde(with = "duration::text")]
    pub dependent_patience: Duration,
    /// How often the horizon is written into the databases.
    #[serde(with = "duration::text")]
    pub horizon_interval: Duration,
    /// How often tombstones are purged.
    #[serde(with = "duration::text")]
    pub purge_interval: Duration,
    /// How long a tombstone is kept at least.
    #[serde(with = "duration::text")]
    pub tombstone_retention: Duration,
}

/// `redis`: the hot store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// Where it is.
    pub url: ConnectionUrl,
    /// Whether it is a cluster; refused for now.
    pub cluster: bool,
    /// The user; empty for the default one.
    pub username: String,
    /// Its password; empty for none.
    pub password: Secret,
    /// The logical database.
    pub db: u32,
    /// Connections.
    pub pool: usize,
    /// How long connecting may take.
    #[serde(with = "duration::text")]
    pub connect_timeout: Duration,
    /// How long an answer may take.
    #[serde(with = "duration::text")]
    pub response_timeout: Duration,
    /// The first part of every key.
    pub prefix: String,
}

/// `kafka`: the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port,host:port`.
    pub brokers: String,
    /// The topic of a table; see [`KafkaSettings::topic_of`].
    pub topic_template: String,
    /// The consumer group of the drain replicas.
    pub group: String,
    /// Which group protocol they speak.
    pub group_protocol: GroupProtocol,
    /// When a silent member is thrown out.
    #[serde(with = "duration::text")]
    pub session_timeout: Duration,
    /// When a hung member leaves its partitions to others.
    #[serde(with = "duration::text")]
    pub max_poll_interval: Duration,
    /// Static membership; empty for none. See [`KafkaSettings::instance_id`].
    pub group_instance_id: String,
    /// Must be `all`.
    #[serde(deserialize_with = "text_or_number")]
    pub acks: String,
    /// How long the producer waits for more to send together.
    #[serde(with = "duration::text")]
    pub linger: Duration,
    /// When a delivery's outcome counts as unknown.
    #[serde(with = "duration::text")]
    pub delivery_timeout: Duration,
    /// The largest event.
    pub max_message_bytes: usize,
    /// Copies of a topic.
    pub replication_factor: u16,
    /// Copies that must have an event before it is acknowledged.
    pub min_insync_replicas: u16,
    /// How long events are kept.
    #[serde(with = "duration::text")]
    pub retention: Duration,
    /// Accept topics with fewer copies.
    pub allow_single_node: bool,
    /// How to talk to the brokers.
    pub security_protocol: SecurityProtocol,
    /// The SASL mechanism; empty for none.
    pub sasl_mechanism: String,
    /// The SASL user.
    pub sasl_username: String,
    /// The SASL password.
    pub sasl_password: Secret,
    /// The file of the authority that signed the brokers' certificates; empty for the system's.
    pub ssl_ca_location: String,
}

/// An entry of `databases`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseSettings {
    /// The name that tables are addressed by.
    pub name: String,
    /// Where it is.
    pub url: ConnectionUrl,
    /// Connections.
    pub pool: u32,
    /// Rows per second of all its tables together, over all drain replicas; 0 is no limit.
    pub rows_per_second: f64,
    /// Lets that limit follow how the database fares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveSettings>,
}

/// `adaptive` of a database: between what its limit moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveSettings {
    /// Rows per second that it is written with however it fares.
    pub min_rows_per_second: f64,
    /// Rows per second at most.
    pub max_rows_per_second: f64,
}

impl Default for DatabaseSettings {
    // Name and address are empty, so that each can come from a source of its own; `validate` refuses what stays empty.
    fn default() -> Self {
        Self { name: String::new(), url: ConnectionUrl::default(), pool: 16, rows_per_second: 0.0, adaptive: None }
    }
}

/// `telemetry`: logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySettings {
    /// A level or a filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// `embedded`: the single-process edition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedSettings {
    /// Where its log and its database lie.
    pub data_dir: PathBuf,
    /// Undrained bytes of its log.
    pub max_log_bytes: u64,
    /// Bytes of its hot store.
    pub max_hot_bytes: u64,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The group protocol of Kafka's consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupProtocol {
    /// The new one where the brokers offer it, else the classic one.
    Auto,
    /// The members assign; any broker.
    Classic,
    /// The broker assigns (KIP-848); brokers from 4.0.
    Consumer,
}

/// How brokers are talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encryption nor authentication.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL without encryption.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// As librdkafka spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether a mechanism and a user are needed.
    pub fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// What stands for the machine's name.
const HOST_NAME: &str = "{hostname}";

/// The name of this machine is asked for and can't be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`kafka.group_instance_id` asks for {{hostname}}, and this machine's name can't be read from \
     /proc/sys/kernel/hostname: write a name of its own for each replica in its place"
)]
pub struct HostNameUnknown;

impl KafkaSettings {
    /// The topic of a table, by the template.
    pub fn topic_of(&self, database: &str, table: &str) -> String {
        self.topic_template.replace("{database}", database).replace("{table}", table)
    }

    /// The name of this member of the drain group on a machine with this name, if members have names.
    ///
    /// # Errors
    /// If the machine's is asked for, and is not known: all replicas would have one name, and each put the others out.
    pub fn instance_id(&self, host_name: Option<&str>) -> Result<Option<String>, HostNameUnknown> {
        let host_name = host_name.map(str::trim).filter(|name| !name.is_empty());
        let id = match host_name {
            Some(name) => self.group_instance_id.replace(HOST_NAME, name),
            None if self.group_instance_id.contains(HOST_NAME) => return Err(HostNameUnknown),
            None => self.group_instance_id.clone(),
        };
        Ok((!id.is_empty()).then_some(id))
    }
}

/// `acks: 1` is a number to YAML; it deserves the same answer as `acks: "1"`.
fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        _ => Err(D::Error::custom("this must be text")),
    }
}
