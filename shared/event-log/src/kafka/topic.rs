//! Making topics and checking that those that are there keep what the promises rest on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::Topic;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::Instant;

use super::{
    client::{QuietContext, REQUEST_TIMEOUT, TopicShape, blocking, drop_aside, failed, refused_settings, topic_shape},
    options::KafkaOptions,
    options::more_room,
    reader::GroupClient,
};
use crate::log::{LogError, LogSettings};

/// How long a new topic may take until every partition has a leader.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
const SETTLE_POLL: Duration = Duration::from_millis(100);

/// By whose clock a record's age is measured, and so whether it has outlived the retention: by the broker's. By the
/// producer's, which is Kafka's default, events of a machine whose clock is behind would be deleted before their time.
const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";

/// What is demanded of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Demands {
    partitions: u16,
    replicas: u16,
    min_in_sync: u16,
    /// `None`: for ever.
    retention: Option<Duration>,
    max_message_bytes: usize,
}

impl Demands {
    fn new(options: &KafkaOptions, topic: &Topic, partitions: u16, settings: LogSettings) -> Self {
        // One node relaxes the copies and nothing else.
        let single = settings.allow_single_node || options.allow_single_node;
        Self {
            partitions,
            replicas: if single { 1 } else { options.replication_factor },
            min_in_sync: if single { 1 } else { options.min_insync_replicas },
            retention: (!topic.is_dead_letters()).then_some(options.retention),
            max_message_bytes: options.max_message_bytes + more_room(topic),
        }
    }

