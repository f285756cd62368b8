//! What the database's own errors are taken for. Each is caused for real.

use std::time::Duration;

use database::{AnyDatabase, Applied, Database, DatabaseError, DatabaseOptions, ErrorClass};
use model::{Row, TableSchema, Value, VersionGuard};

use crate::harness::*;

on_every_sql_database!(
    a_missing_parent_is_dependent,
    what_the_table_never_takes_is_permanent,
    a_table_that_is_not_what_it_was_is_schema,
    a_lock_held_by_somebody_else_is_contended,
    a_url_that_can_not_be_used,
);

async fn refused(h: &Harness, schema: &TableSchema, row: Row) -> DatabaseError {
    match h.apply(schema, &[put_row(schema, row.clone(), 50)]).await {
        Err(error) => error,
        Ok(applied) => panic!("{row:?} was accepted: {applied:?}"),
    }
}

fn code(error: &DatabaseError) -> &str {
    if let DatabaseError::Statement { code, .. } = error { code } else { "" }
}

async fn a_missing_parent_is_dependent(h: Harness) {
    h.sql("CREATE TABLE parent (id BIGINT NOT NULL PRIMARY KEY)").await;
    let child = h
        .table(
            "child",
            "CREATE TABLE child (id BIGINT NOT NULL PRIMARY KEY, parent BIGINT NULL, \
             FOREIGN KEY (parent) REFERENCES parent (id))",
            VersionGuard::Column,
        )
        .await;
    h.database.add_version_column(&name("parent")).await.unwrap();
    let parent = h.introspect("parent").await.unwrap();
    h.own(&parent).await;
    let of = |id: i64| row([("id", Value::Int64(1)), ("parent", Value::Int64(id))]);
    let error = refused(&h, &child, of(5)).await;
    assert_eq!(error.class(), ErrorClass::Dependent, "{error}");
    h.apply_one(&parent, put_row(&parent, row([("id", Value::Int64(5))]), 10)).await;
    assert_eq!(h.apply_one(&child, put_row(&child, of(5), 10)).await, Applied::Written);
    let gone = change(&parent, model::Key(vec![Value::Int64(5)]), 20, model::Content::Tombstone);
    let error = h.apply(&parent, &[gone]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Dependent, "{error}");
}

async fn what_the_table_never_takes_is_permanent(h: Harness) {
    let create = "CREATE TABLE strict (id BIGINT NOT NULL PRIMARY KEY, small TINYINT NULL, short VARCHAR(3) NULL, \
                  full BIGINT NOT NULL, positive BIGINT NULL CHECK (positive > 0), at DATETIME NULL, amount DECIMAL(5,2) NULL)";
    let create = create.replace("full", "filled");
    let schema = h.table("strict", &create, VersionGuard::Column).await;
    let good = || row([("id", Value::Int64(1)), ("filled", Value::Int64(1))]);
    let with = |column: &str, value: Value| good().merged_with(row([(column, value)]));
    let mut cases = vec![
        (with("filled", Value::Null), ["1048", "1299"]),
        (with("positive", Value::Int64(-1)), ["4025|3819", "275"]),
    ];
    if h.is_mysql() {
        cases.push((with("small", Value::Int64(1000)), ["1264", ""]));
        cases.push((with("short", text("too long")), ["1406", ""]));
        cases.push((with("at", text("secret")), ["1292", ""]));
        cases.push((with("amount", Value::Decimal("12345.00".to_owned())), ["1264", ""]));
        cases.push((with("small", text("secret")), ["1366", ""]));
    }
    for (row, codes) in cases {
        let error = refused(&h, &schema, row).await;
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(codes[usize::from(!h.is_mysql())].split('|').any(|expected| expected == code(&error)), "{error}");
    }
    let trigger = h.either(
        "CREATE TRIGGER no BEFORE INSERT ON strict FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'",
        "CREATE TRIGGER no BEFORE INSERT ON strict BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    h.sql(trigger).await;
    let error = refused(&h, &schema, good()).await;
    assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    assert_eq!(h.number("SELECT count(*) FROM strict").await, Some(0));
    assert_eq!(h.number("SELECT max(high_water) FROM _sa_shard").await, Some(0), "all of it was undone");
}

async fn a_table_that_is_not_what_it_was_is_schema(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    let extra = item("a", 1).merged_with(row([("unheard", Value::Null)]));
    let error = refused(&h, &schema, extra).await;
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    h.sql("ALTER TABLE items_column DROP COLUMN note").await;
    let error = refused(&h, &schema, item("a", 1)).await;
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    let error = h.database.read(&schema, &[id("a")]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    h.sql("DROP TABLE items_column").await;
    let error = refused(&h, &schema, item("a", 1)).await;
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    if h.is_mysql() {
        let schema = h.items(VersionGuard::Ledger).await;
        h.sql("ALTER TABLE items_ledger ADD COLUMN needed BIGINT NOT NULL").await;
        let error = refused(&h, &schema, item("a", 1)).await;
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, "1364"), "{error}");
    }
}

