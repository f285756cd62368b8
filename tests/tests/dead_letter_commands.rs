//! What operators do with rows that the database refused, by the commands that they type, over the whole system.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value as Json;
use shock_absorber_client::{Reason, Row, Value};
use shock_absorber_tests::{ServiceSettings, System, eventually, operator::Told};

const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n), CONSTRAINT not_thirteen CHECK (amount <> 13));\n"
);
const WITHIN: Duration = Duration::from_secs(60);

fn key(n: i64) -> Row {
    Row::new().set("tenant", "t").set("n", n)
}

fn entry(n: i64, amount: &str) -> Row {
    key(n).set("amount", Value::Decimal(amount.into()))
}

async fn dlq(system: &System, arguments: &[&str]) -> Result<Told> {
    system.operator(&[&["dlq"], arguments].concat()).await
}

/// Unresolved letters of the table, once there are so many.
async fn unresolved(system: &System, count: usize) -> Result<Vec<Json>> {
    eventually(&format!("{count} dead letters"), WITHIN, || async {
        let letters = dlq(system, &["list", "entries", "--json"]).await?.json()?;
        let are_parked = letters.iter().all(|letter| letter["state"] == "unresolved");
        Ok((letters.len() == count && are_parked).then_some(letters))
    })
    .await
}

fn id(letter: &Json) -> &str {
    letter["id"].as_str().unwrap_or_default()
}

/// The letter of the record with that number.
async fn letter_of(system: &System, letters: &[Json], n: i64) -> Result<String> {
    for letter in letters {
        let shown = dlq(system, &["show", "entries", id(letter), "--json"]).await?.json()?;
        if shown[0]["key"]["n"] == n {
            ensure!(shown[0]["row"]["amount"] == "13.00" && shown[0]["operation"] == "put", "{shown:?}");
            return Ok(id(letter).to_owned());
        }
    }
    anyhow::bail!("no letter of {n} in {letters:?}")
}

async fn operators_list_show_replay_and_purge(system: &System) -> Result<()> {
    let amount = async |n| system.client.get("entries", key(n)).await.map(|found| found.row.get("amount").cloned());
    let thirteen = || Some(Value::Decimal("13.00".into()));
    // The first has an older row; the others none.
    system.client.put("entries", entry(1, "1.00")).await?;
    eventually("row 1", WITHIN, || async {
        let rows = system.number("SELECT COUNT(*) FROM entries WHERE amount = 1").await?;
        Ok((rows == 1).then_some(()))
    })
    .await?;
    for n in 1..=4 {
        system.client.put("entries", entry(n, "13.00")).await?;
    }
    let letters = unresolved(system, 4).await?;
    for letter in &letters {
        ensure!(letter["cause"] == "permanent" && letter["table"] == "main.entries", "{letter}");
        ensure!(
            letter["attempts"].as_u64() >= Some(1) && !letter["code"].as_str().unwrap_or("").is_empty(),
            "{letter}"
        );
    }

    // Filters.
    let count = async |more: &[&str]| anyhow::Ok(dlq(system, more).await?.json()?.len());
    ensure!(count(&["list", "--json", "--cause", "permanent", "--since", "1h"]).await? == 4);
    ensure!(count(&["list", "entries", "--json", "--cause", "dependent"]).await? == 0);
    ensure!(count(&["list", "entries", "--json", "--until", "2001-01-01T00:00:00Z"]).await? == 0);
    ensure!(dlq(system, &["list", "payments"]).await?.out.is_empty());
    let shown = dlq(system, &["show", "entries", id(&letters[0])]).await?;
    ensure!(shown.code == 0 && shown.out.contains("13.00") && shown.out.contains("unresolved"), "{shown:?}");
    let nobody = dlq(system, &["show", "entries", "0-99999"]).await?;
    ensure!(nobody.code == 1 && nobody.err.contains("0-99999"), "{nobody:?}");

    // Given up: reads answer what the database has. Many at once are not given up by mistake.
    let careless = dlq(system, &["purge", "entries"]).await?;
    ensure!(careless.code != 0 && careless.err.contains("--yes"), "{careless:?}");
    let (first, second) = (letter_of(system, &letters, 1).await?, letter_of(system, &letters, 2).await?);
    let purged = dlq(system, &["purge", "entries", &first, &second, "--yes", "--json"]).await?.json()?;
    ensure!(purged.iter().all(|line| line["outcome"] == "purged"), "{purged:?}");
    assert_eq!(amount(1).await?, Some(Value::Decimal("1.00".into())));
    let gone = amount(2).await.err();
    ensure!(gone.as_ref().is_some_and(|error| error.is(Reason::NotFound)), "{gone:?}");
    let again = dlq(system, &["purge", "entries", &first, "--json"]).await?.json()?;
    ensure!(again[0]["outcome"] == "purged", "{again:?}");

    // Replayed while nothing was mended: refused once more, under a new version, and readable all the while.
    let third = letter_of(system, &letters, 3).await?;
    let replayed = dlq(system, &["replay", "entries", &third, "--json"]).await?.json()?;
    ensure!(replayed[0]["outcome"] == "replayed" && replayed[0]["version"].as_u64() > Some(0), "{replayed:?}");
    assert_eq!(amount(3).await?, thirteen());
    let letters = unresolved(system, 2).await?;
    ensure!(letters.iter().all(|letter| id(letter) != third), "{letters:?}");
    let settled = dlq(system, &["replay", "entries", &third, "--json"]).await?.json()?;
    ensure!(settled[0]["outcome"] == "superseded", "{settled:?}");

    // A newer write takes a letter's place, and a replay never takes the newer one's.
    let fourth = letter_of(system, &letters, 4).await?;
    system.client.put("entries", entry(4, "4.00")).await?;
    let settled = dlq(system, &["replay", "entries", &fourth, "--json"]).await?.json()?;
    ensure!(settled[0]["outcome"] == "superseded", "{settled:?}");
    assert_eq!(amount(4).await?, Some(Value::Decimal("4.00".into())));

    if system.is_embedded() {
        // SQLite drops no constraint.
        return Ok(());
    }
    // What was in the way is mended, and all that is left is written.
    system.database.run_script("ALTER TABLE entries DROP CONSTRAINT not_thirteen").await?;
    let replayed = dlq(system, &["replay", "entries", "--cause", "permanent", "--json"]).await?.json()?;
    ensure!(replayed.len() == 1 && replayed[0]["outcome"] == "replayed", "{replayed:?}");
    eventually("row 3", WITHIN, || async {
        let rows = system.number("SELECT COUNT(*) FROM entries WHERE n = 3 AND amount = 13").await?;
        Ok((rows == 1).then_some(()))
    })
    .await?;
    unresolved(system, 0).await?;
    let all = dlq(system, &["list", "entries", "--all", "--json"]).await?.json()?;
    ensure!(all.len() == 5 && all.iter().filter(|letter| letter["state"] == "purged").count() == 2, "{all:?}");
    let verified = system.operator(&["verify", "entries", "--json", "--rate", "5000"]).await?.json()?;
    let last = verified.last();
    ensure!(last.is_some_and(|last| last["given_up"] == 2 && last["differ"] == 0), "{verified:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letter_commands_on_the_embedded_edition() -> Result<()> {
    let system = System::embedded(TABLES, ServiceSettings::new()).await?;
    operators_list_show_replay_and_purge(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn dead_letter_commands_on_servers() -> Result<()> {
    let system = System::on_shared_servers(TABLES, ServiceSettings::new()).await?;
    operators_list_show_replay_and_purge(&system).await
}
