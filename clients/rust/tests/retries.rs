//! What is sent again, when, and what a caller learns.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use proto::Reason;
use shock_absorber_client::{AckLevel, Acknowledge, Builder, Client, ClientError, Code, Get, Precondition, Row, Write};
use support::{Asked, Script, Scripted, refusal, start_hanging_up};
use tonic::{Status, metadata::MetadataValue};

const DELAY: Duration = Duration::from_millis(120);

fn id(n: i64) -> Row {
    Row::new().set("id", n)
}

fn row(n: i64) -> Row {
    id(n).set("amount", 5)
}

fn one_connection(endpoint: String) -> Builder {
    Client::builder(endpoint).connections(1)
}

async fn client(server: &Scripted) -> Client {
    one_connection(server.endpoint()).connect().await.unwrap()
}

async fn client_without_ids(server: &Scripted) -> Client {
    one_connection(server.endpoint()).without_request_ids().connect().await.unwrap()
}

#[tokio::test]
async fn a_refused_write_and_a_read_are_sent_again_after_the_delay_that_the_server_asks_for() {
    let closed = || Script::Refuse(refusal(Reason::ShardClosed, Some(DELAY)));
    let unknown = || Script::Refuse(refusal(Reason::OutcomeUnknown, Some(DELAY)));
    let server = Scripted::start([closed(), closed(), Script::Accept, unknown(), Script::Accept]).await;
    let client = client(&server).await;

    let accepted = client.put("main.t", row(1)).await.unwrap();
    assert_eq!((accepted.reached, accepted.etag.as_str()), (Some(AckLevel::Queued), "1-1"));
    let found = client.get("main.t", id(1)).await.unwrap();
    assert_eq!(found.row, id(1));

    let asked = server.asked();
    assert_eq!(asked.len(), 5);
    assert!(matches!(asked[2], Asked::Put(_)) && matches!(asked[4], Asked::Get(_)), "{asked:?}");
    let gaps = server.gaps();
    for at in [0, 1, 3] {
        assert!(gaps[at] >= DELAY, "{gaps:?}");
    }
}

#[tokio::test]
async fn of_many_reads_what_found_no_room_or_passes_is_asked_for_again_and_nothing_else() {
    let full = || Some(refusal(Reason::AnswerFull, Some(Duration::ZERO)));
    let missing = Some(refusal(Reason::NotFound, None));
    let closed = Some(refusal(Reason::ShardClosed, Some(DELAY)));
    let items = [vec![None, full(), missing, closed.clone(), full()], vec![None, closed, full()]];
    let server = Scripted::start(items.map(Script::Items)).await;
    let gets: Vec<Get> = (0..5).map(|n| Get::new("t", id(n))).collect();
    let results = client(&server).await.batch_get(&gets).await;
    for (at, result) in (0..).zip(results) {
        match result {
            Ok(found) => assert_eq!(found.row, id(at)),
            Err(error) => assert!(at == 2 && error.is(Reason::NotFound), "{error}"),
        }
    }
    let counts: Vec<usize> = server
        .asked()
        .iter()
        .map(|asked| match asked {
            Asked::BatchGet(batch) => batch.items.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [5, 3, 2]);
    assert!(server.gaps().iter().all(|gap| *gap >= DELAY));
}

#[tokio::test]
async fn the_pushback_trailer_delays_and_forbids() {
    let pushed = |pushback: i64| {
        let mut status = refusal(Reason::Overloaded, None);
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(pushback));
        Script::Refuse(status)
    };
    let server = Scripted::start([pushed(120), Script::Accept, pushed(-1), Script::Accept]).await;
    let client = client(&server).await;
    client.create("t", row(1)).await.unwrap();
    assert!(server.gaps()[0] >= DELAY, "{:?}", server.gaps());

    let error = client.put("t", row(1)).await.unwrap_err();
    assert!(error.is(Reason::Overloaded));
    assert_eq!(server.asked().len(), 3, "forbidden, so not sent again");
}

