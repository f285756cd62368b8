//! Columns that are widened, added and renamed while records of their table wait: on every database, as clients see it.

use std::time::Duration;

use anyhow::{Result, ensure};
use shock_absorber_client::{Client, Code, Consistency, Get, Reason, Row, Table, TableRef, TableState, Value};
use shock_absorber_tests::{ServiceSettings, System, eventually};

const PAYMENTS: &str = include_str!("../../cli/sql/payments.sql");

/// How long anything may take, at most.
const WITHIN: Duration = Duration::from_secs(90);

/// More than 32 bits hold.
const MANY: i64 = 3_000_000_000;
/// More characters than the column has at first.
const LONG: &str = "fifty letters, or nearly so, and none of them lost";

/// A database's words.
struct Words {
    /// Makes the table.
    create: &'static str,
    /// Makes `count` a BIGINT, `note` longer, and gives `kind` another value. SQLite, which holds columns to less, has none.
    widen: Option<&'static str>,
}

const MARIADB: Words = Words {
    create: "CREATE TABLE entries (n BIGINT NOT NULL PRIMARY KEY, count INT NOT NULL, note VARCHAR(10), \
             kind ENUM('new', 'old') NOT NULL DEFAULT 'new');",
    widen: Some(
        "ALTER TABLE entries MODIFY COLUMN count BIGINT NOT NULL, MODIFY COLUMN note VARCHAR(100), \
         MODIFY COLUMN kind ENUM('new', 'old', 'later') NOT NULL DEFAULT 'new'",
    ),
};
const POSTGRES: Words = Words {
    create: "CREATE TYPE kind AS ENUM ('new', 'old'); \
             CREATE TABLE entries (n BIGINT NOT NULL PRIMARY KEY, count INT NOT NULL, note VARCHAR(10), \
             kind kind NOT NULL DEFAULT 'new');",
    widen: Some(
        "ALTER TABLE entries ALTER COLUMN count TYPE BIGINT, ALTER COLUMN note TYPE VARCHAR(100); \
         ALTER TYPE kind ADD VALUE 'later'",
    ),
};
const SQLITE: Words = Words {
    create: "CREATE TABLE entries (n BIGINT NOT NULL PRIMARY KEY, count BIGINT NOT NULL, note VARCHAR(100), \
             kind VARCHAR(10) NOT NULL DEFAULT 'new');",
    widen: None,
};

fn settings() -> ServiceSettings {
    ServiceSettings::new().set("table_refresh", "100ms")
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn key(n: i64) -> Row {
    Row::new().set("n", n)
}

fn entry(n: i64) -> Row {
    key(n).set("count", n).set("note", format!("note {n}")).set("kind", text("old"))
}

/// What the database has.
fn committed(n: i64) -> Get {
    Get::new("entries", key(n)).consistency(Consistency::Database)
}

/// A system with this table, and what these tests ask of it.
struct Entries(System);

impl Entries {
    async fn drained(&self, condition: &str, expected: i64) -> Result<()> {
        let sql = format!("SELECT COUNT(*) FROM entries WHERE {condition}");
        eventually(&format!("{expected} entries with {condition}"), WITHIN, || async {
            Ok((self.0.number(&sql).await? == expected).then_some(()))
        })
        .await
    }

    async fn told(&self, arguments: &[&str]) -> Result<()> {
        let told = self.0.operator(arguments).await?;
        ensure!(told.code == 0, "{told:?}");
        Ok(())
    }

    async fn sql(&self, sql: &str) -> Result<()> {
        Ok(self.0.database.run_script(sql).await?)
    }

    /// From now on nothing is drained. A pause is followed within some time, but from the start by a drain that starts.
    async fn pause(&mut self) -> Result<()> {
        self.told(&["pause", "entries"]).await?;
        let first_drain = if self.0.is_embedded() { 0 } else { 1 };
        for service in &mut self.0.services[first_drain..] {
            service.stop().await?;
            service.restart().await?;
        }
        Ok(())
    }

    async fn put(&self, row: Row) -> Result<()> {
        self.0.client.put("entries", row).await?;
        Ok(())
    }

    async fn update(&self, n: i64, changes: Row) -> Result<()> {
        self.0.client.update("entries", key(n), changes).await?;
        Ok(())
    }

    async fn get(&self, n: i64) -> Result<Row> {
        Ok(self.0.client.get("entries", key(n)).await?.row)
    }

    /// Until all are drained; then the database has what was read before.
    async fn all_are_drained_as_read(&self, numbers: impl Iterator<Item = i64>) -> Result<()> {
        let mut read = Vec::new();
        for n in numbers {
            read.push((n, self.get(n).await?));
        }
        self.told(&["resume", "entries"]).await?;
        for (n, read) in &read {
            let what = format!("{n} in the database as it was read: {read:?}");
            let drained = async || match self.0.client.read(&committed(*n)).await {
                Ok(found) => Ok((found.row == *read).then_some(())),
                // Not yet.
                Err(error) if error.code() == Code::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            };
            eventually(&what, WITHIN, drained).await?;
        }
        self.nothing_waits().await?;
        for (n, read) in read {
            let drained = self.0.client.read(&committed(n)).await?.row;
            ensure!(drained == read, "{n}: read before the drain as {read:?}, and is {drained:?}");
        }
        self.no_dead_letters().await
    }

    async fn nothing_waits(&self) -> Result<()> {
        eventually("an empty backlog", WITHIN, || async {
            let status = self.0.client.status(Some(&TableRef::from("entries"))).await?;
            Ok(status
                .tables
                .first()
                .is_some_and(|table| table.backlog.as_ref().is_some_and(|backlog| backlog.records == 0))
                .then_some(()))
        })
        .await
    }

    async fn until_drifted(&self) -> Result<()> {
        eventually("schema drift", WITHIN, || async {
            let status = self.0.client.status(Some(&TableRef::from("entries"))).await?;
            Ok(status.tables.first().is_some_and(|table| table.state() == TableState::SchemaDrift).then_some(()))
        })
        .await
    }

    async fn no_dead_letters(&self) -> Result<()> {
        let letters = eventually("a list of the dead letters", WITHIN, || async {
            let told = self.0.operator(&["dlq", "list", "--all", "--json"]).await?;
            Ok((told.code == 0).then_some(told))
        })
        .await?
        .json()?;
        ensure!(letters.is_empty(), "{letters:?}");
        Ok(())
    }

    async fn until_ingest(&self, what: &str, sees: impl Fn(&Table) -> bool) -> Result<()> {
        eventually(what, WITHIN, || async { Ok(sees(&self.0.client.get_table("entries").await?).then_some(())) }).await
    }
}

fn has(column: &str) -> impl Fn(&Table) -> bool + use<'_> {
    move |table| table.columns.iter().any(|found| found.name == column)
}

