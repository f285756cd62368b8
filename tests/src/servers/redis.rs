//! Redis.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Kind, Place, RedisServer, run};

/// How a Redis is started.
#[derive(Debug, Default)]
pub struct Redis {
    arguments: Vec<String>,
}

impl Kind for Redis {
    const NAME: &'static str = "redis";
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn prepare(&mut self, _place: &Place) -> Result<()> {
        Ok(())
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--maxmemory-policy", "noeviction"]);
        // Every write is in the system's hands before it is answered, so a killed process loses none.
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
        command.arg("--port").arg(place.port.to_string()).arg("--dir").arg(&place.dir).args(&self.arguments);
        Ok(command)
    }

    async fn answers(&self, place: &Place) -> bool {
        pong(place.port).await.unwrap_or(false)
    }
}

async fn pong(port: u16) -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    // While it loads its data it says -LOADING.
    Ok(&answer == b"+PONG")
}

impl RedisServer {
    /// Starts a Redis with an append-only file.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start() -> Result<Self> {
        Self::start_kind(Redis::default()).await
    }

    /// Starts a Redis with arguments of your own after ours, such as `["--maxmemory", "64mb"]`.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        Self::start_kind(Redis { arguments: arguments.iter().map(|&a| a.to_owned()).collect() }).await
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Runs one command by redis-cli and returns what it prints.
    ///
    /// # Errors
    /// If redis-cli fails.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("redis-cli");
        command.arg("-p").arg(self.port().to_string()).args(arguments);
        run(command).await
    }
}
