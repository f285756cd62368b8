//! The adaptive limit: others' queries on the same server while ours gives way, and how soon it is back.
//!
//! The others measure themselves, in stored procedures: no client of theirs, and no scheduling of it, is part of what their
//! queries take. The server has a core of its own, where there are several, as a database has a machine of its own. How
//! much work a row of ours and a query of theirs is, is fitted to it: ours leaves half of it idle while it is alone, and
//! the others take all that they get. What they take alone is measured before, between and after, on the same server.

mod stand;

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::report::{Reach, Report};
use stand::{Drains, Stand};

/// Rows per second at most, and at least.
const MAX: u32 = 300;
const MIN: u32 = 10;
/// How soon ours has given way.
const REACTION: Duration = Duration::from_secs(10);
/// How soon it must be back.
const RECOVERY: f64 = 30.0;
/// How much longer the others' queries may take.
const SLOWER: f64 = 1.5;
/// The longest time for which anything is waited.
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What all rounds have found, each on its own: the 99th percentiles of others' queries in milliseconds.
#[derive(Default)]
struct Found {
    alone: Vec<f64>,
    beside_fixed: Vec<f64>,
    beside: Vec<f64>,
    /// The first seconds, while ours is still giving way.
    at_first: Vec<f64>,
    /// Rows per second before the others come, and beside them.
    before: Vec<f64>,
    meanwhile: Vec<f64>,
    /// Until ours is back, in seconds.
    back: Vec<f64>,
}

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    // Before it keeps to some of the machine's cores.
    let mut report = Report::new("adaptive");
    let (rounds, lasts) = if quick { (1, 12) } else { (3, 60) };
    eprintln!("starting Redis, Kafka, MariaDB and ingest, writing a backlog");
    let mut stand = Stand::start(MAX * rounds * (100 + 2 * lasts)).await?;
    let lasts = Duration::from_secs(lasts.into());
    let mut found = Found::default();
    for n in 1..=rounds {
        eprintln!("round {n} of {rounds}");
        round(&stand, lasts, &mut found).await?;
    }
    stand.stop().await?;
    let Found { alone, beside_fixed, beside, at_first, before, meanwhile, back } = found;
    // Whatever else the machine does may disturb one of them, and must not decide.
    let [alone, beside_fixed, beside, at_first] = [alone, beside_fixed, beside, at_first].map(middle);
    eprintln!("  p99 alone {alone:.1} ms, beside a fixed limit {beside_fixed:.1} ms, beside ours {beside:.1} ms");
    eprintln!("  in the first {} s, while ours gives way, {at_first:.1} ms", REACTION.as_secs());
    ensure!(
        beside_fixed > SLOWER * alone,
        "beside a limit that heeds nothing the others' queries take {:.2} times as long as alone: too little to tell \
         anything",
        beside_fixed / alone
    );
    let (most, least) = (f64::from(MAX), lowest(&before));
    let alone_at = format!("limit from {MIN} to {MAX} rows/s, nobody else there");
    report.add(alone_at, least, "rows/s", most, Reach::AtLeast(0.9 * most));
    let of = format!("p99 of others' queries from {} s on (baseline: beside a fixed limit)", REACTION.as_secs());
    report.add(of, beside / alone, "x idle", beside_fixed / alone, Reach::AtMost(SLOWER));
    report.add("ours meanwhile".into(), highest(&meanwhile), "rows/s", least, Reach::AtMost(0.5 * least));
    report.add("until ours is back".into(), highest(&back), "s", RECOVERY, Reach::AtMost(RECOVERY));
    Ok(report)
}

async fn round(stand: &Stand, lasts: Duration, found: &mut Found) -> Result<()> {
    alone(stand, lasts, found).await?;

    eprintln!("  beside a limit of {MAX} rows/s that heeds nothing");
    let mut drains = stand.drains(&format!("rows_per_second: {MAX}")).await?;
    until_full(&drains).await?;
    found.beside_fixed.push(stand.others(lasts).await?.since(2 * SECOND).p99()?);
    drains.stop().await?;
    alone(stand, lasts, found).await?;

    eprintln!("  beside a limit from {MIN} to {MAX} rows/s that heeds the database");
    let mut drains =
        stand.drains(&format!("adaptive: {{min_rows_per_second: {MIN}, max_rows_per_second: {MAX}}}")).await?;
    until_full(&drains).await?;
    let before = rate(&drains, 5 * SECOND).await?;
    let ours = async {
        sleep(REACTION).await;
        rate(&drains, lasts - SECOND).await
    };
    let (others, meanwhile) = tokio::join!(stand.others(REACTION + lasts), ours);
    let ended = Instant::now();
    found.back.push(until_back(&drains, 0.9 * before, ended).await?);
    let (at_first, later) = others?.split(REACTION);
    found.at_first.push(at_first.p99()?);
    found.beside.push(later.p99()?);
    found.before.push(before);
    found.meanwhile.push(meanwhile?);
    drains.stop().await?;

    alone(stand, lasts, found).await?;
    Ok(())
}

async fn alone(stand: &Stand, lasts: Duration, found: &mut Found) -> Result<()> {
    eprintln!("  the others alone");
    found.alone.push(stand.others(lasts / 2).await?.since(SECOND).p99()?);
    Ok(())
}

fn middle(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn lowest(of: &[f64]) -> f64 {
    of.iter().copied().fold(f64::INFINITY, f64::min)
}

fn highest(of: &[f64]) -> f64 {
    of.iter().copied().fold(0.0, f64::max)
}

/// Rows per second over some time.
async fn rate(drains: &Drains, time: Duration) -> Result<f64> {
    let (begun, before) = (Instant::now(), drains.rows_written().await?);
    sleep(time).await;
    Ok((drains.rows_written().await? - before) / begun.elapsed().as_secs_f64())
}

/// Until it writes at nearly its highest limit, or does not within a minute.
async fn until_full(drains: &Drains) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && rate(drains, 2 * SECOND).await? < 0.95 * f64::from(MAX) {}
    Ok(())
}

/// How long it takes from a moment on until it writes so fast, in seconds.
async fn until_back(drains: &Drains, rows_per_second: f64, from: Instant) -> Result<f64> {
    while from.elapsed() < PATIENCE && rate(drains, SECOND).await? < rows_per_second {}
    Ok(from.elapsed().as_secs_f64())
}
