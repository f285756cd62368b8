//! The kit itself: that servers start, are hurt as they should be, and come back on the same port with their data.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{net::Ipv4Addr, time::Duration};

use shock_absorber_tests::{
    eventually,
    servers::{KafkaServer, Kind, MariaDbServer, PostgresServer, RedisServer, Server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

async fn refuses_connections<K: Kind>(server: &Server<K>) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await.is_err()
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn redis_survives_being_killed_stopped_and_frozen() {
    let mut redis = RedisServer::start().await.unwrap();
    let port = redis.port();
    redis.cli(&["SET", "key", "1"]).await.unwrap();

    redis.kill9();
    assert!(refuses_connections(&redis).await);
    redis.restart().await.unwrap();
    assert_eq!(redis.port(), port);
    assert_eq!(redis.cli(&["GET", "key"]).await.unwrap().trim(), "1");

    redis.stop().await.unwrap();
    assert!(refuses_connections(&redis).await);
    redis.restart().await.unwrap();
    assert_eq!(redis.cli(&["GET", "key"]).await.unwrap().trim(), "1");

    redis.freeze();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    client.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    assert!(timeout(Duration::from_millis(300), client.read_exact(&mut answer)).await.is_err());
    redis.thaw();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn redis_s_wall_clock_can_be_set_while_it_runs_and_stays_so_when_it_comes_back() {
    async fn ahead(redis: &RedisServer) -> i64 {
        let time = redis.cli(&["TIME"]).await.unwrap();
        let told: i64 = time.lines().next().unwrap().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        told - now.as_secs() as i64
    }
    let mut redis = RedisServer::start_with_clock(&[]).await.unwrap();
    assert!((-2..=2).contains(&ahead(&redis).await));
    redis.set_clock(-3_600).unwrap();
    assert!((-3_602..=-3_598).contains(&ahead(&redis).await));
    redis.restart().await.unwrap();
    assert!((-3_602..=-3_598).contains(&ahead(&redis).await));
    redis.set_clock(60).unwrap();
    assert!((58..=62).contains(&ahead(&redis).await));
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn mariadb_survives_being_killed_and_stopped() {
    let mut mariadb = MariaDbServer::start().await.unwrap();
    mariadb.create_schema("kit").await.unwrap();
    mariadb.sql("kit", "CREATE TABLE t (id INT PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'ß')").await.unwrap();
    mariadb.kill9();
    assert!(refuses_connections(&mariadb).await);
    mariadb.restart().await.unwrap();
    assert_eq!(mariadb.sql("kit", "SELECT * FROM t").await.unwrap(), "1\tß\n");
    mariadb.stop().await.unwrap();
    assert!(refuses_connections(&mariadb).await);
    mariadb.restart().await.unwrap();
    assert_eq!(mariadb.sql("kit", "SELECT COUNT(*) FROM t").await.unwrap(), "1\n");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn postgres_survives_being_killed_stopped_and_frozen() {
    let mut postgres = PostgresServer::start().await.unwrap();
    postgres.create_database("kit").await.unwrap();
    postgres.sql("kit", "CREATE TABLE t (id INT PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'ß')").await.unwrap();
    postgres.kill9();
    assert!(refuses_connections(&postgres).await);
    postgres.restart().await.unwrap();
    assert_eq!(postgres.sql("kit", "SELECT * FROM t").await.unwrap(), "1\tß\n");
    // A client that stays doesn't keep it from stopping.
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, postgres.port())).await.unwrap();
    let opening = b"\0\0\0\x24\0\x03\0\0user\0postgres\0database\0kit\0\0";
    client.write_all(&opening[..]).await.unwrap();
    let mut answer = [0; 1];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"R");
    postgres.stop().await.unwrap();
    assert!(refuses_connections(&postgres).await);
    postgres.restart().await.unwrap();

    // Its sessions are processes of their own, in groups of their own: they must stand still as well.
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, postgres.port())).await.unwrap();
    client.write_all(&opening[..]).await.unwrap();
    let mut greeting = Vec::new();
    while !greeting.windows(6).any(|window| window == b"Z\0\0\0\x05I") {
        let _ = client.read_buf(&mut greeting).await.unwrap();
    }
    postgres.freeze();
    client.write_all(b"Q\0\0\0\x0dSELECT 1\0").await.unwrap();
    assert!(timeout(Duration::from_millis(300), client.read_exact(&mut answer)).await.is_err());
    postgres.thaw();
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"T");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn kafka_survives_being_killed_and_stopped() {
    let mut kafka = KafkaServer::start().await.unwrap();
    kafka.tool("TopicCommand", &["--create", "--topic", "kept", "--partitions", "3"]).await.unwrap();
    kafka.kill9();
    assert!(refuses_connections(&kafka).await);
    kafka.restart().await.unwrap();
    assert_eq!(kafka.tool("TopicCommand", &["--list"]).await.unwrap().trim(), "kept");
    kafka.stop().await.unwrap();
    assert!(refuses_connections(&kafka).await);
    kafka.restart().await.unwrap();
    assert_eq!(kafka.tool("TopicCommand", &["--list"]).await.unwrap().trim(), "kept");
}

/// One that starts deletes the temporary tables that it finds there.
#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_mariadb_keeps_its_temporary_tables_where_no_other_starts() {
    let mariadb = MariaDbServer::start().await.unwrap();
    let tmpdir = mariadb.sql("", "SELECT @@tmpdir").await.unwrap();
    assert!(std::path::Path::new(tmpdir.trim()).starts_with(mariadb.dir()), "{tmpdir}");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_server_goes_with_its_handle() {
    let redis = RedisServer::start().await.unwrap();
    let (port, dir) = (redis.port(), redis.dir().to_owned());
    drop(redis);
    eventually("refusal", Duration::from_secs(60), || async move {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err().then_some(()))
    })
    .await
    .unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run installs it"]
async fn a_server_that_ends_at_once_is_reported_with_its_log() {
    let error = format!("{:#}", RedisServer::start_with(&["--no-such-option", "1"]).await.unwrap_err());
    assert!(error.contains("no-such-option"), "{error}");
}
