//! Poison: of many rows one in a hundred can't be written. All of those are dead letters with the right cause, all others
//! land, and finding one costs few statements.
//!
//! A batch is tried as a few statements in one transaction, so what is counted is transactions that were tried. How many
//! the good rows take by themselves is measured on a table without poison; how many were undone, the server counts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use event_log::{
    LogReader as _, LogRecord, TopicPartition,
    kafka::{KafkaLog, KafkaOptions},
};
use model::{DeadLetterBody, DeadLetterCause, DeadLetterRecord, Event, EventBody, Topic, Value};
use shock_absorber_client::Row;
use shock_absorber_tests::{Service, ServiceSettings};
use tokio::time::sleep;

use crate::{
    report::{Reach, Report},
    shop::Shop,
};

const BATCH_ROWS: u32 = 512;
const PATIENCE: Duration = Duration::from_secs(900);
const SHARDS: u16 = 16;

/// What ingest can't know of. Two kinds: a check, and a trigger's veto.
const DDL: &str = "
    CREATE TABLE plain (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL, _sa_version BIGINT NOT NULL DEFAULT 0);
    CREATE TABLE goods (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL CHECK (amount <> 13),
                        _sa_version BIGINT NOT NULL DEFAULT 0);
    CREATE TRIGGER veto BEFORE INSERT ON goods FOR EACH ROW
        IF NEW.amount = 14 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'vetoed'; END IF";

/// Which rows are poison, one in a hundred, not evenly; and the code with which the database refuses them.
fn poison(n: i64) -> Option<&'static str> {
    // Any fixed permutation of a hundred per hundred.
    let place = (n / 100 * 37 + 11) % 100;
    (n % 100 == place).then_some(if n / 100 % 2 == 0 { "4025" } else { "1644" })
}

fn row(n: i64) -> Row {
    let amount = match poison(n) {
        None => 1,
        Some("4025") => 13,
        Some(_) => 14,
    };
    Row::new().set("id", n).set("amount", amount)
}

/// Measures it.
pub(crate) async fn measure(quick: bool) -> Result<Report> {
    let rows: i64 = if quick { 6_000 } else { 100_000 };
    let settings = ServiceSettings::new().set("drain.batch_rows", BATCH_ROWS).set("drain.rows_per_second", 0);
    let shop = Shop::open(DDL, &["plain", "goods"], settings).await?;
    eprintln!("writing {rows} rows twice, once with poison");
    shop.put("plain", rows, 500, |n| Row::new().set("id", n).set("amount", 1_i64)).await?;
    shop.put("goods", rows, 500, row).await?;
    let expected: BTreeMap<i64, &str> = (0..rows).filter_map(|n| Some((n, poison(n)?))).collect();
    let (bad, good) = (expected.len() as i64, rows - expected.len() as i64);

    let undone_before = undone(&shop).await?;
    let mut drain = shop.drain("drain").await?;
    let begun = Instant::now();
    loop {
        let left = (rows - shop.number("SELECT COUNT(*) FROM plain").await?)
            + (good - shop.number("SELECT COUNT(*) FROM goods").await?)
            + (bad - letters_counted(&drain).await?);
        if left <= 0 {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "{left} rows are neither there nor lettered after {PATIENCE:?}");
        sleep(Duration::from_millis(500)).await;
    }
    let undone = undone(&shop).await? - undone_before;
    let tried = batches(&drain, "goods").await?;
    let plain = batches(&drain, "plain").await?;
    drain.stop().await?;

    let mut report = Report::new("poison");
    let letters = letters(&shop).await?;
    let right = expected.iter().filter(|(n, code)| {
        letters.get(n).is_some_and(|(cause, told)| *cause == DeadLetterCause::Permanent && told.contains(**code))
    });
    let share = 100.0 * right.count() as f64 / bad as f64;
    let others = letters.keys().filter(|n| !expected.contains_key(n)).count() as f64;
    let landed = shop.number("SELECT COUNT(*) FROM goods WHERE amount = 1").await? as f64;
    let per_poison = f64::from(BATCH_ROWS.ilog2() + 2);
    let of = format!("{bad} poison rows in {rows}");
    report.add(format!("{of}: dead-lettered with the right cause"), share, "%", 100.0, Reach::AtLeast(100.0));
    report.add(format!("{of}: good rows dead-lettered"), others, "rows", 0.0, Reach::AtMost(0.0));
    report.add(format!("{of}: good rows that landed"), 100.0 * landed / good as f64, "%", 100.0, Reach::AtLeast(100.0));
    let refused = undone as f64 / bad as f64;
    report.add(
        format!("{of}: refused per poison row, by the server's count"),
        refused,
        "tries",
        1.0,
        Reach::AtMost(per_poison),
    );
    let extra = (tried - plain) / bad as f64;
    let what = format!("{of}: tried per poison row, beyond what good rows take, in batches of {BATCH_ROWS}");
    report.add(what, extra, "tries", 1.0, Reach::AtMost(per_poison));
    shop.close().await?;
    Ok(report)
}

/// Transactions that the server has undone.
async fn undone(shop: &Shop) -> Result<i64> {
    shop.number("SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'COM_ROLLBACK'")
        .await
}

/// The sum of a counter of the drain, over the lines that hold all these words.
async fn counted(drain: &Service, name: &str, words: &[&str]) -> Result<f64> {
    let metrics = drain.metrics().await?;
    let lines = metrics.lines().filter(|line| line.starts_with(name) && words.iter().all(|word| line.contains(word)));
    lines.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>().context("a counter")).sum()
}

async fn letters_counted(drain: &Service) -> Result<i64> {
    Ok(counted(drain, "shock_absorber_drain_dead_letters_total{", &[]).await? as i64)
}

/// Transactions tried on a table.
async fn batches(drain: &Service, table: &str) -> Result<f64> {
    counted(drain, "shock_absorber_drain_batches_total{", &[&format!("table=\"main.{table}\"")]).await
}

/// Every row that is in the dead letters: why.
async fn letters(shop: &Shop) -> Result<BTreeMap<i64, (DeadLetterCause, String)>> {
    let options = KafkaOptions { allow_single_node: true, ..KafkaOptions::new(shop.kafka.brokers(), "reads-letters") };
    let log = KafkaLog::connect(options).await?;
    let topic = Topic::new("shock-absorber.goods")?.dead_letters()?;
    let mut letters = BTreeMap::new();
    for partition in 0..SHARDS {
        let at = TopicPartition { topic: topic.clone(), partition };
        let (first, end) = log.bounds(std::slice::from_ref(&at)).await?[0];
        let mut each = |record: LogRecord| {
            if let Ok(DeadLetterRecord { body: DeadLetterBody::Letter(letter), .. }) =
                DeadLetterRecord::decode(record.payload)
                && let Ok(Event { body: EventBody::Mutations(mutations), .. }) = Event::decode(letter.payload)
                && let Some(Value::Int64(n)) = mutations.first().and_then(|mutation| mutation.key.0.first())
            {
                letters.insert(*n, (letter.cause, letter.code));
            }
            true
        };
        log.read(&at, first, end, &mut each).await?;
    }
    Ok(letters)
}
