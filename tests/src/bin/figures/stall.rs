//! Stall: the database keeps its connections and answers nothing, while writes go on. No drain leaves its group or grows
//! without bound, and afterwards all of it goes on by itself and nothing is lost.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use shock_absorber_client::{Row, Write};
use shock_absorber_tests::{Service, ServiceSettings};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    report::{Reach, Report},
    shop::Shop,
};

const DDL: &str = "CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, note MEDIUMTEXT NOT NULL,
                                       _sa_version BIGINT NOT NULL DEFAULT 0)";
/// What all drains together may grow by: less than what is written meanwhile.
const GROWTH_MIB: f64 = 128.0;
const ROWS_AT_ONCE: i64 = 25;
const BATCHES_AT_ONCE: i64 = 4;
const ROW_BYTES: usize = 32 * 1024;
const SESSION: Duration = Duration::from_secs(6);
/// From the database's return until rows land.
const BACK_WITHIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(600);
const MIB: f64 = 1024.0 * 1024.0;

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let stalled_for = Duration::from_secs(if quick { 20 } else { 120 });
    let per_second: i64 = if quick { 500 } else { 125 };
    let settings = ServiceSettings::new()
        .set("drain.rows_per_second", 0)
        .set("drain.batch_bytes", 262_144)
        .set("drain.lane_capacity", 1_000)
        // Shorter than the stall, in both forms.
        .set("kafka.session_timeout", format!("{}s", SESSION.as_secs()));
    let shop = Shop::open(DDL, &["notes"], settings).await?;
    let mut drains = vec![shop.drain("drain-a").await?, shop.drain("drain-b").await?];
    let (acked, stop) = (AtomicI64::new(0), AtomicBool::new(false));
    let acted = tokio::join!(write(&shop, per_second, &acked, &stop), async {
        let acted = act(&shop, &drains, stalled_for, &acked).await;
        stop.store(true, Ordering::SeqCst);
        acted
    });
    let (written, Measured { grew, changes, back, backlog, stalled }) = (acted.0, acted.1?);
    written.context("writes go on while the database stands still")?;

    let acked = acked.into_inner();
    let begun = Instant::now();
    while shop.number("SELECT COUNT(*) FROM notes").await? < acked {
        ensure!(begun.elapsed() < PATIENCE, "{acked} rows were accepted, and are not there after {PATIENCE:?}");
        sleep(Duration::from_millis(500)).await;
    }
    let wrong = shop.number(&format!("SELECT COUNT(*) FROM notes WHERE LENGTH(note) <> {ROW_BYTES}")).await?;
    let missing = acked - shop.number(&format!("SELECT COUNT(*) FROM notes WHERE id < {acked}")).await?;

    let accepted = mib(backlog);
    ensure!(
        accepted > GROWTH_MIB,
        "only {accepted:.0} MiB were accepted during the stall: too little to tell anything"
    );
    let mut report = Report::new("stall");
    let of = format!("database stalled for {} s, {backlog} rows accepted meanwhile", stalled.as_secs());
    report.add(format!("{of}: assignments that changed"), changes as f64, "changes", 0.0, Reach::AtMost(0.0));
    report.add(format!("{of}: memory that the drains grew by"), grew / MIB, "MiB", accepted, Reach::AtMost(GROWTH_MIB));
    let within = BACK_WITHIN.as_secs_f64();
    report.add(format!("{of}: rows land again after"), back.as_secs_f64(), "s", 0.0, Reach::AtMost(within));
    report.add(format!("{of}: rows lost or wrong"), (missing + wrong) as f64, "rows", 0.0, Reach::AtMost(0.0));
    for drain in &mut drains {
        drain.stop().await?;
    }
    shop.close().await?;
    Ok(report)
}

fn mib(rows: i64) -> f64 {
    rows as f64 * ROW_BYTES as f64 / MIB
}