    /// As Kafka says it: -1 is for ever.
    fn retention_ms(&self) -> i64 {
        self.retention.map_or(-1, |retention| i64::try_from(retention.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Makes the topic if there is none, then checks it. Answers how many in-sync copies it demands for a write.
pub(super) async fn ensure(
    options: &KafkaOptions,
    client: &Arc<GroupClient>,
    topic: &Topic,
    partitions: u16,
    settings: LogSettings,
) -> Result<usize, LogError> {
    let demands = Demands::new(options, topic, partitions, settings);
    let admin = AdminClient::from_config_and_context(&options.admin(), QuietContext).map_err(|e| refused_settings(&e));
    // Its drop joins a thread.
    let admin = Aside(Some(admin?));
    if shape(client, topic).await?.is_none() {
        create(admin.get()?, topic, &demands).await?;
    }
    let shape = until_led(client, topic, &demands).await?;
    let config = describe(admin.get()?, topic).await?;
    let min_in_sync = check(topic, &demands, &shape, &config)?;
    if goes_by_producers_clocks(&demands, &config) {
        tracing::warn!(
            %topic,
            "{TIMESTAMP_TYPE} of the topic is not {LOG_APPEND_TIME}: a machine whose clock is behind by more than \
             retention.ms would append events that Kafka deletes before they are drained; set it with kafka-configs.sh \
             --alter --entity-type topics --add-config {TIMESTAMP_TYPE}={LOG_APPEND_TIME}"
        );
    }
    Ok(min_in_sync)
}

struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Aside<T> {
    fn get(&self) -> Result<&T, LogError> {
        self.0.as_ref().ok_or_else(|| LogError::Unavailable("the admin client is gone".into()))
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        drop_aside(self.0.take());
    }
}

async fn shape(client: &Arc<GroupClient>, topic: &Topic) -> Result<Option<TopicShape>, LogError> {
    let (client, topic) = (Arc::clone(client), topic.clone());
    blocking(move || topic_shape(client.client(), &topic, REQUEST_TIMEOUT)).await
}

async fn create(admin: &AdminClient<QuietContext>, topic: &Topic, demands: &Demands) -> Result<(), LogError> {
    let (min_in_sync, retention) = (demands.min_in_sync.to_string(), demands.retention_ms().to_string());
    // The broker measures the whole batch: leave room for its header.
    let max_message_bytes = (demands.max_message_bytes + 4096).to_string();
    let replication = TopicReplication::Fixed(i32::from(demands.replicas));
    let new = NewTopic::new(topic.as_str(), i32::from(demands.partitions), replication)
        .set("cleanup.policy", "delete")
        .set("min.insync.replicas", &min_in_sync)
        .set("unclean.leader.election.enable", "false")
        .set("retention.ms", &retention)
        .set("retention.bytes", "-1")
        .set(TIMESTAMP_TYPE, LOG_APPEND_TIME)
        .set("max.message.bytes", &max_message_bytes);
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(10)))
        .operation_timeout(Some(Duration::from_secs(10)));
    let what = format!("making topic {topic}");
    let results = admin.create_topics([&new], &options).await.map_err(|error| failed(&what, &error))?;
    for result in results {
        match result {
            Ok(_) => tracing::info!(%topic, partitions = demands.partitions, "made the topic"),
            // Another replica was faster; its work is checked like anybody's.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                return Err(LogError::Unfit(format!(
                    "topic {topic} needs {} copies and there are not so many brokers; start more brokers, or set \
                     kafka.allow_single_node on a developer's machine",
                    demands.replicas
                )));
            }
            Err((_, RDKafkaErrorCode::InvalidTopic)) => {
                return Err(LogError::Unfit(format!(
                    "Kafka takes no topic {topic}: it has another one whose name differs in nothing but . and _, which are \
                     the same in the names of its metrics, or the name is one of its own; name the topic otherwise"
                )));
            }
            Err((_, code)) => return Err(failed(&what, &KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Waits until the metadata shows every partition with a leader.
async fn until_led(client: &Arc<GroupClient>, topic: &Topic, demands: &Demands) -> Result<TopicShape, LogError> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        match shape(client, topic).await? {
            // With another number than ours no waiting helps.
            Some(shape) if shape.all_led || shape.partitions != usize::from(demands.partitions) => return Ok(shape),
            _ if Instant::now() >= deadline => {
                return Err(LogError::Unavailable(format!("not every partition of topic {topic} has a leader")));
            }
            _ => tokio::time::sleep(SETTLE_POLL).await,
        }
    }
}

async fn describe(admin: &AdminClient<QuietContext>, topic: &Topic) -> Result<HashMap<String, String>, LogError> {
    let what = format!("the settings of topic {topic}");
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let resource = ResourceSpecifier::Topic(topic.as_str());
    let answer = admin.describe_configs([&resource], &options).await.map_err(|error| failed(&what, &error))?;
    match answer.into_iter().next() {
        Some(Ok(config)) => {
            Ok(config.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
        }
        Some(Err(code)) => Err(failed(&what, &KafkaError::AdminOp(code))),
        None => Err(LogError::Unavailable(format!("{what}: no answer"))),
    }
}

/// Whether a producer's wrong clock can make Kafka delete what it has just appended. Topics of earlier releases are so.
fn goes_by_producers_clocks(demands: &Demands, config: &HashMap<String, String>) -> bool {
    let setting = |name: &str| config.get(name).map(String::as_str);
    setting(TIMESTAMP_TYPE) != Some(LOG_APPEND_TIME)
        && demands.retention.is_some()
        && setting("retention.ms") != Some("-1")
}

/// Whether the topic keeps what is demanded. Answers its `min.insync.replicas`.
fn check(
    topic: &Topic,
    demands: &Demands,
    shape: &TopicShape,
    config: &HashMap<String, String>,
) -> Result<usize, LogError> {
    let unfit = |problem: String| Err(LogError::Unfit(format!("topic {topic}: {problem}")));
    let text = |name: &str| config.get(name).map_or("", String::as_str);
    let number = |name: &str| text(name).parse::<i64>().ok();

    if shape.partitions != usize::from(demands.partitions) {
        return unfit(format!(
            "it has {} partitions and must have {}, one per shard; name another topic in kafka.topic_template, or set \
             shards to the number that this installation was started with",
            shape.partitions, demands.partitions
        ));
    }
    if text("cleanup.policy") != "delete" {
        return unfit(format!(
            "cleanup.policy is {:?} and must be delete: compaction would remove events that were not drained yet",
            text("cleanup.policy")
        ));
    }
    if text("unclean.leader.election.enable") != "false" {
        return unfit(
            "unclean.leader.election.enable must be false: acknowledged events would be lost with a leader".into(),
        );
    }
    if shape.replicas < usize::from(demands.replicas) {
        return unfit(format!(
            "it has {} copies and must have {}; raise its replication factor, or set kafka.allow_single_node on a \
             developer's machine",
            shape.replicas, demands.replicas
        ));
    }
    let min_in_sync = number("min.insync.replicas").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if min_in_sync < usize::from(demands.min_in_sync) {
        return unfit(format!(
            "min.insync.replicas is {min_in_sync} and must be at least {}; raise it, or set kafka.allow_single_node \
             on a developer's machine",
            demands.min_in_sync
        ));
    }
    if min_in_sync > shape.replicas {
        return unfit(format!(
            "min.insync.replicas is {min_in_sync} but there are only {} copies: no write would ever be taken; lower it",
            shape.replicas
        ));
    }
    match (number("retention.ms"), demands.retention) {
        (Some(-1), _) => {}
        (Some(ms), Some(_)) if ms >= demands.retention_ms() => {}
        (_, None) => {
            return unfit(format!(
                "retention.ms is {:?} and must be -1: dead letters are kept until somebody has dealt with them",
                text("retention.ms")
            ));
        }
        _ => {
            return unfit(format!(
                "retention.ms is {:?} and must be at least {} (kafka.retention): events would be deleted before they \
                 are drained; raise it",
                text("retention.ms"),
                demands.retention_ms()
            ));
        }
    }
    if number("retention.bytes") != Some(-1) {
        return unfit(format!(
            "retention.bytes is {:?} and must be -1: events would be deleted before they are drained",
            text("retention.bytes")
        ));
    }
    let max_message_bytes = number("max.message.bytes").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if max_message_bytes < demands.max_message_bytes {
        return unfit(format!(
            "max.message.bytes is {max_message_bytes} and must be at least {} (kafka.max_message_bytes); raise it, or \
             lower kafka.max_message_bytes",
            demands.max_message_bytes
        ));
    }
    Ok(min_in_sync)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn demands() -> Demands {
        demands_of("orders")
    }

    fn demands_of(topic: &str) -> Demands {
        let (options, topic) = (KafkaOptions::new("127.0.0.1:9092", "drain"), Topic::new(topic).unwrap());
        Demands::new(&options, &topic, 64, LogSettings { allow_single_node: false })
    }

    fn shape() -> TopicShape {
        TopicShape { partitions: 64, replicas: 3, in_sync: 3, all_led: true }
    }

    fn good() -> HashMap<String, String> {
        [
            ("cleanup.policy", "delete"),
            ("unclean.leader.election.enable", "false"),
            ("min.insync.replicas", "2"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "1048588"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn verdict(shape: &TopicShape, config: &HashMap<String, String>) -> Result<usize, LogError> {
        check(&Topic::new("orders").unwrap(), &demands(), shape, config)
    }

    #[test]
    fn a_topic_that_keeps_everything_is_taken() {
        assert_eq!(verdict(&shape(), &good()), Ok(2));
        let mut kept_for_ever = good();
        kept_for_ever.insert("retention.ms".into(), "-1".into());
        assert_eq!(verdict(&shape(), &kept_for_ever), Ok(2));
    }

    #[test]
    fn every_setting_that_would_break_a_promise_is_named() {
        for (name, value) in [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("unclean.leader.election.enable", "true"),
            ("min.insync.replicas", "1"),
            ("min.insync.replicas", "4"),
            ("retention.ms", "3600000"),
            ("retention.bytes", "1073741824"),
            ("max.message.bytes", "1000"),
        ] {
            let mut config = good();
            config.insert(name.into(), value.into());
            let Err(LogError::Unfit(message)) = verdict(&shape(), &config) else { panic!("{name}={value} accepted") };
            assert!(message.contains("orders") && message.contains(name), "{message}");
            config.remove(name);
            assert!(verdict(&shape(), &config).is_err(), "{name} missing");
        }
    }

    #[test]
    fn producers_clocks_matter_where_records_are_deleted_by_age() {
        let mut config = good();
        assert!(goes_by_producers_clocks(&demands(), &config));
        config.insert(TIMESTAMP_TYPE.into(), "CreateTime".into());
        assert!(goes_by_producers_clocks(&demands(), &config));
        assert_eq!(verdict(&shape(), &config), Ok(2), "it is no reason to stand still");
        config.insert("retention.ms".into(), "-1".into());
        assert!(!goes_by_producers_clocks(&demands(), &config));
        let mut config = good();
        config.insert(TIMESTAMP_TYPE.into(), LOG_APPEND_TIME.into());
        assert!(!goes_by_producers_clocks(&demands(), &config));
    }

    #[test]
    fn dead_letters_are_kept_for_ever_and_are_larger_than_their_events() {
        let demands = demands_of("orders.dlq");
        let topic = Topic::new("orders.dlq").unwrap();
        let verdict = |config: &HashMap<String, String>| check(&topic, &demands, &shape(), config);
        let mut config = good();
        config.insert("retention.ms".into(), "-1".into());
        assert_eq!(verdict(&config), Ok(2));
        for (name, value) in [("retention.ms", "604800000"), ("max.message.bytes", "1000012")] {
            let mut config = config.clone();
            config.insert(name.into(), value.into());
            let Err(LogError::Unfit(message)) = verdict(&config) else { panic!("{name}={value} accepted") };
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn another_number_of_partitions_or_too_few_copies_are_refused() {
        assert!(verdict(&TopicShape { partitions: 32, ..shape() }, &good()).is_err());
        assert!(verdict(&TopicShape { replicas: 2, ..shape() }, &good()).is_err());
    }

    #[test]
    fn one_node_relaxes_the_copies_and_nothing_else() {
        let options = KafkaOptions::new("127.0.0.1:9092", "drain");
        let topic = Topic::new("orders").unwrap();
        let single = Demands::new(&options, &topic, 64, LogSettings { allow_single_node: true });
        let lonely = TopicShape { replicas: 1, in_sync: 1, ..shape() };
        let mut config = good();
        config.insert("min.insync.replicas".into(), "1".into());
        assert_eq!(check(&topic, &single, &lonely, &config), Ok(1));
        config.insert("cleanup.policy".into(), "compact".into());
        assert!(check(&topic, &single, &lonely, &config).is_err());
    }
}
