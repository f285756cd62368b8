//! Reads: what many hot records take when they are asked for in one call, one by one as a good client would, and from Redis
//! itself; and how often the one call has to wait for Redis.
//!
//! One client does all of it in turn, so whatever else the machine does meets all kinds alike.

mod plain;
mod trips;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use shock_absorber_client::{Client, Get, Row};
use shock_absorber_tests::{Service, ServiceSettings, payments};

use crate::{
    report::{Reach, Report},
    shop::Shop,
    taken::Taken,
};
use plain::Plain;
use trips::Relay;

const TABLE: &str = "payments";
const SHARDS: u16 = 64;
/// Records of one call: as many as the server takes.
const AT_ONCE: i64 = 1000;
/// In the hot store; each round reads others than the last one.
const RECORDS: i64 = 10 * AT_ONCE;
/// Single reads under way at once.
const SINGLE: usize = 128;
/// Rounds that are not counted.
const WARM_UP: i64 = 5;
/// Calls of which the one with the fewest round trips counts: where the machine stalls one is taken for two.
const COUNTED: i64 = 20;

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let rounds: i64 = if quick { 100 } else { 1000 };
    let shop = Shop::open_on(SHARDS, payments::TABLE, &[TABLE], ServiceSettings::new()).await?;
    // Nothing is drained, so all of it stays hot.
    shop.put(TABLE, RECORDS, AT_ONCE as usize / 4, payment).await?;
    let mut plain = Plain::copy(&shop.redis, RECORDS).await?;

    eprintln!("reading {AT_ONCE} records in one call, one by one, and from Redis itself, {rounds} times in turn");
    let (mut batch, mut single, mut mget, mut pipelined) = <(Taken, Taken, Taken, Taken)>::default();
    for round in -WARM_UP..rounds {
        let from = (round + WARM_UP) * AT_ONCE % RECORDS;
        let in_one_call = many(&shop.client, from).await?;
        let one_by_one = one_by_one(&shop.client, from).await?;
        let (by_mget, by_gets) = (plain.mget(from, AT_ONCE).await?, plain.gets(from, AT_ONCE).await?);
        if round >= 0 {
            batch.note(in_one_call);
            single.note(one_by_one);
            mget.note(by_mget);
            pipelined.note(by_gets);
        }
    }
    let trips = round_trips(&shop).await?;
    let bytes = plain.bytes(AT_ONCE);
    shop.close().await?;

    let mut report = Report::new("reads");
    let of = format!("{AT_ONCE} hot records, {bytes} bytes, {SHARDS} shards");
    let base = mget.quantile(0.5)?;
    let (batch50, single50) = (batch.quantile(0.5)?, single.quantile(0.5)?);
    let single_name = format!("{AT_ONCE} GetRecord, {SINGLE} at once");
    let all: [(&str, &mut Taken); 4] = [
        ("BatchGetRecords", &mut batch),
        (&single_name, &mut single),
        ("plain MGET of Redis", &mut mget),
        ("plain pipelined GET of Redis", &mut pipelined),
    ];
    for (what, taken) in all {
        report.add(format!("{of}: p50 of {what}"), taken.quantile(0.5)?, "ms", base, Reach::Any);
        report.add(format!("{of}: p99 of {what}"), taken.quantile(0.99)?, "ms", base, Reach::Any);
    }
    report.add(format!("{of}: p50 of BatchGetRecords, to that of MGET"), batch50 / base, "x", 1.0, Reach::Any);
    let faster = Reach::AtMost(1.0);
    report.add(format!("{of}: p50 of BatchGetRecords, to that of one by one"), batch50 / single50, "x", 1.0, faster);
    report.add(format!("{of}: round trips to Redis of BatchGetRecords"), trips as f64, "trips", 1.0, faster);
    Ok(report)
}

/// By another replica, behind what counts them.
async fn round_trips(shop: &Shop) -> Result<u64> {
    eprintln!("counting the round trips of {COUNTED} calls");
    let relay = Relay::before(shop.redis.port()).await?;
    let settings = shop.settings.clone().set("redis.url", relay.url());
    let mut ingest = Service::start("ingest-svc", settings).await?;
    let client = Client::connect(ingest.api_url()).await?;
    let mut least = u64::MAX;
    // The first one makes the connection and the script known.
    for call in 0..=COUNTED {
        let before = relay.trips();
        many(&client, call * AT_ONCE % RECORDS).await?;
        if call > 0 {
            least = least.min(relay.trips() - before);
        }
    }
    ensure!(least > 0, "nothing passed through the relay");
    ingest.stop().await?;
    Ok(least)
}

fn id(n: i64) -> String {
    format!("pay-{n:08}")
}

fn payment(n: i64) -> Row {
    payments::payment(id(n), n as u32)
}

fn get(n: i64) -> Get {
    Get::new(TABLE, Row::new().set("id", id(n)))
}

async fn many(client: &Client, from: i64) -> Result<Duration> {
    let gets: Vec<Get> = (from..from + AT_ONCE).map(get).collect();
    let begun = Instant::now();
    let found = client.batch_get(&gets).await;
    let taken = begun.elapsed();
    let found: Vec<_> = found.into_iter().collect::<Result<_, _>>().context("a record could not be read")?;
    ensure!(found.len() == gets.len(), "{} records were found, {} asked for", found.len(), gets.len());
    Ok(taken)
}

async fn one_by_one(client: &Client, from: i64) -> Result<Duration> {
    let gets: Vec<Get> = (from..from + AT_ONCE).map(get).collect();
    let begun = Instant::now();
    let read = |get: Get| async move { client.read(&get).await };
    let found: Vec<_> = stream::iter(gets).map(read).buffer_unordered(SINGLE).try_collect().await?;
    let taken = begun.elapsed();
    ensure!(found.len() as i64 == AT_ONCE, "{} records were found", found.len());
    Ok(taken)
}
