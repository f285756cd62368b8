//! Tables that are altered while records of theirs wait for the database: embedded, and on MariaDB.

use std::time::Duration;

use anyhow::{Result, ensure};
use shock_absorber_client::{Reason, Row, TableRef, TableState, Value, Write};
use shock_absorber_tests::{ServiceSettings, System, eventually};

const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n));\n"
);

/// How long anything may take, at most.
const WITHIN: Duration = Duration::from_secs(90);
const ALL: &str = "SELECT COUNT(*) FROM entries";

/// Quick to see what becomes of tables.
fn settings() -> ServiceSettings {
    ServiceSettings::new().set("table_refresh", "100ms")
}

/// Waits until a query gives this number.
async fn drained(system: &System, sql: &str, expected: i64) -> Result<()> {
    eventually(&format!("{expected} from {sql}"), WITHIN, || async {
        Ok((system.number(sql).await? == expected).then_some(()))
    })
    .await
}

fn key(n: i64) -> Row {
    Row::new().set("tenant", "t").set("n", n)
}

fn entry(n: i64, amount: &str) -> Row {
    key(n).set("amount", Value::Decimal(amount.into()))
}

/// Accepts these rows. They are drained so slowly that most of them wait when this returns, and for long.
async fn put_slowly_drained(system: &System, from: i64, to: i64) -> Result<()> {
    set_rate(system, "1/s").await?;
    let writes: Vec<_> =
        (from..to).map(|n| Write::put("entries", entry(n, "1.00").set("note", format!("note {n}")))).collect();
    for result in system.client.batch_write(&writes).await {
        result?;
    }
    Ok(())
}

async fn set_rate(system: &System, rate: &str) -> Result<()> {
    let told = system.operator(&["table", "set-rate", "entries", rate]).await?;
    ensure!(told.code == 0, "{told:?}");
    Ok(())
}

async fn alter(system: &System, sql: &str) -> Result<()> {
    Ok(system.database.run_script(&format!("ALTER TABLE entries {sql}")).await?)
}

/// Waits until status says whether the table has drifted.
async fn until_drifted(system: &System, has: bool) -> Result<()> {
    let what = if has { "schema drift" } else { "end of the schema drift" };
    eventually(what, WITHIN, || async {
        let status = system.client.status(Some(&TableRef::from("entries"))).await?;
        let told = status.tables.first().map(|table| table.state());
        Ok((told.is_some_and(|told| (told == TableState::SchemaDrift) == has)).then_some(()))
    })
    .await
}

async fn no_dead_letters(system: &System) -> Result<()> {
    let letters = system.operator(&["dlq", "list", "--all", "--json"]).await?.json()?;
    ensure!(letters.is_empty(), "{letters:?}");
    Ok(())
}

/// What ingest knows of the table follows by itself.
async fn until_ingest_knows(system: &System, has_note: bool) -> Result<()> {
    until_ingest_sees(system, "note", has_note).await
}

async fn until_ingest_sees(system: &System, column: &str, has: bool) -> Result<()> {
    eventually("the altered table at ingest", WITHIN, || async {
        let table = system.client.get_table("entries").await?;
        Ok((table.columns.iter().any(|found| found.name == column) == has).then_some(()))
    })
    .await
}

async fn told(system: &System, arguments: &[&str]) -> Result<()> {
    let told = system.operator(arguments).await?;
    ensure!(told.code == 0, "{told:?}");
    Ok(())
}

async fn amount(system: &System, n: i64, amount: &str) -> Result<()> {
    let changes = Row::new().set("amount", Value::Decimal(amount.into()));
    system.client.update("entries", key(n), changes).await?;
    Ok(())
}

/// A column that holds for old rows when it was added, and one that is made narrower, in the words of a database.
struct Words {
    add_moment: &'static str,
    narrow_tag: &'static str,
}

const MARIADB: Words = Words {
    add_moment: "ADD COLUMN made DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)",
    narrow_tag: "MODIFY COLUMN tag VARCHAR(4)",
};
const POSTGRES: Words = Words {
    add_moment: "ADD COLUMN made TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP",
    narrow_tag: "ALTER COLUMN tag TYPE VARCHAR(4)",
};

