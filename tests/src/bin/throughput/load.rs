//! Closed-loop writers: each sends its next batch when its last one was acknowledged.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use shock_absorber_client::{Client, Write};
use shock_absorber_tests::payments::payment;

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Sets its records apart from those of other loads.
    pub(crate) name: &'static str,
    /// The number of the first one.
    pub(crate) first: u32,
    pub(crate) records: u32,
    pub(crate) batch: u32,
    pub(crate) writers: u32,
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) acked: u64,
    pub(crate) took: Duration,
    /// Of the acknowledgements, in order of length.
    latencies: Vec<Duration>,
}

impl Taken {
    pub(crate) fn new(records: u32, took: Duration, mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self { acked: records.into(), took, latencies }
    }

    /// Both, one after the other.
    pub(crate) fn and(self, other: Self) -> Self {
        let latencies = [self.latencies, other.latencies].concat();
        let mut both = Self { acked: self.acked + other.acked, took: self.took + other.took, latencies };
        both.latencies.sort_unstable();
        both
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.acked as f64 / self.took.as_secs_f64()
    }

    /// The latency that this part of the acknowledgements did not exceed.
    pub(crate) fn latency(&self, part: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * part).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl Load {
    /// The primary key of a record of this load.
    pub(crate) fn id(&self, nth: u32) -> String {
        format!("pay-{}-{nth:08}", self.name)
    }

    /// The number behind the last one.
    pub(crate) fn end(&self) -> u32 {
        self.first + self.records
    }

    /// The write of a record.
    pub(crate) fn put(&self, nth: u32) -> Write {
        Write::put("payments", payment(self.id(nth), nth))
    }

    /// Writes all of it in batches.
    ///
    /// # Errors
    /// If a write was not acknowledged.
    pub(crate) async fn run(self, client: &Client) -> Result<Taken> {
        let next = AtomicU32::new(self.first);
        let begun = Instant::now();
        let latencies = try_join_all((0..self.writers).map(|_| {
            let (client, next) = (client.clone(), &next);
            async move { self.write(&client, next).await }
        }))
        .await?
        .concat();
        Ok(Taken::new(self.records, begun.elapsed(), latencies))
    }

    /// One writer: takes the next records until none is left.
    async fn write(self, client: &Client, next: &AtomicU32) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let from = next.fetch_add(self.batch, Ordering::Relaxed);
            if from >= self.end() {
                return Ok(latencies);
            }
            let to = self.end().min(from + self.batch);
            let writes: Vec<Write> = (from..to).map(|nth| self.put(nth)).collect();
            let sent = Instant::now();
            let results = client.batch_write(&writes).await;
            latencies.push(sent.elapsed());
            results.into_iter().collect::<Result<Vec<_>, _>>().context("a write was not acknowledged")?;
        }
    }
}
