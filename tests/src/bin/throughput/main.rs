//! Measures the whole system on real servers of its own: how fast writers get in, how fast a backlog gets out, and both
//! at once; and beside it, on the same servers and with the same records, what those servers do by themselves.

mod cpu;
mod load;
mod openings;
mod plain;
mod report;
mod stand;
mod ways;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;

use load::{Load, Taken};
use report::{Report, Unit};
use stand::Stand;

/// Whatever is measured is given up when it is slower than this; 3,000 records/s are expected.
const SLOWEST_RECORDS_PER_SECOND: u64 = 200;
/// For starting and ending, on top.
const MARGIN: Duration = Duration::from_secs(60);

/// Measure ingest and drain on real servers
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Records of each phase
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(100..=5_000_000))]
    records: u32,
    /// Records of one BatchWrite
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    batch: u32,
    /// Writers, each of which sends its next batch when its last one was acknowledged
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// Writes that are under way at once where each is a call of its own
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1000))]
    unary: u32,
    /// Streams of WriteStream
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    streams: u32,
    /// Rounds in which the ways to write are compared, each in turn; the medians count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Measure only the ways to write
    #[arg(long, conflicts_with = "only_openings")]
    only_ways: bool,
    /// Shards of the installation
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: u16,
    /// Leave the table as it is: versions are kept in the ledger instead of a column
    #[arg(long)]
    ledger: bool,
    /// Times that an empty Redis is filled again; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    openings: u32,
    /// Measure only these
    #[arg(long)]
    only_openings: bool,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// How long a phase may take.
    fn patience(&self) -> Duration {
        patience(self.records.into())
    }

    fn load(&self, name: &'static str) -> Load {
        Load { name, first: 0, records: self.records, batch: self.batch, writers: self.writers }
    }
}

/// How long so many records may take.
fn patience(records: u64) -> Duration {
    MARGIN + Duration::from_secs(records / SLOWEST_RECORDS_PER_SECOND)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::new();
    eprintln!("starting Redis, Kafka, MariaDB and ingest");
    let mut stand = Stand::start(&arguments).await?;
    if arguments.only_openings {
        openings::measure(&arguments, &mut stand, &mut report).await?;
        stand.stop().await?;
        return report.print(arguments.json);
    }

    if arguments.only_ways {
        ways::measure(&arguments, &stand, &mut report).await?;
        stand.stop().await?;
        return report.print(arguments.json);
    }

    let taken = ingest(&arguments, &stand, "always", &mut report).await?;
    let more = ways::measure(&arguments, &stand, &mut report).await?;
    drain(&mut stand, "appendfsync always", taken.acked + more, &mut report).await?;
    both(&arguments, &stand, &mut report).await?;
    stand.stop_drains().await?;

    let taken = openings::measure(&arguments, &mut stand, &mut report).await?;
    drain(&mut stand, "after the opening", taken.acked, &mut report).await?;
    stand.stop_drains().await?;

    stand.redis.cli(&["CONFIG", "SET", "appendfsync", "everysec"]).await?;
    let taken = ingest(&arguments, &stand, "everysec", &mut report).await?;
    drain(&mut stand, "appendfsync everysec", taken.acked, &mut report).await?;

    let expected = u64::from(arguments.records) * 4 + more;
    let counted = stand.rows().await?;
    ensure!(counted == expected, "{expected} records were acknowledged, and the database has {counted} rows");
    report.add("rows in the database after all phases, none missing", counted as f64, Unit::Rows);

    // Then nothing of ours runs beside what is measured plainly.
    stand.stop().await?;
    plain::measure(&arguments, &stand, &mut report).await?;
    report.print(arguments.json)
}

/// Phase 1: writers and no drain.
async fn ingest(arguments: &Arguments, stand: &Stand, fsync: &'static str, report: &mut Report) -> Result<Taken> {
    eprintln!("ingest, appendfsync {fsync}: {} records, drains stopped", arguments.records);
    let load = arguments.load(fsync);
    let taken = tokio::time::timeout(arguments.patience(), load.run(&stand.client)).await??;
    let title = format!("ingest, appendfsync {fsync}");
    report.add(title.clone(), taken.per_second(), Unit::RecordsPerSecond);
    report.add(format!("{title}: ack p50 of a batch"), millis(taken.latency(0.5)), Unit::Milliseconds);
    report.add(format!("{title}: ack p99 of a batch"), millis(taken.latency(0.99)), Unit::Milliseconds);
    Ok(taken)
}

/// Phase 2: drains and no writer.
async fn drain(stand: &mut Stand, when: &str, backlog: u64, report: &mut Report) -> Result<()> {
    eprintln!("drain, {when}: a backlog of {backlog} records");
    let begun = Instant::now();
    stand.start_drains().await?;
    let drained = stand.drained(0, backlog, patience(backlog)).await?;
    let whole = begun.elapsed();
    let title = format!("drained backlog, {when}");
    report.add(title.clone(), drained.per_second(), Unit::RecordsPerSecond);
    report.add(format!("{title}: seconds with the start of two drains"), whole.as_secs_f64(), Unit::Seconds);
    Ok(())
}

/// Phase 3: writers and drains.
async fn both(arguments: &Arguments, stand: &Stand, report: &mut Report) -> Result<()> {
    eprintln!("ingest and drain at once: {} records", arguments.records);
    let load = arguments.load("both");
    let before = stand.written().await?;
    let begun = Instant::now();
    let taken = tokio::time::timeout(arguments.patience(), load.run(&stand.client)).await??;
    stand.drained(before, taken.acked, arguments.patience()).await?;
    let whole = begun.elapsed();
    report.add("both at once: ingest", taken.per_second(), Unit::RecordsPerSecond);
    report.add("both at once: ack p99 of a batch", millis(taken.latency(0.99)), Unit::Milliseconds);
    let through = taken.acked as f64 / whole.as_secs_f64();
    report.add("both at once: until the database had all", through, Unit::RecordsPerSecond);
    let behind = whole.saturating_sub(taken.took);
    report.add("both at once: the database had all after the last ack", behind.as_secs_f64(), Unit::Seconds);
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
