//! Every partition from its beginning, twice, by other consumer groups: the tables stay as they are, byte for byte.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Row, Value};
use shock_absorber_tests::{ServiceSettings, System, eventually, servers::KafkaServer};

/// One table whose rows carry their versions, and one whose versions are in the ledger.
const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), _sa_version BIGINT NOT NULL DEFAULT 0, PRIMARY KEY (tenant, n));\n"
);

const PATIENCE: Duration = Duration::from_secs(60);

fn entry(n: i64, note: &str) -> Row {
    Row::new().set("tenant", "t").set("n", n).set("amount", Value::Decimal("1.00".into())).set("note", note)
}

fn payment(n: i64, amount: &str) -> Row {
    Row::new()
        .set("id", format!("p{n}"))
        .set("amount", Value::Decimal(amount.into()))
        .set("currency", "INR")
        .set("payer_upi", "a@upi")
        .set("payee_upi", "b@upi")
        .set("tenant", "north")
        .set("customer", "c-1")
        .set("leg", "DEBIT")
        .set("action", "PAY")
        .set("created_at", Value::DateTime("2026-01-01T10:00:00.000001".into()))
        .set("updated_at", Value::DateTime("2026-01-01T10:00:00".into()))
}

/// Several versions of some keys, deletes, rows again after a delete.
async fn write_a_history(system: &System, from: i64) -> Result<()> {
    let client = &system.client;
    for n in from..from + 40 {
        client.put("entries", entry(n, "first")).await?;
        client.put("payments", payment(n, "1.00")).await?;
        if n % 2 == 0 {
            client.put("entries", entry(n, "second")).await?;
        }
        if n % 3 == 0 {
            client.delete("entries", Row::new().set("tenant", "t").set("n", n)).await?;
            client.delete("payments", Row::new().set("id", format!("p{n}"))).await?;
        }
        if n % 6 == 0 {
            client.put("entries", entry(n, "again")).await?;
            client.put("payments", payment(n, "3.00")).await?;
        }
    }
    Ok(())
}

/// Whether a group has committed all that is in the topics; it must have committed something.
async fn has_drained_all(kafka: &KafkaServer, group: &str) -> Result<bool> {
    let arguments = ["--describe", "--group", group];
    let told = kafka.tool("consumer.group.ConsumerGroupCommand", &arguments).await?;
    let (mut committed, mut behind) = (0, 0);
    for line in told.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ...
        let [of, _, _, current, end, ..] = columns[..] else { continue };
        let Ok(end) = end.parse::<i64>() else { continue };
        if of == group && end > 0 {
            let is_there = current.parse() == Ok(end);
            committed += i64::from(is_there);
            behind += i64::from(!is_there);
        }
    }
    Ok(committed > 0 && behind == 0)
}

async fn until_drained(system: &System, group: &str) -> Result<()> {
    let own = system.own.as_ref().context("no servers of its own")?;
    eventually(&format!("drained log in group {group}"), PATIENCE, || async {
        Ok(has_drained_all(&own.kafka, group).await.unwrap_or(false).then_some(()))
    })
    .await
}

async fn until_tombstones(system: &System, what: &str, expected: impl Fn(i64) -> bool) -> Result<()> {
    eventually(what, PATIENCE, || async {
        let count = system.number("SELECT COUNT(*) FROM _sa_ledger WHERE deleted = 1").await?;
        Ok(expected(count).then_some(()))
    })
    .await
}

/// Everything in the tables and in ours, but for who owns a shard and how far readers were told.
async fn dump(system: &System) -> Result<String> {
    let own = system.own.as_ref().context("no servers of its own")?;
    let statements = "SELECT * FROM entries ORDER BY tenant, n; SELECT * FROM payments ORDER BY id; \
        SELECT table_name, HEX(record_key), shard, deleted, version FROM _sa_ledger ORDER BY table_name, record_key; \
        SELECT table_name, shard, high_water, purge_horizon FROM _sa_shard ORDER BY table_name, shard";
    own.mariadb.sql("shop", statements).await
}

async fn stop_drains(system: &mut System) -> Result<()> {
    for drain in &mut system.services[1..] {
        // How it ends doesn't matter here: the last commit of one that stops in a rebalance may be refused.
        drain.stop().await?;
    }
    system.services.truncate(1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_replay_of_everything_changes_nothing_also_after_tombstones_were_purged() -> Result<()> {
    let settings = ServiceSettings::new().set("drain.rows_per_second", 0);
    let purging = settings.set("drain.purge_interval", "1s").set("drain.tombstone_retention", "0s");
    let mut system = System::on_own_servers(TABLES, purging).await?;
    write_a_history(&system, 0).await?;
    until_drained(&system, "own").await?;
    until_tombstones(&system, "empty ledger", |count| count == 0).await?;
    stop_drains(&mut system).await?;
    // The tombstones of these stay.
    let keeping = [("drain.replica", "keeping"), ("drain.tombstone_retention", "24h")];
    system.another_drain(&keeping).await?;
    write_a_history(&system, 30).await?;
    until_drained(&system, "own").await?;
    until_tombstones(&system, "tombstone", |count| count > 0).await?;
    stop_drains(&mut system).await?;

    let before = dump(&system).await?;
    let purged = system.number("SELECT COUNT(*) FROM _sa_shard WHERE purge_horizon > 0").await?;
    ensure!(purged > 0, "nothing was purged:\n{before}");
    for round in ["replay-1", "replay-2"] {
        for replica in ["a", "b"] {
            let again = [("drain.replica", replica), ("kafka.group", round), ("drain.tombstone_retention", "24h")];
            system.another_drain(&again).await?;
        }
        until_drained(&system, round).await?;
        stop_drains(&mut system).await?;
        let after = dump(&system).await?;
        ensure!(after == before, "{round} changed the tables; before:\n{before}\nafter:\n{after}");
    }
    // And what clients read.
    for n in 0..70 {
        let key = Row::new().set("tenant", "t").set("n", n);
        let is_there = system.client.get("entries", key).await.is_ok();
        ensure!(is_there == (n % 3 != 0 || n % 6 == 0), "entry {n}: {is_there}");
    }
    Ok(())
}
