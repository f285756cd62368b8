//! The log on Kafka: the contract with both group protocols, and what only it has to keep.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use event_log::{
    EventPublisher, EventSource, LogError, LogReader, LogSettings, PublishError,
    kafka::{GroupProtocol, KafkaLog, KafkaOptions, KafkaSource},
};
use model::Topic;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::{
    cases::contract,
    harness::{Backend, Observed, REQUEST_WINDOW, SETTINGS, at, drained, fill, outgoing, progress, publish, within},
};

const VARIABLE: &str = "SHOCK_ABSORBER_TEST_KAFKA";

#[derive(Clone)]
struct Kafka<const NEW_PROTOCOL: bool> {
    log: KafkaLog,
    options: KafkaOptions,
    prefix: String,
}

fn options(protocol: GroupProtocol) -> (KafkaOptions, String) {
    let Ok(brokers) = std::env::var(VARIABLE) else {
        panic!("{VARIABLE} is not set: name a broker as host:port, or let ./tests/run start one");
    };
    static TESTS: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let prefix = format!("contract-{now}-{}-{}", std::process::id(), TESTS.fetch_add(1, Ordering::Relaxed));
    let options = KafkaOptions {
        group_protocol: protocol,
        session_timeout: Duration::from_secs(6),
        request_window: REQUEST_WINDOW,
        allow_single_node: true,
        ..KafkaOptions::new(brokers, format!("{prefix}-drain"))
    };
    (options, prefix)
}

impl<const NEW_PROTOCOL: bool> Backend for Kafka<NEW_PROTOCOL> {
    type Log = KafkaLog;
    type Source = KafkaSource;

    async fn start() -> Self {
        let (options, prefix) = options(if NEW_PROTOCOL { GroupProtocol::Consumer } else { GroupProtocol::Classic });
        let log = KafkaLog::connect(options.clone()).await.unwrap();
        Self { log, options, prefix }
    }

    fn log(&self) -> &KafkaLog {
        &self.log
    }

    fn topic(&self, name: &str) -> Topic {
        Topic::new(format!("{}.{name}", self.prefix)).unwrap()
    }

    fn join(&self) -> KafkaSource {
        KafkaSource::join(&self.options).unwrap()
    }
}

type Classic = Kafka<false>;

mod assignment;
mod gaps;

mod classic {
    use super::{Kafka, contract};

