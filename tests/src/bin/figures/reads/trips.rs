//! Counts round trips to Redis, from between.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// Nobody pauses for so long in the middle of a pipeline, but where the machine stalls.
const QUIET: Duration = Duration::from_millis(30);
/// An answer with fewer bytes holds no record: it is to something that a replica does by itself.
const LEAST: usize = 512;

/// Passes on what is sent at once, and what Redis answers when both sides have been quiet for a while: so each time that it
/// does is one round trip, however the bytes are cut.
pub(super) struct Relay {
    port: u16,
    trips: Arc<AtomicU64>,
    listening: JoinHandle<()>,
}

impl Relay {
    /// # Errors
    /// If it can't listen.
    pub(super) async fn before(redis: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let trips = Arc::new(AtomicU64::new(0));
        let counted = trips.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // It ends with either side.
                tokio::spawn(pass(client, redis, counted.clone()));
            }
        });
        Ok(Self { port, trips, listening })
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Round trips that have brought records.
    pub(super) fn trips(&self) -> u64 {
        self.trips.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn pass(mut client: TcpStream, redis: u16, trips: Arc<AtomicU64>) -> Result<()> {
    let mut redis = TcpStream::connect((Ipv4Addr::LOCALHOST, redis)).await?;
    let mut answers = Vec::new();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                bytes => redis.write_all(&asked[..bytes]).await?,
            },
            read = redis.read(&mut answered) => match read? {
                0 => return Ok(()),
                bytes => answers.extend_from_slice(&answered[..bytes]),
            },
            () = sleep(QUIET), if !answers.is_empty() => {
                // Before it is passed on, so that who has the answer finds it counted.
                if answers.len() >= LEAST {
                    trips.fetch_add(1, Ordering::SeqCst);
                }
                client.write_all(&answers).await?;
                answers.clear();
            }
        }
    }
}
