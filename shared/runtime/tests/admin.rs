//! The admin listener, asked over a socket.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{net::SocketAddr, time::Duration};

use runtime::{Ending, Readiness, Shutdown, Signals, admin, telemetry::Metrics};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_answers_from_the_start_to_the_end_of_all_work() {
    let (metrics, readiness, shutdown) = (Metrics::new().unwrap(), Readiness::new(), Shutdown::new());
    metrics.meter("test").u64_counter("asked").build().add(1, &[]);
    let redis = readiness.part("redis");
    let address = admin::serve("127.0.0.1:0".parse().unwrap(), metrics, readiness, &shutdown).await.unwrap();

    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    let text = get(address, "/metrics").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("text/plain") && text.contains("asked_total"), "{text}");
    let text = get(address, "/readyz").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("redis: starting"), "{text}");
    redis.ready();
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    shutdown.spawn("work", finished);
    // A client that keeps its connection open keeps nobody from ending.
    let _idle = TcpStream::connect(address).await.unwrap();
    let (signals, signal) = Signals::by_hand();
    let run = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.run(signals, Duration::from_secs(20)).await }
    });
    signal.send("SIGTERM").await.unwrap();
    shutdown.stopping().cancelled().await;
    let text = get(address, "/readyz").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("stopping"), "{text}");
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    finish.send(()).unwrap();
    assert_eq!(run.await.unwrap(), Ending::Finished);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let outcome = admin::serve(address, Metrics::new().unwrap(), Readiness::new(), &Shutdown::new()).await;
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains(&address.to_string()) && message.contains("admin_listen"), "{message}");
}
