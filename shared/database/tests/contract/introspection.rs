//! Tables as they are found in the database.

use database::{Database, DatabaseError};
use jiff::{Timestamp, civil};
use model::{ColumnDefault, ColumnType, Row, Value, VersionGuard};

use crate::harness::*;

on_every_sql_database!(
    a_table_is_seen_as_it_is,
    a_table_that_others_made_anew_gets_its_version_column_anew,
    what_can_not_be_carried_is_refused_with_the_reason,
    a_foreign_key_is_carried_unless_it_changes_rows_by_itself,
    tables_are_listed_without_ours,
    a_default_is_what_the_database_would_have_written,
    a_version_column_that_may_be_null_is_refused,
);

async fn a_table_is_seen_as_it_is(h: Harness) {
    let create = "CREATE TABLE seen (tenant VARCHAR(20) NOT NULL, at DATETIME(3) NOT NULL, id BIGINT NOT NULL, \
                  note TEXT NULL, PRIMARY KEY (id, tenant))";
    h.sql(&h.ddl(create)).await;
    let schema = h.introspect("seen").await.unwrap();
    let names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["tenant", "at", "id", "note"]);
    assert_eq!(schema.key_columns, [2, 0], "in the key's order");
    assert_eq!(schema.group, [0, 1], "all of the key");
    assert!(!schema.has_secondary_unique);
    assert_eq!(schema.guard, VersionGuard::Ledger);
    let whole = ColumnType::Text { max_chars: Some(20), max_bytes: None };
    let collated = ColumnType::Collated {
        repertoire: model::Repertoire::Unicode,
        collation: model::Collation { equality: model::Equality::IgnoringCase, pads: true },
        max_chars: Some(20),
        max_bytes: None,
        is_trimmed: false,
    };
    let text = h.of(collated, ColumnType::Characters { max_chars: Some(20) }, whole);
    assert_eq!(schema.columns[0].ty, text);
    assert_eq!(schema.columns[1].ty, ColumnType::DateTime { fraction: 3 });
    assert_eq!(schema.columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(h.introspect("missing").await, Err(DatabaseError::NoSuchTable(name("missing"))));
    h.sql("CREATE INDEX plain ON seen (note(10))".replace("(10)", h.of("(10)", "", "")).as_str()).await;
    assert!(!h.introspect("seen").await.unwrap().has_secondary_unique, "not every index is unique");
    h.sql("CREATE UNIQUE INDEX one ON seen (at)").await;
    assert!(h.introspect("seen").await.unwrap().has_secondary_unique);
    h.database.add_version_column(&name("seen")).await.unwrap();
    let schema = h.introspect("seen").await.unwrap();
    assert_eq!((schema.guard, schema.columns.len()), (VersionGuard::Column, 4));
    if !h.is_sqlite() {
        // Who inserts without naming columns is not disturbed.
        h.sql("INSERT INTO seen VALUES ('t', '2024-01-01', 1, NULL)").await;
    }
    let missing = h.database.add_version_column(&name("missing")).await;
    assert_eq!(missing, Err(DatabaseError::NoSuchTable(name("missing"))));
}

/// A connection may remember the table as it was: one that only looked at it does, in SQLite.
async fn a_table_that_others_made_anew_gets_its_version_column_anew(h: Harness) {
    let on_one_connection = h.another(|options| options.pool = 1).await;
    for adds in [&h.database, &on_one_connection] {
        h.sql("CREATE TABLE anew (id BIGINT NOT NULL PRIMARY KEY)").await;
        adds.add_version_column(&name("anew")).await.unwrap();
        let seen = on_one_connection.introspect(&main_database(), &name("anew")).await.unwrap();
        assert_eq!(seen.guard, VersionGuard::Column);
        h.sql("DROP TABLE anew").await;
    }
}

