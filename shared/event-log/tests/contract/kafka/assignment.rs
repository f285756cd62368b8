//! What members on Kafka take up, and when: after a process was killed, and when the log is not what it was.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use event_log::{Committed, EventPublisher, EventSource, LogError, LogReader, kafka::KafkaSource};
use model::Topic;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use super::{Classic, Kafka, admin};
use crate::harness::{Backend, Observed, SETTINGS, at, drained, fill, outgoing, progress, within};

/// The session timeout of these members: with the classic protocol ours, with the new one the test broker's.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// By so much later others have the partitions of a process that was killed.
const SLACK: Duration = Duration::from_secs(2);
const CHILD_GROUP: &str = "EVENT_LOG_TEST_CHILD_GROUP";
const CHILD_TOPIC: &str = "EVENT_LOG_TEST_CHILD_TOPIC";

/// Another process with one member, which tells when it has partitions. Killed when it is dropped.
struct OtherProcess(Child);

impl OtherProcess {
    fn start<const NEW: bool>(backend: &Kafka<NEW>, topic: &Topic) -> Self {
        let protocol = if NEW { "new" } else { "classic" };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", &format!("kafka::assignment::child_{protocol}")])
            .env(CHILD_GROUP, &backend.options.group)
            .env(CHILD_TOPIC, topic.as_str())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(told.into_iter().any(|line| line.contains("it has both partitions")), "the other process has ended");
        Self(child)
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the other process does: nothing, if nobody has started it.
async fn child<const NEW: bool>() {
    let (Ok(group), Ok(topic)) = (std::env::var(CHILD_GROUP), std::env::var(CHILD_TOPIC)) else { return };
    let mut backend = Kafka::<NEW>::start().await;
    backend.options.group = group;
    let mut member = Observed::subscribed(backend.join(), &[Topic::new(topic).unwrap()]).await;
    member.until("both partitions", |m| m.owned.len() == 2).await;
    println!("\nit has both partitions");
    member.linger(Duration::from_secs(120)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn child_classic() {
    child::<false>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn child_new() {
    child::<true>().await;
}

async fn the_partitions_of_a_process_that_was_killed_move_on<const NEW: bool>() {
    let backend = Kafka::<NEW>::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..10).await;
    let other = {
        let (backend, topic) = (backend.clone(), topic.clone());
        tokio::task::spawn_blocking(move || OtherProcess::start(&backend, &topic)).await.unwrap()
    };
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("its share", |m| m.owned.len() == 1).await;
    let killed = Instant::now();
    drop(other);
    member.until("the other one's share", |m| m.owned.len() == 2).await;
    let took = killed.elapsed();
    eprintln!("the partitions moved on after {took:?}");
    assert!(took <= SESSION_TIMEOUT + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn the_partitions_of_a_process_that_was_killed_move_on_when_its_session_ends() {
    the_partitions_of_a_process_that_was_killed_move_on::<false>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn the_same_after_a_kill_with_the_new_protocol() {
    the_partitions_of_a_process_that_was_killed_move_on::<true>().await;
}

/// Deletes a topic and makes it anew, with so many records in its first partition.
async fn make_anew<const NEW: bool>(backend: &Kafka<NEW>, topic: &Topic, records: usize) {
    let admin = admin(&backend.options);
    let deleted = admin.delete_topics(&[topic.as_str()], &AdminOptions::new()).await.unwrap();
    assert!(deleted[0].is_ok(), "{deleted:?}");
    within("making the topic anew", async {
        let new = NewTopic::new(topic.as_str(), 1, TopicReplication::Fixed(1));
        // While the old one is being deleted the name is taken.
        while admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut written = 0;
    within("filling the new topic", async {
        while written < records {
            // The producer may not know the new topic yet.
            let answers = backend.log.publish(vec![outgoing(topic, 0, &written.to_string())]).await;
            written += usize::from(answers[0].is_ok());
        }
    })
    .await;
}

/// Goes on until as many records of the partition as there shall be were delivered under one assignment; errors that
/// pass are nothing.
async fn until_delivered(member: &mut Observed<KafkaSource>, topic: &Topic, records: usize) {
    within("the new topic's records", async {
        while member.delivered_of(&at(topic, 0)).len() != records || member.owned[&at(topic, 0)][0].offset != 0 {
            match member.source.next().await {
                Ok(event) => member.observe(event),
                Err(LogError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
}

async fn a_topic_made_anew_is_drained_from_its_beginning<const NEW: bool>(records: usize) {
    let backend = Kafka::<NEW>::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..20).await;
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 20).await;
    member.note_all(3);
    while drained(&backend.log, &[at(&topic, 0)]).await != [Some(progress(20, 3))] {
        member.linger(Duration::from_millis(100)).await;
    }
    // Noted, but not committed when the topic goes.
    fill(&backend.log, &topic, 0, 20..25).await;
    member.until("the latest", |m| m.delivered() == 25).await;
    member.note_all(3);
    make_anew(&backend, &topic, records).await;
    until_delivered(&mut member, &topic, records).await;
    assert_eq!(member.last_assigned[0].committed, None);
    let expected: Vec<_> = (0..records).map(|n| n.to_string()).collect();
    assert_eq!(member.delivered_of(&at(&topic, 0)), expected);
    member.note_all(4);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(drained(&backend.log, &[at(&topic, 0)]).await, [Some(progress(records as i64, 4))]);
}

macro_rules! made_anew {
    ($($name:ident: $protocol:literal, $records:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a server: ./tests/run starts one"]
            async fn $name() {
                a_topic_made_anew_is_drained_from_its_beginning::<$protocol>($records).await;
            }
        )*
    };
}

made_anew! {
    a_shorter_topic_made_anew_under_a_member_is_drained_from_its_beginning: false, 7;
    a_longer_topic_made_anew_under_a_member_is_drained_from_its_beginning: false, 60;
    the_same_for_a_shorter_one_with_the_new_protocol: true, 7;
    the_same_for_a_longer_one_with_the_new_protocol: true, 60;
}

async fn delete_records(backend: &Classic, topic: &Topic, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic.as_str(), 0, Offset::Offset(before)).unwrap();
    let deleted = admin(&backend.options).delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    assert!(deleted.elements()[0].error().is_ok(), "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_was_deleted_before_it_was_drained_is_passed_over_under_a_new_assignment_only() {
    let backend = Classic::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..20).await;
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 20).await;
    member.source.note_progress(&[(at(&topic, 0), progress(5, 2))]);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    delete_records(&backend, &topic, 8).await;

    let mut heir = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    heir.until("what is left", |m| m.delivered() == 12).await;
    assert_eq!(heir.last_assigned[0].committed, Some(progress(8, 2)), "in the epoch that was known last");
    assert_eq!(heir.owned[&at(&topic, 0)][0].offset, 8);

    // Now under its feet, where it has not read yet; and once more at once.
    for end in [40, 60] {
        heir.source.pause(&[at(&topic, 0)]).unwrap();
        heir.linger(Duration::from_millis(300)).await;
        fill(&backend.log, &topic, 0, end - 20..end).await;
        let first = end as i64 - 10;
        delete_records(&backend, &topic, first).await;
        heir.source.resume(&[at(&topic, 0)]).unwrap();
        let last = (end - 1).to_string();
        within("what is left of the rest", async {
            while heir.delivered_of(&at(&topic, 0)).last() != Some(&last) {
                match heir.source.next().await {
                    // It panics where records are left out under one assignment.
                    Ok(event) => heir.observe(event),
                    Err(LogError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        assert_eq!(heir.last_assigned[0].committed, Some(progress(first, 2)));
        assert_eq!(heir.owned[&at(&topic, 0)].len(), 10);
    }
    heir.note_all(2);
    within("closing", heir.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(drained(&backend.log, &[at(&topic, 0)]).await, [Some(progress(60, 2))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_committed_offset_behind_the_log_s_end_means_another_log() {
    let backend = Classic::start().await;
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..5).await;
    let (brokers, group, name) = (backend.options.brokers.clone(), backend.options.group.clone(), topic.to_string());
    tokio::task::spawn_blocking(move || {
        let earlier: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap();
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&name, 0);
        element.set_offset(Offset::Offset(50)).unwrap();
        element.set_metadata("epoch=3");
        earlier.commit(&offsets, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    // As the first releases wrote it.
    let old = Committed { done: progress(50, 3), window: progress(50, 3) };
    assert_eq!(backend.log.committed(&[at(&topic, 0)]).await, Ok(vec![Some(old)]));
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 5).await;
    // In the epoch that was in force: nothing that was written since is of an earlier one.
    assert_eq!(member.last_assigned[0].committed, Some(progress(0, 3)));
    member.note_all(4);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(drained(&backend.log, &[at(&topic, 0)]).await, [Some(progress(5, 4))]);
}
