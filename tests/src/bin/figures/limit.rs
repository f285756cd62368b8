//! The limit: what is committed in any second, and how much of the limit a backlog uses, with replicas that come and go.
//!
//! The database itself says when what was committed: a trigger enters each row into an audit table that MariaDB versions
//! by transaction, and its transaction registry notes the moment of each commit in microseconds. So there is no sampling,
//! and no clock of ours. A window of one second is tried from each commit on.

mod commits;
mod stand;

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep_until};

use crate::report::{Reach, Report};
use stand::{Replicas, Stand};

/// Rows per second.
const RATES: [u32; 3] = [5, 50, 2000];
/// Of what is tried at once, so that each record is written long before it is due.
const SPARE: Duration = Duration::from_secs(6);

/// How the rows of a table are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    Uniform,
    OneShard,
}

impl Spread {
    fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform keys",
            Self::OneShard => "one hot shard",
        }
    }
}

/// So many replicas that drain a table per rate, all at once.
#[derive(Debug, Clone, Copy)]
struct Act {
    replicas: usize,
    spread: Spread,
}

impl Act {
    /// The table of a rate.
    fn table(self, rate: u32) -> String {
        let spread = match self.spread {
            Spread::Uniform => "uniform",
            Spread::OneShard => "hot",
        };
        format!("{spread}_{rate}_by_{}", self.replicas)
    }
}

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let (replicas, lasts): (&[usize], _) = if quick { (&[3], 20) } else { (&[1, 3, 8], 60) };
    let lasts = Duration::from_secs(lasts);
    let acts: Vec<Act> = [Spread::Uniform, Spread::OneShard]
        .into_iter()
        .flat_map(|spread| replicas.iter().map(move |&replicas| Act { replicas, spread }))
        .collect();
    let tables: Vec<(String, u32)> = acts.iter().flat_map(|act| RATES.map(|rate| (act.table(rate), rate))).collect();
    eprintln!("starting Redis, Kafka, MariaDB and ingest");
    let mut stand = Stand::start(&tables).await?;
    let mut report = Report::new("limit");
    for act in acts {
        perform(act, lasts, &mut stand, &mut report).await?;
    }
    stand.stop().await?;
    Ok(report)
}

async fn perform(act: Act, lasts: Duration, stand: &mut Stand, report: &mut Report) -> Result<()> {
    let Act { replicas, spread } = act;
    eprintln!("{}, {replicas} replicas: writing a backlog", spread.name());
    for rate in RATES {
        let rows = rate * u32::try_from((lasts + SPARE).as_secs())? + 10;
        stand.write(&act.table(rate), rows, spread == Spread::OneShard).await?;
    }
    eprintln!("draining it for {} s", lasts.as_secs());
    let mut drains = stand.drains(replicas).await?;
    let begun = Instant::now();
    // Members come and go in the first half; how much of the limit is used counts in the second one, when each shard has
    // had an owner for a while.
    for turn in 1.. {
        let at = begun + Duration::from_secs(3) * turn;
        if at + Duration::from_secs(4) > begun + lasts / 2 {
            break;
        }
        sleep_until(at).await;
        disturb(turn, replicas, stand, &mut drains).await?;
    }
    sleep_until(begun + lasts / 2).await;
    let from = stand.now().await?;
    sleep_until(begun + lasts).await;
    let to = stand.now().await?;
    drains.stop().await?;

    for rate in RATES {
        let commits = stand.commits(&act.table(rate)).await?;
        let (limit, batch) = (f64::from(rate), f64::from((rate / 20).max(1)));
        let of = format!("{rate} rows/s, {}, {replicas} replicas", spread.name());
        let worst = commits::worst_second(&commits) as f64;
        let most = (1.02 * limit + batch).floor();
        report.add(format!("{of}: worst second"), worst, "rows", limit, Reach::AtMost(most));
        let mean = commits::per_second(&commits, from, to);
        report.add(format!("{of}: with a backlog"), mean, "rows/s", limit, Reach::AtLeast(0.97 * limit));
    }
    let tables = RATES.map(|rate| act.table(rate));
    stand.empty(&tables).await
}

/// One that comes and goes; or one that is killed, or ends in order, and another in its place.
async fn disturb(turn: u32, replicas: usize, stand: &Stand, drains: &mut Replicas) -> Result<()> {
    match (replicas, turn.is_multiple_of(2)) {
        (1, false) => drains.add(stand).await,
        (1, true) => drains.stop_newest().await,
        (_, false) => {
            drains.kill_oldest();
            drains.add(stand).await
        }
        (_, true) => {
            drains.stop_oldest().await?;
            drains.add(stand).await
        }
    }
}
