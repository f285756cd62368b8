//! Streams of writes: order, bounds, and how they end.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::v1::{self, record_service_client::RecordServiceClient, write_item::Operation, write_item_result::Outcome};
use runtime::Ending;
use shock_absorber_client::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::{RpcStatusExt as _, StatusExt as _};

use crate::world::{LONG, World, id, payment, prefer_applied, raw_put};

/// An open stream, as a client sees it.
struct Opened {
    sends: mpsc::Sender<v1::WriteStreamRequest>,
    answers: Streaming<v1::WriteStreamResponse>,
    results: VecDeque<Outcome>,
}

impl Opened {
    async fn send(&self, items: Vec<v1::WriteItem>) {
        self.sends.send(v1::WriteStreamRequest { items, acknowledgement: None }).await.unwrap();
    }

    /// The next result; `None` when the stream has ended well.
    async fn next(&mut self) -> Result<Option<Outcome>, Status> {
        while self.results.is_empty() {
            match timeout(LONG * 2, self.answers.message()).await.expect("an answer")? {
                Some(answer) => self.results.extend(answer.results.into_iter().map(|result| result.outcome.unwrap())),
                None => return Ok(None),
            }
        }
        Ok(self.results.pop_front())
    }

    /// The names of the next outcomes.
    async fn outcomes(&mut self, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(match self.next().await.unwrap().expect("a result") {
                Outcome::Result(_) => "OK".to_owned(),
                Outcome::Status(status) => status.get_details_error_info().unwrap().reason,
            });
        }
        names
    }

    /// The client sends no more: what is left of the results, and how the stream ends.
    async fn finish(self) -> (usize, Result<(), Status>) {
        let Self { sends, answers, results } = self;
        drop(sends);
        let mut rest = Self { sends: mpsc::channel(1).0, answers, results };
        let mut count = 0;
        loop {
            match rest.next().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, Ok(())),
                Err(status) => return (count, Err(status)),
            }
        }
    }
}

impl World {
    async fn try_open(&self) -> Result<Opened, Status> {
        self.try_open_over(self.channel().await).await
    }

    async fn try_open_over(&self, channel: Channel) -> Result<Opened, Status> {
        let (sends, sent) = mpsc::channel(1);
        let answers = RecordServiceClient::new(channel).write_stream(ReceiverStream::new(sent)).await?.into_inner();
        Ok(Opened { sends, answers, results: VecDeque::new() })
    }

    async fn open_stream(&self) -> Opened {
        self.try_open().await.unwrap()
    }

    async fn amount(&self, name: &str) -> Option<i64> {
        match self.client().get("payments", id(name)).await.ok()?.row.get("amount") {
            Some(Value::Int64(amount)) => Some(*amount),
            other => panic!("{other:?}"),
        }
    }
}

fn put(name: &str, amount: i64) -> v1::WriteItem {
    let mut put = raw_put(name, None);
    let amount = v1::Value { kind: Some(v1::value::Kind::Int64Value(amount)) };
    put.row.as_mut().unwrap().columns.insert("amount".into(), amount);
    v1::WriteItem { operation: Some(Operation::Put(put)) }
}

fn create(name: &str, request_id: &str) -> v1::WriteItem {
    let v1::PutRecordRequest { table, row, .. } = raw_put(name, None);
    let create = v1::CreateRecordRequest { table, row, request_id: request_id.to_owned(), acknowledgement: None };
    v1::WriteItem { operation: Some(Operation::Create(create)) }
}

