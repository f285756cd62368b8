//! Batches: which items are sent again, and in which order writes leave a batcher.

#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use proto::Reason;
use shock_absorber_client::{Batcher, BatcherOptions, Client, ClientError, Row, Write};
use support::{Asked, Script, Scripted, refusal};
use tokio::sync::Notify;
use tonic::Status;

fn put(id: i64) -> Write {
    Write::put("main.t", Row::new().set("id", id))
}

fn create(id: i64) -> Write {
    Write::create("main.t", Row::new().set("id", id))
}

fn refused(reason: Reason) -> Option<Status> {
    Some(refusal(reason, Some(Duration::from_millis(10))))
}

async fn client(server: &Scripted) -> Client {
    Client::builder(server.endpoint()).connections(1).connect().await.unwrap()
}

#[tokio::test]
async fn only_what_was_refused_is_sent_again() {
    let items = vec![None, refused(Reason::ShardClosed), refused(Reason::AlreadyExists), refused(Reason::ShardClosed)];
    let server = Scripted::start([Script::Items(items)]).await;
    let results = client(&server).await.batch_write(&[create(1), create(2), create(3), create(4)]).await;
    assert_eq!(server.batches(), [vec![1, 2, 3, 4], vec![2, 4]]);
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
    assert!(results[2].as_ref().unwrap_err().is(Reason::AlreadyExists));
}

#[tokio::test]
async fn a_refused_write_does_not_overtake_a_later_one_of_the_same_key() {
    // The first write of key 1 was refused, the second one took effect: to send the first again would bury it.
    let items = vec![refused(Reason::ShardClosed), None, refused(Reason::ShardClosed)];
    let server = Scripted::start([Script::Items(items)]).await;
    let results = client(&server).await.batch_write(&[put(1), put(1), put(2)]).await;
    assert_eq!(server.batches(), [vec![1, 1, 2], vec![2]]);
    assert!(results[0].as_ref().unwrap_err().is(Reason::ShardClosed));
    assert!(results[1].is_ok() && results[2].is_ok());
}

