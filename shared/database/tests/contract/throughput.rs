//! How many rows a second go through one connection: printed, and compared with one row at a time, for only a change of
//! shape (a statement per row) brings the two close.

use std::time::{Duration, Instant};

use database::{Applied, Change};
use model::{Row, Value};

use crate::harness::*;

on_every_sql_database!(batches_of_500_rows);

const BATCH: usize = 500;
const BATCHES: usize = 12;

fn payment(n: usize, number: u64) -> Row {
    row([
        ("id", text(&format!("payment-{n:010}"))),
        ("tenant", text("tenant-1")),
        ("amount", Value::Decimal(format!("{}.{:02}", n % 10_000, n % 100))),
        ("currency", text("INR")),
        ("status", text("captured")),
        ("meta", Value::Json(format!("{{\"n\": {n}, \"version\": {number}}}"))),
        ("created_at", Value::DateTime("2024-02-03T04:05:06.123456".parse().unwrap())),
    ])
}

async fn batches_of_500_rows(h: Harness) {
    for guard in GUARDS {
        for unique in [false, true] {
            let table = format!("pay_{guard:?}_{unique}").to_lowercase();
            let second = if unique { ", UNIQUE (created_at, id)" } else { "" };
            let create = h.ddl(&format!(
                "CREATE TABLE {table} (id VARCHAR(40) NOT NULL PRIMARY KEY, tenant VARCHAR(40) NULL, \
                 amount DECIMAL(12,2) NULL, currency CHAR(3) NULL, status VARCHAR(20) NULL, meta JSON NULL, \
                 created_at DATETIME(6) NULL{second})"
            ));
            let schema = h.table(&table, &create, guard).await;
            let database = h.of("mysql", "postgres", "sqlite");
            for (what, number) in [("inserts", 10), ("updates", 20)] {
                let (batch, alone) = medians(&h, &schema, number).await;
                let (rate, times) =
                    (BATCH as f64 / batch.as_secs_f64(), alone.as_secs_f64() * BATCH as f64 / batch.as_secs_f64());
                eprintln!(
                    "{database} {guard:?} second unique key {unique}: {rate:.0} rows/s of {what} in batches of {BATCH}, \
                     {times:.0} times as many as one by one"
                );
                // Where another unique key could make an upsert hit the wrong row, each is updated by a statement of its own.
                let by_itself = unique && what == "updates";
                assert!(
                    by_itself || times > 20.0,
                    "only {times:.1} times as many {what}: is there a statement per row?"
                );
            }
        }
    }
}

/// How long a batch takes, and how long a row by itself; the medians, measured in turn, so that whatever else the machine
/// does slows both.
async fn medians(h: &Harness, schema: &model::TableSchema, number: u64) -> (Duration, Duration) {
    let (mut batches, mut alone) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        let rows: Vec<_> =
            (0..BATCH + 3).map(|n| put_row(schema, payment(n * BATCHES + batch, number), number)).collect();
        let (single, many) = rows.split_at(3);
        for row in single {
            alone.push(taken(h, schema, std::slice::from_ref(row)).await);
        }
        batches.push(taken(h, schema, many).await);
    }
    (median(batches), median(alone))
}

async fn taken(h: &Harness, schema: &model::TableSchema, changes: &[Change]) -> Duration {
    let start = Instant::now();
    assert_eq!(h.apply(schema, changes).await.unwrap(), vec![Applied::Written; changes.len()]);
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
