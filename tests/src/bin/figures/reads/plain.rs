//! Redis by itself: the same values, by plain commands.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shock_absorber_tests::servers::RedisServer;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Copies the values of all records to keys of their own, and says how many there are and how many bytes they have.
const COPY: &str = "local records = redis.call('KEYS', '*}:r:*') local bytes = 0 \
    for n, key in ipairs(records) do local value = redis.call('GET', key) \
    bytes = bytes + #value redis.call('SET', 'plain:' .. (n - 1), value) end return #records .. ' ' .. bytes";

/// A connection to Redis, which holds copies of the records.
pub(super) struct Plain {
    connection: BufReader<TcpStream>,
    records: i64,
    bytes: i64,
}

impl Plain {
    /// # Errors
    /// If there are not as many records.
    pub(super) async fn copy(redis: &RedisServer, records: i64) -> Result<Self> {
        let told = redis.cli(&["EVAL", COPY, "0"]).await?;
        let (copied, bytes) = told.trim().split_once(' ').with_context(|| format!("Redis said {told}"))?;
        ensure!(copied == records.to_string(), "{copied} records are hot, {records} were written");
        let connection = BufReader::with_capacity(1 << 16, TcpStream::connect(("127.0.0.1", redis.port())).await?);
        connection.get_ref().set_nodelay(true)?;
        Ok(Self { connection, records, bytes: bytes.parse()? })
    }

    /// What so many records have, on average.
    pub(super) fn bytes(&self, of: i64) -> i64 {
        self.bytes * of / self.records
    }

    /// All by one command.
    ///
    /// # Errors
    /// If Redis does not answer with as many values.
    pub(super) async fn mget(&mut self, from: i64, count: i64) -> Result<Duration> {
        let mut command = format!("*{}\r\n$4\r\nMGET\r\n", count + 1);
        (from..from + count).for_each(|n| command.push_str(&argument(n)));
        let begun = Instant::now();
        self.connection.write_all(command.as_bytes()).await?;
        let line = self.line().await?;
        ensure!(line == format!("*{count}\r\n"), "Redis answered {line}");
        self.values(count).await?;
        Ok(begun.elapsed())
    }

    /// A command for each, sent together.
    ///
    /// # Errors
    /// If Redis does not answer with as many values.
    pub(super) async fn gets(&mut self, from: i64, count: i64) -> Result<Duration> {
        let commands: String = (from..from + count).map(|n| format!("*2\r\n$3\r\nGET\r\n{}", argument(n))).collect();
        let begun = Instant::now();
        self.connection.write_all(commands.as_bytes()).await?;
        self.values(count).await?;
        Ok(begun.elapsed())
    }

    async fn values(&mut self, count: i64) -> Result<()> {
        let mut value = Vec::new();
        for _ in 0..count {
            let line = self.line().await?;
            let length = line.strip_prefix('$').and_then(|length| length.trim_end().parse::<usize>().ok());
            // With the end of the line.
            value.resize(length.with_context(|| format!("Redis answered {line}"))? + 2, 0);
            self.connection.read_exact(&mut value).await?;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.connection.read_line(&mut line).await?;
        Ok(line)
    }
}

fn argument(n: i64) -> String {
    let key = format!("plain:{n}");
    format!("${}\r\n{key}\r\n", key.len())
}
