//! How many rows a second go through one connection; printed, and held above a floor that only a change of shape
//! (a statement per row) would miss.

use std::time::Instant;

use database::Applied;
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
            let create = format!(
                "CREATE TABLE {table} (id VARCHAR(40) NOT NULL PRIMARY KEY, tenant VARCHAR(40) NULL, \
                 amount DECIMAL(12,2) NULL, currency CHAR(3) NULL, status VARCHAR(20) NULL, meta JSON NULL, \
                 created_at DATETIME(6) NULL{second})"
            );
            let schema = h.table(&table, &create, guard).await;
            for (what, number) in [("inserts", 10), ("updates", 20)] {
                let rate = rows_per_second(&h, &schema, number).await;
                let database = h.either("mysql", "sqlite");
                eprintln!(
                    "{database} {guard:?} second unique key {unique}: {rate:.0} rows/s of {what}, batches of {BATCH}"
                );
                assert!(rate > 300.0, "{rate:.0} rows/s of {what}: is there a statement per row?");
            }
        }
    }
}

async fn rows_per_second(h: &Harness, schema: &model::TableSchema, number: u64) -> f64 {
    let batches: Vec<Vec<_>> = (0..BATCHES)
        .map(|batch| (0..BATCH).map(|n| put_row(schema, payment(n * BATCHES + batch, number), number)).collect())
        .collect();
    let start = Instant::now();
    for batch in &batches {
        assert_eq!(h.apply(schema, batch).await.unwrap(), vec![Applied::Written; BATCH]);
    }
    (BATCH * BATCHES) as f64 / start.elapsed().as_secs_f64()
}