/// Rows that are hot and drained, rows with a newer version that waits, and rows that are not drained yet: read and
/// partly updated as the table is now, and as the database has made of them.
async fn records_take_the_form_of_their_altered_table(system: &System, words: Option<&Words>) -> Result<()> {
    set_rate(system, "1000/s").await?;
    for n in 0..10 {
        system.client.put("entries", entry(n, "1.00").set("note", format!("note {n}"))).await?;
    }
    drained(system, ALL, 10).await?;
    told(system, &["pause", "entries"]).await?;
    for n in 5..10 {
        amount(system, n, "2.00").await?;
    }
    for n in 10..15 {
        system.client.put("entries", entry(n, "1.00").set("note", format!("note {n}"))).await?;
    }
    alter(system, "ADD COLUMN added INTEGER NOT NULL DEFAULT 7").await?;
    if let Some(words) = words {
        alter(system, words.add_moment).await?;
        until_ingest_sees(system, "made", true).await?;
    }
    until_ingest_sees(system, "added", true).await?;
    for n in 0..15 {
        let row = system.client.get("entries", key(n)).await?.row;
        ensure!(row.get("added") == Some(&Value::Int64(7)), "{n}: {row:?}");
        // Of a whole record that waits only its drain will tell the moment.
        ensure!(words.is_none() || n >= 10 || row.get("made").is_some(), "{n}: {row:?}");
    }
    for n in [3, 4, 5, 6, 12] {
        amount(system, n, "3.00").await?;
    }
    told(system, &["resume", "entries"]).await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE amount = 3 AND note LIKE 'note %' AND added = 7", 5).await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE amount = 2 AND added = 7", 3).await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE added = 7", 15).await?;
    if words.is_some() {
        // What was there before the column was given one moment, and no update gave any of it another.
        assert_eq!(system.number("SELECT COUNT(DISTINCT made) FROM entries WHERE n < 10").await?, 1);
    }

    // Gone, and not brought back by what was stored before.
    alter(system, "DROP COLUMN note").await?;
    until_ingest_knows(system, false).await?;
    for n in 0..15 {
        let row = system.client.get("entries", key(n)).await?.row;
        ensure!(row.get("note").is_none() && row.get("added") == Some(&Value::Int64(7)), "{n}: {row:?}");
    }
    for n in 0..15 {
        amount(system, n, "4.00").await?;
    }
    drained(system, "SELECT COUNT(*) FROM entries WHERE amount = 4 AND added = 7", 15).await?;
    until_drifted(system, false).await?;
    no_dead_letters(system).await?;

    // What was accepted and no longer fits is a dead letter, and nothing else is.
    let Some(words) = words else { return Ok(()) };
    alter(system, "ADD COLUMN tag VARCHAR(40)").await?;
    until_ingest_sees(system, "tag", true).await?;
    told(system, &["pause", "entries"]).await?;
    let long = "too long for what it becomes";
    system.client.put("entries", entry(20, "1.00").set("tag", long)).await?;
    system.client.put("entries", entry(21, "1.00").set("tag", "fits")).await?;
    alter(system, words.narrow_tag).await?;
    told(system, &["resume", "entries"]).await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE tag = 'fits'", 1).await?;
    let letters = eventually("a dead letter", WITHIN, || async {
        let letters = system.operator(&["dlq", "list", "--json"]).await?.json()?;
        Ok((!letters.is_empty()).then_some(letters))
    })
    .await?;
    ensure!(letters.len() == 1 && letters[0]["cause"] == "permanent", "{letters:?}");
    let parked = system.client.get("entries", key(20)).await?.row;
    ensure!(parked.get("tag") == Some(&Value::Text(long.into())), "{parked:?}");
    assert_eq!(system.number(ALL).await?, 16);
    Ok(())
}

async fn a_table_that_is_altered_under_its_backlog_goes_on_by_itself(system: &System) -> Result<()> {
    // Columns come and change: nobody has to do anything.
    put_slowly_drained(system, 0, 100).await?;
    alter(system, "ADD COLUMN added INTEGER NOT NULL DEFAULT 7").await?;
    if !system.is_embedded() {
        // SQLite changes no column.
        alter(system, "MODIFY COLUMN note VARCHAR(80), MODIFY COLUMN amount DECIMAL(20, 2) NOT NULL").await?;
    }
    set_rate(system, "1000/s").await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE added = 7 AND note LIKE 'note %'", 100).await?;

    // A column goes, and comes back.
    put_slowly_drained(system, 100, 200).await?;
    alter(system, "DROP COLUMN note").await?;
    set_rate(system, "1000/s").await?;
    until_drifted(system, true).await?;
    ensure!(system.number(ALL).await? < 200);
    alter(system, "ADD COLUMN note VARCHAR(40)").await?;
    drained(system, "SELECT COUNT(*) FROM entries WHERE n >= 150 AND note LIKE 'note %'", 50).await?;
    drained(system, ALL, 200).await?;
    until_drifted(system, false).await?;
    no_dead_letters(system).await
}

