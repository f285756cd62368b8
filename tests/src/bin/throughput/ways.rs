//! The ways to write, side by side: a call for each record, batches, and a stream of writes.
//!
//! All write records of the same shape to the same servers, in turn, so whatever else the machine does meets all alike.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::future::{try_join, try_join_all};
use shock_absorber_client::{Client, Pending, WriteStream, WriteStreamOptions};
use tokio::sync::mpsc;

use crate::{
    Arguments,
    load::{Load, Taken},
    millis, patience,
    report::{Report, Unit},
    stand::Stand,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Unary,
    Batch,
    Stream,
}

impl Way {
    const ALL: [Self; 3] = [Self::Unary, Self::Batch, Self::Stream];

    /// Sets its records apart.
    fn name(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Batch => "batch",
            Self::Stream => "stream",
        }
    }

    fn title(self, arguments: &Arguments) -> String {
        let Arguments { unary, batch, writers, streams, .. } = arguments;
        match self {
            Self::Unary => format!("a call per record, {unary} at once"),
            Self::Batch => format!("BatchWrite, {writers} times {batch} at once"),
            Self::Stream => format!("WriteStream, {streams} open"),
        }
    }

    async fn write(self, load: Load, arguments: &Arguments, client: &Client) -> Result<Taken> {
        match self {
            Self::Unary => unary(load, arguments.unary, client).await,
            Self::Batch => load.run(client).await,
            Self::Stream => stream(load, arguments.streams, client).await,
        }
    }
}

/// Measures them; how many records were written.
///
/// # Errors
/// If a write is not acknowledged.
pub(crate) async fn measure(arguments: &Arguments, stand: &Stand, report: &mut Report) -> Result<u64> {
    let records = (arguments.records / arguments.rounds).max(1);
    eprintln!("the ways to write, drains stopped: {} rounds of {records} records each", arguments.rounds);
    let mut taken = Way::ALL.map(|_| Vec::new());
    for round in 0..arguments.rounds {
        for (way, taken) in Way::ALL.into_iter().zip(&mut taken) {
            let load = Load { first: round * records, records, ..arguments.load(way.name()) };
            let round = tokio::time::timeout(patience(records.into()), way.write(load, arguments, &stand.client));
            let round = round.await??;
            eprintln!("  {}: {:.0} records/s", way.title(arguments), round.per_second());
            taken.push(round);
        }
    }
    let mut written = 0;
    for (way, rounds) in Way::ALL.into_iter().zip(taken) {
        let title = way.title(arguments);
        let mut rates: Vec<f64> = rounds.iter().map(Taken::per_second).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let all = rounds.into_iter().reduce(Taken::and).context("there was no round")?;
        written += all.acked;
        report.add(title.clone(), rates[rates.len() / 2], Unit::RecordsPerSecond);
        report.add(format!("{title}: ack p50"), millis(all.latency(0.5)), Unit::Milliseconds);
        report.add(format!("{title}: ack p99"), millis(all.latency(0.99)), Unit::Milliseconds);
    }
    Ok(written)
}

/// So many callers, each of which makes its next write when its last one was acknowledged.
async fn unary(load: Load, callers: u32, client: &Client) -> Result<Taken> {
    let next = AtomicU32::new(load.first);
    let begun = Instant::now();
    let latencies = try_join_all((0..callers).map(async |_| {
        let mut latencies = Vec::new();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= load.end() {
                return anyhow::Ok(latencies);
            }
            let write = load.put(nth);
            let sent = Instant::now();
            client.write(&write).await.context("a write was not acknowledged")?;
            latencies.push(sent.elapsed());
        }
    }));
    let latencies = latencies.await?.concat();
    Ok(Taken::new(load.records, begun.elapsed(), latencies))
}

/// So many streams, each of which is given writes as fast as it takes them.
async fn stream(load: Load, streams: u32, client: &Client) -> Result<Taken> {
    let next = AtomicU32::new(load.first);
    let begun = Instant::now();
    let latencies = try_join_all((0..streams).map(async |_| {
        let stream = WriteStream::new(client.clone(), WriteStreamOptions::default());
        let (sent, pending) = mpsc::unbounded_channel();
        let send = async {
            // Ends the other side with it.
            let sent = sent;
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= load.end() {
                    return anyhow::Ok(());
                }
                let result = stream.send(load.put(nth)).await?;
                sent.send((Instant::now(), result)).context("nobody waits for results any more")?;
            }
        };
        try_join(send, results(pending)).await.map(|((), latencies)| latencies)
    }));
    let latencies = latencies.await?.concat();
    Ok(Taken::new(load.records, begun.elapsed(), latencies))
}

/// How long each write of a stream waited for its acknowledgement since it had its place in the stream.
async fn results(mut pending: mpsc::UnboundedReceiver<(Instant, Pending)>) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while let Some((sent, result)) = pending.recv().await {
        result.await.context("a write was not acknowledged")?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}
