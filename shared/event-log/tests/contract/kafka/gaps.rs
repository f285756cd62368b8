//! What becomes of records that the brokers leave out. The marks of transactions, which no topic of ours has, take
//! offsets up for good, as a lost batch does.

use std::time::Duration;

use event_log::{EventPublisher, EventSource, LogError, LogReader};
use model::Topic;
use rdkafka::{
    ClientConfig,
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use super::Kafka;
use crate::harness::{Backend, Observed, SETTINGS, at, drained, fill, progress, within};

/// Offsets 0 to 3 and 5 to 7; nothing can be had at 4.
async fn topic_with_a_gap<const NEW: bool>(backend: &Kafka<NEW>) -> Topic {
    let topic = backend.topic("orders");
    backend.log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(&backend.log, &topic, 0, 0..3).await;
    let (brokers, name) = (backend.options.brokers.clone(), topic.to_string());
    tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("transactional.id", &name);
        let stranger: ThreadedProducer<_> = config.create().unwrap();
        let patience = Duration::from_secs(60);
        stranger.init_transactions(patience).unwrap();
        stranger.begin_transaction().unwrap();
        stranger.send(BaseRecord::to(&name).partition(0).key("").payload("3")).unwrap();
        stranger.commit_transaction(patience).unwrap();
    })
    .await
    .unwrap();
    // The coordinator writes the mark behind the answer to the commit.
    let marked = async { while backend.log.bounds(&[at(&topic, 0)]).await != Ok(vec![(0, 5)]) {} };
    within("the transaction's mark", marked).await;
    fill(&backend.log, &topic, 0, 5..8).await;
    assert_eq!(backend.log.bounds(&[at(&topic, 0)]).await, Ok(vec![(0, 8)]));
    topic
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_reading_that_lacks_a_record_fails() {
    let backend = Kafka::<false>::start().await;
    let topic = topic_with_a_gap(&backend).await;
    for (from, to) in [(0, 8), (4, 8), (2, 5)] {
        let mut each = |_| true;
        let outcome = within("reading", backend.log.read(&at(&topic, 0), from, to, &mut each)).await;
        let Err(LogError::Unavailable(why)) = outcome else { panic!("{from}..{to}: {outcome:?}") };
        assert!(why.contains(&format!("{topic}/0")) && why.contains("from offset 4 to 5"), "{why}");
    }
    for (from, to) in [(0, 4), (5, 8)] {
        let mut offsets = Vec::new();
        let mut each = |record: event_log::LogRecord| {
            offsets.push(record.offset);
            true
        };
        assert_eq!(within("reading", backend.log.read(&at(&topic, 0), from, to, &mut each)).await, Ok(()));
        assert_eq!(offsets, (from..to).collect::<Vec<_>>());
    }
}

async fn a_member_tells_what_is_missing_and_goes_on_behind_it<const NEW: bool>() {
    let backend = Kafka::<NEW>::start().await;
    let topic = topic_with_a_gap(&backend).await;
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("what there is", |m| m.delivered() == 7).await;
    let offsets: Vec<_> = member.owned[&at(&topic, 0)].iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 5, 6, 7]);
    assert_eq!(member.missing, [(at(&topic, 0), 4..5)]);
    member.note_all(1);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(drained(&backend.log, &[at(&topic, 0)]).await, [Some(progress(8, 1))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_member_tells_what_is_missing() {
    a_member_tells_what_is_missing_and_goes_on_behind_it::<false>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn so_does_one_with_the_new_protocol() {
    a_member_tells_what_is_missing_and_goes_on_behind_it::<true>().await;
}
