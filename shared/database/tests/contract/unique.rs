//! Tables with a second unique key: a write by primary key never touches another row.

use database::{Applied, ErrorClass};
use model::{Row, Value};

use crate::{
    harness::*,
    tables::{Holds, TableOf},
};

on_each_database!(
    a_taken_value_fails_the_batch_and_overwrites_nobody,
    updates_and_deletes_free_values_for_inserts;
    about_sql:
    a_unique_key_that_was_added_after_introspection_overwrites_nobody,
);

fn account(id: &str, mail: &str, n: i64) -> Row {
    row([("id", text(id)), ("mail", text(mail)), ("n", Value::Int64(n))])
}

async fn accounts(h: &Harness, guard: model::VersionGuard) -> model::TableSchema {
    let table = format!("accounts_{guard:?}").to_lowercase();
    let columns = [("id", Holds::Text), ("mail", Holds::Text), ("n", Holds::Number)];
    let accounts = TableOf { name: &table, columns: &columns, key: &["id"], unique: Some("mail") };
    let schema = h.table_of(&accounts, guard).await;
    assert!(schema.has_secondary_unique);
    schema
}

async fn a_taken_value_fails_the_batch_and_overwrites_nobody(h: Harness) {
    for guard in GUARDS {
        let schema = accounts(&h, guard).await;
        let first = account("a", "secret@x", 1);
        h.apply_one(&schema, put_row(&schema, first.clone(), 10)).await;
        h.apply_one(&schema, put_row(&schema, account("c", "c@x", 3), 10)).await;
        for (what, taken) in [("insert", account("b", "secret@x", 2)), ("update", account("c", "secret@x", 4))] {
            let changes = [put_row(&schema, account("z", "z@x", 9), 20), put_row(&schema, taken, 20)];
            let error = h.apply(&schema, &changes).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Dependent, "{what}: {error}");
            assert!(!error.to_string().contains("secret"), "{what}: {error}");
            assert_eq!(h.read(&schema, &id("a")).await, present(10, first.clone()), "{what}");
            assert_eq!(h.read(&schema, &id("c")).await, present(10, account("c", "c@x", 3)), "{what}");
            assert_eq!(h.read(&schema, &id("z")).await, database::DatabaseRow::Absent, "{what}: all or nothing");
        }
    }
}

async fn updates_and_deletes_free_values_for_inserts(h: Harness) {
    for guard in GUARDS {
        let schema = accounts(&h, guard).await;
        let before = [put_row(&schema, account("m", "one@x", 1), 10), put_row(&schema, account("n", "two@x", 1), 11)];
        h.apply(&schema, &before).await.unwrap();
        let changes = [
            put_row(&schema, account("a", "one@x", 2), 20),
            put_row(&schema, account("b", "two@x", 2), 21),
            delete(&schema, "m", 22),
            put_row(&schema, account("n", "three@x", 2), 23),
        ];
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; 4]);
        assert_eq!(h.read(&schema, &id("a")).await, present(20, account("a", "one@x", 2)));
        assert_eq!(h.read(&schema, &id("n")).await, present(23, account("n", "three@x", 2)));
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Same; 4]);
    }
}

async fn a_unique_key_that_was_added_after_introspection_overwrites_nobody(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let table = schema.table.table.as_str();
        h.apply(&schema, &[put(&schema, "a", 10), put(&schema, "b", 11)]).await.unwrap();
        h.sql(&format!("CREATE UNIQUE INDEX {table}_n ON {table} (n)")).await;
        for id in ["b", "new"] {
            let error = h.apply(&schema, &[put_row(&schema, item(id, 10), 20)]).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Dependent, "{id}: {error}");
        }
        assert_eq!(h.read(&schema, &id("a")).await, present(10, item("a", 10)));
        assert_eq!(h.read(&schema, &id("b")).await, present(11, item("b", 11)));
    }
}