struct Measured {
    /// Bytes that all drains together grew by, at the most.
    grew: f64,
    /// How often a drain was given partitions or lost some.
    changes: usize,
    /// From the database's return until rows landed.
    back: Duration,
    /// Rows accepted during the stall.
    backlog: i64,
    /// How long it was.
    stalled: Duration,
}

async fn act(shop: &Shop, drains: &[Service], stalled_for: Duration, acked: &AtomicI64) -> Result<Measured> {
    // Both own their share, and are warm.
    sleep(Duration::from_secs(10)).await;
    ensure!(shop.number("SELECT COUNT(*) FROM notes").await? > 0, "nothing is drained before the stall");
    let (assigned, resident, before) = (assignments(drains), resident(drains)?, acked.load(Ordering::SeqCst));
    eprintln!("the database stands still for {} s", stalled_for.as_secs());
    shop.mariadb.freeze();
    let (frozen, mut most) = (Instant::now(), resident);
    // On a slow machine longer: as long as less was accepted than the drains may grow by, the figure could not fail.
    let accepted = || mib(acked.load(Ordering::SeqCst) - before);
    while frozen.elapsed() < stalled_for || (accepted() < 1.25 * GROWTH_MIB && frozen.elapsed() < 6 * stalled_for) {
        sleep(Duration::from_millis(200)).await;
        most = most.max(self::resident(drains)?);
    }
    let (backlog, stalled) = (acked.load(Ordering::SeqCst) - before, frozen.elapsed());
    shop.mariadb.thaw();
    let thawed = Instant::now();
    let there = shop.number("SELECT COUNT(*) FROM notes").await?;
    while shop.number("SELECT COUNT(*) FROM notes").await? <= there + ROWS_AT_ONCE {
        ensure!(thawed.elapsed() < PATIENCE, "nothing lands after the stall");
        sleep(Duration::from_millis(100)).await;
    }
    let back = thawed.elapsed();
    // What a member that was thrown out would learn now.
    sleep(SESSION).await;
    most = most.max(self::resident(drains)?);
    Ok(Measured { grew: most - resident, changes: assignments(drains) - assigned, back, backlog, stalled })
}

/// Writes at a steady pace until `stop`; `acked` rows, from 0 on, are accepted.
async fn write(shop: &Shop, per_second: i64, acked: &AtomicI64, stop: &AtomicBool) -> Result<()> {
    let note = "x".repeat(ROW_BYTES);
    let note = note.as_str();
    let mut pace =
        interval(Duration::from_secs(1).mul_f64((BATCHES_AT_ONCE * ROWS_AT_ONCE) as f64 / per_second as f64));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let from = acked.load(Ordering::SeqCst);
        let row = |n: i64| Row::new().set("id", n).set("note", note);
        let batch = |from: i64| async move {
            let writes: Vec<Write> = (from..from + ROWS_AT_ONCE).map(|n| Write::put("notes", row(n))).collect();
            let results = shop.client.batch_write(&writes).await;
            results.into_iter().collect::<Result<Vec<_>, _>>().context("a write was not accepted").map(drop)
        };
        try_join_all((0..BATCHES_AT_ONCE).map(|at| batch(from + at * ROWS_AT_ONCE))).await?;
        acked.store(from + BATCHES_AT_ONCE * ROWS_AT_ONCE, Ordering::SeqCst);
    }
    Ok(())
}

/// How often the drains were given partitions or lost some, by their own word.
fn assignments(drains: &[Service]) -> usize {
    const TOLD: [&str; 3] = ["partitions were assigned", "partitions were given to others", "partitions were lost"];
    drains.iter().map(|drain| TOLD.iter().map(|told| drain.log().matches(told).count()).sum::<usize>()).sum()
}

/// What the drains hold in memory, in bytes.
fn resident(drains: &[Service]) -> Result<f64> {
    drains.iter().map(|drain| drain.resident_bytes().map(|bytes| bytes as f64)).sum()
}