#[tokio::test]
async fn what_came_behind_a_refused_create_goes_along() {
    let update = Write::update("main.t", Row::new().set("id", 1), Row::new().set("x", 1));
    let items = vec![refused(Reason::ShardClosed), refused(Reason::NotFound), None];
    let server = Scripted::start([Script::Items(items)]).await;
    let results = client(&server).await.batch_write(&[create(1), update, put(2)]).await;
    assert_eq!(server.batches(), [vec![1, 1, 2], vec![1, 1]]);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[tokio::test]
async fn a_batch_that_was_refused_whole_is_sent_again_whole_without_asking_for_keys() {
    let server = Scripted::start([Script::Refuse(refusal(Reason::Overloaded, None))]).await;
    let results = client(&server).await.batch_write(&[create(1), put(1), put(2)]).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(server.batches(), [vec![1, 1, 2], vec![1, 1, 2]]);
    assert!(!server.asked().contains(&Asked::GetTable));
}

#[tokio::test]
async fn of_a_batch_of_unknown_outcome_only_what_stands_alone_is_sent_again() {
    let server = Scripted::start([Script::Refuse(refusal(Reason::OutcomeUnknown, None))]).await;
    let results = client(&server).await.batch_write(&[create(1), put(2), put(2), put(1), create(3)]).await;
    // The first of two writes of a key may have been refused, and the second one taken: their order would be turned.
    assert_eq!(server.batches(), [vec![1, 2, 2, 1, 3], vec![3]]);
    let unknown = |r: &Result<_, ClientError>| r.as_ref().is_err_and(ClientError::is_outcome_unknown);
    assert!(results[..4].iter().all(unknown) && results[4].is_ok(), "{results:?}");
    let ids: Vec<String> = server
        .asked()
        .into_iter()
        .filter_map(|asked| match asked {
            Asked::Batch(batch) => Some(batch.items),
            _ => None,
        })
        .flatten()
        .filter_map(|item| match item.operation {
            Some(proto::v1::write_item::Operation::Create(create)) => Some(create.request_id),
            _ => None,
        })
        .collect();
    assert!(ids[1] == ids[2] && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn an_answer_that_lacks_results_is_not_taken_for_one() {
    let server = Scripted::start([Script::Items(vec![None])]).await;
    let results = client(&server).await.batch_write(&[put(1), put(2)]).await;
    assert!(results.iter().all(|r| matches!(r, Err(ClientError::BadAnswer(_)))), "{results:?}");
    assert!(results.iter().all(|r| r.as_ref().is_err_and(ClientError::is_outcome_unknown)));
}

#[tokio::test]
async fn an_empty_batch_asks_nobody() {
    let server = Scripted::start([]).await;
    assert!(client(&server).await.batch_write(&[]).await.is_empty());
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn while_one_batch_is_away_the_next_gathers_and_each_caller_gets_its_own_result() {
    let go = Arc::new(Notify::new());
    let second = vec![None, refused(Reason::AlreadyExists), None];
    let server = Scripted::start([Script::Hold(go.clone()), Script::Items(second)]).await;
    let batcher = Batcher::new(client(&server).await, BatcherOptions::default());

    let first = batcher.submit(create(1)).await.unwrap();
    server.arrived(1).await;
    let mut later = Vec::new();
    for id in 2..=4 {
        later.push(batcher.submit(create(id)).await.unwrap());
    }
    go.notify_one();
    first.await.unwrap();
    let mut results = Vec::new();
    for pending in later {
        results.push(pending.await.map_err(|error| error.reason().map(str::to_owned)).map(drop));
    }
    assert_eq!(results, [Ok(()), Err(Some("ALREADY_EXISTS".to_owned())), Ok(())]);
    assert_eq!(server.batches(), [vec![1], vec![2, 3, 4]]);
}

#[tokio::test]
async fn batches_are_bounded_and_leave_in_the_order_of_submission() {
    let go = Arc::new(Notify::new());
    let server = Scripted::start([Script::Hold(go.clone())]).await;
    let options = BatcherOptions { max_items: 4, max_bytes: 1_000, queue: 100 };
    let batcher = Batcher::new(client(&server).await, options);
    drop(batcher.submit(put(0)).await.unwrap());
    server.arrived(1).await;
    for id in 1..=6 {
        drop(batcher.submit(put(id)).await.unwrap());
    }
    // Two of these don't fit into one message.
    for id in 7..=8 {
        let large = Write::put("main.t", Row::new().set("id", id).set("text", "x".repeat(700)));
        drop(batcher.submit(large).await.unwrap());
    }
    go.notify_one();
    // Nobody waits for the results, yet all is sent.
    batcher.close().await;
    let batches = server.batches();
    assert_eq!(batches.concat(), (0..=8).collect::<Vec<_>>());
    assert!(batches.iter().all(|batch| batch.len() <= 4), "{batches:?}");
    assert_eq!(batches.last(), Some(&vec![8]));
}

#[tokio::test]
async fn a_full_queue_makes_submitters_wait() {
    let go = Arc::new(Notify::new());
    let server = Scripted::start([Script::Hold(go.clone())]).await;
    let batcher = Batcher::new(client(&server).await, BatcherOptions { queue: 1, ..BatcherOptions::default() });
    let first = batcher.submit(put(0)).await.unwrap();
    server.arrived(1).await;
    drop(batcher.submit(put(1)).await.unwrap());
    let mut third = Box::pin(batcher.submit(put(2)));
    let waits = is_pending(&mut third).await;
    assert!(waits, "the queue holds one, and one is in it");
    go.notify_one();
    drop(third.await.unwrap());
    first.await.unwrap();
    batcher.close().await;
    assert_eq!(server.batches().concat(), [0, 1, 2]);
}

/// Polls once; whether the future is still pending.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending()))
        .await
}
