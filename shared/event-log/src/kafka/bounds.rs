//! Where partitions begin and end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use model::Topic;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerContext},
    error::KafkaError,
};

use super::{
    client::{REQUEST_TIMEOUT, failed, says_no_such_topic, topic_shape},
    commit::list,
};
use crate::log::{LogError, TopicPartition};

/// Attempts at a question whose partitions are moving to other brokers, or that a silent broker was asked.
const ATTEMPTS: u32 = 3;

/// First and next offsets, of each partition as far as its leader tells within this time. One that has no leader or no
/// topic, or a broker that does not answer, costs no other partition its answer. Blocks.
pub(super) fn bounds_of_each<X, C>(
    client: &C,
    partitions: &[TopicPartition],
    within: Duration,
) -> Vec<Result<(i64, i64), LogError>>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let deadline = Instant::now() + within;
    // Nearly always all is answered at once. The question fails as a whole where one partition has no leader.
    if let Ok(bounds) = bounds_once(client, partitions, within / 2) {
        return bounds.into_iter().map(Ok).collect();
    }
    let mut answers: Vec<_> = partitions.iter().map(|at| Err(without_leader(at))).collect();
    let mut led: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (topic, indices) in by_topic(partitions) {
        match leaders_of(client, topic, deadline) {
            Ok(leaders) => {
                for (partition, index) in indices {
                    if let Some(leader) = leaders.get(&partition) {
                        led.entry(*leader).or_default().push(index);
                    }
                }
            }
            Err(error) => indices.into_values().for_each(|index| answers[index] = Err(error.clone())),
        }
    }
    let brokers = led.len();
    for (asked, indices) in led.into_values().enumerate() {
        let share = left(deadline) / u32::try_from(brokers - asked).unwrap_or(u32::MAX);
        let subset: Vec<_> = indices.iter().map(|index| partitions[*index].clone()).collect();
        let bounds = bounds_once(client, &subset, share);
        for (position, index) in indices.into_iter().enumerate() {
            answers[index] = bounds.as_ref().map(|bounds| bounds[position]).map_err(Clone::clone);
        }
    }
    answers
}

fn without_leader(TopicPartition { topic, partition }: &TopicPartition) -> LogError {
    LogError::Unavailable(format!("{topic}/{partition} has no leader"))
}

/// The index of each partition.
fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<&Topic, BTreeMap<i32, usize>> {
    let mut of_topics: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (index, TopicPartition { topic, partition }) in partitions.iter().enumerate() {
        of_topics.entry(topic).or_default().insert(i32::from(*partition), index);
    }
    of_topics
}

/// The brokers that lead the partitions of a topic, asked for again where nobody answers: librdkafka asks any broker, so it
/// may be the silent one.
fn leaders_of<X, C>(client: &C, topic: &Topic, deadline: Instant) -> Result<BTreeMap<i32, i32>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let mut answer = leaders(client, topic, left(deadline) / 4);
    for _ in 1..ATTEMPTS {
        if !matches!(answer, Err(LogError::Unavailable(_))) {
            break;
        }
        answer = leaders(client, topic, left(deadline) / 4);
    }
    answer
}

/// The brokers that lead the partitions of a topic; what has no leader is left out.
fn leaders<X, C>(client: &C, topic: &Topic, timeout: Duration) -> Result<BTreeMap<i32, i32>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let missing = || LogError::NoSuchTopic(topic.clone());
    let metadata = match client.fetch_metadata(Some(topic.as_str()), timeout) {
        Ok(metadata) => metadata,
        Err(error) if says_no_such_topic(&error) => return Err(missing()),
        Err(error) => return Err(failed(&format!("metadata of topic {topic}"), &error)),
    };
    let found = metadata.topics().iter().find(|found| found.name() == topic.as_str()).ok_or_else(missing)?;
    match found.error().map(|code| KafkaError::MetadataFetch(code.into())) {
        None => {}
        Some(error) if says_no_such_topic(&error) => return Err(missing()),
        Some(error) => return Err(failed(&format!("metadata of topic {topic}"), &error)),
    }
    let led = found.partitions().iter().filter(|partition| partition.leader() >= 0);
    Ok(led.map(|partition| (partition.id(), partition.leader())).collect())
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn bounds_once<X, C>(client: &C, partitions: &[TopicPartition], within: Duration) -> Result<Vec<(i64, i64)>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let deadline = Instant::now() + within;
    let low = ends_once(client, partitions, Offset::Beginning, left(deadline))?;
    let high = ends_once(client, partitions, Offset::End, left(deadline))?;
    Ok(low.into_iter().zip(high).collect())
}

/// First and next offsets of all partitions, or why one of them has none. Blocks.
pub(super) fn bounds<X, C>(client: &C, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let low = ends(client, partitions, Offset::Beginning)?;
    let high = ends(client, partitions, Offset::End)?;
    Ok(low.into_iter().zip(high).collect())
}

