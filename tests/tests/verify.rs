//! `shock-absorber verify` over the whole system: nothing differs while traffic goes on, and what was tampered with is
//! found and named.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use model::TableName;
use serde_json::Value as Json;
use shock_absorber_client::{Client, Rate, Row, TableRef, Value, Write};
use shock_absorber_tests::{ServiceSettings, System, eventually};
use tokio::task::JoinHandle;

const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n));\n"
);
const WITHIN: Duration = Duration::from_secs(60);
const KEYS: i64 = 300;

fn key(tenant: &str, n: i64) -> Row {
    Row::new().set("tenant", tenant).set("n", n)
}

fn entry(tenant: &str, n: i64, amount: i64) -> Write {
    Write::put("entries", key(tenant, n).set("amount", Value::Decimal(format!("{amount}.00"))))
}

/// Puts and deletes that go on, until it is stopped: what was acknowledged last is drained at some time.
fn traffic(client: Client, stop: Arc<AtomicBool>) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            let write = |n: i64| match n % 5 {
                0 => Write::delete("entries", key("t", n * 7 % KEYS)),
                _ => entry("t", n * 13 % KEYS, n),
            };
            for result in client.batch_write(&(n..n + 20).map(write).collect::<Vec<_>>()).await {
                result?;
            }
            n += 20;
        }
        Ok(n as u64)
    })
}

/// What a verification told: its exit code, what differs, and the last word.
async fn verify(system: &System, more: &[&str]) -> Result<(i32, Vec<Json>, Json)> {
    let told = system.operator(&[&["verify", "entries", "--json", "--rate", "5000"], more].concat()).await?;
    let mut lines = told.lines().with_context(|| format!("{told:?}"))?;
    let last = lines.pop().with_context(|| format!("{told:?}"))?;
    ensure!(last["complete"] == true, "{told:?}");
    Ok((told.code, lines, last))
}

async fn drained(system: &System) -> Result<()> {
    eventually("agreement of all records", WITHIN, || async {
        let (code, differences, last) = verify(system, &[]).await?;
        ensure!(code == 0, "{differences:?} {last}");
        Ok((last["pending"] == 0).then_some(()))
    })
    .await
}

async fn named(system: &System, tenant: &str) -> Result<String> {
    let (code, differences, last) = verify(system, &[]).await?;
    ensure!(code == 1 && last["differ"] == 1, "{code}: {differences:?} {last}");
    let [difference] = differences.as_slice() else { anyhow::bail!("{differences:?} is not one") };
    ensure!(difference["key"]["tenant"] == tenant, "{difference}");
    Ok(difference["kind"].as_str().unwrap_or_default().to_owned())
}

async fn it_finds_what_was_tampered_with_and_nothing_else(system: &System) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let writing = traffic(system.client.clone(), stop.clone());
    let (mut seen, begun) = (0, Instant::now());
    for round in 0.. {
        let since = if round % 4 == 3 { &["--since", "1h"][..] } else { &[] };
        let (code, differences, last) = verify(system, since).await?;
        ensure!(code == 0 && differences.is_empty(), "round {round}: {differences:?} {last}");
        seen = last["agree"].as_u64().unwrap_or(0).max(seen);
        // The first rounds may be over before the first rows are written.
        if round >= 3 && seen > 0 {
            break;
        }
        ensure!(begun.elapsed() < WITHIN, "in {round} rounds no record agreed that had anything to agree in");
    }
    stop.store(true, Ordering::Relaxed);
    ensure!(writing.await?? > 0, "nothing was written meanwhile");

    for tenant in ["changed", "deleted", "put back"] {
        system.client.put("entries", key(tenant, 1).set("amount", Value::Decimal("5.00".into()))).await?;
    }
    system.client.delete("entries", key("put back", 1)).await?;
    drained(system).await?;
    let tamper = async |sql: &str| system.database.run_script(sql).await;
    tamper("UPDATE entries SET amount = 6 WHERE tenant = 'changed'").await?;
    ensure!(named(system, "changed").await? == "content_differs");
    tamper("UPDATE entries SET amount = 5 WHERE tenant = 'changed'").await?;
    tamper("DELETE FROM entries WHERE tenant = 'deleted'").await?;
    let kind = named(system, "deleted").await?;
    ensure!(kind == "row_missing", "{kind}");
    // It is written again, and all is well.
    system.client.put("entries", key("deleted", 1).set("amount", Value::Decimal("7.00".into()))).await?;
    drained(system).await?;
    tamper("INSERT INTO entries (tenant, n, amount) VALUES ('put back', 1, 5)").await?;
    let kind = named(system, "put back").await?;
    ensure!(kind == "phantom", "{kind}");
    tamper("DELETE FROM entries WHERE tenant = 'put back'").await?;
    drained(system).await
}

/// An image that was dirty is gone: the log still has the write, and until the drain has got to it reads are wrong.
async fn a_dirty_image_that_is_gone_is_named(system: &System) -> Result<()> {
    let entries = TableRef::from("entries");
    system.client.set_table_rate(&entries, Rate::RowsPerSecond(0.05)).await?;
    // It is in force once something waits for it.
    eventually("waiting for the limit", WITHIN, || async {
        let put = system.client.put("entries", key("waits", 1).set("amount", Value::Decimal("1.00".into()))).await?;
        let is_applied = system.client.wait_applied(&[put.token], Duration::from_millis(500)).await?;
        Ok((!is_applied).then_some(()))
    })
    .await?;
    system.client.put("entries", key("robbed", 1).set("amount", Value::Decimal("5.00".into()))).await?;
    ensure!(system.delete_images("robbed").await? == 1);
    let kind = named(system, "robbed").await?;
    ensure!(kind == "not_in_hot_store", "{kind}");
    system.client.set_table_rate(&entries, Rate::Unlimited).await?;
    drained(system).await
}

async fn a_wrong_question_ends_with_another_code(system: &System) -> Result<()> {
    let never = system.operator(&["verify", "nothing"]).await?;
    ensure!(never.code == 2 && never.err.contains("nothing"), "{never:?}");
    let rate = system.operator(&["verify", "entries", "--rate", "0"]).await?;
    ensure!(rate.code == 2, "{rate:?}");
    let plain = system.operator(&["verify", "entries"]).await?;
    ensure!(plain.code == 0 && plain.out.contains("entries: 0 records differ"), "{plain:?}");
    Ok(())
}

fn settings() -> ServiceSettings {
    ServiceSettings::new().set("drain.rows_per_second", 1000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_of_the_embedded_edition() -> Result<()> {
    let system = System::embedded(TABLES, settings()).await?;
    it_finds_what_was_tampered_with_and_nothing_else(&system).await?;
    a_wrong_question_ends_with_another_code(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_verification_on_servers() -> Result<()> {
    let system = System::on_shared_servers(TABLES, settings()).await?;
    it_finds_what_was_tampered_with_and_nothing_else(&system).await?;
    a_dirty_image_that_is_gone_is_named(&system).await?;
    a_wrong_question_ends_with_another_code(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_verification_where_rows_carry_their_versions() -> Result<()> {
    use database::Database as _;
    let system = System::on_shared_servers(TABLES, settings()).await?;
    system.database.add_version_column(&TableName::new("entries")?).await?;
    // Replicas look at their tables once a second; until then versions are kept in the ledger, which is as good.
    it_finds_what_was_tampered_with_and_nothing_else(&system).await
}
