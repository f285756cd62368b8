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
    let create = h.ddl(&create.replace("full", "filled"));
    let schema = h.table("strict", &create, VersionGuard::Column).await;
    let good = || row([("id", Value::Int64(1)), ("filled", Value::Int64(1))]);
    let with = |column: &str, value: Value| good().merged_with(row([(column, value)]));
    let mut cases = vec![
        (with("filled", Value::Null), ["1048", "23502", "1299"]),
        (with("positive", Value::Int64(-1)), ["4025|3819", "23514", "275"]),
    ];
    if !h.is_sqlite() {
        cases.push((with("small", Value::Int64(100_000)), ["1264", "22003", ""]));
        cases.push((with("short", text("too long")), ["1406", "22001", ""]));
        cases.push((with("at", text("secret")), ["1292", "22007", ""]));
        cases.push((with("amount", Value::Decimal("12345.00".to_owned())), ["1264", "22003", ""]));
        cases.push((with("small", text("secret")), ["1366", "22P02", ""]));
    }
    for (row, codes) in cases {
        let error = refused(&h, &schema, row).await;
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(codes[h.of(0, 1, 2)].split('|').any(|expected| expected == code(&error)), "{error}");
    }
    let trigger = h.of(
        "CREATE TRIGGER no BEFORE INSERT ON strict FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; \
         CREATE TRIGGER no BEFORE INSERT ON strict FOR EACH ROW EXECUTE FUNCTION no()",
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
    if !h.is_sqlite() {
        let schema = h.items(VersionGuard::Ledger).await;
        h.sql("ALTER TABLE items_ledger ADD COLUMN needed BIGINT NOT NULL").await;
        let error = refused(&h, &schema, item("a", 1)).await;
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, h.of("1364", "23502", "")), "{error}");
    }
}

async fn a_lock_held_by_somebody_else_is_contended(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    h.apply_one(&schema, put(&schema, "a", 10)).await;
    let impatient = h.another(|options| options.lock_timeout = Duration::from_secs(1)).await;
    let cut_off = h.another(|options| options.statement_timeout = Duration::from_millis(300)).await;
    let mut theirs = h.somebody_else().await;
    theirs.run(h.of("BEGIN", "BEGIN", "BEGIN IMMEDIATE")).await;
    theirs.run("UPDATE items_column SET n = 0 WHERE id = 'a'").await;
    let change = [put(&schema, "a", 20)];
    let error = apply_as(&impatient, &schema, &change, &me()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Contended, "{error}");
    assert_eq!(code(&error), h.of("1205", "55P03", "5"), "{error}");
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
    for url in ["", "oracle://x", "sqlite::memory:", "mysql://root@127.0.0.1:1", "postgres://u@127.0.0.1:1", "sqlite:"]
    {
        let error = connect(url).await.unwrap_err();
        assert!(matches!(error, DatabaseError::Unfit(_)), "{url}: {error}");
    }
    // Nobody listens there; and the file is not made unless that is asked for.
    let passwords = ["mysql://root:s3cret@127.0.0.1:1/x", "postgresql://u:s3cret@127.0.0.1:1/x"];
    for url in passwords.into_iter().chain(["sqlite:/nowhere/at/all.db"]) {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{url}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    drop(h);
}

mod deadlock {
    use super::*;

    on_servers!(a_deadlock_is_contended);

    async fn a_deadlock_is_contended(h: Harness) {
        // PostgreSQL undoes the one who looks for a deadlock first, which each does once, so long after it began to wait.
        let ours = h
            .another(|options| {
                options.url = options.url.replace("options=", "options=-cdeadlock_timeout%3D10s%20");
                options.lock_timeout = Duration::from_secs(60);
                options.statement_timeout = Duration::from_secs(60);
            })
            .await;
        let schema = h.items(VersionGuard::Column).await;
        let rows: Vec<_> = (0..60).map(|n| put(&schema, &format!("k{n:02}"), 10)).collect();
        h.apply(&schema, &rows).await.unwrap();
        let mut theirs = h.somebody_else().await;
        theirs.run(h.of("SELECT 1", "SET deadlock_timeout = '50s'", "SELECT 1")).await;
        theirs.run("BEGIN").await;
        // To MySQL, who has changed more is not the one who is undone.
        theirs.run("UPDATE items_column SET n = 0 WHERE id >= 'k01'").await;
        let table = schema.clone();
        let ours = tokio::spawn(async move {
            let changes = [put(&table, "k00", 20), put(&table, "k01", 20)];
            apply_as(&ours, &table, &changes, &me()).await
        });
        h.waiting(1).await;
        theirs.run("UPDATE items_column SET n = 0 WHERE id = 'k00'").await;
        let error = ours.await.unwrap().unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Contended, h.of("1213", "40P01", "")), "{error}");
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
            let id = h.one_who_waits().await;
            theirs.run(&format!("{kill} {id}")).await;
            let error = ours.await.unwrap().unwrap_err();
            assert!(expected.contains(&(error.class(), code(&error))), "{kill}: {error}");
            theirs.run("ROLLBACK").await;
            h.waiting(0).await;
        }
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 20)).await, Applied::Written);
    }
}