fn delete(name: &str) -> v1::WriteItem {
    let v1::PutRecordRequest { table, row, .. } = raw_put(name, None);
    let mut key = row.unwrap();
    key.columns.retain(|column, _| column == "id");
    let delete = v1::DeleteRecordRequest { table, key: Some(key), ..v1::DeleteRecordRequest::default() };
    v1::WriteItem { operation: Some(Operation::Delete(delete)) }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn each_write_has_its_result_in_the_order_of_the_stream_and_those_of_a_key_take_effect_in_it() {
    let world = World::new().await;
    let mut stream = world.open_stream().await;
    let mut unknown_column = put("a", 1);
    let Some(Operation::Put(wrong)) = &mut unknown_column.operation else { panic!() };
    wrong.row.as_mut().unwrap().columns.insert("nope".into(), v1::Value { kind: None });
    stream.send(vec![create("a", ""), create("a", ""), put("a", 3)]).await;
    stream.send(vec![unknown_column, v1::WriteItem { operation: None }]).await;
    stream.send(vec![delete("a"), create("a", ""), put("a", 4), put("b", 5)]).await;
    let outcomes = stream.outcomes(9).await;
    let invalid = "INVALID_ARGUMENT";
    assert_eq!(outcomes, ["OK", "ALREADY_EXISTS", "OK", invalid, invalid, "OK", "OK", "OK", "OK"]);
    assert_eq!((world.amount("a").await, world.amount("b").await), (Some(4), Some(5)));
    assert!(matches!(stream.finish().await, (0, Ok(()))));
}

#[tokio::test]
async fn a_status_names_the_item_by_its_place_in_the_stream() {
    let world = World::new().await;
    let mut stream = world.open_stream().await;
    stream.send(vec![put("a", 1)]).await;
    let mut wrong = put("b", 1);
    let Some(Operation::Put(put)) = &mut wrong.operation else { panic!() };
    put.row.as_mut().unwrap().columns.remove("amount");
    stream.send(vec![wrong]).await;
    stream.next().await.unwrap();
    let Some(Outcome::Status(status)) = stream.next().await.unwrap() else { panic!("it was accepted") };
    let bad = status.get_details_bad_request().unwrap();
    assert_eq!(bad.field_violations[0].field, "items[1].put.row.columns[\"amount\"]");
}

#[tokio::test]
async fn many_writes_are_all_answered_and_the_last_of_each_key_is_read() {
    let world = World::with(&["ingest.stream_items=50"]).await;
    let mut stream = world.open_stream().await;
    let sends = stream.sends.clone();
    let sender = tokio::spawn(async move {
        for n in 0..200_i64 {
            let items = (0..10).map(|k| put(&format!("p{}", (n * 10 + k) % 37), n * 10 + k)).collect();
            sends.send(v1::WriteStreamRequest { items, acknowledgement: None }).await.unwrap();
        }
    });
    assert!(stream.outcomes(2000).await.iter().all(|outcome| outcome == "OK"));
    sender.await.unwrap();
    for key in 0..37 {
        let last = (0..2000).rev().find(|n| n % 37 == key).unwrap();
        assert_eq!(world.amount(&format!("p{key}")).await, Some(last));
    }
    assert!(matches!(stream.finish().await, (0, Ok(()))));
}

#[tokio::test]
async fn the_acknowledgement_of_all_stands_in_the_first_message_and_in_no_later_one() {
    let world = World::new().await;
    let logged = v1::Acknowledgement { required: v1::AckLevel::Logged.into(), ..v1::Acknowledgement::default() };
    let mut stream = world.open_stream().await;
    let first = v1::WriteStreamRequest { items: Vec::new(), acknowledgement: Some(logged) };
    stream.sends.send(first.clone()).await.unwrap();
    stream.send(vec![put("a", 1)]).await;
    let Some(Outcome::Result(result)) = stream.next().await.unwrap() else { panic!("it was refused") };
    assert_eq!(result.reached(), v1::AckLevel::Logged);
    stream.send(vec![put("b", 1)]).await;
    stream.sends.send(first).await.unwrap();
    let (answered, end) = stream.finish().await;
    let end = end.unwrap_err();
    assert_eq!((answered, end.code(), reason(&end).as_str()), (1, Code::InvalidArgument, "INVALID_ARGUMENT"));
    let fields = end.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "acknowledgement");

    let stream = world.open_stream().await;
    let wrong = v1::Acknowledgement { required: 9, ..v1::Acknowledgement::default() };
    stream.sends.send(v1::WriteStreamRequest { items: vec![put("c", 1)], acknowledgement: Some(wrong) }).await.unwrap();
    let (answered, end) = stream.finish().await;
    assert_eq!((answered, reason(&end.unwrap_err()).as_str()), (0, "INVALID_ARGUMENT"));
    assert_eq!(world.amount("c").await, None);
}

#[tokio::test]
async fn a_message_of_too_many_items_ends_the_stream_behind_what_came_before() {
    let world = World::with(&["ingest.max_batch_items=3"]).await;
    let stream = world.open_stream().await;
    stream.send((0..3).map(|n| put(&format!("a{n}"), n)).collect()).await;
    stream.send((0..4).map(|n| put(&format!("b{n}"), n)).collect()).await;
    let (answered, end) = stream.finish().await;
    assert_eq!((answered, reason(&end.unwrap_err()).as_str()), (3, "BATCH_TOO_LARGE"));
    assert_eq!((world.amount("a2").await, world.amount("b0").await), (Some(2), None));
}

