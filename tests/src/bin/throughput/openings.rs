//! Openings: Redis loses everything while nothing is drained, and is filled again from the log.

use std::time::Duration;

use anyhow::Result;

use crate::{
    Arguments,
    load::Taken,
    report::{Report, Unit},
    stand::Stand,
};

/// What one opening of all shards took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// Since Redis answered again.
    pub(crate) took: Duration,
    /// Processor time of ingest, of Redis, and of Kafka.
    pub(crate) cpu: [Duration; 3],
}

/// Writes a backlog, and has it put back several times; the medians count.
///
/// # Errors
/// If a write is not acknowledged, or an opening takes too long.
pub(crate) async fn measure(arguments: &Arguments, stand: &mut Stand, report: &mut Report) -> Result<Taken> {
    eprintln!("opening: {} records in the log, and a Redis that has lost everything", arguments.records);
    let taken = tokio::time::timeout(arguments.patience(), arguments.load("opening").run(&stand.client)).await??;
    let mut openings = Vec::new();
    for nth in 1..=arguments.openings {
        let opening = stand.reopened_after_losing_everything(arguments.patience()).await?;
        let [ingest, redis, kafka] = opening.cpu.map(|cpu| cpu.as_secs_f64());
        eprintln!(
            "  opening {nth}: {:.2} s; processor time of ingest {ingest:.2} s, of Redis {redis:.2} s, of Kafka \
             {kafka:.2} s",
            opening.took.as_secs_f64()
        );
        openings.push(opening);
    }
    let took = median(&openings, |opening| opening.took);
    let title = "opening of all shards of an empty Redis";
    report.add(title, took, Unit::Seconds);
    report.add(format!("{title}: put back"), taken.acked as f64 / took, Unit::RecordsPerSecond);
    for (at, name) in ["ingest", "Redis", "Kafka"].into_iter().enumerate() {
        let each = median(&openings, |opening| opening.cpu[at]) / taken.acked as f64;
        report.add(format!("{title}: processor time of {name} for a record"), each * 1e6, Unit::Microseconds);
    }
    Ok(taken)
}

/// In seconds.
fn median(openings: &[Opening], of: impl Fn(&Opening) -> Duration) -> f64 {
    let mut all: Vec<Duration> = openings.iter().map(of).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default().as_secs_f64()
}
