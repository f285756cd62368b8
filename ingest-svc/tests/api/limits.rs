//! What is too much is refused with a reason, and where that helps with a delay.

use std::time::Duration;

use shock_absorber_client::{AckLevel, Acknowledge, Client, Code, Reason, Write};
use tonic_types::StatusExt as _;

use crate::world::{LONG, World, id, payment, raw_put};

#[tokio::test]
async fn a_batch_of_too_many_items_is_refused_whole() {
    let world = World::with(&["ingest.max_batch_items=3"]).await;
    let writes: Vec<Write> = (0..4).map(|n| Write::put("payments", payment(&n.to_string(), n))).collect();
    assert!(world.client().batch_write(&writes[..3]).await.iter().all(Result::is_ok));
    let results = world.client().batch_write(&writes).await;
    assert!(results.iter().all(|r| r.as_ref().is_err_and(|error| error.is(Reason::BatchTooLarge))));
    assert!(world.client().get("payments", id("3")).await.is_err());
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_with_a_reason() {
    let world = World::with(&["ingest.max_message_bytes=65536"]).await;
    let large = payment("p", 1).set("note", "x".repeat(70_000));
    let error = world.client().put("payments", large).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Some("MESSAGE_TOO_LARGE"), Code::InvalidArgument), "{error}");
    world.client().put("payments", payment("p", 1)).await.unwrap();
}

#[tokio::test]
async fn a_record_that_the_log_would_not_take_is_refused() {
    let world = World::new().await;
    let large = payment("p", 1).set("note", "x".repeat(1_500_000));
    let error = world.client().put("payments", large).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Some("RECORD_TOO_LARGE"), Code::InvalidArgument));
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_an_error_with_a_reason() {
    let world = World::with(&["ingest.max_message_bytes=65536"]).await;
    world.sql(&format!("INSERT INTO payments (id, amount, note) VALUES ('p', 1, '{}')", "x".repeat(70_000))).await;
    let error = world.client().get("payments", id("p")).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Some("ANSWER_TOO_LARGE"), Code::OutOfRange));
    let found = world.client().get_columns("payments", id("p"), &["amount"]).await.unwrap();
    assert_eq!(found.row.len(), 1);
}

#[tokio::test]
async fn past_the_limit_of_requests_in_flight_others_are_told_when_to_come_back() {
    let world = World::with(&["ingest.max_in_flight=2"]).await;
    // A client that obeys gets in when there is room.
    let wish = Acknowledge::default().preferring(AckLevel::Applied, Duration::from_secs(2));
    let patient = Client::builder(world.endpoint()).timeout(LONG).acknowledge(wish).connect().await.unwrap();
    let mut busy = Vec::new();
    for name in ["a", "b"] {
        let patient = patient.clone();
        busy.push(tokio::spawn(async move { patient.create("payments", payment(name, 1)).await }));
    }
    let mut raw = world.raw().await;
    // This one does not: it is refused once both are in.
    let status = loop {
        match raw.put_record(raw_put("c", None)).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("OVERLOADED"));
    let delay = details.retry_info().and_then(|retry| retry.retry_delay).unwrap();
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert_eq!(pushback, delay.as_millis().to_string());

    patient.create("payments", payment("d", 1)).await.unwrap();
    for call in busy {
        assert_eq!(call.await.unwrap().unwrap().reached, Some(AckLevel::Queued));
    }
}