async fn what_can_not_be_carried_is_refused_with_the_reason(h: Harness) {
    let both = [
        ("CREATE TABLE x (id BIGINT NOT NULL, n BIGINT NULL)", "primary key"),
        ("CREATE TABLE x (id DOUBLE NOT NULL PRIMARY KEY)", "another type"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY, g BIGINT GENERATED ALWAYS AS (id + 1) STORED)", "generated"),
        ("CREATE VIEW x AS SELECT 1 AS id", "view"),
    ];
    let mysql = [
        ("CREATE TABLE x (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY)", "MODIFY id bigint"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY, n INT NOT NULL UNIQUE AUTO_INCREMENT)", "MODIFY n int"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY, e POINT)", "point"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY) ENGINE = MyISAM", "InnoDB"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY, e FLOAT(7,2))", "float(7,2)"),
        ("CREATE TABLE x (id FLOAT NOT NULL PRIMARY KEY)", "exactly"),
        ("CREATE TABLE x (id DOUBLE UNSIGNED NOT NULL PRIMARY KEY)", "exactly"),
        ("CREATE TABLE x (id TEXT NOT NULL, PRIMARY KEY (id(10)))", "beginning"),
    ];
    let sqlite = [
        ("CREATE TABLE x (id INTEGER PRIMARY KEY AUTOINCREMENT)", "without the word"),
        ("CREATE TABLE x (id TEXT NOT NULL PRIMARY KEY, e STRING)", "STRING"),
        ("CREATE TABLE x (id TEXT NOT NULL PRIMARY KEY, e)", "declared"),
    ];
    let of_a_key = |column: &str| format!("CREATE TABLE x (id {column} NOT NULL PRIMARY KEY)");
    let with = |column: &str| format!("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY, c {column})");
    let postgres = [
        (of_a_key("BIGINT GENERATED BY DEFAULT AS IDENTITY"), "DROP IDENTITY"),
        (of_a_key("BIGSERIAL"), "DROP DEFAULT"),
        (with("BIGINT GENERATED ALWAYS AS IDENTITY"), "DROP IDENTITY"),
        (with("SERIAL"), "DROP DEFAULT"),
        (of_a_key("NUMERIC"), "NUMERIC(p, s)"),
        (of_a_key("REAL"), "another type"),
        (of_a_key("JSONB"), "another type"),
        (with("INTERVAL"), "seconds"),
        (with("TIMETZ"), "TIMESTAMP"),
        (with("MONEY"), "NUMERIC"),
        (with("JSONB[]"), "JSONB"),
        (of_a_key("INT[]"), "another type"),
        (with("BIT(3)"), "BYTEA"),
        (with("XML"), "TEXT"),
        (with("POINT"), "use one of"),
        (with("INT4RANGE"), "use one of"),
        ("CREATE DOMAIN d AS POINT; ".to_owned() + &with("d"), "use one of"),
        ("CREATE DOMAIN n AS INT; ".to_owned() + &with("n[]"), "use one of"),
        ("CREATE TYPE r AS (n INT); ".to_owned() + &with("r"), "use one of"),
        (with("NAME"), "use one of"),
        (with("NUMERIC(3, -2)"), "scale"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY DEFERRABLE)".to_owned(), "DEFERRABLE"),
        ("CREATE UNLOGGED TABLE x (id BIGINT NOT NULL PRIMARY KEY)".to_owned(), "LOGGED"),
        ("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY) PARTITION BY HASH (id)".to_owned(), "partitioned"),
        (of_a_key("BIGINT") + "; CREATE TABLE y (m BIGINT) INHERITS (x)", "INHERITS"),
        (of_a_key("BIGINT") + "; CREATE RULE r AS ON INSERT TO x DO INSTEAD NOTHING", "rules"),
    ];
    let postgres: Vec<_> = postgres.iter().map(|(create, reason)| (create.as_str(), *reason)).collect();
    let own: &[_] = h.of(&mysql, &postgres, &sqlite);
    for (create, reason) in both.iter().chain(own) {
        h.sql(&h.ddl(create)).await;
        match h.introspect("x").await {
            Err(DatabaseError::Unsupported { reason: told, .. }) => assert!(told.contains(reason), "{create}: {told}"),
            other => panic!("{create}: {other:?}"),
        }
        let cascade = h.of("", " CASCADE", "");
        h.sql(&format!("DROP {} x{cascade}", if create.contains("VIEW") { "VIEW" } else { "TABLE" })).await;
    }
}

