//! Following the log as it grows.

use event_log::{EventPublisher, Following, LogError, LogReader, LogRecord, TopicPartition};
use futures::StreamExt as _;

use crate::harness::{Backend, SETTINGS, at, fill, text, within};

/// So many records of what is followed, and what each partition got, in the order in which it came.
async fn take(following: &mut Following, count: usize) -> Vec<LogRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let more = within("a record that is there", following.next()).await.unwrap().unwrap();
        assert!(!more.is_empty(), "an empty delivery");
        records.extend(more);
    }
    records
}

fn of(records: &[LogRecord], partition: &TopicPartition) -> Vec<(i64, String)> {
    records.iter().filter(|record| record.from == *partition).map(|record| (record.offset, text(record))).collect()
}

fn numbered(numbers: std::ops::Range<i64>) -> Vec<(i64, String)> {
    numbers.map(|n| (n, n.to_string())).collect()
}

pub(crate) async fn who_follows_gets_what_is_there_and_what_comes_in_order_and_nothing_twice<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 3, SETTINGS).await.unwrap();
    let (busy, quiet, other) = (at(&topic, 0), at(&topic, 1), at(&topic, 2));
    fill(log, &topic, 0, 0..1200).await;
    fill(log, &topic, 1, 0..2).await;
    fill(log, &topic, 2, 0..5).await;
    let mut following = log.follow(vec![(busy.clone(), 100), (quiet.clone(), 2)]);
    let records = take(&mut following, 1100).await;
    assert_eq!(of(&records, &busy), numbered(100..1200));
    assert_eq!((of(&records, &quiet), of(&records, &other)), (vec![], vec![]));

    for round in 0..3 {
        fill(log, &topic, 2, 0..3).await;
        fill(log, &topic, 1, 2 + round..3 + round).await;
        let records = take(&mut following, 1).await;
        let n = 2 + round as i64;
        assert_eq!(of(&records, &quiet), numbered(n..n + 1), "what comes while somebody waits for it");
    }
    // Another reader at the same time, and one after it.
    let mut again = log.follow(vec![(quiet.clone(), 0)]);
    assert_eq!(of(&take(&mut again, 5).await, &quiet), numbered(0..5));
    drop(following);
    drop(again);
    let mut later = log.follow(vec![(busy.clone(), 1199), (quiet.clone(), 5)]);
    assert_eq!(of(&take(&mut later, 1).await, &busy), numbered(1199..1200));
    fill(log, &topic, 1, 5..6).await;
    assert_eq!(of(&take(&mut later, 1).await, &quiet), numbered(5..6));
}

pub(crate) async fn whoever_follows_from_where_the_log_is_not_is_told<B: Backend>() {
    let backend = B::start().await;
    let (log, topic, missing) = (backend.log(), backend.topic("orders"), backend.topic("missing"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(log, &topic, 0, 0..3).await;
    let mut beyond = log.follow(vec![(at(&topic, 0), 4)]);
    let told = within("an answer", beyond.next()).await;
    assert!(matches!(told, Some(Err(LogError::Unfit(_)))), "{told:?}");
    assert_eq!(within("the end", beyond.next()).await, None);
    let mut nowhere = log.follow(vec![(at(&missing, 0), 0)]);
    assert_eq!(within("an answer", nowhere.next()).await, Some(Err(LogError::NoSuchTopic(missing))));
}