async fn a_column_can_be_dropped_for_good_under_a_backlog(system: &System) -> Result<()> {
    put_slowly_drained(system, 0, 100).await?;
    alter(system, "DROP COLUMN note").await?;
    until_ingest_knows(system, false).await?;
    set_rate(system, "1000/s").await?;
    until_drifted(system, true).await?;
    // What is accepted from now on names it no more, also where it takes the place of what does.
    system.client.update("entries", key(99), Row::new().set("amount", Value::Decimal("9.00".into()))).await?;
    let refused = system.client.put("entries", entry(1, "1.00").set("note", "x")).await;
    ensure!(refused.as_ref().is_err_and(|error| error.is(Reason::UnknownColumn)), "{refused:?}");
    ensure!(system.number(ALL).await? < 100);
    no_dead_letters(system).await?;

    // As the README says: back with it, until nothing waits any more, and then it goes.
    let down = system.operator(&["drain-down", "entries"]).await?;
    ensure!(down.code == 0, "{down:?}");
    alter(system, "ADD COLUMN note VARCHAR(40)").await?;
    let ready = system.operator(&["drain-down", "entries", "--wait", "--timeout", "90"]).await?;
    ensure!(ready.code == 0 && ready.out.contains("ready: no write comes in"), "{ready:?}");
    assert_eq!(system.number(ALL).await?, 100);
    assert_eq!(system.number("SELECT COUNT(*) FROM entries WHERE note IS NULL").await?, 1);
    assert_eq!(system.number("SELECT COUNT(*) FROM entries WHERE n = 99 AND amount = 9").await?, 1);
    alter(system, "DROP COLUMN note").await?;
    until_ingest_knows(system, false).await?;
    let ended = system.operator(&["drain-down", "entries", "--end"]).await?;
    ensure!(ended.code == 0, "{ended:?}");
    for n in 100..120 {
        system.client.put("entries", entry(n, "1.00")).await?;
    }
    drained(system, ALL, 120).await?;
    until_drifted(system, false).await?;
    no_dead_letters(system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_altered_in_the_embedded_edition() -> Result<()> {
    a_table_that_is_altered_under_its_backlog_goes_on_by_itself(&System::embedded(TABLES, settings()).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_table_is_altered_on_servers() -> Result<()> {
    let system = System::on_shared_servers(TABLES, settings()).await?;
    a_table_that_is_altered_under_its_backlog_goes_on_by_itself(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_is_dropped_for_good_in_the_embedded_edition() -> Result<()> {
    a_column_can_be_dropped_for_good_under_a_backlog(&System::embedded(TABLES, settings()).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_column_is_dropped_for_good_on_servers() -> Result<()> {
    let system = System::on_shared_servers(TABLES, settings()).await?;
    a_column_can_be_dropped_for_good_under_a_backlog(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_column_is_dropped_for_good_on_mysql() -> Result<()> {
    let system = System::on_shared_mysql(TABLES, settings()).await?;
    a_column_can_be_dropped_for_good_under_a_backlog(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_column_is_dropped_for_good_on_postgres() -> Result<()> {
    let tables = TABLES.replace("DATETIME", "TIMESTAMP");
    let system = System::on_shared_postgres(&tables, settings()).await?;
    a_column_can_be_dropped_for_good_under_a_backlog(&system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_take_the_form_of_their_altered_table_in_the_embedded_edition() -> Result<()> {
    // SQLite adds no column of a moment, and changes none.
    records_take_the_form_of_their_altered_table(&System::embedded(TABLES, settings()).await?, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn records_take_the_form_of_their_altered_table_on_servers() -> Result<()> {
    let system = System::on_shared_servers(TABLES, settings()).await?;
    records_take_the_form_of_their_altered_table(&system, Some(&MARIADB)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn records_take_the_form_of_their_altered_table_on_postgres() -> Result<()> {
    let tables = TABLES.replace("DATETIME", "TIMESTAMP");
    let system = System::on_shared_postgres(&tables, settings()).await?;
    records_take_the_form_of_their_altered_table(&system, Some(&POSTGRES)).await
}