async fn a_foreign_key_is_carried_unless_it_changes_rows_by_itself(h: Harness) {
    h.sql("CREATE TABLE parent (id BIGINT NOT NULL PRIMARY KEY)").await;
    let rules = [
        ("", true),
        ("ON DELETE RESTRICT ON UPDATE NO ACTION", true),
        ("ON DELETE CASCADE", false),
        ("ON DELETE SET NULL", false),
        ("ON UPDATE CASCADE", false),
    ];
    for (rule, is_carried) in rules {
        h.sql(&format!(
            "CREATE TABLE child (id BIGINT NOT NULL PRIMARY KEY, parent BIGINT NULL, \
             FOREIGN KEY (parent) REFERENCES parent (id) {rule})"
        ))
        .await;
        match h.introspect("child").await {
            Ok(_) => assert!(is_carried, "{rule}"),
            Err(DatabaseError::Unsupported { reason, .. }) => {
                assert!(!is_carried && reason.contains("foreign key"), "{rule}: {reason}");
            }
            other => panic!("{rule}: {other:?}"),
        }
        assert!(h.introspect("parent").await.is_ok(), "its own rows are changed by nobody");
        h.sql("DROP TABLE child").await;
    }
}

async fn tables_are_listed_without_ours(h: Harness) {
    h.items(VersionGuard::Column).await;
    h.items(VersionGuard::Ledger).await;
    h.sql("CREATE VIEW seen AS SELECT 1 AS id").await;
    assert_eq!(h.database.list_tables().await.unwrap(), [name("items_column"), name("items_ledger")]);
}

async fn a_default_is_what_the_database_would_have_written(h: Harness) {
    let create = format!(
        "CREATE TABLE defaults (id BIGINT NOT NULL PRIMARY KEY, t VARCHAR(20) NOT NULL DEFAULT 'it''s', \
         e VARCHAR(20) NULL, n BIGINT NOT NULL DEFAULT -5, b BOOLEAN NOT NULL DEFAULT TRUE, \
         d DECIMAL(12,2) NOT NULL DEFAULT 1.5, x DOUBLE NOT NULL DEFAULT 0.25, \
         at DATETIME NOT NULL DEFAULT '2024-02-03 04:05:06', day DATE NOT NULL DEFAULT '2024-02-03', \
         made {} NOT NULL DEFAULT {}{})",
        h.of("DATETIME(6)", "DATETIME(6)", "DATETIME"),
        h.of("CURRENT_TIMESTAMP(6)", "CURRENT_TIMESTAMP(6)", "CURRENT_TIMESTAMP"),
        h.of(", changed TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP", "", ""),
    );
    let schema = h.table("defaults", &h.ddl(&create), VersionGuard::Ledger).await;
    let now: Timestamp = "2025-01-02T03:04:05.678901Z".parse().unwrap();
    let ours = schema.accept_row(row([("id", Value::Int64(1))]), moment(now)).unwrap();
    h.sql("INSERT INTO defaults (id) VALUES (1)").await;
    let database::DatabaseRow::Present { row: theirs, .. } = h.read(&schema, &model::Key(vec![Value::Int64(1)])).await
    else {
        panic!("no row")
    };
    let constants = |row: &Row| -> Row {
        row.iter()
            .filter(|(name, _)| !["made", "changed"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    assert_eq!(constants(&ours), constants(&theirs));
    assert_eq!(ours.get("made"), Some(&Value::DateTime(civil::date(2025, 1, 2).at(3, 4, 5, 678_901_000))));
    assert_eq!(schema.column("made").unwrap().default, ColumnDefault::CurrentTimestamp);
    if h.is_mysql() {
        assert!(schema.column("changed").unwrap().on_update_now);
        assert!(!schema.column("made").unwrap().on_update_now);
        assert_eq!(ours.get("changed"), Some(&Value::Timestamp("2025-01-02T03:04:05Z".parse().unwrap())));
    }
}

async fn a_version_column_that_may_be_null_is_refused(h: Harness) {
    h.sql("CREATE TABLE x (id BIGINT NOT NULL PRIMARY KEY, _sa_version BIGINT NULL DEFAULT 0)").await;
    match h.introspect("x").await {
        Err(DatabaseError::Unsupported { reason, .. }) => assert!(reason.contains("NULL"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
