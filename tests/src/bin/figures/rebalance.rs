//! Replicas that join, leave and are killed every two seconds, under load: what is lost or stale, and for how long a key's
//! writes wait until the database shows them.

mod load;
mod replicas;
mod stand;
mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::watch as signal,
    time::{Instant, sleep_until},
};

use crate::report::{Reach, Report};
use load::Load;
use replicas::Replicas;
use stand::Stand;
use watch::Watch;

/// Between two changes of the group.
const TURN: Duration = Duration::from_secs(2);
/// After this silence a replica is taken for dead, with either protocol. The lowest that brokers take as they come.
pub(crate) const SESSION: Duration = Duration::from_secs(6);
/// No key's write may wait longer.
const STALL: Duration = Duration::from_secs(15);
/// How long everything may take to get there in the end.
const SETTLED: Duration = Duration::from_secs(60);

/// Measures it, with one group protocol after the other.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let lasts = Duration::from_secs(if quick { 26 } else { 300 });
    eprintln!("starting Redis, Kafka, MariaDB and ingest");
    let mut stand = Stand::start().await?;
    let mut report = Report::new("rebalance");
    for protocol in ["consumer", "classic"] {
        perform(protocol, lasts, &stand, &mut report).await?;
    }
    stand.stop().await?;
    Ok(report)
}

async fn perform(protocol: &'static str, lasts: Duration, stand: &Stand, report: &mut Report) -> Result<()> {
    eprintln!("{protocol}: replicas come and go for {} s", lasts.as_secs());
    let mut replicas = Replicas::start(stand, protocol).await?;
    let load = Arc::new(Load::new(protocol));
    let (stop, stopped) = signal::channel(false);
    let working = load.clone().start(stand, &stopped);
    let watching = tokio::spawn(Watch::new(stand, load.clone()).run(stopped));

    let begun = Instant::now();
    for turn in 1.. {
        let at = begun + TURN * turn;
        if at > begun + lasts {
            break;
        }
        sleep_until(at).await;
        replicas.change(turn, stand, load.now())?;
    }
    stop.send_replace(true);
    for writer in working {
        writer.await??;
    }
    watching.await??;
    let left = Watch::new(stand, load.clone()).until_all_is_there(SETTLED).await?;
    load.read_all(stand).await?;
    let (kills, unclean) = replicas.stop().await?;

    let verdict = load.verdict(&kills);
    for finding in verdict.findings.all().take(10) {
        eprintln!("  {}: {}", finding.0, finding.1);
    }
    let (of, stall) = (|what: &str| format!("{protocol}: {what}"), STALL.as_secs_f64());
    report.add(of("writes acknowledged"), verdict.acked as f64, "writes", 0.0, Reach::AtLeast(1.0));
    report.add(of("not acknowledged"), verdict.not_acked as f64, "writes", 0.0, Reach::AtMost(0.0));
    report.add(of("lost"), (verdict.findings.lost.len() + left) as f64, "keys", 0.0, Reach::AtMost(0.0));
    let stale = verdict.findings.all().count() - verdict.findings.lost.len();
    report.add(of("stale, or out of order"), stale as f64, "reads", 0.0, Reach::AtMost(0.0));
    report.add(of("replicas that ended badly"), unclean as f64, "ends", 0.0, Reach::AtMost(0.0));
    report.add(of("acknowledged to visible, median"), verdict.median, "s", 0.0, Reach::AtMost(stall));
    report.add(of("acknowledged to visible, 99 of 100"), verdict.p99, "s", 0.0, Reach::AtMost(stall));
    report.add(of("acknowledged to visible, worst"), verdict.worst, "s", SESSION.as_secs_f64(), Reach::AtMost(stall));
    let takeovers = format!("longest wait after a kill, mean of {}", kills.len());
    report.add(of(&takeovers), verdict.takeover, "s", SESSION.as_secs_f64(), Reach::AtMost(stall));
    Ok(())
}