#[tokio::test]
async fn a_write_without_id_is_sent_again_only_if_nothing_was_touched() {
    let put_if = || Write::put("t", row(1)).only_if(Precondition::Etag("1-1".into()));
    for write in [Write::create("t", row(1)), Write::update("t", id(1), row(1)), put_if()] {
        let refused = [Reason::ShardClosed, Reason::HotStoreFull].map(|r| Script::Refuse(refusal(r, None)));
        let server = Scripted::start(refused).await;
        client_without_ids(&server).await.write(&write).await.unwrap();
        assert_eq!(server.asked().len(), 3, "{write:?}");

        let delay = Some(Duration::from_millis(1));
        let server = Scripted::start([Script::Refuse(refusal(Reason::OutcomeUnknown, delay))]).await;
        let error = client_without_ids(&server).await.write(&write).await.unwrap_err();
        assert!(error.is_outcome_unknown() && error.is(Reason::OutcomeUnknown), "{error:?}");
        assert_eq!(server.asked().len(), 1, "{write:?}");

        let server = Scripted::start([Script::Refuse(Status::unavailable("from a proxy"))]).await;
        let error = client_without_ids(&server).await.write(&write).await.unwrap_err();
        assert!(error.is_outcome_unknown() && error.reason().is_none(), "{error:?}");
        assert_eq!(server.asked().len(), 1, "{write:?}");
    }
}

