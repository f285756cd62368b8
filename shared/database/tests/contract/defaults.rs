//! Defaults: what is filled in here is what the server would have filled in, or it must be given.

use database::DatabaseRow;
use jiff::Timestamp;
use model::{ColumnDefault, Key, TableSchema, Value, VersionGuard, ViolationReason};

use crate::harness::*;

on_mysql!(what_is_filled_in_is_what_the_server_would_have, what_only_the_server_knows_must_be_given);
on_postgres!(what_is_filled_in_is_what_postgresql_would_have, what_only_postgresql_knows_must_be_given);

fn empty(schema: &TableSchema, id: i64, now: Timestamp) -> model::Row {
    schema.accept_row(row([("id", Value::Int64(id))]), moment(now)).unwrap()
}

async fn what_is_filled_in_is_what_the_server_would_have(h: Harness) {
    let is_mariadb = h.server().await == "MariaDB";
    let constants = [
        ("BOOLEAN", "TRUE"),
        ("TINYINT", "-128"),
        ("BIGINT UNSIGNED", "18446744073709551615"),
        ("BIT(5)", "b'101'"),
        ("DECIMAL(65,30)", "1.5"),
        ("DECIMAL(5,2) UNSIGNED", "1.5"),
        ("DOUBLE", "1e100"),
        ("DOUBLE", "0.1"),
        ("FLOAT", "0.1"),
        ("CHAR(4)", "'a '"),
        ("VARCHAR(30)", "'it''s \\\\ \"x\" äöü'"),
        ("VARCHAR(30)", "'NULL'"),
        ("VARCHAR(30)", "'CURRENT_TIMESTAMP'"),
        ("VARCHAR(30)", "''"),
        ("VARCHAR(3) CHARACTER SET latin1", "'é'"),
        ("ENUM('a','it''s')", "'it''s'"),
        ("SET('x','y')", "'y,x'"),
        ("YEAR", "2024"),
        ("DATE", "'2024-02-29'"),
        ("DATETIME(3)", "'2024-02-29 23:59:59.123'"),
        ("TIME(6)", "'-838:59:59'"),
        ("JSON", "('{\"b\":1, \"a\":2.50}')"),
    ];
    let of_mariadb = [
        ("TIMESTAMP(6)", "'2024-02-29 23:59:59.5'"),
        ("BINARY(4)", "'ab'"),
        ("VARBINARY(4)", "'ab'"),
        ("TEXT", "'long'"),
        ("UUID", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
        ("INET6", "'::1'"),
    ];
    let more: &[_] = if is_mariadb { &of_mariadb } else { &[("TEXT", "('long')")] };
    let constants: Vec<_> = constants.iter().chain(more).collect();
    let columns: Vec<String> =
        constants.iter().enumerate().map(|(n, (ty, default))| format!("c{n} {ty} NULL DEFAULT {default}")).collect();
    // A default of TIMESTAMP means an instant in the time zone of whoever makes the table.
    let create = format!(
        "SET SESSION time_zone = '+05:00'; CREATE TABLE d (id BIGINT NOT NULL PRIMARY KEY, {}, \
         n INT NULL, made DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), \
         at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), day DATE NULL DEFAULT {}, \
         u VARCHAR(36) NOT NULL DEFAULT {})",
        columns.join(", "),
        if is_mariadb { "CURDATE()" } else { "(CURDATE())" },
        if is_mariadb { "UUID()" } else { "(UUID())" },
    );
    let schema = h.table("d", &create, VersionGuard::Ledger).await;
    is_as_the_server_fills_it_in(&h, &schema, &constants).await;
    assert!(schema.column("made").unwrap().on_update_now);
}

async fn what_is_filled_in_is_what_postgresql_would_have(h: Harness) {
    crate::corpus::declare_types(&h).await;
    h.sql("CREATE DOMAIN priced AS NUMERIC(5,2) DEFAULT 1.5").await;
    let constants = [
        ("BOOLEAN", "TRUE"),
        ("SMALLINT", "-5"),
        ("BIGINT", "9223372036854775807"),
        ("NUMERIC(12,2)", "1.5"),
        ("NUMERIC", "1.50"),
        ("DOUBLE PRECISION", "0.1"),
        ("REAL", "0.1"),
        ("CHAR(4)", "'a'"),
        ("VARCHAR(30)", "'it''s \\ \"x\" äöü🎉 ?'"),
        ("TEXT", "''"),
        ("public.citext", "'A'"),
        ("UUID", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
        ("INET", "'10.0.0.1/32'"),
        ("CIDR", "'10.0.0.0/8'"),
        ("JSONB", "'{\"b\":1, \"a\":2.50}'"),
        ("JSON", "'{\"b\":1, \"a\":2.50}'"),
        ("DATE", "'2024-02-29'"),
        ("TIMESTAMP(3)", "'2024-02-29 23:59:59.123'"),
        ("TIMESTAMPTZ", "'2024-02-29 23:59:59.5+05'"),
        ("TIME", "'23:59:59'"),
        ("BYTEA", "'\\x61ff'"),
        ("mood", "'it''s'"),
        ("code", "'abcd'"),
        ("TEXT[]", "'{}'"),
        ("mood[]", "'{}'"),
    ];
    let constants: Vec<_> = constants.iter().collect();
    let columns: Vec<String> =
        constants.iter().enumerate().map(|(n, (ty, default))| format!("c{n} {ty} NULL DEFAULT {default}")).collect();
    let create = format!(
        "CREATE TABLE d (id BIGINT NOT NULL PRIMARY KEY, {}, n INT NULL, p priced, \
         made TIMESTAMP(3) NOT NULL DEFAULT (now() AT TIME ZONE 'utc'), \
         at TIMESTAMPTZ NOT NULL DEFAULT now(), day DATE NULL DEFAULT CURRENT_DATE, \
         u TEXT NOT NULL DEFAULT gen_random_uuid()::text, v UUID DEFAULT gen_random_uuid())",
        columns.join(", "),
    );
    let schema = h.table("d", &create, VersionGuard::Ledger).await;
    is_as_the_server_fills_it_in(&h, &schema, &constants).await;
    let ours = empty(&schema, 3, Timestamp::now());
    assert_eq!(ours.get("p"), Some(&Value::Decimal("1.50".to_owned())), "of the domain");
    assert_eq!(schema.column("v").unwrap().default, ColumnDefault::Uuid);
}

async fn what_only_postgresql_knows_must_be_given(h: Harness) {
    for (ty, default) in [
        ("INT", "1 + 1"),
        ("TIMESTAMP", "now() + INTERVAL '1 day'"),
        ("VARCHAR(9)", "gen_random_uuid()::text"),
        ("INT[]", "ARRAY[1, 2]"),
        ("TEXT", "CURRENT_USER"),
    ] {
        h.sql(&format!("CREATE TABLE d (id BIGINT NOT NULL PRIMARY KEY, c {ty} NULL DEFAULT {default})")).await;
        let schema = h.introspect("d").await.unwrap();
        let refused = schema.accept_row(row([("id", Value::Int64(1))]), moment(Timestamp::now())).unwrap_err();
        assert_eq!(refused.len(), 1, "{ty} DEFAULT {default}: {refused:?}");
        assert!(refused[0].column == "c" && refused[0].reason == ViolationReason::MissingColumn, "{refused:?}");
        h.sql("DROP TABLE d").await;
    }
    // A domain may say that NULL is none of its values.
    h.sql("CREATE DOMAIN given AS INT NOT NULL; CREATE TABLE d (id BIGINT NOT NULL PRIMARY KEY, c given)").await;
    let schema = h.introspect("d").await.unwrap();
    let refused = schema.accept_row(row([("id", Value::Int64(1)), ("c", Value::Null)]), moment(Timestamp::now()));
    assert_eq!(refused.unwrap_err()[0].reason, ViolationReason::NotNullable);
}

/// Columns `c0`, `c1` and so on have these constants; `made`, `at` and `day` the time, and `u` a UUID.
async fn is_as_the_server_fills_it_in(h: &Harness, schema: &TableSchema, constants: &[&(&str, &str)]) {
    for (n, (ty, default)) in constants.iter().enumerate() {
        let told = &schema.column(&format!("c{n}")).unwrap().default;
        assert!(matches!(told, ColumnDefault::Constant(_)), "{ty} DEFAULT {default}: {told:?}");
    }
    let in_utc = h.of("SET SESSION time_zone = '+00:00'", "SET TimeZone = 'UTC'", "");
    h.sql(&format!("{in_utc}; INSERT INTO d (id) VALUES (1)")).await;
    let DatabaseRow::Present { row: theirs, .. } = h.read(schema, &Key(vec![Value::Int64(1)])).await else {
        panic!("no row")
    };
    let (ours, other) = (empty(schema, 1, Timestamp::now()), empty(schema, 2, Timestamp::now()));
    for (n, (ty, default)) in constants.iter().enumerate() {
        let name = format!("c{n}");
        assert_eq!(ours.get(&name), theirs.get(&name), "{ty} DEFAULT {default}");
    }
    assert_eq!(ours.get("n"), Some(&Value::Null));
    // The time of the write: the servers' clocks are one here.
    for name in ["made", "at", "day"] {
        assert_eq!(schema.column(name).unwrap().default, ColumnDefault::CurrentTimestamp, "{name}");
        let (ours, theirs) = (ours.get(name).unwrap(), theirs.get(name).unwrap());
        match (ours, theirs) {
            (Value::DateTime(a), Value::DateTime(b)) => assert!(a.duration_since(*b).as_secs().abs() < 600, "{a} {b}"),
            (Value::Timestamp(a), Value::Timestamp(b)) => {
                assert!(a.duration_since(*b).as_secs().abs() < 600, "{a} {b}")
            }
            (Value::Date(a), Value::Date(b)) => assert!(a.duration_since(*b).as_secs().abs() <= 86_400, "{a} {b}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let Some(Value::Text(uuid)) = ours.get("u") else { panic!("{ours:?}") };
    assert_eq!(uuid.len(), 36);
    assert_ne!(ours.get("u"), other.get("u"));
    // What was filled in comes back to the byte.
    for row in [ours, other] {
        let key = schema.key_of(&row).unwrap();
        h.apply_one(schema, put_row(schema, row.clone(), 10)).await;
        let DatabaseRow::Present { row: kept, .. } = h.read(schema, &key).await else { panic!("no row") };
        if key.0 == [Value::Int64(2)] {
            assert_eq!(kept, row);
        }
    }
}

async fn what_only_the_server_knows_must_be_given(h: Harness) {
    let is_mariadb = h.server().await == "MariaDB";
    let both = [
        ("INT", "(1 + 1)"),
        ("DATETIME", "(NOW() + INTERVAL 1 DAY)"),
        ("VARCHAR(9)", "(UUID())"),
        // A character beyond U+FFFF.
        ("VARCHAR(9)", "_utf8mb4 x'78f09f8e89'"),
        ("VARBINARY(9)", "x'00ff'"),
    ];
    let of_mysql = [("TIMESTAMP", "'2024-02-29 23:59:59'"), ("JSON", "(JSON_OBJECT())"), ("TEXT", "('ä')")];
    let more: &[_] = if is_mariadb { &[("TIME", "CURTIME()")] } else { &of_mysql };
    for (ty, default) in both.iter().chain(more) {
        h.sql(&format!("CREATE TABLE d (id BIGINT NOT NULL PRIMARY KEY, c {ty} NULL DEFAULT {default})")).await;
        let schema = h.introspect("d").await.unwrap();
        let refused = schema.accept_row(row([("id", Value::Int64(1))]), moment(Timestamp::now())).unwrap_err();
        assert_eq!(refused.len(), 1, "{ty} DEFAULT {default}: {refused:?}");
        assert!(refused[0].column == "c" && refused[0].reason == ViolationReason::MissingColumn, "{refused:?}");
        h.sql("DROP TABLE d").await;
    }
}