    contract!(Kafka<false>, [#[ignore = "needs a server: ./tests/run starts one"]]);
}

mod consumer {
    use super::{Kafka, contract};

    contract!(Kafka<true>, [#[ignore = "needs a server: ./tests/run starts one"]]);
}

fn admin(options: &KafkaOptions) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &options.brokers).create().unwrap()
}

async fn make_topic(backend: &Classic, topic: &Topic, settings: &[(&str, &str)]) {
    let admin = admin(&backend.options);
    let mut new = NewTopic::new(topic.as_str(), 2, TopicReplication::Fixed(1));
    let mut all: HashMap<&str, &str> = HashMap::from([
        ("cleanup.policy", "delete"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "false"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
    ]);
    all.extend(settings.iter().copied());
    for (name, value) in all {
        new = new.set(name, value);
    }
    let results = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    assert!(results[0].is_ok(), "{results:?}");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn an_existing_topic_with_settings_that_break_a_promise_is_refused() {
    let backend = Classic::start().await;
    for (setting, value) in [
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "2"),
        ("retention.ms", "3600000"),
        ("retention.bytes", "1000000"),
        ("max.message.bytes", "5000"),
    ] {
        let topic = backend.topic(&format!("bad-{setting}"));
        make_topic(&backend, &topic, &[(setting, value)]).await;
        let verdict = backend.log.ensure_topic(&topic, 2, SETTINGS).await;
        let Err(LogError::Unfit(message)) = verdict else { panic!("{setting}={value}: {verdict:?}") };
        assert!(message.contains(setting) && message.contains(topic.as_str()), "{message}");
    }
    let good = backend.topic("good");
    make_topic(&backend, &good, &[]).await;
    assert_eq!(backend.log.ensure_topic(&good, 2, SETTINGS).await, Ok(()));
}

/// Trying again would not help, and nobody is to be told that it does.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_topic_whose_name_collides_with_another_s_is_refused() {
    let backend = Classic::start().await;
    backend.log.ensure_topic(&backend.topic("pay.ments"), 2, SETTINGS).await.unwrap();
    let refused = backend.topic("pay_ments");
    let verdict = backend.log.ensure_topic(&refused, 2, SETTINGS).await;
    let Err(LogError::Unfit(message)) = verdict else { panic!("{verdict:?}") };
    assert!(message.contains(refused.as_str()) && message.contains("otherwise"), "{message}");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn one_node_must_be_allowed_explicitly() {
    let (options, prefix) = options(GroupProtocol::Classic);
    let log = KafkaLog::connect(KafkaOptions { allow_single_node: false, ..options }).await.unwrap();
    let topic = Topic::new(format!("{prefix}.orders")).unwrap();
    let strict = LogSettings { allow_single_node: false };
    let verdict = log.ensure_topic(&topic, 2, strict).await;
    assert!(matches!(&verdict, Err(LogError::Unfit(m)) if m.contains("allow_single_node")), "{verdict:?}");
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    let verdict = log.ensure_topic(&topic, 2, strict).await;
    assert!(matches!(&verdict, Err(LogError::Unfit(m)) if m.contains("copies")), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn who_has_closed_has_left_the_group() {
    let backend = Classic::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 4, SETTINGS).await.unwrap();
    let observer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &backend.options.brokers).create().unwrap();
    let members = || {
        let list = observer.fetch_group_list(Some(&backend.options.group), Duration::from_secs(5)).unwrap();
        list.groups().iter().map(|group| group.members().len()).sum::<usize>()
    };
    for round in 0..10 {
        let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
        member.until("all partitions", |m| m.owned.len() == 4).await;
        assert_eq!(members(), 1);
        within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
        // A process that ends now leaves nobody behind for whom the others would have to wait.
        assert_eq!(members(), 0, "round {round}");
    }
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn an_offset_that_somebody_committed_without_an_epoch_is_refused() {
    let backend = Classic::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..5).await;
    let (brokers, group, name) = (backend.options.brokers.clone(), backend.options.group.clone(), topic.to_string());
    tokio::task::spawn_blocking(move || {
        let stranger: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&name, 0, Offset::Offset(3)).unwrap();
        stranger.commit(&offsets, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    let read = backend.log.committed(&[at(&topic, 0)]).await;
    assert!(matches!(&read, Err(LogError::Unfit(m)) if m.contains("epoch")), "{read:?}");
    let mut source = backend.join();
    source.subscribe(std::slice::from_ref(&topic)).await.unwrap();
    let first = within("the refusal", source.next()).await;
    assert!(matches!(&first, Err(LogError::Unfit(_))), "{first:?}");
    let again = within("the refusal", source.next()).await;
    assert!(matches!(&again, Err(LogError::Unfit(_))), "it stays so: {again:?}");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_second_process_with_the_same_instance_id_fences_the_first() {
    let backend = Classic::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    let options = KafkaOptions { group_instance_id: Some("drain-0".into()), ..backend.options.clone() };
    let mut first = Observed::subscribed(KafkaSource::join(&options).unwrap(), std::slice::from_ref(&topic)).await;
    first.until("the partition", |m| m.owned.len() == 1).await;
    let mut second = KafkaSource::join(&options).unwrap();
    second.subscribe(std::slice::from_ref(&topic)).await.unwrap();
    let end = within("the fencing", async {
        loop {
            tokio::select! {
                outcome = first.source.next() => if let Err(error @ LogError::Fatal(_)) = outcome { return error },
                outcome = second.next() => drop(outcome.unwrap()),
            }
        }
    })
    .await;
    assert!(end.to_string().contains("start"), "{end}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unavailable() {
    let options = KafkaOptions::new("127.0.0.1:1", "nobody");
    let connected = KafkaLog::connect(options).await;
    assert!(matches!(connected, Err(LogError::Unavailable(_))), "{connected:?}");
}

/// A broker within the process: for what the client does when it goes away.
struct Mock {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    log: KafkaLog,
    topic: Topic,
}

/// It answers no questions for settings.
fn of_the_mock(cluster: &MockCluster<'static, rdkafka::producer::DefaultProducerContext>) -> KafkaOptions {
    KafkaOptions { group_protocol: GroupProtocol::Classic, ..KafkaOptions::new(cluster.bootstrap_servers(), "drain") }
}

impl Mock {
    async fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 2, 1).unwrap();
        let options = KafkaOptions { delivery_timeout: Duration::from_secs(3), ..of_the_mock(&cluster) };
        let log = KafkaLog::connect(options).await.unwrap();
        Self { cluster, log, topic: Topic::new("orders").unwrap() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_makes_the_log_unavailable_and_it_recovers_by_itself() {
    let Mock { cluster, log, topic } = Mock::start().await;
    publish(&log, vec![outgoing(&topic, 0, "before")]).await;
    assert!(log.is_available());
    cluster.broker_down(1).unwrap();
    let answers = within("publishing", log.publish(vec![outgoing(&topic, 0, "during")])).await;
    assert!(matches!(answers[0], Err(PublishError::Unknown(_))), "after the hand-over nothing is sure: {answers:?}");
    assert!(!log.is_available());
    cluster.broker_up(1).unwrap();
    within("the recovery", async {
        while !log.is_available() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    publish(&log, vec![outgoing(&topic, 0, "after")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stalls_makes_the_log_unavailable_before_anything_times_out() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    let options = KafkaOptions { delivery_timeout: Duration::from_secs(8), ..of_the_mock(&cluster) };
    let log = KafkaLog::connect(options).await.unwrap();
    let topic = Topic::new("orders").unwrap();
    publish(&log, vec![outgoing(&topic, 0, "before")]).await;
    cluster.broker_round_trip_time(1, Duration::from_secs(4)).unwrap();
    let stalled = tokio::spawn({
        let (log, record) = (log.clone(), outgoing(&topic, 0, "stalled"));
        async move { log.publish(vec![record]).await }
    });
    within("the suspicion", async {
        while log.is_available() {
            assert!(!stalled.is_finished(), "it got through before anybody was worried");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    assert!(within("the delivery", stalled).await.unwrap()[0].is_ok());
    assert!(log.is_available());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_bound_of_the_queue_records_are_refused() {
    let Mock { cluster, log, topic } = Mock::start().await;
    publish(&log, vec![outgoing(&topic, 0, "before")]).await;
    cluster.broker_down(1).unwrap();
    let payload = "x".repeat(200_000);
    let records = (0..400).map(|_| outgoing(&topic, 1, &payload)).collect();
    let answers = within("publishing", log.publish(records)).await;
    let refused = answers.iter().position(|answer| matches!(answer, Err(PublishError::Refused(_))));
    let refused = refused.expect("the queue has no bound");
    assert!(answers[..refused].iter().all(|answer| matches!(answer, Err(PublishError::Unknown(_)))));
    assert!(answers[refused..].iter().all(|answer| matches!(answer, Err(PublishError::Refused(_)))));
}

/// The end that the brokers tell may be later than the one that the reading met.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_met_before_the_last_records_came_hides_none_of_them() {
    let Mock { cluster, log, topic } = Mock::start().await;
    fill(&log, &topic, 0, 0..8).await;
    // Between the end that is met and the question where the end is lies at least one answer.
    cluster.broker_round_trip_time(1, Duration::from_millis(300)).unwrap();
    let mut read = Vec::new();
    let (publisher, late_topic) = (log.clone(), topic.clone());
    let mut each = |record: event_log::LogRecord| {
        if record.offset == 7 {
            let (log, topic) = (publisher.clone(), late_topic.clone());
            tokio::spawn(async move { fill(&log, &topic, 0, 8..10).await });
        }
        read.push(record.offset);
        true
    };
    let outcome = within("reading", log.read(&at(&topic, 0), 0, 10, &mut each)).await;
    assert_eq!(outcome, Ok(()));
    assert_eq!(read, (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_broker_goes_away_and_comes_back_goes_on() {
    let Mock { cluster, log, topic } = Mock::start().await;
    let options = KafkaOptions { session_timeout: Duration::from_secs(6), ..of_the_mock(&cluster) };
    fill(&log, &topic, 0, 0..10).await;
    let mut member = Observed::subscribed(KafkaSource::join(&options).unwrap(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 10).await;
    cluster.broker_down(1).unwrap();
    let error = within("an error", async {
        loop {
            if let Err(error) = member.source.next().await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(error, LogError::Unavailable(_)), "{error:?}");
    cluster.broker_up(1).unwrap();
    within("the recovery", async {
        while !log.is_available() || log.bounds(&[at(&topic, 0)]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    fill(&log, &topic, 0, 10..20).await;
    within("the rest", async {
        while member.delivered_of(&at(&topic, 0)).len() < 20 {
            // Errors that pass are part of it.
            if let Ok(event) = member.source.next().await {
                member.observe(event);
            }
        }
    })
    .await;
    member.source.note_progress(&[(at(&topic, 0), progress(20, 1))]);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_has_lost_its_sequence_is_made_anew() {
    let Mock { cluster, log, topic } = Mock::start().await;
    publish(&log, vec![outgoing(&topic, 0, "before")]).await;
    let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[lost]);
    let answers = within("publishing", log.publish(vec![outgoing(&topic, 0, "during")])).await;
    assert!(matches!(answers[0], Err(PublishError::Unknown(_))), "{answers:?}");
    publish(&log, vec![outgoing(&topic, 0, "after")]).await;
    assert!(log.is_available());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_does_not_wait_until_it_is_known_where_new_partitions_begin() {
    let Mock { cluster, topic, .. } = Mock::start().await;
    let loading = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 10_000];
    cluster.request_errors(RDKafkaApiKey::OffsetFetch, &loading);
    let options = of_the_mock(&cluster);
    let mut source = KafkaSource::join(&options).unwrap();
    within("subscribing", source.subscribe(std::slice::from_ref(&topic))).await.unwrap();
    // The mock lets a group gather for three seconds.
    let event = tokio::time::timeout(Duration::from_secs(6), source.next()).await;
    assert!(event.is_err(), "it took partitions up: {event:?}");
    let begun = Instant::now();
    assert_eq!(source.close(Duration::from_secs(90)).await, Ok(()), "there was nothing to commit");
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_fails_at_the_end_does_not_cost_the_last_commit() {
    let Mock { cluster, log, topic } = Mock::start().await;
    fill(&log, &topic, 0, 0..10).await;
    let options = of_the_mock(&cluster);
    let mut member = Observed::subscribed(KafkaSource::join(&options).unwrap(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 10).await;
    // Longer than one question may take.
    cluster.broker_round_trip_time(1, Duration::from_millis(1500)).unwrap();
    member.source.note_progress(&[(at(&topic, 0), progress(10, 1))]);
    let recovery = async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    };
    let (closed, ()) = tokio::join!(within("closing", member.source.close(Duration::from_secs(60))), recovery);
    assert_eq!(closed, Ok(()));
    assert_eq!(drained(&log, &[at(&topic, 0)]).await, [Some(progress(10, 1))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_bounded_while_the_broker_is_away() {
    let Mock { cluster, log, topic } = Mock::start().await;
    fill(&log, &topic, 0, 0..10).await;
    let options = of_the_mock(&cluster);
    let mut member = Observed::subscribed(KafkaSource::join(&options).unwrap(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 10).await;
    cluster.broker_down(1).unwrap();
    member.source.note_progress(&[(at(&topic, 0), progress(10, 1))]);
    let begun = Instant::now();
    let closed = member.source.close(Duration::from_secs(1)).await;
    assert!(matches!(closed, Err(LogError::Unavailable(_))), "nothing was committed: {closed:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let begun = Instant::now();
    drop(log);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// Figures for the report: `cargo test -p event-log --test contract -- --include-ignored --nocapture kafka::figures`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn figures() {
    let backend = Classic::start().await;
    let (log, topic) = (&backend.log, backend.topic("orders"));
    log.ensure_topic(&topic, 64, SETTINGS).await.unwrap();
    let payload = "x".repeat(300);
    publish(log, vec![outgoing(&topic, 0, &payload)]).await;
    let mut times = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        publish(log, vec![outgoing(&topic, 0, &payload)]).await;
        times.push(begun.elapsed());
    }
    times.sort();
    eprintln!("Kafka, one record at a time: p50 {:?}, p99 {:?}", times[250], times[495]);
    for publishers in [1u16, 16] {
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..publishers {
            let (log, topic, payload) = (log.clone(), topic.clone(), payload.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..200 {
                    publish(&log, (0..100).map(|n| outgoing(&topic, n % 64, &payload)).collect()).await;
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let rate = f64::from(publishers) * 20_000.0 / begun.elapsed().as_secs_f64();
        eprintln!("Kafka, {publishers} publishers with batches of 100: {rate:.0} records/s");
    }
    let begun = Instant::now();
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("the partitions", |m| m.owned.len() == 64).await;
    let joined = begun.elapsed();
    member.until("everything", |m| m.delivered() == 340_501).await;
    let rate = 340_501.0 / (begun.elapsed() - joined).as_secs_f64();
    eprintln!("Kafka, drained by one member: {rate:.0} records/s; it had joined after {joined:?}");
    let all: Vec<_> = (0..64).map(|partition| at(&topic, partition)).collect();
    let begun = Instant::now();
    log.bounds(&all).await.unwrap();
    eprintln!("Kafka, bounds of 64 partitions: {:?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn it_tells_where_what_was_appended_since_a_time_begins() {
    fn now() -> i64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    }
    let backend = Classic::start().await;
    let topic = backend.topic("since");
    backend.log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..3).await;
    let between = now() + 1;
    // The broker's clock is this machine's.
    while now() <= between {
        tokio::task::yield_now().await;
    }
    fill(&backend.log, &topic, 0, 3..5).await;
    let partitions = [at(&topic, 0), at(&topic, 1)];
    for (since, expected) in [(0, [0, 0]), (between, [3, 0]), (now() + 3_600_000, [5, 0])] {
        assert_eq!(backend.log.first_since(&partitions, since).await, Ok(expected.to_vec()), "{since}");
    }
}
