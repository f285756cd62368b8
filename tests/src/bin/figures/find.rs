//! Find: what finding records by a declared field takes beside reading one record by its key, and what the field costs a
//! write.
//!
//! Half of the records are in the database, the other half only in the hot store: the drain has ended in between. One client
//! reads and finds in turn, so whatever else the machine does meets all kinds of calls alike.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Find, Row};
use shock_absorber_tests::ServiceSettings;
use tokio::time::sleep;

use crate::{
    report::{Reach, Report},
    shop::Shop,
    taken::Taken,
};

const FOUND: &str = "orders";
/// The same without a declared field.
const PLAIN: &str = "plain_orders";
const DDL: &str =
    "CREATE TABLE orders (id BIGINT NOT NULL PRIMARY KEY, customer BIGINT NOT NULL, note VARCHAR(200) NOT NULL,
                                        _sa_version BIGINT NOT NULL DEFAULT 0, KEY of_customer (customer, id));
                   CREATE TABLE plain_orders LIKE orders";
const SHARDS: u16 = 64;
/// Records that have the same value in the field.
const OF_A_CUSTOMER: i64 = 5;
/// How much longer a find on a hot field may take than a read of one record.
const SLOWER: f64 = 4.0;
const AT_ONCE: usize = 250;
/// Calls of each kind that are not counted.
const WARM_UP: i64 = 50;
/// Each table is written so often, in turn.
const ROUNDS: i64 = 5;
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let (half, calls, writes): (i64, i64, i64) = if quick { (2_500, 1_000, 2_000) } else { (10_000, 10_000, 10_000) };
    let settings = ServiceSettings::new().set("drain.rows_per_second", 0);
    let shop = Shop::open_on(SHARDS, DDL, &[PLAIN], settings).await?;
    shop.client.enable_table_with(FOUND, &["customer"]).await?;
    eprintln!("writing {half} records that the database gets, and {half} that it does not");
    let mut drain = shop.drain("drain-a").await?;
    shop.put(FOUND, half, AT_ONCE, order).await?;
    let begun = Instant::now();
    while stored(&shop).await? < half {
        ensure!(begun.elapsed() < PATIENCE, "{half} rows were accepted, and are not there after {PATIENCE:?}");
        sleep(Duration::from_millis(200)).await;
    }
    drain.stop().await?;
    shop.put(FOUND, half, AT_ONCE, |n| order(half + n)).await?;

    eprintln!("reading and finding in turn, {calls} calls of each kind");
    let (mut get, mut hot, mut drained) = (Taken::default(), Taken::default(), Taken::default());
    let customers = half / OF_A_CUSTOMER;
    for call in -WARM_UP..calls {
        // Spread over all of them, and none twice soon.
        let customer = (call + WARM_UP) * 7 % customers;
        let read = read(&shop, half + customer * OF_A_CUSTOMER).await?;
        let (found_hot, found_drained) = (find(&shop, customers + customer).await?, find(&shop, customer).await?);
        if call >= 0 {
            get.note(read);
            hot.note(found_hot);
            drained.note(found_drained);
        }
    }
    ensure!(stored(&shop).await? == half, "the database was given records that it should not have had");

    eprintln!("writing with and without the field in turn, {ROUNDS} times {writes} records");
    let (mut with, mut without) = (Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let from = 2 * half + round * writes;
        for (table, taken) in [(PLAIN, &mut without), (FOUND, &mut with)] {
            let begun = Instant::now();
            shop.put(table, writes, AT_ONCE, |n| order(from + n)).await?;
            *taken += begun.elapsed();
        }
    }
    let rate = |taken: Duration| (ROUNDS * writes) as f64 / taken.as_secs_f64();
    shop.close().await?;

    let mut report = Report::new("find");
    let of = format!("{} records, {SHARDS} shards, {OF_A_CUSTOMER} found at once", 2 * half);
    let (get50, get99) = (get.quantile(0.5)?, get.quantile(0.99)?);
    report.add(format!("{of}: p50 of GetRecord"), get50, "ms", get50, Reach::Any);
    report.add(format!("{of}: p99 of GetRecord"), get99, "ms", get99, Reach::Any);
    for (what, mut taken, ratio) in [("hot", hot, Reach::AtMost(SLOWER)), ("drained", drained, Reach::Any)] {
        let (p50, p99) = (taken.quantile(0.5)?, taken.quantile(0.99)?);
        report.add(format!("{of}: p50 of FindRecords, {what}"), p50, "ms", get50, Reach::Any);
        report.add(format!("{of}: p99 of FindRecords, {what}"), p99, "ms", get99, Reach::Any);
        report.add(
            format!("{of}: p50 of FindRecords, {what}, to that of GetRecord"),
            p50 / get50,
            "x",
            1.0,
            Reach::Any,
        );
        report.add(format!("{of}: p99 of FindRecords, {what}, to that of GetRecord"), p99 / get99, "x", 1.0, ratio);
    }
    let (with, without) = (rate(with), rate(without));
    report.add("writes without the field".into(), without, "rows/s", without, Reach::Any);
    report.add("writes with the field".into(), with, "rows/s", without, Reach::Any);
    Ok(report)
}

fn order(n: i64) -> Row {
    Row::new().set("id", n).set("customer", n / OF_A_CUSTOMER).set("note", "x".repeat(100))
}

async fn stored(shop: &Shop) -> Result<i64> {
    shop.number(&format!("SELECT COUNT(*) FROM {FOUND}")).await
}

async fn read(shop: &Shop, id: i64) -> Result<Duration> {
    let key = Row::new().set("id", id);
    let begun = Instant::now();
    shop.client.get(FOUND, key).await.with_context(|| format!("order {id} could not be read"))?;
    Ok(begun.elapsed())
}

async fn find(shop: &Shop, customer: i64) -> Result<Duration> {
    let find = Find::new(FOUND, "customer", customer);
    let begun = Instant::now();
    let page = shop.client.find(&find).await.with_context(|| format!("orders of {customer} could not be found"))?;
    let taken = begun.elapsed();
    // Who finds nothing is fastest.
    let (found, more) = (page.records.len(), page.next.is_some());
    ensure!(found as i64 == OF_A_CUSTOMER && !more, "{found} orders of {customer} were found, and more: {more}");
    Ok(taken)
}
