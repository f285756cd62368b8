//! What is too much is refused with a reason, and where that helps with a delay.

use std::time::Duration;

use proto::v1;
use shock_absorber_client::{AckLevel, Acknowledge, Client, Code, Reason, Write};
use tokio::{task::JoinHandle, time::timeout};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::world::{LONG, World, id, payment, prefer_applied, raw_put};

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
    let world = World::with(&["ingest.max_in_flight=1"]).await;
    // A client that obeys gets in when there is room.
    let wish = Acknowledge::default().preferring(AckLevel::Applied, Duration::from_secs(2));
    let patient = Client::builder(world.endpoint()).timeout(LONG).acknowledge(wish).connect().await.unwrap();
    let busy = tokio::spawn({
        let patient = patient.clone();
        async move { patient.create("payments", payment("a", 1)).await }
    });
    let mut raw = world.raw().await;
    // This one does not: it is refused once the other is in.
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
    assert_eq!(busy.await.unwrap().unwrap().reached, Some(AckLevel::Queued));
}

/// Nothing drains here, so whoever waits does so for as long as it said: shorter than the wait, longer than anything else.
const SHORT: Duration = Duration::from_secs(10);

fn is_overloaded(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "OVERLOADED")
}

impl World {
    /// A client that waits for a token, and comes again until it may.
    async fn wait_for(&self, token: &str) -> JoinHandle<Result<bool, Status>> {
        let (mut raw, token) = (self.raw().await, token.to_owned());
        tokio::spawn(async move {
            loop {
                match wait_applied(&mut raw, &token, LONG).await {
                    Err(status) if is_overloaded(&status) => tokio::task::yield_now().await,
                    answer => break answer,
                }
            }
        })
    }
}

type Raw = v1::record_service_client::RecordServiceClient<tonic::transport::Channel>;

async fn wait_applied(raw: &mut Raw, token: &str, wait: Duration) -> Result<bool, Status> {
    let wait = Some(prost_types::Duration::try_from(wait).unwrap());
    let asked = raw.wait_applied(v1::WaitAppliedRequest { tokens: vec![token.to_owned()], wait }).await?;
    Ok(asked.into_inner().applied)
}

#[tokio::test]
async fn clients_that_wait_for_a_token_have_a_limit_of_their_own_and_are_in_no_writer_s_way() {
    let world = World::with(&["ingest.max_in_flight=4"]).await;
    let token = world.client().put("payments", payment("p", 1)).await.unwrap().token;
    let waiting = [world.wait_for(&token).await, world.wait_for(&token).await];
    let mut raw = world.raw().await;
    let refused = loop {
        match wait_applied(&mut raw, &token, Duration::ZERO).await {
            Ok(applied) => assert!(!applied),
            Err(status) => break status,
        }
    };
    assert!(is_overloaded(&refused), "{refused}");
    assert!(refused.get_error_details().retry_info().is_some_and(|retry| retry.retry_delay.is_some()));
    // They are not in flight: as many writers as ever find room.
    let writers = (0..4).map(|n| {
        let client = world.client();
        async move { client.put("payments", payment(&n.to_string(), n)).await.map(drop) }
    });
    for written in futures::future::join_all(writers).await {
        written.unwrap();
    }
    assert!(waiting.iter().all(|client| !client.is_finished()));

    // One that hangs up leaves its place to another.
    waiting[0].abort();
    let next = async {
        while let Err(status) = wait_applied(&mut raw, &token, Duration::ZERO).await {
            assert!(is_overloaded(&status), "{status}");
            tokio::task::yield_now().await;
        }
    };
    timeout(SHORT, next).await.expect("its place is free");
    assert!(!waiting[1].is_finished());
}

#[tokio::test]
async fn writers_that_wait_for_the_database_leave_room_for_others() {
    let world = World::with(&["ingest.max_in_flight=2"]).await;
    let write = |mut raw: Raw, name: &'static str| {
        tokio::spawn(async move {
            let put = raw_put(name, prefer_applied(LONG));
            raw.put_record(put).await.map(|answer| answer.into_inner().result.unwrap().reached())
        })
    };
    let (mut one, mut other) = (write(world.raw().await, "a"), write(world.raw().await, "b"));
    let (first, waits) = tokio::select! {
        answer = &mut one => (answer, other),
        answer = &mut other => (answer, one),
        () = tokio::time::sleep(SHORT) => panic!("both wait, and nobody else can write"),
    };
    assert_eq!(first.unwrap().unwrap(), v1::AckLevel::Queued);
    world.client().put("payments", payment("c", 1)).await.unwrap();
    assert!(!waits.is_finished());
}
