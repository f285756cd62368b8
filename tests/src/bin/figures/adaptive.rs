//! The adaptive limit: others' queries on the same server while ours gives way, and how soon it is back.
//!
//! The others measure themselves, in stored procedures: no client of theirs, and no scheduling of it, is part of what their
//! queries take. How much work a row of ours and a query of theirs is, is fitted to the machine, so that ours leaves half of
//! two cores idle while it is alone and both together are too much.

mod stand;

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::report::{Reach, Report};
use stand::{Drains, Stand};

/// Rows per second at most, and at least.
const MAX: u32 = 600;
const MIN: u32 = 10;
/// How soon ours has given way.
const REACTION: Duration = Duration::from_secs(10);
/// How soon it must be back.
const RECOVERY: f64 = 30.0;
/// The longest time for which anything is waited.
const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let lasts = Duration::from_secs(if quick { 10 } else { 50 });
    eprintln!("starting Redis, Kafka, MariaDB and ingest, writing a backlog");
    let mut stand = Stand::start(MAX * (120 + 2 * u32::try_from(lasts.as_secs())?)).await?;
    let mut report = Report::new("adaptive");

    eprintln!("the others alone, for {} s", lasts.as_secs());
    let alone = stand.others(lasts).await?.p99(SECOND)?;

    eprintln!("beside a limit of {MAX} rows/s that heeds nothing");
    let mut drains = stand.drains(&format!("rows_per_second: {MAX}")).await?;
    until_full(&drains).await?;
    let beside_fixed = stand.others(lasts).await?.p99(2 * SECOND)?;
    drains.stop().await?;

    eprintln!("with a limit from {MIN} to {MAX} rows/s that heeds the database");
    let adaptive = format!("adaptive: {{min_rows_per_second: {MIN}, max_rows_per_second: {MAX}}}");
    let mut drains = stand.drains(&adaptive).await?;
    until_full(&drains).await?;
    let before = rate(&drains, 5 * SECOND).await?;
    report.add(
        "rows/s while nobody else is there".into(),
        before,
        "rows/s",
        f64::from(MAX),
        Reach::AtLeast(0.9 * f64::from(MAX)),
    );
    let others = stand.others(REACTION + lasts);
    let ours = async {
        sleep(REACTION).await;
        rate(&drains, lasts - SECOND).await
    };
    let (others, meanwhile) = tokio::join!(others, ours);
    let ended = Instant::now();
    let beside = others?.p99(REACTION)?;
    report.add(
        "p99 of the others' queries, beside ours (baseline: beside a limit that heeds nothing)".into(),
        beside / alone,
        "x idle",
        beside_fixed / alone,
        Reach::AtMost(1.5),
    );
    report.add("rows/s meanwhile".into(), meanwhile?, "rows/s", before, Reach::AtMost(0.5 * before));
    let back = until_back(&drains, 0.9 * before, ended).await?;
    report.add("until ours is back".into(), back, "s", RECOVERY, Reach::AtMost(RECOVERY));
    drains.stop().await?;
    stand.stop().await?;
    Ok(report)
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
