//! What happens while a store is away, and after it: on servers of the test's own, which are killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Client, Consistency, Get, Reason, Row, Value};
use shock_absorber_tests::{ServiceSettings, System, eventually};

const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n));\n"
);

/// From the return of a store to normal work.
const HEALED_WITHIN: Duration = Duration::from_secs(90);

fn entry(n: i64, note: &str) -> Row {
    Row::new().set("tenant", "t").set("n", n).set("amount", Value::Decimal("1.00".into())).set("note", note)
}

fn key(n: i64) -> Row {
    Row::new().set("tenant", "t").set("n", n)
}

async fn note(client: &Client, n: i64) -> Result<Option<Value>> {
    Ok(client.get("entries", key(n)).await?.row.get("note").cloned())
}

/// A client that tells at once what the server said.
async fn impatient(system: &System) -> Result<Client> {
    Ok(Client::builder(system.services[0].api_url())
        .without_retries()
        .timeout(Duration::from_secs(5))
        .connect()
        .await?)
}

async fn writes_again(client: &Client, n: i64) -> Result<()> {
    eventually("accepted write", HEALED_WITHIN, || async { Ok(client.put("entries", entry(n, "again")).await.ok()) })
        .await
        .map(drop)
}

async fn drained(system: &System, sql: &str, expected: i64) -> Result<()> {
    eventually(&format!("{expected} from {sql}"), HEALED_WITHIN, || async {
        Ok((system.number(sql).await.ok() == Some(expected)).then_some(()))
    })
    .await
}