fn ends<X, C>(client: &C, partitions: &[TopicPartition], end: Offset) -> Result<Vec<i64>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let mut attempt = 1;
    loop {
        match ends_once(client, partitions, end, REQUEST_TIMEOUT) {
            Err(LogError::Unavailable(_)) if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
}

/// The first offset of each partition at which something was appended at that time or later; its end, if there is none.
/// Blocks.
pub(super) fn first_since<X, C>(client: &C, partitions: &[TopicPartition], millis: i64) -> Result<Vec<i64>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let bounds = bounds(client, partitions)?;
    let mut question = list(partitions);
    let asked = Offset::Offset(millis);
    question.set_all_offsets(asked).map_err(|error| failed("offsets by time", &error))?;
    let answer =
        client.offsets_for_times(question, REQUEST_TIMEOUT).map_err(|error| failed("offsets by time", &error))?;
    let first = |(at, (low, high)): (&TopicPartition, (i64, i64))| {
        let TopicPartition { topic, partition } = at;
        let unanswered = || LogError::Unavailable(format!("no offset by time of {topic}/{partition} came back"));
        let element = answer.find_partition(topic.as_str(), i32::from(*partition)).ok_or_else(unanswered)?;
        element.error().map_err(|error| failed(&format!("the offset by time of {topic}/{partition}"), &error))?;
        match element.offset() {
            Offset::End => Ok(high),
            // What was not answered for still has the question, which is no offset there is.
            offset if offset == asked && millis > high => Err(unanswered()),
            Offset::Offset(offset) => Ok(offset.max(low)),
            _ => Err(unanswered()),
        }
    };
    partitions.iter().zip(bounds).map(first).collect()
}

/// The logical offsets "beginning" and "end" are the timestamps -2 and -1 of Kafka's ListOffsets, so the question
/// for timestamps asks for the ends of all partitions of a broker at once.
fn ends_once<X, C>(
    client: &C,
    partitions: &[TopicPartition],
    end: Offset,
    timeout: Duration,
) -> Result<Vec<i64>, LogError>
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let mut question = list(partitions);
    question.set_all_offsets(end).map_err(|error| failed("the ends of the log", &error))?;
    let answer = match client.offsets_for_times(question, timeout) {
        Ok(answer) => answer,
        Err(error) if says_no_such_topic(&error) => return Err(missing_topic(client, partitions, &error)),
        Err(error) => return Err(failed("the ends of the log", &error)),
    };
    partitions.iter().map(|partition| end_of(&answer, partition)).collect()
}

fn end_of(answer: &TopicPartitionList, partition: &TopicPartition) -> Result<i64, LogError> {
    let TopicPartition { topic, partition } = partition;
    let Some(element) = answer.find_partition(topic.as_str(), i32::from(*partition)) else {
        return Err(LogError::Unavailable(format!("no end of {topic}/{partition} came back")));
    };
    match element.error() {
        Ok(()) => {}
        Err(error) if says_no_such_topic(&error) => return Err(LogError::NoSuchTopic(topic.clone())),
        Err(error) => return Err(failed(&format!("the ends of {topic}/{partition}"), &error)),
    }
    // A partition that was not answered for still has the logical offset of the question.
    match element.offset() {
        Offset::Offset(offset) => Ok(offset),
        _ => Err(LogError::Unavailable(format!("no end of {topic}/{partition} came back"))),
    }
}

/// The error names no topic: ask which one is missing.
fn missing_topic<X, C>(client: &C, partitions: &[TopicPartition], error: &KafkaError) -> LogError
where
    X: ConsumerContext,
    C: Consumer<X>,
{
    let mut topics: Vec<&Topic> = partitions.iter().map(|partition| &partition.topic).collect();
    topics.dedup();
    for topic in topics {
        match topic_shape(client.client(), topic, REQUEST_TIMEOUT) {
            Ok(Some(_)) => {}
            Ok(None) => return LogError::NoSuchTopic(topic.clone()),
            Err(error) => return error,
        }
    }
    failed("the ends of the log", error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::{
        ClientConfig,
        config::FromClientConfigAndContext,
        consumer::BaseConsumer,
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, Producer},
    };

    use super::*;
    use crate::kafka::client::QuietContext;

    fn at(partition: u16) -> TopicPartition {
        TopicPartition { topic: Topic::new("orders").unwrap(), partition }
    }

    #[test]
    fn a_partition_without_a_leader_and_a_silent_broker_cost_no_other_partition_its_answer() {
        // As many as make it unlikely that the silent one is asked for the leaders each time.
        let cluster = MockCluster::new(9).unwrap();
        cluster.create_topic("orders", 4, 1).unwrap();
        for (partition, leader) in [(0, 1), (1, 1), (2, 2), (3, 3)] {
            cluster.partition_leader("orders", partition, Some(leader)).unwrap();
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: BaseProducer = config.create().unwrap();
        producer.send(BaseRecord::to("orders").partition(3).key("").payload("")).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();

        config.set("group.id", "drain");
        let client: BaseConsumer<QuietContext> = BaseConsumer::from_config_and_context(&config, QuietContext).unwrap();
        let all: Vec<_> = (0..4).map(at).collect();
        // Long enough for a busy machine, and shorter than the silence.
        let within = Duration::from_secs(8);
        let known = || -> Vec<_> { bounds_of_each(&client, &all, within).into_iter().map(Result::ok).collect() };
        assert_eq!(known(), [Some((0, 0)), Some((0, 0)), Some((0, 0)), Some((0, 1))]);

        cluster.partition_leader("orders", 1, None).unwrap();
        cluster.broker_round_trip_time(2, Duration::from_secs(30)).unwrap();
        let begun = Instant::now();
        assert_eq!(known(), [Some((0, 0)), None, None, Some((0, 1))]);
        assert!(begun.elapsed() < within + Duration::from_secs(8), "{:?}", begun.elapsed());
    }
}