#[tokio::test]
async fn who_takes_no_results_is_not_read_and_loses_nothing() {
    const ALL: usize = 4000;
    let world = World::with(&["ingest.stream_items=20"]).await;
    // The client's side holds little of what it does not take.
    let endpoint = Endpoint::from_shared(world.endpoint()).unwrap();
    let channel = endpoint.initial_stream_window_size(16_384).connect().await.unwrap();
    let mut stream = world.try_open_over(channel).await.unwrap();
    let (sends, sent) = (stream.sends.clone(), Arc::new(AtomicUsize::new(0)));
    let count = sent.clone();
    let sender = tokio::spawn(async move {
        for n in 0..ALL {
            let mut item = put(&format!("p{n}"), n as i64);
            let Some(Operation::Put(put)) = &mut item.operation else { panic!() };
            let note = v1::Value { kind: Some(v1::value::Kind::StringValue("x".repeat(4000))) };
            put.row.as_mut().unwrap().columns.insert("note".into(), note);
            sends.send(v1::WriteStreamRequest { items: vec![item], acknowledgement: None }).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    // Until it stands still: what the windows of HTTP/2 and the server take, and no more.
    let mut before = 0;
    let stuck = loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sent.load(Ordering::SeqCst);
        if now > 0 && now == before {
            break now;
        }
        before = now;
    };
    assert!(stuck < ALL * 3 / 4, "{stuck} of {ALL} were sent though nobody took a result");
    assert!(world.core.hot.used_bytes() < 12_000_000, "{} bytes are in the hot store", world.core.hot.used_bytes());
    assert!(stream.outcomes(ALL).await.iter().all(|outcome| outcome == "OK"));
    sender.await.unwrap();
    assert_eq!(world.amount(&format!("p{}", ALL - 1)).await, Some(ALL as i64 - 1));
}

#[tokio::test]
async fn so_many_streams_may_be_open_and_idle_ones_are_in_nobody_s_way() {
    let world = World::with(&["ingest.max_streams=2", "ingest.max_in_flight=1"]).await;
    let (one, mut other) = (world.open_stream().await, world.open_stream().await);
    let refused = world.try_open().await.err().expect("two are open");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    world.client().put("payments", payment("unary", 1)).await.unwrap();
    other.send(vec![put("a", 1)]).await;
    assert_eq!(other.outcomes(1).await, ["OK"]);
    assert!(matches!(one.finish().await, (0, Ok(()))));
    let again = async {
        loop {
            match world.try_open().await {
                Ok(stream) => return stream,
                Err(status) => assert_eq!(reason(&status), "OVERLOADED"),
            }
        }
    };
    timeout(LONG, again).await.expect("there is room again");
}

#[tokio::test]
async fn what_the_server_can_t_work_on_now_is_read_later_and_not_refused() {
    let world = World::with(&["ingest.max_in_flight=1"]).await;
    let mut raw = world.raw().await;
    let put_slowly = raw_put("slow", prefer_applied(Duration::from_secs(2)));
    let busy = tokio::spawn(async move { raw.put_record(put_slowly).await });
    let mut stream = loop {
        // Opening it takes a place for a moment, as every call does.
        match world.try_open().await {
            Ok(stream) => break stream,
            Err(status) => assert_eq!(reason(&status), "OVERLOADED"),
        }
    };
    stream.send((0..100).map(|n| put(&format!("p{n}"), n)).collect()).await;
    assert!(stream.outcomes(100).await.iter().all(|outcome| outcome == "OK"));
    assert!(busy.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_idle_stream_is_ended_with_a_reason() {
    let world = World::with(&["ingest.stream_idle=300ms"]).await;
    let mut stream = world.open_stream().await;
    stream.send(vec![put("a", 1)]).await;
    assert_eq!(stream.outcomes(1).await, ["OK"]);
    let status = stream.next().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STREAM_ENDED"));
    let silent = world.open_stream().await.next().await.unwrap_err();
    assert_eq!(reason(&silent), "STREAM_ENDED");
}

#[tokio::test]
async fn when_the_server_stops_it_answers_what_it_has_begun_and_ends_the_stream() {
    let world = World::new().await;
    let mut stream = world.open_stream().await;
    let first = v1::WriteStreamRequest {
        items: vec![put("a", 1)],
        acknowledgement: prefer_applied(Duration::from_millis(700)),
    };
    stream.sends.send(first).await.unwrap();
    while world.amount("a").await.is_none() {
        tokio::task::yield_now().await;
    }
    // It has to wait until the first one is answered.
    stream.send(vec![put("a", 2)]).await;
    let ending = world.stop(LONG);
    assert_eq!(stream.outcomes(1).await, ["OK"]);
    let end = loop {
        match stream.next().await {
            // If it was read before the stop.
            Ok(Some(Outcome::Status(status))) => {
                assert_eq!(status.get_details_error_info().unwrap().reason, "STREAM_ENDED");
            }
            Ok(other) => panic!("{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "STREAM_ENDED"));
    assert!(end.message().contains("stopped"), "{}", end.message());
    assert_eq!(timeout(Duration::from_secs(90), ending).await.unwrap().unwrap(), Ending::Finished);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_what_was_begun_and_may_send_it_again() {
    let world = World::new().await;
    let mut stream = world.open_stream().await;
    let all = || (0..50).map(|n| create(&format!("p{n}"), &format!("r{n}"))).collect::<Vec<_>>();
    stream.send(all()).await;
    let Some(Outcome::Result(first)) = stream.next().await.unwrap() else { panic!("it was refused") };
    drop(stream);
    let mut again = world.open_stream().await;
    again.send(all()).await;
    let Some(Outcome::Result(same)) = again.next().await.unwrap() else { panic!("it was refused") };
    assert_eq!(same.etag, first.etag);
    assert!(again.outcomes(49).await.iter().all(|outcome| outcome == "OK"), "each took effect once");
}
