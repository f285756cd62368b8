//! Values of every type through the whole system: what was accepted is read before the drain, after it from the hot store
//! and after it from the database, the same each time; what the database would refuse is refused with the field named; and
//! a key is found by any spelling that the database takes for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shock_absorber_client::{Row, Value};
use shock_absorber_tests::{ServiceSettings, System, eventually};

const WITHIN: Duration = Duration::from_secs(60);

/// Column, declared type, a value as it is given, the value as it is kept, a value that is refused.
type Case = (&'static str, &'static str, Value, Value, Value);

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn of_every_database() -> Vec<Case> {
    let whole = |name, declared, kept: Value, refused| (name, declared, kept.clone(), kept, refused);
    let decimal = |text: &str| Value::Decimal(text.into());
    vec![
        whole("c_bool", "BOOLEAN", Value::Bool(true), Value::Int64(2)),
        whole("c_small", "SMALLINT", Value::Int64(-32_768), Value::Int64(32_768)),
        whole("c_big", "BIGINT", Value::Int64(i64::MIN), Value::Uint64(u64::MAX)),
        ("c_dec", "DECIMAL(38,10)", decimal("0012.5"), decimal("12.5000000000"), decimal("0.00000000001")),
        whole("c_double", "DOUBLE", Value::Double(5e-324), text("1")),
        whole("c_text", "VARCHAR(4)", text("ä🎉 "), text("abcde")),
        whole("c_bytes", "VARBINARY(4)", Value::Bytes(vec![0, 255, 39]), Value::Bytes(vec![0; 5])),
        whole("c_date", "DATE", Value::Date("9999-12-31".into()), text("2024-01-01")),
        whole("c_at", "DATETIME(3)", Value::DateTime("2024-03-31T02:30:00.123".into()), {
            Value::DateTime("2024-03-31T02:30:00.1234".into())
        }),
        whole("c_time", "TIME(6)", Value::Time("-838:59:59".into()), Value::Time("839:00:00".into())),
        whole("c_json", "JSON", Value::Json(r#"{"a": [9007199254740993, null]}"#.into()), Value::Json("{a}".into())),
    ]
}

fn of_either_mysql() -> Vec<Case> {
    let mut cases = of_every_database();
    cases.extend([
        ("c_float", "FLOAT", Value::Double(0.1), Value::Double(f64::from(0.1_f32)), Value::Double(1e39)),
        ("c_bits", "BIT(64)", Value::Int64(1), Value::Uint64(1), Value::Int64(-1)),
        ("c_year", "YEAR", Value::Int64(2155), Value::Uint64(2155), Value::Int64(70)),
        ("c_char", "CHAR(4)", text("ab  "), text("ab"), text("abcde")),
        ("c_binary", "BINARY(4)", Value::Bytes(vec![1]), Value::Bytes(vec![1, 0, 0, 0]), Value::Bytes(vec![0; 5])),
        ("c_enum", "ENUM('a','it''s')", text("it's"), text("it's"), text("A")),
        ("c_set", "SET('x','y')", text("y,x"), text("x,y"), text("z")),
        ("c_latin", "VARCHAR(9) CHARACTER SET latin1", text("é€"), text("é€"), text("漢")),
        ("c_unsigned", "DECIMAL(5,2) UNSIGNED", Value::Int64(1), Value::Decimal("1.00".into()), Value::Int64(-1)),
    ]);
    cases
}

fn uuid() -> Case {
    let (given, kept) = (text("A0EEBC999C0B4EF8BB6D6BB9BD380A11"), text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"));
    ("c_uuid", "UUID", given, kept, text("a"))
}

fn of_mariadb() -> Vec<Case> {
    let mut cases = of_either_mysql();
    cases.push(uuid());
    cases
}

fn of_postgres() -> Result<Vec<Case>> {
    let json = |text: &str| Value::Json(text.into());
    let at = "2024-03-31T02:30:00.000001+02:00".parse()?;
    Ok(vec![
        uuid(),
        ("c_small", "SMALLINT", Value::Int64(-32_768), Value::Int64(-32_768), Value::Int64(32_768)),
        ("c_numeric", "NUMERIC", Value::Decimal("01.50".into()), Value::Decimal("1.50".into()), {
            Value::Decimal("NaN".into())
        }),
        ("c_real", "REAL", Value::Double(0.1), Value::Double(f64::from(0.1_f32)), Value::Double(1e39)),
        ("c_char", "CHAR(4)", text("ab"), text("ab  "), text("abcde")),
        ("c_text", "TEXT", text("ä🎉 '"), text("ä🎉 '"), text("a\0")),
        ("c_bytes", "BYTEA", Value::Bytes(vec![0, 255, 39]), Value::Bytes(vec![0, 255, 39]), text("a")),
        (
            "c_at",
            "TIMESTAMPTZ",
            Value::Timestamp(at),
            { Value::Timestamp(at) },
            Value::DateTime("2024-03-31T02:30:00".into()),
        ),
        ("c_inet", "INET", text("10.0.0.1/32"), text("10.0.0.1"), text("10.0.0.256")),
        ("c_cidr", "CIDR", text("10.0.0.0/8"), text("10.0.0.0/8"), text("10.0.0.1/8")),
        ("c_mood", "mood", text("it's"), text("it's"), text("IT'S")),
        ("c_code", "code", text("abcd"), text("abcd"), text("abcde")),
        ("c_jsonb", "JSONB", json(r#"{"bb":1,"a":2.50}"#), json(r#"{"a": 2.50, "bb": 1}"#), json("{a}")),
        ("c_many", "BIGINT[]", json("[9223372036854775807,null]"), json("[9223372036854775807, null]"), json("[1.5]")),
        ("c_texts", "TEXT[]", json(r#"["{\"a\",}",null]"#), json(r#"["{\"a\",}", null]"#), json(r#"[["a"]]"#)),
        ("c_moods", "mood[]", json(r#"["it's"]"#), json(r#"["it's"]"#), json(r#"["b"]"#)),
    ])
}

fn table(cases: &[Case], id: &str) -> String {
    let columns: Vec<String> = cases.iter().map(|(name, declared, ..)| format!("{name} {declared} NULL")).collect();
    let payments = include_str!("../../cli/sql/payments.sql");
    let entries = "CREATE TABLE entries (id BIGINT NOT NULL PRIMARY KEY);\n";
    format!("{payments}{entries}CREATE TABLE typed (id {id} NOT NULL PRIMARY KEY, {});\n", columns.join(", "))
}

fn id(id: &str) -> Row {
    Row::new().set("id", id)
}

/// Written as one record, read as `kept`; each value that is refused alone.
async fn written_and_refused(system: &System, cases: &[Case]) -> Result<(Row, String)> {
    let given = cases.iter().fold(id("Abc"), |row, (name, _, given, ..)| row.set(*name, given.clone()));
    let kept = cases.iter().fold(id("Abc"), |row, (name, _, _, kept, _)| row.set(*name, kept.clone()));
    let token = system.client.create("typed", given).await?.token;
    let hot = system.client.get("typed", id("Abc")).await?.row;
    ensure!(hot == kept, "before the drain:\n{hot:?}\nand not\n{kept:?}");
    for (name, _, _, _, refused) in cases {
        let error = system.client.put("typed", id("refused").set(*name, refused.clone())).await.err();
        let error = error.with_context(|| format!("{name} took {refused:?}"))?;
        let fields = error.server().map(|server| server.fields.as_slice()).unwrap_or_default();
        let is_named = matches!(fields, [field] if field.field == format!("row.columns[{name:?}]"));
        ensure!(is_named, "{name} is not what {fields:?} names");
    }
    Ok((kept, token))
}

async fn applied(system: &System, token: String) -> Result<()> {
    eventually("drain", WITHIN, || async {
        Ok(system.client.wait_applied(std::slice::from_ref(&token), Duration::from_secs(1)).await?.then_some(()))
    })
    .await
}

fn settings() -> ServiceSettings {
    ServiceSettings::new().set("drain.rows_per_second", 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_sqlite() -> Result<()> {
    let cases = of_every_database();
    let mut system = System::embedded(&table(&cases, "VARCHAR(20)"), settings()).await?;
    let (kept, token) = written_and_refused(&system, &cases).await?;
    applied(&system, token).await?;
    // The hot store of this edition lives in memory: what was drained is read from the database.
    system.services[0].restart().await?;
    let cold = system.client.get("typed", id("Abc")).await?.row;
    ensure!(cold == kept, "after the drain:\n{cold:?}\nand not\n{kept:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn every_type_of_mariadb_and_any_spelling_of_its_key() -> Result<()> {
    let cases = of_mariadb();
    let tables = table(&cases, "VARCHAR(20) COLLATE utf8mb4_general_ci");
    every_type_and_spelling(System::on_shared_servers(&tables, settings()).await?, &cases).await
}

mod on_mysql {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a server: ./tests/run starts one"]
    async fn every_type_of_mysql_and_any_spelling_of_its_key() -> Result<()> {
        let cases = of_either_mysql();
        let tables = table(&cases, "VARCHAR(20) COLLATE utf8mb4_unicode_ci");
        every_type_and_spelling(System::on_shared_mysql(&tables, settings()).await?, &cases).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn every_type_of_postgresql() -> Result<()> {
    let cases = of_postgres()?;
    let types = "CREATE TYPE mood AS ENUM ('a', 'it''s');\nCREATE DOMAIN code AS VARCHAR(4);\n";
    let tables = table(&cases, "VARCHAR(20)").replace("DATETIME", "TIMESTAMP");
    let system = System::on_shared_postgres(&format!("{types}{tables}"), settings()).await?;
    system.client.enable_table("typed").await?;
    let (kept, token) = written_and_refused(&system, &cases).await?;
    applied(&system, token).await?;
    let clean = system.client.get("typed", id("Abc")).await?.row;
    ensure!(clean == kept, "after the drain:\n{clean:?}\nand not\n{kept:?}");
    ensure!(system.delete_images("Abc").await? == 1);
    let cold = system.client.get("typed", id("Abc")).await?.row;
    ensure!(cold == kept, "from the database:\n{cold:?}\nand not\n{kept:?}");
    let rows = system
        .number("SELECT count(*) FROM typed WHERE c_many = '{9223372036854775807,NULL}' AND c_mood = 'it''s'")
        .await?;
    ensure!(rows == 1, "a plain client sees it");
    Ok(())
}

/// On MariaDB or MySQL.
async fn every_type_and_spelling(system: System, cases: &[Case]) -> Result<()> {
    system.client.enable_table("typed").await?;
    let (kept, token) = written_and_refused(&system, cases).await?;
    applied(&system, token).await?;
    let clean = system.client.get("typed", id("Abc")).await?.row;
    ensure!(clean == kept, "after the drain:\n{clean:?}\nand not\n{kept:?}");
    ensure!(system.delete_images("abc").await? == 1, "its key has one form");
    let cold = system.client.get("typed", id("ABC ")).await?.row;
    ensure!(cold == kept, "from the database:\n{cold:?}\nand not\n{kept:?}");
    // One record, by whatever name.
    ensure!(system.client.create("typed", id("abC")).await.is_err(), "it was created a second time");
    let token = system.client.put("typed", id("abC").set("c_small", 7)).await?.token;
    applied(&system, token).await?;
    let rows =
        system.number("SELECT COUNT(*) FROM typed WHERE BINARY id = 'abC' AND c_small = 7 AND c_big IS NULL").await?;
    ensure!(rows == 1 && system.number("SELECT COUNT(*) FROM typed").await? == 1);
    ensure!(system.client.put("typed", id("é")).await.is_err(), "only the server knows what é is equal to");
    let token = system.client.delete("typed", id("ABC")).await?.token;
    applied(&system, token).await?;
    ensure!(system.number("SELECT COUNT(*) FROM typed").await? == 0);
    Ok(())
}