/// Errors of PostgreSQL that take a table which became another one under our hands, or somebody who steps in.
mod postgres {
    use super::*;

    on_postgres!(
        what_no_row_can_be_blamed_for_on_a_table_that_was_altered,
        what_a_row_is_to_blame_for_on_a_table_that_was_altered,
        a_statement_or_a_connection_that_somebody_ends,
        a_server_that_can_not_or_may_not,
        a_transaction_that_lay_idle_for_too_long,
        a_row_that_a_trigger_leaves_out_is_never_taken_for_written,
        a_constraint_that_is_checked_at_the_commit_undoes_all,
    );

    async fn what_no_row_can_be_blamed_for_on_a_table_that_was_altered(h: Harness) {
        for (alter, code) in [
            ("DROP COLUMN note", "42703"),
            ("RENAME COLUMN n TO m", "42703"),
            ("DROP COLUMN note, ADD COLUMN note TEXT GENERATED ALWAYS AS (id || 'x') STORED", "428C9"),
            ("ADD COLUMN needed BIGINT NOT NULL", "23502"),
            ("RENAME TO elsewhere", "42P01"),
            ("ALTER COLUMN note TYPE BYTEA USING NULL", "42804"),
            ("DROP CONSTRAINT items_ledger_pkey", "42P10"),
        ] {
            let schema = h.items(VersionGuard::Ledger).await;
            // So that the statements are prepared, and meet another table than they were made for.
            for number in [10, 11] {
                h.apply_one(&schema, put(&schema, "b", number)).await;
            }
            let is_needed = alter.contains("needed");
            h.sql(if is_needed { "DELETE FROM items_ledger" } else { "SELECT 1" }).await;
            h.sql(&format!("ALTER TABLE items_ledger {alter}")).await;
            // One that is there, and one that isn't.
            for id in if is_needed { ["a", "c"] } else { ["b", "b"] } {
                let full = item(id, 1).merged_with(row([("note", text("secret"))]));
                let error = refused(&h, &schema, full).await;
                assert_eq!((error.class(), self::code(&error)), (ErrorClass::Schema, code), "{alter}: {error}");
                assert!(!error.to_string().contains("secret"), "{error}");
            }
            h.sql("DROP TABLE IF EXISTS items_ledger, elsewhere; DELETE FROM _sa_ledger; DELETE FROM _sa_shard").await;
        }
        let schema = h.items(VersionGuard::Ledger).await;
        h.sql(
            "CREATE FUNCTION missing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM nowhere(); END $$; \
             CREATE TRIGGER t BEFORE INSERT ON items_ledger FOR EACH ROW EXECUTE FUNCTION missing()",
        )
        .await;
        let error = refused(&h, &schema, item("a", 1)).await;
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, "42883"), "{error}");
    }

    async fn what_a_row_is_to_blame_for_on_a_table_that_was_altered(h: Harness) {
        h.sql("CREATE TYPE few AS ENUM ('x', 'y')").await;
        let note = |value: &str| item("a", 1).merged_with(row([("note", text(value))]));
        for (alter, row, code) in [
            ("ALTER COLUMN note TYPE BIGINT USING NULL", note("secret"), "22P02"),
            ("ALTER COLUMN note TYPE TIMESTAMP USING NULL", note("secret"), "22007"),
            ("ALTER COLUMN note TYPE TIMESTAMP USING NULL", note("2024-02-31"), "22008"),
            ("ALTER COLUMN note TYPE JSONB USING NULL", note("secret"), "22P02"),
            ("ALTER COLUMN note TYPE few USING NULL", note("secret"), "22P02"),
            ("ALTER COLUMN note TYPE VARCHAR(3)", note("secret"), "22001"),
            ("ALTER COLUMN note SET NOT NULL", item("a", 1), "23502"),
            ("ALTER COLUMN note SET NOT NULL", note("sec\0ret"), "22021"),
            ("ALTER COLUMN n TYPE SMALLINT", item("a", 100_000), "22003"),
            ("ALTER COLUMN n TYPE NUMERIC(4,2)", item("a", 100), "22003"),
            ("ADD CONSTRAINT small CHECK (n < 10)", item("a", 11), "23514"),
        ] {
            h.items(VersionGuard::Ledger).await;
            h.sql(&format!("ALTER TABLE items_ledger {alter}")).await;
            // As it is seen from now on; the record is of before.
            let schema = h.introspect("items_ledger").await.unwrap();
            let error = refused(&h, &schema, row).await;
            assert_eq!((error.class(), self::code(&error)), (ErrorClass::Permanent, code), "{alter}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            h.sql("DROP TABLE items_ledger").await;
        }
        // What was written as text goes on as what it says.
        let before = h.items(VersionGuard::Ledger).await;
        h.sql("ALTER TABLE items_ledger ALTER COLUMN note TYPE BIGINT USING NULL, ALTER COLUMN n TYPE TEXT").await;
        let schema = h.introspect("items_ledger").await.unwrap();
        assert_eq!(h.apply_one(&schema, put_row(&before, note("12"), 10)).await, Applied::Written);
        let expected = row([("id", text("a")), ("n", text("1")), ("note", Value::Int64(12))]);
        assert_eq!(h.read(&schema, &id("a")).await, present(10, expected));
    }

    async fn a_statement_or_a_connection_that_somebody_ends(h: Harness) {
        let schema = h.items(VersionGuard::Column).await;
        h.apply_one(&schema, put(&schema, "a", 10)).await;
        for (end, expected) in [
            ("pg_cancel_backend", [(ErrorClass::Transient, "57014")].as_slice()),
            ("pg_terminate_backend", &[(ErrorClass::Unclassified, "connection"), (ErrorClass::Transient, "57P01")]),
        ] {
            let mut theirs = h.somebody_else().await;
            theirs.run("BEGIN").await;
            theirs.run("UPDATE items_column SET n = 0 WHERE id = 'a'").await;
            let (database, table) = (h.database.clone(), schema.clone());
            let ours = tokio::spawn(async move { apply_as(&database, &table, &[put(&table, "a", 20)], &me()).await });
            h.waiting(1).await;
            let id = h.one_who_waits().await;
            theirs.run(&format!("SELECT {end}({id})")).await;
            let error = ours.await.unwrap().unwrap_err();
            assert!(expected.contains(&(error.class(), code(&error))), "{end}: {error}");
            theirs.run("ROLLBACK").await;
            h.no_transaction_is_open().await;
        }
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 20)).await, Applied::Written);
    }

    async fn a_server_that_can_not_or_may_not(h: Harness) {
        let schema = h.items(VersionGuard::Column).await;
        let change = [put(&schema, "a", 10)];
        let read_only = h
            .another(|options| {
                options.url = options.url.replace("options=", "options=-cdefault_transaction_read_only%3Don%20");
            })
            .await;
        let error = apply_as(&read_only, &schema, &change, &me()).await.unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Transient, "25006"), "{error}");
        assert_eq!(read_only.probe().await.unwrap_err().class(), ErrorClass::Transient);

        let role = h.on_server().unwrap().name().to_owned();
        h.sql(&format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA {role} TO {role}")).await;
        let as_role = |options: &mut DatabaseOptions| {
            options.url = options.url.replace("//postgres@", &format!("//{role}@"));
            options.pool = 1;
        };
        let only_one = h.another(as_role).await;
        let mut options = h.options().clone();
        as_role(&mut options);
        let error = AnyDatabase::connect(options).await.unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Transient, "53300"), "{error}");
        let error = apply_as(&only_one, &schema, &change, &me()).await.unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, "42501"), "{error}");
        // Rows that are hidden from us would be taken for absent.
        h.sql(&format!(
            "GRANT ALL ON ALL TABLES IN SCHEMA {role} TO {role}; ALTER TABLE items_column ENABLE ROW LEVEL SECURITY"
        ))
        .await;
        let error = only_one.introspect(&main_database(), &name("items_column")).await.unwrap_err();
        assert!(error.to_string().contains("row security"), "{error}");
        let error = apply_as(&only_one, &schema, &change, &me()).await.unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, "42501"), "{error}");
        h.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;

        let mut options = h.options().clone();
        options.url = options.url.replace(&format!("search_path%3D{role}"), "search_path%3Dnowhere");
        let error = AnyDatabase::connect(options).await.unwrap_err();
        assert!(matches!(&error, DatabaseError::Unfit(told) if told.contains("search_path")), "{error}");
        let mut options = h.options().clone();
        options.url = options.url.replace('?', "_not_there?");
        let error = AnyDatabase::connect(options).await.unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Schema, "3D000"), "{error}");
    }

    async fn a_transaction_that_lay_idle_for_too_long(h: Harness) {
        let database = h.another(|options| options.pool = 1).await;
        database.sql().run_script("SELECT 1").await.unwrap();
        // What our own connections are told, so that nobody's locks outlive the one who took them.
        let settings = "SELECT setting::int8 FROM pg_settings WHERE name IN ('idle_in_transaction_session_timeout', \
                        'statement_timeout', 'lock_timeout', 'client_connection_check_interval') ORDER BY name";
        let told = database.sql().query_integers(settings).await.unwrap();
        assert_eq!(told, [1_000, 31_000, 10_000, 31_000]);
        // Said by ourselves, so that no reload of the server's configuration makes our commits less than durable.
        let pinned = "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_commit' AND source = 'session' \
                      AND setting <> 'off'";
        assert_eq!(database.sql().query_integers(pinned).await.unwrap(), [1]);
    }

    async fn a_row_that_a_trigger_leaves_out_is_never_taken_for_written(h: Harness) {
        for guard in GUARDS {
            let schema = h.items(guard).await;
            let table = &schema.table.table;
            h.apply_one(&schema, put(&schema, "a", 10)).await;
            h.sql(&format!(
                "CREATE FUNCTION leave_out_{guard:?}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
                 CREATE TRIGGER t BEFORE INSERT OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION leave_out_{guard:?}()"
            ))
            .await;
            for change in [put(&schema, "b", 20), delete(&schema, "a", 20)] {
                let error = h.apply(&schema, &[change]).await.unwrap_err();
                assert_eq!((error.class(), code(&error)), (ErrorClass::Unclassified, "guard"), "{error}");
            }
            assert_eq!(h.read(&schema, &id("a")).await, present(10, item("a", 10)));
        }
    }

    async fn a_constraint_that_is_checked_at_the_commit_undoes_all(h: Harness) {
        let create = "CREATE TABLE parent (id BIGINT NOT NULL PRIMARY KEY); \
                      CREATE TABLE child (id BIGINT NOT NULL PRIMARY KEY, \
                      parent BIGINT NULL REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)";
        let schema = h.table("child", create, VersionGuard::Column).await;
        let of = |id: i64, parent: Value| row([("id", Value::Int64(id)), ("parent", parent)]);
        let changes = [put_row(&schema, of(1, Value::Null), 10), put_row(&schema, of(2, Value::Int64(5)), 11)];
        let error = h.apply(&schema, &changes).await.unwrap_err();
        assert_eq!((error.class(), code(&error)), (ErrorClass::Dependent, "23503"), "{error}");
        assert_eq!(h.number("SELECT count(*) FROM child").await, Some(0));
        h.no_transaction_is_open().await;
    }
}
