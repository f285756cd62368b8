//! Measures what is promised, one subject at a time, on real servers of its own, and says whether it is reached.

mod adaptive;
mod coalesce;
mod find;
mod limit;
mod poison;
mod reads;
mod rebalance;
mod report;
mod shop;
mod stall;
mod taken;
mod types;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measure what is promised
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
    /// Print one JSON object instead of the table
    #[arg(long, global = true)]
    json: bool,
    /// A short form that takes about a minute
    #[arg(long, global = true)]
    quick: bool,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Subject {
    /// The database is never written faster than its limit, and with a backlog not much slower
    Limit,
    /// Few rows are written where few keys are written most of the time, and each is the last one
    Coalesce,
    /// While replicas join, leave and are killed, nothing is lost or stale, and no key waits long
    Rebalance,
    /// Rows that can't be written are found, set aside with their cause, and hold nobody up
    Poison,
    /// A database that stands still costs no membership, no memory, and no row
    Stall,
    /// A database that others make slow is written more slowly, and as fast as before when they have gone
    Adaptive,
    /// What finding records by a field takes beside reading one by its key, and what it costs writes
    Find,
    /// What many hot records take in one call, one by one, and from Redis itself, and how often Redis is waited for
    Reads,
    /// How many types of each database come back as they went in, and how many are refused
    Types,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { subject, json, quick } = Arguments::parse();
    let report = match subject {
        Subject::Limit => limit::measure(quick).await?,
        Subject::Coalesce => coalesce::measure(quick).await?,
        Subject::Rebalance => rebalance::measure(quick).await?,
        Subject::Poison => poison::measure(quick).await?,
        Subject::Stall => stall::measure(quick).await?,
        Subject::Adaptive => adaptive::measure(quick).await?,
        Subject::Find => find::measure(quick).await?,
        Subject::Reads => reads::measure(quick).await?,
        Subject::Types => types::measure().await?,
    };
    report.print(json)?;
    // Figures that are not reached are no error of the measurement, and still not to be overlooked.
    if !report.is_reached() {
        std::process::exit(1);
    }
    Ok(())
}