/// What was accepted before is written as it was read, and what only the new form holds is accepted and written without a
/// restart of anything.
async fn columns_are_widened_and_added_under_a_backlog(entries: &mut Entries, words: &Words) -> Result<()> {
    for n in 0..5 {
        entries.put(entry(n)).await?;
    }
    entries.drained("note LIKE 'note %'", 5).await?;
    entries.pause().await?;
    for n in 5..10 {
        entries.put(entry(n)).await?;
    }
    for n in 0..3 {
        entries.update(n, Row::new().set("note", text("0123456789")).set("count", i64::from(i32::MAX))).await?;
    }
    if let Some(widen) = words.widen {
        let wide = |n| key(n).set("count", MANY).set("note", text(LONG)).set("kind", text("later"));
        let refused = entries.0.client.put("entries", wide(10)).await;
        ensure!(refused.is_err(), "{refused:?}");
        entries.sql(widen).await?;
        // Nobody is told of it.
        eventually("a value that only the altered columns hold", WITHIN, || async {
            match entries.0.client.put("entries", wide(10)).await {
                Ok(_) => Ok(Some(())),
                Err(error) if error.code() == Code::InvalidArgument => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        // Over one that is in the database, and over one that waits.
        for n in [3, 6] {
            entries.update(n, Row::new().set("count", MANY).set("note", text(LONG)).set("kind", text("later"))).await?;
        }
    }
    entries.sql("ALTER TABLE entries ADD COLUMN fee INTEGER NOT NULL DEFAULT 7").await?;
    // A column that ingest has not heard of is looked for before a write that names it is refused.
    entries.update(7, Row::new().set("fee", 8_i64)).await?;
    entries.put(entry(11).set("fee", 9_i64)).await?;
    entries.put(entry(4)).await?;
    let all = (0..12).filter(|&n| n != 10 || words.widen.is_some());
    for n in all.clone() {
        let fee = entries.get(n).await?.get("fee").cloned();
        let expected = match n {
            7 => 8,
            11 => 9,
            _ => 7,
        };
        ensure!(fee == Some(Value::Int64(expected)), "{n}: {fee:?}");
    }
    entries.all_are_drained_as_read(all).await?;
    if words.widen.is_some() {
        entries.drained(&format!("count = {MANY} AND note = '{LONG}' AND kind = 'later'"), 3).await?;
    }
    entries.drained(&format!("count = {} AND note = '0123456789' AND fee = 7", i32::MAX), 3).await
}

/// A column that is renamed under a backlog is one that is gone and one that came: what names the former waits until that is
/// back, and nothing is lost.
async fn a_column_is_renamed_under_a_backlog(entries: &mut Entries) -> Result<()> {
    for n in 0..5 {
        entries.put(entry(n)).await?;
    }
    entries.drained("note LIKE 'note %'", 5).await?;
    entries.pause().await?;
    for n in 5..10 {
        entries.put(entry(n)).await?;
    }
    entries.update(0, Row::new().set("note", text("newer"))).await?;
    entries.sql("ALTER TABLE entries RENAME COLUMN note TO remark").await?;
    entries.until_ingest("the renamed column", |table| has("remark")(table) && !has("note")(table)).await?;
    // In the database, with its value; not as if it had none.
    let kept = entries.get(4).await?;
    ensure!(kept.get("remark") == Some(&text("note 4")) && kept.get("note").is_none(), "{kept:?}");
    let refused = entries.0.client.put("entries", entry(20)).await;
    ensure!(refused.as_ref().is_err_and(|error| error.is(Reason::UnknownColumn)), "{refused:?}");
    let renamed = |n| key(n).set("count", n).set("kind", text("old")).set("remark", format!("remark {n}"));
    entries.put(renamed(20)).await?;
    entries.put(renamed(9)).await?;
    entries.told(&["resume", "entries"]).await?;
    entries.until_drifted().await?;
    entries.no_dead_letters().await?;

    // As the README says: the former name beside the new one, until nothing waits any more; then what it got is moved.
    entries.told(&["drain-down", "entries"]).await?;
    entries.sql("ALTER TABLE entries ADD COLUMN note VARCHAR(100)").await?;
    entries.told(&["drain-down", "entries", "--wait", "--timeout", "90"]).await?;
    entries.no_dead_letters().await?;
    entries.drained("note LIKE 'note %' AND n >= 5 AND n < 9", 4).await?;
    entries.drained("note = 'newer' AND n = 0", 1).await?;
    entries.drained("remark LIKE 'remark %' AND note IS NULL AND (n = 9 OR n = 20)", 2).await?;
    entries.sql("UPDATE entries SET remark = note WHERE note IS NOT NULL").await?;
    entries.sql("ALTER TABLE entries DROP COLUMN note").await?;
    entries.until_ingest("that the former column is gone", |table| !has("note")(table)).await?;
    entries.told(&["drain-down", "entries", "--end"]).await?;
    for n in (0..10).chain([20]) {
        let remark = match n {
            0 => "newer".to_owned(),
            9 | 20 => format!("remark {n}"),
            _ => format!("note {n}"),
        };
        let read = entries.get(n).await?;
        ensure!(read.get("remark") == Some(&text(remark)) && read.get("note").is_none(), "{n}: {read:?}");
        entries.update(n, Row::new().set("count", 77_i64)).await?;
    }
    entries.all_are_drained_as_read((0..10).chain([20])).await?;
    entries.drained("count = 77 AND (remark LIKE '%e%')", 11).await
}

async fn both(system: System, words: &Words) -> Result<()> {
    let mut system = system;
    // On a slow machine a write may take long; here only what becomes of it counts.
    let patient = Client::builder(system.services[0].api_url()).timeout(WITHIN).attempt_timeout(WITHIN);
    system.client = patient.connect().await?;
    let mut entries = Entries(system);
    columns_are_widened_and_added_under_a_backlog(&mut entries, words).await?;
    entries.told(&["drain-down", "entries", "--wait", "--timeout", "90"]).await?;
    entries.sql("DELETE FROM entries").await?;
    for n in 0..12 {
        entries.0.client.evict("entries", &[key(n)]).await?;
    }
    entries.told(&["drain-down", "entries", "--end"]).await?;
    a_column_is_renamed_under_a_backlog(&mut entries).await
}

fn tables(words: &Words) -> String {
    format!("{PAYMENTS}{}", words.create)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_change_under_a_backlog_in_the_embedded_edition() -> Result<()> {
    both(System::embedded(&tables(&SQLITE), settings()).await?, &SQLITE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn columns_change_under_a_backlog_on_mariadb() -> Result<()> {
    both(System::on_shared_servers(&tables(&MARIADB), settings()).await?, &MARIADB).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn columns_change_under_a_backlog_on_mysql() -> Result<()> {
    both(System::on_shared_mysql(&tables(&MARIADB), settings()).await?, &MARIADB).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn columns_change_under_a_backlog_on_postgres() -> Result<()> {
    let tables = tables(&POSTGRES).replace("DATETIME", "TIMESTAMP");
    both(System::on_shared_postgres(&tables, settings()).await?, &POSTGRES).await
}
