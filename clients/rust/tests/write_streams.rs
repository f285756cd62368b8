//! Streams of writes: what is sent again when one ends, and what waits for what.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use proto::Reason;
use shock_absorber_client::{Client, ClientError, Row, Write, WriteStream, WriteStreamOptions};
use support::{Scripted, StreamScript, refusal};
use tokio::time::timeout;
use tonic::Status;

const LONG: Duration = Duration::from_secs(60);

fn put(id: i64) -> Write {
    Write::put("main.t", Row::new().set("id", id))
}

fn soon(reason: Reason) -> Status {
    refusal(reason, Some(Duration::from_millis(10)))
}

async fn stream(server: &Scripted, options: WriteStreamOptions) -> WriteStream {
    let client = Client::builder(server.endpoint()).connections(1).timeout(LONG).connect().await.unwrap();
    WriteStream::new(client, options)
}

async fn send_all(stream: &WriteStream, keys: &[i64]) -> Vec<shock_absorber_client::Pending> {
    let mut pending = Vec::new();
    for &key in keys {
        pending.push(stream.send(put(key)).await.unwrap());
    }
    pending
}

/// The keys of each stream that the server saw.
fn keys(server: &Scripted) -> Vec<Vec<i64>> {
    server.streamed().into_iter().map(|stream| stream.into_iter().map(|(key, _)| key).collect()).collect()
}

#[tokio::test]
async fn every_write_has_its_result_over_one_stream() {
    let server = Scripted::start([]).await;
    let stream = stream(&server, WriteStreamOptions::default()).await;
    for result in send_all(&stream, &(0..500).collect::<Vec<_>>()).await {
        timeout(LONG, result).await.unwrap().unwrap();
    }
    stream.close().await;
    assert_eq!(keys(&server), [(0..500).collect::<Vec<_>>()]);
}

#[tokio::test]
async fn what_has_no_result_when_a_stream_ends_or_breaks_is_sent_again_under_its_id_and_in_order() {
    for end in [soon(Reason::StreamEnded), Status::unavailable("a proxy that has gone")] {
        let server = Scripted::with_streams([StreamScript { outcomes: vec![None, None], end: Some(end) }]).await;
        let stream =
            stream(&server, WriteStreamOptions { max_message_items: 3, ..WriteStreamOptions::default() }).await;
        for result in send_all(&stream, &[1, 2, 3, 3, 4, 3]).await {
            timeout(LONG, result).await.unwrap().unwrap();
        }
        stream.close().await;
        let streamed = server.streamed();
        let [first, second] = streamed.as_slice() else { panic!("{streamed:?}") };
        assert_eq!(first[..3].iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 2, 3]);
        // What was not on its way yet may come before it: order is kept per key.
        let of_three: Vec<_> = second.iter().filter(|(key, _)| *key == 3).collect();
        assert_eq!(of_three.first(), Some(&&first[2]), "the same write under the same id");
        assert!(of_three.len() == 3 && of_three[0].1 != of_three[1].1, "{second:?}");
        assert!(second.iter().all(|(key, _)| [3, 4].contains(key)), "{second:?}");
    }
}

#[tokio::test]
async fn a_write_that_is_refused_for_now_is_sent_again_and_holds_up_no_other_key() {
    let outcomes = vec![Some(soon(Reason::BacklogFull)), None, Some(soon(Reason::AlreadyExists))];
    let server = Scripted::with_streams([StreamScript { outcomes, end: None }]).await;
    let stream = stream(&server, WriteStreamOptions::default()).await;
    let mut results = Vec::new();
    for pending in send_all(&stream, &[1, 2, 3, 1]).await {
        results.push(timeout(LONG, pending).await.unwrap());
    }
    assert!(results[0].is_ok() && results[1].is_ok() && results[3].is_ok(), "{results:?}");
    assert!(results[2].as_ref().is_err_and(|error| error.is(Reason::AlreadyExists)));
    let streamed = server.streamed().concat();
    let of_one: Vec<_> = streamed.iter().filter(|(key, _)| *key == 1).map(|(_, id)| id).collect();
    assert!(of_one.len() == 3 && of_one[0] == of_one[1] && of_one[1] != of_one[2], "{streamed:?}");
}

#[tokio::test]
async fn who_sends_faster_than_the_server_answers_waits() {
    let server = Scripted::start([]).await;
    let stream = stream(&server, WriteStreamOptions { max_items: 2, ..WriteStreamOptions::default() }).await;
    let mut pending = send_all(&stream, &[1, 2]).await;
    // Nobody has asked for a result, but the server gives them: so there is room again.
    for key in 3..50 {
        pending.push(timeout(LONG, stream.send(put(key))).await.unwrap().unwrap());
    }
    for result in pending {
        timeout(LONG, result).await.unwrap().unwrap();
    }
    // One that never answers.
    let silent = StreamScript { outcomes: Vec::new(), end: None };
    let server = Scripted::with_streams([silent]).await;
    server.hold_streams();
    let stream = self::stream(&server, WriteStreamOptions { max_items: 2, ..WriteStreamOptions::default() }).await;
    let _pending = send_all(&stream, &[1, 2]).await;
    assert!(timeout(Duration::from_millis(300), stream.send(put(3))).await.is_err(), "two are without a result");
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_can_t_be_reached_and_the_writes_are_refused() {
    let server = Scripted::start([]).await;
    let known = Client::builder(server.endpoint()).timeout(Duration::from_millis(300)).connect().await.unwrap();
    let stream = WriteStream::new(known, WriteStreamOptions::default());
    timeout(LONG, stream.write(put(1))).await.unwrap().unwrap();
    let nobody = Client::builder("http://127.0.0.1:1").timeout(Duration::from_millis(300)).connect_lazy().unwrap();
    let stream = WriteStream::new(nobody, WriteStreamOptions::default());
    let refused = timeout(LONG, stream.send(put(1))).await.unwrap().unwrap_err();
    assert!(matches!(refused, ClientError::Connect(_)), "{refused:?}");
}
