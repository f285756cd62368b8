//! How many rows a second go through one connection: printed, beside one row at a time. Held by a test is what that rests
//! on: how many statements a batch takes, as MariaDB counts them.

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
                let (batch, alone) = quickest(&h, &schema, number).await;
                let (rate, times) =
                    (BATCH as f64 / batch.as_secs_f64(), alone.as_secs_f64() * BATCH as f64 / batch.as_secs_f64());
                eprintln!(
                    "{database} {guard:?} second unique key {unique}: {rate:.0} rows/s of {what} in batches of {BATCH}, \
                     {times:.0} times as many as one by one"
                );
                // Where another unique key could make an upsert hit the wrong row, each is updated by a statement of its own.
                if !unique && let Some(statements) = statements(&h, &schema, number + 1).await {
                    assert!(statements < 30, "{statements} statements for {what} of {BATCH} rows");
                }
            }
        }
    }
}

/// How long a batch takes, and how long a row by itself: the quickest of each, measured in turn, for what else the machine
/// does only makes both slower.
async fn quickest(h: &Harness, schema: &model::TableSchema, number: u64) -> (Duration, Duration) {
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
    (batches.into_iter().min().unwrap(), alone.into_iter().min().unwrap())
}

/// How many statements write a batch, where the server tells them by connection: MariaDB.
async fn statements(h: &Harness, schema: &model::TableSchema, number: u64) -> Option<i64> {
    if !h.is_mysql() || h.number("SELECT VERSION() LIKE '%MariaDB%'").await != Some(1) {
        return None;
    }
    let database = h.another(|options| options.pool = 1).await;
    let asked = "SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.SESSION_STATUS \
                 WHERE VARIABLE_NAME = 'QUESTIONS'";
    let before = database.sql().query_integers(asked).await.unwrap()[0];
    let rows: Vec<_> = (0..BATCH).map(|n| put_row(schema, payment(n * BATCHES, number), number)).collect();
    assert_eq!(apply_as(&database, schema, &rows, &me()).await.unwrap(), vec![Applied::Written; BATCH]);
    Some(database.sql().query_integers(asked).await.unwrap()[0] - before)
}

async fn taken(h: &Harness, schema: &model::TableSchema, changes: &[Change]) -> Duration {
    let start = Instant::now();
    assert_eq!(h.apply(schema, changes).await.unwrap(), vec![Applied::Written; changes.len()]);
    start.elapsed()
}
