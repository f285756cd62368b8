//! A Redis server of the test's own: started on a free port in a temporary directory, killed when dropped.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use hot_store::redis::{RedisOptions, RedisStore};
use tempfile::TempDir;
use tokio::time::Instant;

pub struct RedisServer {
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts a server that loses nothing on a kill: every write is in the append-only file before it is answered.
    pub async fn start(arguments: &[&str]) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut server = Self { port, directory: TempDir::new().unwrap(), arguments, process: None };
        server.resume().await;
        server
    }

    /// Starts it again, on the same port and data.
    pub async fn resume(&mut self) {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
            .args(["--port", &self.port.to_string(), "--dir"])
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not installed: apt-get install redis-server (version 7 or later)");
        self.process = Some(child);
        let deadline = Instant::now() + Duration::from_secs(90);
        while self.connection().await.is_err() {
            assert!(Instant::now() < deadline, "redis-server on port {} does not answer", self.port);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends a signal: STOP freezes it, CONT lets it go on.
    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    pub fn options(&self) -> RedisOptions {
        RedisOptions { url: format!("redis://127.0.0.1:{}", self.port), ..RedisOptions::default() }
    }

    pub async fn store(&self) -> RedisStore {
        RedisStore::connect(self.options()).await.unwrap()
    }

    /// A connection that is not the store's.
    pub async fn connection(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let mut connection = redis::Client::open(self.options().url)?.get_multiplexed_async_connection().await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }

    /// Says something as soon as connections of this process notice that the server is gone.
    pub async fn end_notice(&self) -> tokio::sync::mpsc::UnboundedReceiver<()> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let connection = redis::Client::open(format!("{}?protocol=resp3", self.options().url))
            .unwrap()
            .get_multiplexed_async_connection_with_config(&redis::AsyncConnectionConfig::new().set_push_sender(
                move |push: redis::PushInfo| match push.kind {
                    redis::PushKind::Disconnection => sender.send(()),
                    _ => Ok(()),
                },
            ))
            .await
            .unwrap();
        // It lives for as long as the test does.
        std::mem::forget(connection);
        receiver
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