async fn a_lock_held_by_somebody_else_is_contended(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    h.apply_one(&schema, put(&schema, "a", 10)).await;
    let impatient = h.another(|options| options.lock_timeout = Duration::from_secs(1)).await;
    let cut_off = h.another(|options| options.statement_timeout = Duration::from_millis(300)).await;
    let mut theirs = h.somebody_else().await;
    theirs.run(h.either("BEGIN", "BEGIN IMMEDIATE")).await;
    theirs.run("UPDATE items_column SET n = 0 WHERE id = 'a'").await;
    let change = [put(&schema, "a", 20)];
    let error = apply_as(&impatient, &schema, &change, &me()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Contended, "{error}");
    assert_eq!(code(&error), h.either("1205", "5"), "{error}");
    // We give up before the database does: the connection is closed, and nothing of it is left.
    let error = apply_as(&cut_off, &schema, &change, &me()).await.unwrap_err();
    assert_eq!((error.class(), code(&error)), (ErrorClass::Unclassified, "connection"), "{error}");
    theirs.run("ROLLBACK").await;
    assert_eq!(apply_as(&cut_off, &schema, &change, &me()).await, Ok(vec![Applied::Written]));
    assert_eq!(apply_as(&impatient, &schema, &change, &me()).await, Ok(vec![Applied::Same]));
    assert_eq!(h.read(&schema, &id("a")).await, present(20, item("a", 20)));
}

async fn a_url_that_can_not_be_used(h: Harness) {
    let connect = |url: &str| AnyDatabase::connect(DatabaseOptions::new(main_database(), url));
    for url in ["", "oracle://x", "sqlite::memory:", "mysql://root@127.0.0.1:1", "sqlite:"] {
        let error = connect(url).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Unfit(_)), "{url}: {error}");
    }
    // Nobody listens there; and the file is not made unless that is asked for.
    for url in ["mysql://root:s3cret@127.0.0.1:1/x", "sqlite:/nowhere/at/all.db"] {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{url}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    drop(h);
}

mod deadlock {
    use super::*;

    on_mysql!(a_deadlock_is_contended);

    async fn a_deadlock_is_contended(h: Harness) {
        let schema = h.items(VersionGuard::Column).await;
        let rows: Vec<_> = (0..60).map(|n| put(&schema, &format!("k{n:02}"), 10)).collect();
        h.apply(&schema, &rows).await.unwrap();
        let mut theirs = h.somebody_else().await;
        theirs.run("BEGIN").await;
        // Who has changed more is not the one who is undone.
        theirs.run("UPDATE items_column SET n = 0 WHERE id >= 'k01'").await;
        let (database, table) = (h.database.clone(), schema.clone());
        let ours = tokio::spawn(async move {
            let changes = [put(&table, "k00", 20), put(&table, "k01", 20)];
            apply_as(&database, &table, &changes, &me()).await
        });
        h.waiting(1).await;
        theirs.run("UPDATE items_column SET n = 0 WHERE id = 'k00'").await;
        let error = ours.await.unwrap().unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Contended, "1213"), "{error}");
        theirs.run("ROLLBACK").await;
        let changes = [put(&schema, "k00", 20), put(&schema, "k01", 20)];
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; 2]);
    }
}

/// Errors of MySQL and MariaDB that take a table which became another one under our hands, or somebody who steps in.
mod mysql {
    use super::*;

    on_mysql!(
        what_no_row_can_be_blamed_for_on_a_table_that_was_altered,
        what_a_row_is_to_blame_for_on_a_table_that_was_altered,
        a_statement_or_a_connection_that_somebody_kills,
    );