#[tokio::test]
async fn final_answers_are_final() {
    for reason in [Reason::AlreadyExists, Reason::EtagMismatch, Reason::WrongType, Reason::LevelNotReached] {
        let server = Scripted::start([Script::Refuse(refusal(reason, None))]).await;
        let error = client(&server).await.put("t", row(1)).await.unwrap_err();
        assert!(error.is(reason) && !error.is_outcome_unknown(), "{error:?}");
        assert_eq!(error.code(), reason.code());
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_broken_connection_repeats_reads_and_named_writes_elsewhere_and_fails_others_as_unknown() {
    let (broken, hung_up) = start_hanging_up().await;
    let server = Scripted::start([]).await;
    let builder = || one_connection(format!("http://{broken}")).endpoint(server.endpoint());

    // The first server may still be at work on it, and a put that lands late would bring an old value back.
    let error = builder().without_request_ids().connect_lazy().unwrap().put("t", row(1)).await.unwrap_err();
    assert!(matches!(error, ClientError::Transport(_)) && error.is_outcome_unknown(), "{error:?}");
    assert_eq!((*hung_up.lock().unwrap(), server.asked().len()), (1, 0));

    builder().connect_lazy().unwrap().get("t", id(1)).await.unwrap();
    assert_eq!((*hung_up.lock().unwrap(), server.asked().len()), (2, 1));

    builder().connect_lazy().unwrap().create("t", row(1)).await.unwrap();
    assert_eq!((*hung_up.lock().unwrap(), server.asked().len()), (3, 2));
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent_so_the_next_server_is_asked() {
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let server = Scripted::start([]).await;
    let client = one_connection(format!("http://{nobody}")).endpoint(server.endpoint()).connect_lazy().unwrap();
    client.create("t", row(1)).await.unwrap();
    assert_eq!(server.asked().len(), 1);

    let error = Client::connect(format!("http://{nobody}")).await.unwrap_err();
    assert!(matches!(&error, ClientError::Connect(text) if text.contains(&nobody.to_string())), "{error:?}");
    // An endpoint that answers is enough.
    let client = one_connection(format!("http://{nobody}")).endpoint(server.endpoint()).connect().await.unwrap();
    client.create("t", row(2)).await.unwrap();
}

#[tokio::test]
async fn attempts_end_with_the_deadline_and_the_last_answer_is_told() {
    // The last attempt that there is time for has a good part of it left.
    let refused = || Script::Refuse(refusal(Reason::BacklogFull, Some(Duration::from_millis(300))));
    let server = Scripted::start((0..100).map(|_| refused())).await;
    let client = one_connection(server.endpoint()).timeout(Duration::from_millis(800)).connect().await.unwrap();
    let begun = Instant::now();
    let error = client.create("t", row(1)).await.unwrap_err();
    assert!(error.is(Reason::BacklogFull) && error.is_refusal() && error.code() == Code::ResourceExhausted);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let attempts = server.asked().len();
    assert!((2..=9).contains(&attempts), "{attempts} attempts");
}

/// A drain-down lasts as long as an operator's work does.
#[tokio::test]
async fn that_a_table_is_drained_down_is_told_at_once() {
    let draining = || Script::Refuse(refusal(Reason::DrainingDown, Some(DELAY)));
    let unknown = Script::Refuse(refusal(Reason::OutcomeUnknown, None));
    let server = Scripted::start([draining(), Script::Accept, unknown, draining(), Script::Accept]).await;
    let client = client(&server).await;
    let error = client.put("t", row(1)).await.unwrap_err();
    assert!(error.is(Reason::DrainingDown) && error.is_refusal(), "{error:?}");
    assert_eq!((error.retry_after(), server.asked().len()), (Some(DELAY), 1));
    client.put("t", row(1)).await.unwrap();
    // It says nothing of an earlier attempt.
    let error = client.put("t", row(2)).await.unwrap_err();
    assert!(matches!(error, ClientError::Unsettled(_)) && error.is(Reason::DrainingDown), "{error:?}");
    assert_eq!(server.asked().len(), 4);
}

/// The server refuses before it looks whether it knows the id.
#[tokio::test]
async fn a_retry_that_is_refused_settles_nothing() {
    for reason in [Reason::BacklogFull, Reason::HotStoreFull, Reason::LogUnavailable, Reason::Overloaded] {
        let refused = (0..100).map(|_| Script::Refuse(refusal(reason, Some(Duration::from_millis(300)))));
        let server =
            Scripted::start([Script::Refuse(refusal(Reason::OutcomeUnknown, None))].into_iter().chain(refused)).await;
        let client = one_connection(server.endpoint()).timeout(Duration::from_millis(800)).connect().await.unwrap();
        let error = client.create("t", row(1)).await.unwrap_err();
        assert!(matches!(error, ClientError::Unsettled(_)), "{error:?}");
        assert!(error.is(reason) && !error.is_refusal() && error.is_outcome_unknown(), "{error:?}");
        assert!(server.asked().len() > 1);
    }
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_sent_again_under_its_id() {
    let unknown = || {
        let mut status = refusal(Reason::OutcomeUnknown, None);
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from(-1));
        Script::Refuse(status)
    };
    let server = Scripted::start([unknown(), unknown(), Script::Accept, Script::Accept]).await;
    let client = client(&server).await;
    client.put("t", row(1)).await.unwrap();
    client.put("t", row(1)).await.unwrap();
    let ids: Vec<String> = server
        .asked()
        .into_iter()
        .map(|asked| match asked {
            Asked::Put(put) => put.request_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(ids[0].len() == 32 && ids[0] == ids[1] && ids[0] == ids[2], "{ids:?}");
    assert_ne!(ids[0], ids[3], "each call is a write of its own");
}

#[tokio::test]
async fn nothing_is_sent_again_when_the_server_may_have_forgotten_its_id() {
    let server = Scripted::start([Script::Hang, Script::Accept]).await;
    let window = Duration::from_millis(150);
    let client = one_connection(server.endpoint()).request_window(window).connect().await.unwrap();
    let error = client.put("t", row(1)).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_write_of_unknown_outcome_and_without_id_is_not_sent_again() {
    let server = Scripted::start([Script::Refuse(refusal(Reason::OutcomeUnknown, None))]).await;
    let error = client_without_ids(&server).await.put("t", row(1)).await.unwrap_err();
    assert!(error.is(Reason::OutcomeUnknown) && error.is_outcome_unknown(), "{error:?}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_attempt_without_answer_repeats_a_read_but_no_write() {
    let server = Scripted::start([Script::Hang, Script::Accept, Script::Hang]).await;
    let client = one_connection(server.endpoint())
        .without_request_ids()
        .attempt_timeout(Duration::from_millis(150))
        .connect()
        .await
        .unwrap();
    client.get("t", id(1)).await.unwrap();
    assert_eq!(server.asked().len(), 2);

    let error = client.put("t", row(1)).await.unwrap_err();
    assert!(error.is_outcome_unknown() && error.code() == Code::DeadlineExceeded, "{error:?}");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_request_says_what_was_asked_for() {
    let server = Scripted::start([]).await;
    let wish = Acknowledge::required(AckLevel::Queued).preferring(AckLevel::Applied, Duration::from_millis(50));
    let client = client(&server).await.acknowledging(wish);
    let write = Write::update("main.t", id(1), row(1)).only_if(Precondition::Exists(true)).request_id("r-1");
    client.write(&write).await.unwrap();
    let Asked::Update(asked) = server.asked().remove(0) else { panic!("no update") };
    let acknowledgement = asked.acknowledgement.unwrap();
    assert_eq!(acknowledgement.required(), proto::v1::AckLevel::Queued);
    assert_eq!(acknowledgement.preferred(), proto::v1::AckLevel::Applied);
    assert_eq!(acknowledgement.wait.unwrap().nanos, 50_000_000);
    assert_eq!(asked.request_id, "r-1");
    assert_eq!(asked.precondition.unwrap().condition, Some(proto::v1::precondition::Condition::Exists(true)));
    let table = asked.table.unwrap();
    assert_eq!((table.database.as_str(), table.table.as_str()), ("main", "t"));
}