async fn system() -> Result<System> {
    System::on_own_servers(TABLES, ServiceSettings::new().set("drain.rows_per_second", 500)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_redis_that_was_killed_is_opened_again_and_nothing_is_lost() -> Result<()> {
    let mut system = system().await?;
    let client = impatient(&system).await?;
    for n in 0..50 {
        system.client.put("entries", entry(n, "before")).await?;
    }
    let own = system.own.as_mut().ok_or_else(|| anyhow::anyhow!("no servers of its own"))?;
    own.redis.kill9();
    ensure!(client.put("entries", entry(0, "away")).await.is_err(), "Redis is gone, but a write was accepted");
    ensure!(client.get("entries", key(1)).await.is_err(), "Redis is gone, but a read was answered");
    own.redis.restart().await?;
    writes_again(&client, 100).await?;
    for n in 1..50 {
        assert_eq!(note(&system.client, n).await?, Some(Value::Text("before".into())));
    }
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note IN ('before', 'away')", 50).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_redis_that_lost_everything_is_filled_again_from_the_log() -> Result<()> {
    let mut system = system().await?;
    // Nothing is drained, so what Redis loses is in the log only.
    for drain in &mut system.services[1..] {
        drain.stop().await?;
    }
    for n in 0..50 {
        system.client.put("entries", entry(n, "first")).await?;
        system.client.put("entries", entry(n, "second")).await?;
    }
    system.client.delete("entries", key(7)).await?;
    let own = system.own.as_mut().ok_or_else(|| anyhow::anyhow!("no servers of its own"))?;
    own.redis.cli(&["FLUSHALL"]).await?;
    own.redis.kill9();
    own.redis.restart().await?;
    let client = impatient(&system).await?;
    writes_again(&client, 100).await?;
    for n in (0..50).filter(|n| *n != 7) {
        assert_eq!(note(&system.client, n).await?, Some(Value::Text("second".into())));
    }
    ensure!(system.client.get("entries", key(7)).await.is_err(), "a deleted record came back");
    for drain in &mut system.services[1..] {
        drain.restart().await?;
    }
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'second'", 49).await
}

/// What drains have told of their partitions, in order.
fn assignments(system: &System) -> Vec<String> {
    let told = |line: &&str| line.contains("partitions were") && !line.contains("librdkafka");
    system.services[1..]
        .iter()
        .flat_map(|drain| drain.log().lines().filter(told).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// It stands still for longer than a member may go without a poll, and than a session lasts.
async fn a_database_that_stands_still_costs_no_membership(protocol: &str) -> Result<()> {
    const POLLS: Duration = Duration::from_secs(6);
    let settings = ServiceSettings::new()
        .set("kafka.group_protocol", protocol)
        .set("kafka.max_poll_interval", format!("{}s", POLLS.as_secs()));
    let system = System::on_own_servers(TABLES, settings).await?;
    let count = "SELECT COUNT(*) FROM entries";
    for n in 0..50 {
        system.client.put("entries", entry(n, "before")).await?;
    }
    drained(&system, count, 50).await?;
    let own = system.own.as_ref().context("no servers of its own")?;
    let before = assignments(&system);
    ensure!(!before.is_empty(), "the drains tell nothing of their partitions");
    own.mariadb.freeze();
    for n in 50..150 {
        system.client.put("entries", entry(n, "meanwhile")).await?;
    }
    // What is measured is that nothing happens for so long.
    tokio::time::sleep(POLLS * 3).await;
    own.mariadb.thaw();
    drained(&system, count, 150).await?;
    let after = assignments(&system);
    ensure!(after == before, "partitions moved while the database stood still: {before:?}, then {after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_database_that_stands_still_costs_no_membership_in_the_classic_protocol() -> Result<()> {
    a_database_that_stands_still_costs_no_membership("classic").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_database_that_stands_still_costs_no_membership_in_the_new_protocol() -> Result<()> {
    a_database_that_stands_still_costs_no_membership("consumer").await
}

/// Whatever needs the database is refused with a delay, every time and for each item; what is hot in the same batch is read.
async fn is_told_that_the_database_is_away(api: &str) -> Result<()> {
    // Who finds out that it is away waits for it, and on a busy machine everybody does.
    let client = Client::builder(api).without_retries().timeout(HEALED_WITHIN).attempt_timeout(HEALED_WITHIN);
    let client = client.connect().await?;
    let committed = Get::new("entries", key(1)).consistency(Consistency::Database);
    for n in 0..20 {
        let gets = [
            Get::new("entries", key(999)),
            Get::new("entries", key(1)),
            Get::new("entries", key(900 + n)),
            committed.clone(),
        ];
        let results = client.batch_get(&gets).await;
        ensure!(results[1].is_ok(), "a hot record is not read without a database: {results:?}");
        for at in [0, 2, 3] {
            let Err(error) = &results[at] else { anyhow::bail!("it was answered without a database: {results:?}") };
            ensure!(error.is(Reason::DatabaseUnavailable) && error.retry_after().is_some(), "{error}");
        }
        let error =
            client.get("entries", key(999)).await.err().context("a cold read was answered without a database")?;
        ensure!(error.is(Reason::DatabaseUnavailable), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_database_that_is_away_stops_neither_writes_nor_hot_reads() -> Result<()> {
    let mut system = system().await?;
    let client = impatient(&system).await?;
    system.client.put("entries", entry(0, "before")).await?;
    let api = system.services[0].api_url();
    let own = system.own.as_mut().ok_or_else(|| anyhow::anyhow!("no servers of its own"))?;
    own.mariadb.kill9();
    for n in 0..50 {
        client.put("entries", entry(n, "meanwhile")).await?;
        assert_eq!(note(&client, n).await?, Some(Value::Text("meanwhile".into())));
    }
    client.update("entries", key(3), Row::new().set("note", "updated")).await?;
    client.delete("entries", key(4)).await?;
    is_told_that_the_database_is_away(&api).await?;
    own.mariadb.restart().await?;
    eventually("cold read", HEALED_WITHIN, || async {
        Ok(client.get("entries", key(999)).await.is_err_and(|error| error.is(Reason::NotFound)).then_some(()))
    })
    .await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'meanwhile'", 48).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'updated'", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_kafka_that_was_killed_loses_nothing_and_comes_back() -> Result<()> {
    let mut system = system().await?;
    let client = impatient(&system).await?;
    for n in 0..50 {
        system.client.put("entries", entry(n, "before")).await?;
    }
    let own = system.own.as_mut().ok_or_else(|| anyhow::anyhow!("no servers of its own"))?;
    own.kafka.kill9();
    ensure!(client.put("entries", entry(60, "away")).await.is_err(), "Kafka is gone, but QUEUED was answered");
    assert_eq!(note(&client, 1).await?, Some(Value::Text("before".into())));
    own.kafka.restart().await?;
    writes_again(&client, 100).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'before'", 50).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE n = 100", 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn the_partitions_of_a_killed_drain_move_to_the_other() -> Result<()> {
    let mut system = system().await?;
    system.client.put("entries", entry(0, "before")).await?;
    drained(&system, "SELECT COUNT(*) FROM entries", 1).await?;
    system.services[1].kill9();
    for n in 0..64 {
        system.client.put("entries", entry(n, "after")).await?;
    }
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'after'", 64).await
}

/// A torn tail is cut behind the last whole command, also of a transaction; its first half must not run at a later start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_transaction_that_a_power_loss_tore_is_never_run_in_half() -> Result<()> {
    let mut system = system().await?;
    system.client.put("entries", entry(1, "before")).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'before'", 1).await?;
    let redis = &mut system.own.as_mut().context("no servers of its own")?.redis;
    redis.kill9();
    let torn = redis.tear_last_transaction()?;
    redis.restart().await?;
    writes_again(&impatient(&system).await?, 2).await?;
    let redis = &mut system.own.as_mut().context("no servers of its own")?.redis;
    eventually("new append-only file", HEALED_WITHIN, || {
        let rewritten = redis.tail_file().map(|file| (file != torn).then_some(()));
        async move { rewritten }
    })
    .await?;
    redis.kill9();
    redis.restart().await?;
    let log = redis.log();
    ensure!(!log.contains("can not be nested"), "Redis ran half a transaction: {log}");
    writes_again(&impatient(&system).await?, 3).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE n IN (1, 2, 3)", 3).await
}

/// Its rows stay locked, as the server sees it, and it can't say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_drain_that_is_frozen_within_a_transaction_is_taken_over_with_its_rows() -> Result<()> {
    let settings = ServiceSettings::new().set("drain.rows_per_second", 500);
    let mut system = System::on_shared_servers(TABLES, settings).await?;
    system.services[2].stop().await?;
    // Long enough to be met in the act.
    let slow = "CREATE TRIGGER slow BEFORE INSERT ON entries FOR EACH ROW DO SLEEP(IF(NEW.n = 13, 5, 0))";
    system.database.run_script(slow).await?;
    for n in 0..40 {
        system.client.put("entries", entry(n, "frozen")).await?;
    }
    let in_it = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE = 'User sleep'";
    eventually("drain in the act", HEALED_WITHIN, || async { Ok((system.number(in_it).await? == 1).then_some(())) })
        .await?;
    system.services[1].freeze();
    system.another_drain(&[("drain.replica", "drain-c")]).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'frozen'", 40).await?;
    // Whatever it goes on with, it owns nothing any more.
    system.services[1].thaw();
    system.client.put("entries", entry(13, "after")).await?;
    drained(&system, "SELECT COUNT(*) FROM entries WHERE note = 'after'", 1).await?;
    drained(&system, "SELECT COUNT(*) FROM entries", 40).await
}
