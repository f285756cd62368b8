//! Closed-loop writers: each sends its next batch when its last one was acknowledged.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use shock_absorber_client::{Client, Row, Value, Write};

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Sets its records apart from those of other loads.
    pub(crate) name: &'static str,
    pub(crate) records: u32,
    pub(crate) batch: u32,
    pub(crate) writers: u32,
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) acked: u64,
    pub(crate) took: Duration,
    /// Of the batches, in order of length.
    latencies: Vec<Duration>,
}

impl Taken {
    pub(crate) fn per_second(&self) -> f64 {
        self.acked as f64 / self.took.as_secs_f64()
    }

    /// The latency that this part of the batches did not exceed.
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

    /// Writes all of it.
    ///
    /// # Errors
    /// If a write was not acknowledged.
    pub(crate) async fn run(self, client: &Client) -> Result<Taken> {
        let next = AtomicU32::new(0);
        let begun = Instant::now();
        let mut latencies = try_join_all((0..self.writers).map(|_| {
            let (client, next) = (client.clone(), &next);
            async move { self.write(&client, next).await }
        }))
        .await?
        .concat();
        let took = begun.elapsed();
        latencies.sort_unstable();
        Ok(Taken { acked: self.records.into(), took, latencies })
    }

    /// One writer: takes the next records until none is left.
    async fn write(self, client: &Client, next: &AtomicU32) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        loop {
            let from = next.fetch_add(self.batch, Ordering::Relaxed);
            if from >= self.records {
                return Ok(latencies);
            }
            let to = self.records.min(from + self.batch);
            let writes: Vec<Write> = (from..to).map(|nth| Write::put("payments", self.payment(nth))).collect();
            let sent = Instant::now();
            let results = client.batch_write(&writes).await;
            latencies.push(sent.elapsed());
            results.into_iter().collect::<Result<Vec<_>, _>>().context("a write was not acknowledged")?;
        }
    }

    /// A payment with all that a real one has: some 700 bytes as an image.
    fn payment(&self, nth: u32) -> Row {
        let json = |text: String| Value::Json(text);
        let at =
            format!("2026-01-01T{:02}:{:02}:{:02}.{:06}", nth / 3600 % 24, nth / 60 % 60, nth % 60, nth % 1_000_000);
        Row::new()
            .set("id", self.id(nth))
            .set("amount", Value::Decimal(format!("{}.{:02}", nth % 50_000, nth % 100)))
            .set("currency", "INR")
            .set("payer_upi", format!("customer{}@upi", nth % 4000))
            .set("payee_upi", format!("shop{}@upi", nth % 50))
            .set("tenant", ["north", "south", "east", "west"][nth as usize % 4])
            .set("customer", format!("c-{}", nth % 4000))
            .set("leg", "DEBIT")
            .set("action", "PAY")
            .set("status", "INITIATED")
            .set("payer", json(format!(r#"{{"name": "Łukasz 👋", "account": {}}}"#, 10_u64.pow(15) + u64::from(nth))))
            .set("payees", json(r#"[{"share": 60}, {"share": 40}]"#.to_owned()))
            .set("meta", json(format!(r#"{{"device": "android", "attempt": 1, "nth": {nth}}}"#)))
            .set("resp_meta", json(format!(r#"{{"rrn": {}}}"#, 10_u64.pow(11) + u64::from(nth))))
            .set("created_at", Value::DateTime(at.clone()))
            .set("updated_at", Value::DateTime(at))
    }
}
