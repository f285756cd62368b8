//! Rows that the database refuses for good, in the whole system: embedded, and on real servers.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use event_log::{
    LogReader as _, TopicPartition,
    kafka::{KafkaLog, KafkaOptions},
};
use model::{DeadLetter, DeadLetterBody, DeadLetterCause, DeadLetterRecord, Event, EventBody};
use shock_absorber_client::{Row, Value, Write};
use shock_absorber_tests::{ServiceSettings, System, eventually, given};

/// What ingest can't know of: the database alone checks it.
const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n), CONSTRAINT not_thirteen CHECK (amount <> 13));\n"
);

/// One in a hundred of them is refused.
const ROWS: i64 = 600;
const PARTITIONS: u16 = 8;
const WITHIN: Duration = Duration::from_secs(60);

fn settings() -> ServiceSettings {
    ServiceSettings::new().set("drain.rows_per_second", 1000)
}

fn key(n: i64) -> Row {
    Row::new().set("tenant", "t").set("n", n)
}

fn entry(n: i64, amount: &str) -> Row {
    key(n).set("amount", Value::Decimal(amount.into()))
}

fn is_poison(n: i64) -> bool {
    n % 100 == 13
}

async fn amount(system: &System, n: i64) -> Result<Option<Value>> {
    Ok(system.client.get("entries", key(n)).await?.row.get("amount").cloned())
}

async fn until(system: &System, sql: &str, expected: i64) -> Result<()> {
    eventually(&format!("{expected} from {sql}"), WITHIN, || async {
        Ok((system.number(sql).await? == expected).then_some(()))
    })
    .await
}

/// Dead letters by the drains' own count.
async fn counted(system: &System) -> Result<f64> {
    let mut counted = 0.0;
    for service in &system.services {
        for line in
            service.metrics().await?.lines().filter(|l| l.starts_with("shock_absorber_drain_dead_letters_total{"))
        {
            ensure!(line.contains("cause=\"permanent\"") && line.contains("table=\"main.entries\""), "{line}");
            counted += line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        }
    }
    Ok(counted)
}

async fn poison_is_lettered_stays_readable_and_stops_nobody(system: &mut System) -> Result<()> {
    let amount_of = |n: i64| if is_poison(n) { "13.00" } else { "1.00" };
    let writes: Vec<_> = (0..ROWS).map(|n| Write::put("entries", entry(n, amount_of(n)))).collect();
    for result in system.client.batch_write(&writes).await {
        result?;
    }
    // Good, then bad: the good one lands, whether or not they are gathered together.
    system.client.put("entries", entry(ROWS, "7.00")).await?;
    system.client.put("entries", entry(ROWS, "13.00")).await?;
    let poison: Vec<i64> = (0..ROWS).filter(|n| is_poison(*n)).chain([ROWS]).collect();

    until(system, "SELECT COUNT(*) FROM entries WHERE amount = 1", ROWS - poison.len() as i64 + 1).await?;
    until(system, "SELECT COUNT(*) FROM entries WHERE amount = 7", 1).await?;
    eventually("as many dead letters as poison", WITHIN, || async {
        Ok((counted(system).await? >= poison.len() as f64).then_some(()))
    })
    .await?;
    for n in &poison {
        assert_eq!(amount(system, *n).await?, Some(Value::Decimal("13.00".into())), "{n}");
    }
    if !system.is_embedded() {
        check_letters(system, &poison).await?;
        system.kill_and_restart().await?;
        for n in &poison {
            assert_eq!(amount(system, *n).await?, Some(Value::Decimal("13.00".into())), "{n} after a crash");
        }
    }
    // It is written again, and is like any other.
    for n in &poison {
        system.client.put("entries", entry(*n, "2.00")).await?;
    }
    until(system, "SELECT COUNT(*) FROM entries WHERE amount = 2", poison.len() as i64).await?;
    until(system, "SELECT COUNT(*) FROM entries", ROWS + 1).await
}

async fn check_letters(system: &System, poison: &[i64]) -> Result<()> {
    let letters = letters(system).await?;
    let mut found = BTreeSet::new();
    for letter in &letters {
        assert_eq!(letter.cause, DeadLetterCause::Permanent);
        assert!(letter.code.contains("4025"), "{}", letter.code);
        assert!(!letter.message.contains("13"), "{}", letter.message);
        // Halving a batch of at most 50 rows.
        assert!((1..=8).contains(&letter.attempts), "{} attempts", letter.attempts);
        let event = Event::decode(letter.payload.clone())?;
        let EventBody::Mutations(mutations) = event.body else { anyhow::bail!("{event:?} is no write") };
        let [mutation] = mutations.as_slice() else { anyhow::bail!("{mutations:?} is not one") };
        assert_eq!((Some(mutation.version), mutation.key.to_bytes()), (letter.version, letter.key.clone()));
        let model::Value::Int64(n) = mutation.key.0[1] else { anyhow::bail!("{:?}", mutation.key) };
        found.insert(n);
    }
    assert_eq!(found, poison.iter().copied().collect());
    Ok(())
}

/// All letters of the table.
async fn letters(system: &System) -> Result<Vec<DeadLetter>> {
    let options = KafkaOptions { allow_single_node: true, ..KafkaOptions::new(given::kafka(), "reads-dead-letters") };
    let log = KafkaLog::connect(options).await?;
    let topic = system.topic("entries").context("it has no topic")?.dead_letters()?;
    let mut letters = Vec::new();
    for partition in 0..PARTITIONS {
        let at = TopicPartition { topic: topic.clone(), partition };
        let (first, end) = log.bounds(std::slice::from_ref(&at)).await?[0];
        let mut each = |record: event_log::LogRecord| {
            if let Ok(DeadLetterRecord { body: DeadLetterBody::Letter(letter), .. }) =
                DeadLetterRecord::decode(record.payload)
            {
                letters.push(letter);
            }
            true
        };
        log.read(&at, first, end, &mut each).await?;
    }
    Ok(letters)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_in_the_embedded_edition() -> Result<()> {
    let mut system = System::embedded(TABLES, settings()).await?;
    poison_is_lettered_stays_readable_and_stops_nobody(&mut system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn poison_on_servers() -> Result<()> {
    let mut system = System::on_shared_servers(TABLES, settings()).await?;
    poison_is_lettered_stays_readable_and_stops_nobody(&mut system).await
}
