//! Every type that is carried comes back as it went in.

use bytes::Bytes;
use database::{Applied, Database, DatabaseRow};
use jiff::{Timestamp, civil};
use model::{Key, Row, TableSchema, TimeOfDay, Value, VersionGuard};

use crate::harness::*;

on_every_sql_database!(
    every_type_comes_back_as_it_went_in,
    every_type_of_key_finds_its_row,
    what_somebody_else_wrote_is_read,
    what_can_not_be_read_is_said,
    the_version_of_what_can_not_be_read_is_found_by_its_key,
);

fn instant(text: &str) -> Value {
    Value::Timestamp(text.parse::<Timestamp>().unwrap())
}

fn civil(text: &str) -> Value {
    Value::DateTime(text.parse::<civil::DateTime>().unwrap())
}

fn time(text: &str) -> Value {
    Value::Time(text.parse::<TimeOfDay>().unwrap())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.to_owned())
}

fn json(text: &str) -> Value {
    Value::Json(text.to_owned())
}

fn blob(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}

/// Column, declared type, values.
fn columns(h: &Harness) -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let ints = |values: &[i64]| values.iter().map(|n| Value::Int64(*n)).collect::<Vec<_>>();
    let texts = |values: &[&str]| values.iter().map(|t| text(t)).collect::<Vec<_>>();
    if h.is_postgres() {
        return postgres_columns();
    }
    let mut columns = vec![
        ("c_bool", "BOOLEAN", vec![Value::Bool(true), Value::Bool(false)]),
        ("c_tiny", "TINYINT", ints(&[-128, 127, 0])),
        ("c_small", "SMALLINT", ints(&[i16::MIN.into(), i16::MAX.into()])),
        ("c_medium", "MEDIUMINT", ints(&[-8_388_608, 8_388_607])),
        ("c_int", "INT", ints(&[i32::MIN.into(), i32::MAX.into()])),
        ("c_big", "BIGINT", ints(&[i64::MIN, i64::MAX, (1 << 53) + 1])),
        ("c_uint", "INT UNSIGNED", vec![Value::Uint64(u32::MAX.into()), Value::Uint64(0)]),
        ("c_double", "DOUBLE", [0.1, -1e300, 5e-324, 1.0, -0.5].map(Value::Double).to_vec()),
        (
            "c_decimal",
            "DECIMAL(12,2)",
            ["0.00", "-0.01", "9999999999.99", "-9999999999.99", "100.10"].map(decimal).to_vec(),
        ),
        (
            "c_wide",
            "DECIMAL(38,10)",
            [
                "1234567890123456789012345678.0123456789",
                "-0.0000000001",
                "1000000000000000000.0000000000",
                "0.1000000000",
            ]
            .map(decimal)
            .to_vec(),
        ),
        ("c_whole", "DECIMAL(20,0)", ["18446744073709551615", "-99999999999999999999", "0"].map(decimal).to_vec()),
        ("c_varchar", "VARCHAR(100)", texts(&["", " x ", "it's", "ß漢字🎉", "a\\b\"c\n\t", "123", "1.50", "NULL"])),
        ("c_text", "TEXT", texts(&["", "long ".repeat(2000).as_str(), "0012"])),
        ("c_blob", "BLOB", vec![blob(&[]), blob(&[0, 255, 39, 92, 10]), blob(b"text")]),
        ("c_varbinary", "VARBINARY(20)", vec![blob(&[0, 0, 1]), blob(b"12")]),
        (
            "c_timestamp",
            "TIMESTAMP(6) NULL",
            ["2024-02-29T23:59:59.123456Z", "1970-01-02T00:00:00Z", "2037-12-31T00:00:00.5Z"].map(instant).to_vec(),
        ),
        (
            "c_datetime",
            "DATETIME(6)",
            ["2024-02-29T23:59:59.123456", "1000-01-01T00:00:00", "9999-12-31T23:59:59.999999", "2024-03-31T02:30:00"]
                .map(civil)
                .to_vec(),
        ),
        ("c_datetime0", "DATETIME(0)", vec![civil("2024-02-29T23:59:59")]),
        (
            "c_date",
            "DATE",
            ["1000-01-01", "9999-12-31", "2024-02-29"].map(|d| Value::Date(d.parse().unwrap())).to_vec(),
        ),
        (
            "c_time",
            "TIME(6)",
            ["838:59:59", "-838:59:59", "00:00:00", "-00:00:01.5", "25:30:00.000001"].map(time).to_vec(),
        ),
    ];
    if h.is_mysql() {
        columns.push(("c_ubig", "BIGINT UNSIGNED", vec![Value::Uint64(u64::MAX)]));
        columns.push(("c_char", "CHAR(4)", texts(&["ab", "äöü!"])));
        columns.push(("c_binary", "BINARY(3)", vec![blob(&[1, 0, 2])]));
        columns.push(("c_longblob", "LONGBLOB", vec![blob(&vec![7; 100_000])]));
        // As MySQL's JSON prints it, so that this holds there too.
        columns.push(("c_json", "JSON", [r#"{"a": [1, 2.5, null]}"#, "123", r#""text""#].map(json).to_vec()));
    } else {
        columns.push(("c_ubig", "BIGINT UNSIGNED", vec![Value::Uint64(i64::MAX as u64)]));
        columns.push((
            "c_json",
            "JSON",
            [r#"{"a":[1, 2.50,null] }"#, "1.50", "12345678901234567890", "-0", "true", r#""1""#].map(json).to_vec(),
        ));
    }
    columns
}

fn postgres_columns() -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let ints = |values: &[i64]| values.iter().map(|n| Value::Int64(*n)).collect::<Vec<_>>();
    let texts = |values: &[&str]| values.iter().map(|t| text(t)).collect::<Vec<_>>();
    let single = |x: f32| Value::Double(f64::from(x));
    vec![
        ("c_bool", "BOOLEAN", vec![Value::Bool(true), Value::Bool(false)]),
        ("c_small", "SMALLINT", ints(&[i16::MIN.into(), i16::MAX.into(), 0])),
        ("c_int", "INT", ints(&[i32::MIN.into(), i32::MAX.into()])),
        ("c_big", "BIGINT", ints(&[i64::MIN, i64::MAX, (1 << 53) + 1])),
        ("c_real", "REAL", [0.1, f32::MAX, f32::MIN_POSITIVE, 1e-45, -1.5, 16_777_217.0].map(single).to_vec()),
        ("c_double", "DOUBLE PRECISION", [0.1, -1e300, 5e-324, f64::MAX, 1.0, -0.5].map(Value::Double).to_vec()),
        (
            "c_decimal",
            "NUMERIC(12,2)",
            ["0.00", "-0.01", "9999999999.99", "-9999999999.99", "100.10"].map(decimal).to_vec(),
        ),
        (
            "c_wide",
            "NUMERIC(65,30)",
            [
                "12345678901234567890123456789012345.012345678901234567890123456789",
                "-0.000000000000000000000000000001",
                "1000000000000000000.000000000000000000000000000000",
            ]
            .map(decimal)
            .to_vec(),
        ),
        ("c_whole", "NUMERIC(20)", ["18446744073709551615", "-99999999999999999999", "0"].map(decimal).to_vec()),
        (
            "c_numeric",
            "NUMERIC",
            ["1.50", "-0.000", "0", "1e200", "0.1"]
                .map(|t| decimal(&t.replace("1e200", &format!("1{}", "0".repeat(200)))))
                .to_vec(),
        ),
        ("c_varchar", "VARCHAR(100)", texts(&["", " x ", "it's", "ß漢字🎉", "a\\b\"c\n\t", "123", "1.50", "NULL"])),
        ("c_text", "TEXT", texts(&["", "long ".repeat(2000).as_str(), "0012", "'; DROP TABLE x; --", "$1 ? \u{1}"])),
        ("c_char", "CHAR(4)", texts(&["ab", "äöü!", "", " x", "ab  "])),
        ("c_blob", "BYTEA", vec![blob(&[]), blob(&[0, 255, 39, 92, 10]), blob(b"text"), blob(&vec![7; 100_000])]),
        ("c_varbinary", "BYTEA", vec![blob(&[0, 0, 1]), blob(b"12")]),
        (
            "c_timestamp",
            "TIMESTAMPTZ",
            ["2024-02-29T23:59:59.123456Z", "0001-01-01T00:00:00Z", "9999-12-30T21:59:59.999999Z"]
                .map(instant)
                .to_vec(),
        ),
        (
            "c_datetime",
            "TIMESTAMP",
            ["2024-02-29T23:59:59.123456", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "2024-03-31T02:30:00"]
                .map(civil)
                .to_vec(),
        ),
        ("c_datetime0", "TIMESTAMP(0)", vec![civil("2024-02-29T23:59:59")]),
        (
            "c_date",
            "DATE",
            ["0001-01-01", "9999-12-31", "2024-02-29"].map(|d| Value::Date(d.parse().unwrap())).to_vec(),
        ),
        ("c_time", "TIME", ["00:00:00", "24:00:00", "23:59:59.999999", "10:20:30.5"].map(time).to_vec()),
        ("c_time0", "TIME(0)", ["10:20:30"].map(time).to_vec()),
        ("c_uuid", "UUID", texts(&["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{00000000-0000-0000-0000-00000000000A}"])),
        ("c_enum", "mood", texts(&["so so", "it's", "Ärger"])),
        (
            "c_inet",
            "INET",
            texts(&["10.0.0.1", "10.0.0.1/8", "2001:DB8::1", "::ffff:1.2.3.4", "::1:2", "::", "2001:db8::/32"]),
        ),
        (
            "c_json",
            "JSON",
            [r#"{"b":[1, 2.50,null] , "a":1}"#, "1.50", "12345678901234567890", "-0", "true", r#""\u00e9""#]
                .map(json)
                .to_vec(),
        ),
        (
            "c_jsonb",
            "JSONB",
            [
                r#"{"b":[1, 2.50,null] , "a":1, "aa": {}, "b": 2}"#,
                "1.50e1",
                "12345678901234567890.10",
                "-0",
                "1e-7",
                "0.0e1",
                r#""\u00e9\u001f\b\/\ud83c\udf89""#,
                "[ ]",
            ]
            .map(json)
            .to_vec(),
        ),
    ]
}

async fn make_types(h: &Harness) {
    if h.is_postgres() {
        h.sql("CREATE TYPE mood AS ENUM ('so so', 'it''s', 'Ärger')").await;
    }
}

async fn every_type_comes_back_as_it_went_in(h: Harness) {
    make_types(&h).await;
    let columns = columns(&h);
    for guard in GUARDS {
        let table = format!("types_{guard:?}").to_lowercase();
        let declared: Vec<String> = columns.iter().map(|(name, ty, _)| format!("{name} {ty}")).collect();
        let create = format!("CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, {})", declared.join(", "));
        let schema = h.table(&table, &create, guard).await;
        let most = columns.iter().map(|(_, _, values)| values.len()).max().unwrap_or_default();
        let rows: Vec<Row> = (0..=most)
            .map(|n| {
                let mut row = row([("id", Value::Int64(n as i64))]);
                for (name, _, values) in &columns {
                    // The last row is all NULL.
                    let value = if n == most { Value::Null } else { values[n % values.len()].clone() };
                    row.insert(model::ColumnName::new(name).unwrap(), value);
                }
                // What the services would store: so the test can't ask for more than what is accepted.
                schema.accept_row(row, moment(Timestamp::UNIX_EPOCH)).unwrap()
            })
            .collect();
        // Once inserted, once over another row.
        let inserted: Vec<_> = rows.iter().map(|row| put_row(&schema, row.clone(), 10)).collect();
        assert_eq!(h.apply(&schema, &inserted).await.unwrap(), vec![Applied::Written; rows.len()]);
        all_there(&h, &schema, &rows, 10).await;
        let turned: Vec<Row> = (0..rows.len())
            .map(|n| {
                let mut row = rows[(n + 1) % rows.len()].clone();
                row.insert(model::ColumnName::new("id").unwrap(), Value::Int64(n as i64));
                row
            })
            .collect();
        let updated: Vec<_> = turned.iter().map(|row| put_row(&schema, row.clone(), 20)).collect();
        assert_eq!(h.apply(&schema, &updated).await.unwrap(), vec![Applied::Written; rows.len()]);
        all_there(&h, &schema, &turned, 20).await;
        // The current row of a stale change comes the same way.
        let stale = h.apply(&schema, &inserted).await.unwrap();
        let expected: Vec<_> = turned.iter().map(|row| Applied::Stale { current: present(20, row.clone()) }).collect();
        assert_eq!(stale, expected);
    }
}

async fn all_there(h: &Harness, schema: &TableSchema, rows: &[Row], number: u64) {
    let keys: Vec<Key> = rows.iter().map(|row| schema.key_of(row).unwrap()).collect();
    let read = h.database.read(schema, &keys).await.unwrap();
    for (read, row) in read.into_iter().zip(rows) {
        let DatabaseRow::Present { version, row: read } = read else { panic!("{read:?}") };
        assert_eq!(version.get(), number);
        for ((name, read), (_, written)) in read.iter().zip(row.iter()) {
            assert_eq!(read, written, "{name}");
        }
        assert_eq!(read, *row);
    }
}

async fn every_type_of_key_finds_its_row(h: Harness) {
    make_types(&h).await;
    let columns = columns(&h);
    let usable = [
        "c_bool",
        "c_big",
        "c_ubig",
        "c_decimal",
        "c_wide",
        "c_varchar",
        "c_varbinary",
        "c_timestamp",
        "c_datetime",
        "c_date",
        "c_time",
        // Of PostgreSQL alone.
        "c_small",
        "c_int",
        "c_char",
        "c_uuid",
        "c_enum",
        "c_inet",
    ];
    // MySQL has them as well, and another idea of them.
    let usable = if h.is_postgres() { &usable[..] } else { &usable[..11] };
    for (name, ty, values) in columns.into_iter().filter(|(name, _, _)| usable.contains(name)) {
        let ty = ty.trim_end_matches(" NULL");
        for composite in [false, true] {
            let table = format!("k{name}_{composite}");
            let more = if composite { ", part BIGINT NOT NULL" } else { "" };
            let key = if composite { format!("part, {name}") } else { name.to_owned() };
            let collate = if name == "c_varchar" { h.of(" COLLATE utf8mb4_bin", "", "") } else { "" };
            let create = format!(
                "CREATE TABLE {table} ({name} {ty}{collate} NOT NULL, n BIGINT NULL{more}, PRIMARY KEY ({key}))"
            );
            let schema = h.table(&table, &create, VersionGuard::Column).await;
            let mut rows: Vec<Row> = Vec::new();
            for (n, value) in values.iter().enumerate() {
                let mut row = row([(name, value.clone()), ("n", Value::Int64(n as i64))]);
                if composite {
                    row.insert(model::ColumnName::new("part").unwrap(), Value::Int64(7));
                }
                // Two forms of one key are one.
                let row = schema.accept_row(row, moment(Timestamp::UNIX_EPOCH)).unwrap();
                if !rows.iter().any(|other| schema.key_of(other) == schema.key_of(&row)) {
                    rows.push(row);
                }
            }
            for number in [10, 20] {
                let changes: Vec<_> = rows.iter().map(|row| put_row(&schema, row.clone(), number)).collect();
                let applied = h.apply(&schema, &changes).await.unwrap_or_else(|error| panic!("{table}: {error}"));
                assert_eq!(applied, vec![Applied::Written; rows.len()], "{table}");
                let applied = h.apply(&schema, &changes).await.unwrap();
                assert_eq!(applied, vec![Applied::Same; rows.len()], "{table}");
                all_there(&h, &schema, &rows, number).await;
            }
            let gone: Vec<_> = rows
                .iter()
                .map(|row| change(&schema, schema.key_of(row).unwrap(), 30, model::Content::Tombstone))
                .collect();
            assert_eq!(h.apply(&schema, &gone).await.unwrap(), vec![Applied::Written; rows.len()], "{table}");
            assert_eq!(h.number(&format!("SELECT count(*) FROM {table}")).await, Some(0), "{table}");
        }
    }
}

async fn what_somebody_else_wrote_is_read(h: Harness) {
    let create = "CREATE TABLE theirs (id BIGINT NOT NULL PRIMARY KEY, d DECIMAL(10,3) NULL, at DATETIME(6) NULL, \
                  ts TIMESTAMP(6) NULL, day DATE NULL, t TIME NULL, x DOUBLE NULL, b BOOLEAN NULL)";
    let schema = h.table("theirs", &h.ddl(create), VersionGuard::Ledger).await;
    h.sql(
        "INSERT INTO theirs VALUES (1, 1.5, '2024-01-02 03:04:05', '2024-01-02 03:04:05.25', '2024-01-02', '10:20:30', 3, TRUE)",
    )
    .await;
    let expected = row([
        ("id", Value::Int64(1)),
        ("d", decimal("1.500")),
        ("at", civil("2024-01-02T03:04:05")),
        ("ts", instant("2024-01-02T03:04:05.25Z")),
        ("day", Value::Date("2024-01-02".parse().unwrap())),
        ("t", time("10:20:30")),
        ("x", Value::Double(3.0)),
        ("b", Value::Bool(true)),
    ]);
    assert_eq!(h.read(&schema, &Key(vec![Value::Int64(1)])).await, present(0, expected));
    if h.is_sqlite() {
        h.sql(
            "INSERT INTO theirs (id, d, at, ts) VALUES (2, '1000000', '2024-01-02T03:04', '2024-01-02T05:04:05+02:00')",
        )
        .await;
        let DatabaseRow::Present { row, .. } = h.read(&schema, &Key(vec![Value::Int64(2)])).await else { panic!() };
        assert_eq!(row.get("d"), Some(&decimal("1000000.000")));
        assert_eq!(row.get("at"), Some(&civil("2024-01-02T03:04:00")));
        assert_eq!(row.get("ts"), Some(&instant("2024-01-02T03:04:05Z")));
    }
}

async fn what_can_not_be_read_is_said(h: Harness) {
    if h.is_postgres() {
        return what_postgres_holds_and_we_do_not_is_said(h).await;
    }
    let create = "CREATE TABLE odd (id BIGINT NOT NULL PRIMARY KEY, b BOOLEAN NULL, at DATETIME NULL)";
    let schema = h.table("odd", create, VersionGuard::Ledger).await;
    let mut theirs = h.somebody_else().await;
    theirs.run(h.of("SET SESSION sql_mode = ''", "", "SELECT 1")).await;
    theirs.run("INSERT INTO odd VALUES (1, 7, NULL)").await;
    theirs.run("INSERT INTO odd VALUES (2, NULL, '0000-00-00 00:00:00')").await;
    for (key, column) in [(1, "column b"), (2, "column at")] {
        let error = h.database.read(&schema, &[Key(vec![Value::Int64(key)])]).await.unwrap_err();
        assert!(error.to_string().contains(column), "{error}");
        assert!(error.is_unreadable(), "{error}");
    }
}

async fn what_postgres_holds_and_we_do_not_is_said(h: Harness) {
    let columns = [
        ("n", "NUMERIC", "NaN"),
        ("d", "NUMERIC(5,2)", "NaN"),
        ("x", "DOUBLE PRECISION", "-Infinity"),
        ("r", "REAL", "NaN"),
        ("ts", "TIMESTAMPTZ", "infinity"),
        ("at", "TIMESTAMP", "0044-03-15 00:00:00 BC"),
        ("day", "DATE", "10000-01-01"),
    ];
    let declared: Vec<String> = columns.iter().map(|(name, ty, _)| format!("{name} {ty} NULL")).collect();
    let create = format!("CREATE TABLE odd (id BIGINT NOT NULL PRIMARY KEY, {})", declared.join(", "));
    let schema = h.table("odd", &create, VersionGuard::Ledger).await;
    for (id, (name, _, value)) in columns.into_iter().enumerate() {
        h.sql(&format!("INSERT INTO odd (id, {name}) VALUES ({id}, '{value}')")).await;
        let error = h.database.read(&schema, &[Key(vec![Value::Int64(id as i64)])]).await.unwrap_err();
        assert!(error.to_string().contains(&format!("column {name}")), "{error}");
        assert!(error.is_unreadable(), "{error}");
    }
}

async fn the_version_of_what_can_not_be_read_is_found_by_its_key(h: Harness) {
    for (guard, table) in [(VersionGuard::Ledger, "odd_ledger"), (VersionGuard::Column, "odd_column")] {
        let truth = ("BOOLEAN", Value::Bool(true), "7");
        let (ty, good, bad) = h.of(truth.clone(), ("REAL", Value::Double(1.0), "'NaN'"), truth);
        let create = format!("CREATE TABLE {table} (b {ty} NULL, id BIGINT NOT NULL PRIMARY KEY)");
        let schema = h.table(table, &create, guard).await;
        let key = Key(vec![Value::Int64(1)]);
        let of_row = row([("id", Value::Int64(1)), ("b", good)]);
        h.apply_one(&schema, put_row(&schema, of_row, 7)).await;
        h.somebody_else().await.run(&format!("UPDATE {table} SET b = {bad}")).await;
        assert!(h.database.read(&schema, std::slice::from_ref(&key)).await.unwrap_err().is_unreadable());
        let keys_only = TableSchema { columns: schema.key().cloned().collect(), key_columns: vec![0], ..schema };
        assert_eq!(h.read(&keys_only, &key).await, present(7, row([("id", Value::Int64(1))])), "{guard:?}");
    }
}

/// What is accepted is stored in the hot store as it is accepted, so that must be what the server makes of it.
mod as_the_server_has_it {
    use super::*;
    use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

    on_postgres!(what_is_accepted_is_what_the_server_makes_of_it);

    fn documents() -> BoxedStrategy<String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?",
            "\"([a-zA-Z ä漢'\u{7f}]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-f]{4}|🎉){0,6}\"",
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            let member =
                ("\"(a|b|aa|ä|\\\\u0061|)\"", inner.clone()).prop_map(|(name, value)| format!("{name} :{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
                prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(", "))),
            ]
        })
        .boxed()
    }

    async fn what_is_accepted_is_what_the_server_makes_of_it(h: Harness) {
        // How the server is asked, what is tried, and whether we take all that it takes.
        let columns: [(&str, &str, &str, BoxedStrategy<String>, bool); 7] = [
            ("j", "JSONB", "{}::jsonb::text", documents(), true),
            ("broken", "JSONB", "{}::jsonb::text", "(\\[|\\]|\\{|\\}|\"a\"|\"|,|:|0|1|7\\.|e|-|\\+|\\\\| |true|null){0,5}".boxed(), true),
            ("n", "NUMERIC", "{}::numeric::text", "-?[0-9]{1,30}(\\.[0-9]{1,30})?".boxed(), true),
            ("d", "NUMERIC(6,2)", "{}::numeric(6,2)::text", "-?[0-9]{1,5}(\\.[0-9]{1,2})?".boxed(), true),
            ("i", "INET", "abbrev({}::inet)", "([0-9]{1,3}(\\.[0-9]{1,3}){3}|([0-9a-fA-F]{0,4}:){2,7}[0-9a-f]{0,4}|::([0-9a-f]{1,4}:)?[0-9a-f]{1,4})(/[0-9]{1,3})?".boxed(), false),
            ("u", "UUID", "{}::uuid::text", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-F]{31,33}".boxed(), false),
            ("c", "CHAR(4)", "rpad({}::text::varchar(4), 4)", "[a-zä ]{0,4}".boxed(), true),
        ];
        let declared: Vec<String> = columns.iter().map(|(name, ty, ..)| format!("{name} {ty} NULL")).collect();
        let create = format!("CREATE TABLE asked (id BIGINT NOT NULL PRIMARY KEY, {})", declared.join(", "));
        let schema = h.table("asked", &create, VersionGuard::Ledger).await;
        let (mut theirs, mut runner) = (h.somebody_else().await, TestRunner::deterministic());
        for (name, ty, ask, tried, takes_all) in columns {
            let column = schema.column(name).unwrap();
            let mut taken = 0;
            for _ in 0..250 {
                let given = tried.new_tree(&mut runner).unwrap().current();
                let value = match column.ty.kind() {
                    model::ValueKind::Json => json(&given),
                    model::ValueKind::Decimal => decimal(&given),
                    _ => text(&given),
                };
                let quoted = format!("'{}'", given.replace('\'', "''"));
                let server = theirs.try_text(&format!("SELECT {}", ask.replace("{}", &quoted))).await;
                match (column.accept(value), server) {
                    (Ok(Value::Json(ours) | Value::Decimal(ours) | Value::Text(ours)), Ok(server)) => {
                        taken += 1;
                        assert_eq!(Some(ours), server, "{ty} {given:?}");
                    }
                    (Err(_), Err(_)) => {}
                    (Err(violation), Ok(_)) => assert!(!takes_all, "{ty} {given:?}: {violation}"),
                    (ours, server) => panic!("{ty} {given:?}: {ours:?}, the server says {server:?}"),
                }
            }
            assert!(taken > 5, "{name}: the test is about what is taken");
        }
    }
}
