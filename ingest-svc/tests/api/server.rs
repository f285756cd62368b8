//! Health, reflection, an address of its own choice, and an end in order.

use std::time::{Duration, Instant};

use runtime::Ending;
use tokio::{net::TcpStream, time::timeout};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;

use crate::world::{LONG, World, id, payment, prefer_applied, raw_put};

const SERVICES: [&str; 4] = [
    "shockabsorber.v1.RecordService",
    "shockabsorber.v1.TableService",
    "shockabsorber.v1.OperatorService",
    "shockabsorber.v1.WatchService",
];

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn the_services_are_healthy_when_the_shards_are_open_and_not_when_it_stops() {
    let world = World::new().await;
    let mut health = HealthClient::new(world.channel().await);
    for service in [""].into_iter().chain(SERVICES) {
        let mut watch = health.watch(check(service)).await.unwrap().into_inner();
        // The shards are open; the health that follows from it may be a moment behind.
        loop {
            let answer = timeout(LONG, watch.next()).await.unwrap().unwrap().unwrap();
            if answer.status() == ServingStatus::Serving {
                break;
            }
        }
    }
    let mut watch = health.watch(check("")).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let ending = world.stop(LONG);
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // The watch never ends by itself, and does not hold up the end.
    assert_eq!(timeout(Duration::from_secs(90), ending).await.unwrap().unwrap(), Ending::Finished);
}

#[tokio::test]
async fn reflection_describes_the_api_where_it_is_allowed() {
    let list = || {
        let list = MessageRequest::ListServices(String::new());
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request: Some(list) })
    };
    let world = World::new().await;
    let mut reflection = ServerReflectionClient::new(world.channel().await);
    let mut answers = reflection.server_reflection_info(list()).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer else { panic!("{answer:?}") };
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(listed.service.iter().any(|listed| listed.name == service), "{service} is not in {listed:?}");
    }

    let silent = World::with(&["ingest.reflection=false"]).await;
    let mut reflection = ServerReflectionClient::new(silent.channel().await);
    let refused = reflection.server_reflection_info(list()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn what_was_let_in_is_finished_before_the_end_and_nothing_more_is_let_in() {
    let world = World::new().await;
    let mut raw = world.raw().await;
    let put = raw_put("last", prefer_applied(Duration::from_millis(500)));
    let last = tokio::spawn({
        let mut raw = raw.clone();
        async move { raw.put_record(put).await }
    });
    // It is in the hot store while its client still waits for more.
    while world.client().get("payments", id("last")).await.is_err() {
        tokio::task::yield_now().await;
    }
    let ending = world.stop(LONG);
    assert!(last.await.unwrap().is_ok(), "it was let in before the stop");
    assert_eq!(timeout(Duration::from_secs(90), ending).await.unwrap().unwrap(), Ending::Finished);
    assert!(raw.put_record(raw_put("late", None)).await.is_err());
    assert!(TcpStream::connect(world.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_what_it_began() {
    let world = World::new().await;
    let mut raw = world.raw().await;
    let (wait, begun) = (Duration::from_secs(2), Instant::now());
    let put = raw_put("left", prefer_applied(wait));
    assert!(timeout(Duration::from_millis(300), raw.put_record(put)).await.is_err(), "it waits longer than that");
    drop(raw);
    let found = world.client().get("payments", id("left")).await.unwrap();
    assert_eq!(found.row, payment("left", 1).set("currency", "INR").set("note", None::<&str>));
    // The end waits for it, though nobody is connected any more.
    assert_eq!(timeout(LONG, world.stop(LONG)).await.unwrap().unwrap(), Ending::Finished);
    assert!(begun.elapsed() > wait * 3 / 4, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_unknown_method_has_a_reason_too() {
    let world = World::new().await;
    let mut grpc = tonic::client::Grpc::new(world.channel().await);
    grpc.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/shockabsorber.v1.RecordService/Nope");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let status = grpc.unary(tonic::Request::new(check("")), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.get_details_error_info().map(|info| info.reason), Some("UNKNOWN_METHOD".to_owned()));
}
