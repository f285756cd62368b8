#![allow(clippy::unwrap_used)]

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use super::*;

/// A server that answers each byte with the same byte, and a connection to it through a proxy.
async fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let proxy = Proxy::start("echo", target).await.unwrap();
    let stream = connect(&proxy).await;
    (proxy, stream)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap()
}

async fn answers(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text);
    Ok(())
}

#[tokio::test]
async fn bytes_pass_whole_and_sliced_and_late() {
    let (proxy, mut stream) = echo().await;
    let text = [b'x'; 300];
    answers(&mut stream, &text).await.unwrap();
    proxy.set(Weather::Sliced { bytes: 7, pause: Duration::ZERO });
    answers(&mut stream, &text).await.unwrap();
    proxy.set(Weather::Latency(Duration::from_millis(20)));
    let begun = Instant::now();
    answers(&mut stream, b"late").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(40));
}

#[tokio::test]
async fn nothing_passes_a_stall_until_it_ends() {
    let (proxy, mut stream) = echo().await;
    answers(&mut stream, b"before").await.unwrap();
    proxy.set(Weather::Stalled);
    assert!(timeout(Duration::from_millis(100), answers(&mut stream, b"held")).await.is_err());
    // A new connection is accepted, too, and hears nothing.
    let mut other = connect(&proxy).await;
    assert!(timeout(Duration::from_millis(100), answers(&mut other, b"held")).await.is_err());
    proxy.set(Weather::Fair);
    let mut answer = [0; 4];
    timeout(Duration::from_secs(60), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"held");
}

#[tokio::test]
async fn a_reset_ends_open_connections_and_a_cut_also_new_ones() {
    let (proxy, mut stream) = echo().await;
    answers(&mut stream, b"before").await.unwrap();
    proxy.reset();
    assert!(timeout(Duration::from_secs(60), answers(&mut stream, b"after")).await.unwrap().is_err());
    let mut stream = connect(&proxy).await;
    answers(&mut stream, b"again").await.unwrap();
    proxy.set(Weather::Cut);
    assert!(timeout(Duration::from_secs(60), answers(&mut stream, b"cut")).await.unwrap().is_err());
    let refused = async { answers(&mut connect(&proxy).await, b"cut").await };
    assert!(timeout(Duration::from_secs(60), refused).await.unwrap().is_err());
    proxy.set(Weather::Fair);
    answers(&mut connect(&proxy).await, b"healed").await.unwrap();
    assert_eq!(proxy.accepted(), 4);
}

#[tokio::test]
async fn a_server_that_is_not_there_looks_as_without_a_proxy() {
    let proxy = Proxy::start("nobody", crate::port::free().unwrap()).await.unwrap();
    let mut stream = connect(&proxy).await;
    assert!(timeout(Duration::from_secs(60), answers(&mut stream, b"hello")).await.unwrap().is_err());
}