    async fn what_no_row_can_be_blamed_for_on_a_table_that_was_altered(h: Harness) {
        for (alter, code) in [
            ("ADD COLUMN g BIGINT AS (n + 1) VIRTUAL, DROP COLUMN note", "1054"),
            ("DROP COLUMN note, ADD COLUMN note VARCHAR(110) AS (concat(id, 'x')) VIRTUAL", "1906|3105"),
            ("ADD COLUMN needed BIGINT NOT NULL", "1364"),
            ("RENAME TO elsewhere", "1146"),
            ("RENAME COLUMN n TO m", "1054"),
        ] {
            let schema = h.items(VersionGuard::Ledger).await;
            h.sql(&format!("ALTER TABLE items_ledger {alter}")).await;
            let full = item("a", 1).merged_with(row([("note", text("secret"))]));
            let error = refused(&h, &schema, full).await;
            assert_eq!(error.class(), ErrorClass::Schema, "{alter}: {error}");
            assert!(code.split('|').any(|expected| expected == self::code(&error)), "{alter}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            h.sql("DROP TABLE IF EXISTS items_ledger, elsewhere").await;
        }
        // A trigger that calls what is not there.
        let schema = h.items(VersionGuard::Ledger).await;
        h.sql("CREATE TRIGGER t BEFORE INSERT ON items_ledger FOR EACH ROW CALL missing()").await;
        let error = refused(&h, &schema, item("a", 1)).await;
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, "1305"), "{error}");
    }

    async fn what_a_row_is_to_blame_for_on_a_table_that_was_altered(h: Harness) {
        let note = |value: &str| item("a", 1).merged_with(row([("note", text(value))]));
        for (alter, row, code) in [
            ("MODIFY COLUMN note ENUM('x', 'y') NULL", note("secret"), "1265"),
            ("MODIFY COLUMN note DATETIME NULL", note("secret"), "1292"),
            ("MODIFY COLUMN note JSON NULL", note("secret"), "4025|3140"),
            ("MODIFY COLUMN note VARCHAR(3) NULL", note("secret"), "1406"),
            ("MODIFY COLUMN note VARCHAR(100) NOT NULL", item("a", 1), "1048"),
            ("MODIFY COLUMN note VARCHAR(100) CHARACTER SET latin1 NULL", note("\u{1F600}secret"), "1366|3988"),
            ("MODIFY COLUMN n TINYINT NULL", item("a", 1000), "1264"),
            ("ADD CONSTRAINT small CHECK (n < 10)", item("a", 11), "4025|3819"),
        ] {
            let schema = h.items(VersionGuard::Ledger).await;
            h.sql(&format!("ALTER TABLE items_ledger {alter}")).await;
            let error = refused(&h, &schema, row).await;
            assert_eq!(error.class(), ErrorClass::Permanent, "{alter}: {error}");
            assert!(code.split('|').any(|expected| expected == self::code(&error)), "{alter}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            h.sql("DROP TABLE items_ledger").await;
        }
        let columns: Vec<String> = (0..12).map(|n| format!("t{n} TEXT NULL")).collect();
        let create = format!(
            "SET innodb_strict_mode = OFF; CREATE TABLE wide (id VARCHAR(100) NOT NULL PRIMARY KEY, {}) ROW_FORMAT = COMPACT",
            columns.join(", ")
        );
        let wide = h.table("wide", &create, VersionGuard::Ledger).await;
        let names: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
        let full = names.iter().fold(row([("id", text("a"))]), |full, name| {
            full.merged_with(row([(name.as_str(), text(&"x".repeat(2000)))]))
        });
        let error = refused(&h, &wide, full).await;
        assert_eq!((error.class(), code(&error)), (ErrorClass::Permanent, "1118"), "{error}");
        // What is too large for any statement isn't sent at all.
        let large = row([("id", text("a")), ("t1", text(&"x".repeat(70 << 20)))]);
        let error = refused(&h, &wide, large).await;
        assert_eq!((error.class(), code(&error)), (ErrorClass::Permanent, "too-large"), "{error}");
    }

    async fn a_statement_or_a_connection_that_somebody_kills(h: Harness) {
        let schema = h.items(VersionGuard::Column).await;
        h.apply_one(&schema, put(&schema, "a", 10)).await;
        for (kill, expected) in [
            ("KILL QUERY", [(ErrorClass::Transient, "1317")].as_slice()),
            ("KILL CONNECTION", &[(ErrorClass::Unclassified, "connection"), (ErrorClass::Transient, "1927")]),
        ] {
            let mut theirs = h.somebody_else().await;
            theirs.run("BEGIN").await;
            theirs.run("UPDATE items_column SET n = 0 WHERE id = 'a'").await;
            let (database, table) = (h.database.clone(), schema.clone());
            let ours = tokio::spawn(async move { apply_as(&database, &table, &[put(&table, "a", 20)], &me()).await });
            h.waiting(1).await;
            let waiting = "SELECT t.trx_mysql_thread_id FROM information_schema.INNODB_TRX t \
                           JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id \
                           WHERE p.DB = DATABASE() AND t.trx_state = 'LOCK WAIT'";
            let id = h.about_transactions(waiting).await.unwrap();
            theirs.run(&format!("{kill} {id}")).await;
            let error = ours.await.unwrap().unwrap_err();
            assert!(expected.contains(&(error.class(), code(&error))), "{kill}: {error}");
            theirs.run("ROLLBACK").await;
            h.waiting(0).await;
        }
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 20)).await, Applied::Written);
    }
}
