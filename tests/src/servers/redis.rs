//! Redis.

use std::{fs, io::Write as _, net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Kind, Place, RedisServer, run};

/// Where it keeps the parts of its append-only file.
const APPEND_ONLY: &str = "appendonlydir";

/// By how much its wall clock is wrong.
const CLOCK: &str = "clock";

/// What lets it be wrong.
const CLOCK_LIBRARY: &str = "clock.so";

/// How a Redis is started.
#[derive(Debug, Default)]
pub struct Redis {
    arguments: Vec<String>,
    /// Its wall clock can be set by [`RedisServer::set_clock`].
    has_clock: bool,
}

impl Kind for Redis {
    const NAME: &'static str = "redis";
    const PATIENCE: Duration = Duration::from_secs(90);

    async fn prepare(&mut self, place: &Place) -> Result<()> {
        if !self.has_clock {
            return Ok(());
        }
        fs::write(place.dir.join(CLOCK), 0_i64.to_ne_bytes())?;
        fs::write(place.dir.join("clock.c"), include_str!("clock.c"))?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(place.dir.join(CLOCK_LIBRARY));
        compile.arg(place.dir.join("clock.c"));
        run(compile).await.map(drop)
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--daemonize", "no", "--maxmemory-policy", "noeviction"]);
        // Every write is in the system's hands before it is answered, so a killed process loses none.
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
        command.arg("--port").arg(place.port.to_string()).arg("--dir").arg(&place.dir).args(&self.arguments);
        if self.has_clock {
            command.env("LD_PRELOAD", place.dir.join(CLOCK_LIBRARY));
            command.env("SHOCK_ABSORBER_TEST_CLOCK", place.dir.join(CLOCK));
        }
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
        Self::start_kind(Redis { arguments: arguments.iter().map(|&a| a.to_owned()).collect(), ..Redis::default() })
            .await
    }

    /// Starts a Redis with arguments of your own, and with a wall clock that can be set.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start_with_clock(arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        Self::start_kind(Redis { arguments, has_clock: true }).await
    }

    /// Puts its wall clock so many seconds beside the machine's, from now on.
    ///
    /// # Errors
    /// If it was started without such a clock.
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        // In place, for it has the file mapped.
        let mut file = fs::File::options().write(true).open(self.dir().join(CLOCK))?;
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Takes so many bytes off the end of its append-only file, as a power loss may, while it is not running; at most
    /// all that was written since the file was last rewritten. Says how many.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn cut_tail(&self, bytes: u64) -> Result<u64> {
        let path = self.tail_file()?;
        let file = fs::File::options().write(true).open(&path)?;
        let length = file.metadata()?.len();
        let cut = bytes.min(length);
        file.set_len(length - cut)?;
        Ok(cut)
    }

    /// The bytes of its append-only file since that was last rewritten.
    ///
    /// # Errors
    /// If it can't be looked at.
    pub fn tail_bytes(&self) -> Result<u64> {
        Ok(self.newest_increment()?.map(|path| path.metadata()).transpose()?.map_or(0, |data| data.len()))
    }

    /// Cuts its append-only file in the middle of the last transaction there, as a power loss may, while it is not
    /// running. Says which file that is.
    ///
    /// # Errors
    /// If there is none.
    pub fn tear_last_transaction(&self) -> Result<PathBuf> {
        let path = self.tail_file()?;
        let data = fs::read(&path)?;
        let end = data.windows(4).rposition(|word| word.eq_ignore_ascii_case(b"EXEC"));
        let end = end.context("there is no transaction in Redis's append-only file")?;
        // Into its last command: the three before the word are those of the EXEC itself.
        fs::File::options().write(true).open(&path)?.set_len(end as u64 - 12)?;
        Ok(path)
    }

    /// The file that it appends to.
    ///
    /// # Errors
    /// If there is none.
    pub fn tail_file(&self) -> Result<PathBuf> {
        self.newest_increment()?.context("Redis has no append-only file")
    }

    /// Takes all its data away, while it is not running.
    ///
    /// # Errors
    /// If that fails.
    pub fn empty(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.dir().join(APPEND_ONLY))?)
    }

    /// `appendonly.aof.N.incr.aof` of the highest N.
    fn newest_increment(&self) -> Result<Option<PathBuf>> {
        let number = |path: &PathBuf| -> Option<u64> {
            path.file_name()?.to_str()?.strip_prefix("appendonly.aof.")?.strip_suffix(".incr.aof")?.parse().ok()
        };
        let mut newest = None;
        for entry in fs::read_dir(self.dir().join(APPEND_ONLY))? {
            let path = entry?.path();
            newest = number(&path).map(|n| (n, path)).max(newest);
        }
        Ok(newest.map(|(_, path)| path))
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
