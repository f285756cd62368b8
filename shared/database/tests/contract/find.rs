//! Finding rows by the value of a column.

use database::{Database, FoundRow, Search};
use model::{ColumnName, Key, Row, TableSchema, Value, VersionGuard};

use crate::{
    harness::*,
    tables::{Holds, TableOf},
};

on_each_database!(
    what_has_the_value_is_found_with_its_version,
    rows_come_in_pages_by_key,
    keys_of_several_columns_are_paged,
    nothing_equals_null ; about_sql:
    a_column_is_searched_by_that_begins_an_index,
    a_value_is_nothing_but_a_value,
    values_of_every_type_are_found,
    a_text_is_found_character_by_character_however_its_column_compares,
    a_row_that_can_not_be_read_is_passed,
);

async fn find(
    h: &Harness,
    schema: &TableSchema,
    column: &str,
    value: &Value,
    after: Option<&Key>,
    limit: usize,
) -> Vec<FoundRow> {
    let column = ColumnName::new(column).unwrap();
    h.database.find(Search { schema, column: &column, value, after, limit }).await.unwrap()
}

fn numbered(id: &str, n: i64) -> Row {
    item(id, n)
}

async fn what_has_the_value_is_found_with_its_version(h: Harness) {
    for guard in GUARDS {
        let table = format!("f_{guard:?}").to_lowercase();
        let columns = [("id", Holds::Text), ("n", Holds::Number), ("note", Holds::Text)];
        let schema = h.table_of(&TableOf { name: &table, columns: &columns, key: &["id"], unique: None }, guard).await;
        let rows = [("a", 1, 10), ("b", 2, 11), ("c", 1, 12), ("d", 1, 13)];
        let changes: Vec<_> = rows.map(|(id, n, version)| put_row(&schema, numbered(id, n), version)).into();
        h.apply(&schema, &changes).await.unwrap();
        h.apply(&schema, &[delete(&schema, "c", 20), put_row(&schema, numbered("b", 1), 21)]).await.unwrap();
        h.write_theirs(&schema.table.table, "e", 1).await;
        let found = find(&h, &schema, "n", &Value::Int64(1), None, 100).await;
        let expected = [("a", 10), ("b", 21), ("d", 13), ("e", 0)].map(|(key, number)| FoundRow {
            key: id(key),
            version: version(number),
            row: numbered(key, 1),
        });
        assert_eq!(found, expected, "{guard:?}");
        assert_eq!(find(&h, &schema, "n", &Value::Int64(2), None, 100).await, []);
        assert_eq!(find(&h, &schema, "id", &text("d"), None, 100).await.len(), 1, "by a column of the key");
    }
}

async fn rows_come_in_pages_by_key(h: Harness) {
    h.make_items("pages").await;
    let schema = h.adopt("pages", GUARDS[0]).await;
    let ids: Vec<String> = (0..25).map(|n| format!("k{n:02}")).collect();
    let changes: Vec<_> = ids.iter().rev().zip(1..).map(|(id, at)| put_row(&schema, numbered(id, 7), at)).collect();
    h.apply(&schema, &changes).await.unwrap();
    let (mut met, mut after) = (Vec::new(), None);
    loop {
        let page = find(&h, &schema, "n", &Value::Int64(7), after.as_ref(), 10).await;
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 10);
        after = Some(last.key.clone());
        met.extend(page.into_iter().map(|found| found.key));
    }
    assert_eq!(met, ids.iter().map(|key| id(key)).collect::<Vec<_>>());
}

async fn keys_of_several_columns_are_paged(h: Harness) {
    let columns = [("a", Holds::Number), ("b", Holds::Text), ("n", Holds::Number)];
    let table = TableOf { name: "several", columns: &columns, key: &["a", "b"], unique: None };
    let schema = h.table_of(&table, GUARDS[0]).await;
    let rows: Vec<Row> = (0..9)
        .map(|at| {
            let (a, b) = (Value::Int64(at / 3 - 1), text(["x", "y", "z"][at as usize % 3]));
            row([("a", a), ("b", b), ("n", Value::Int64(5))])
        })
        .collect();
    let changes: Vec<_> = rows.iter().zip(1..).map(|(row, at)| put_row(&schema, row.clone(), at)).collect();
    h.apply(&schema, &changes).await.unwrap();
    let (mut met, mut after) = (Vec::new(), None);
    loop {
        let page = find(&h, &schema, "n", &Value::Int64(5), after.as_ref(), 2).await;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        met.extend(page.into_iter().map(|found| found.row));
    }
    assert_eq!(met, rows);
}

async fn nothing_equals_null(h: Harness) {
    h.make_items("nulls").await;
    let schema = h.adopt("nulls", GUARDS[0]).await;
    h.apply(&schema, &[put_row(&schema, numbered("a", 1), 1)]).await.unwrap();
    assert_eq!(find(&h, &schema, "note", &Value::Null, None, 10).await, []);
    assert_eq!(find(&h, &schema, "n", &Value::Int64(1), None, 0).await, [], "a page of none");
}

async fn a_column_is_searched_by_that_begins_an_index(h: Harness) {
    h.sql("CREATE TABLE idx (id BIGINT NOT NULL PRIMARY KEY, a BIGINT, b BIGINT, c VARCHAR(100), d BIGINT, e BIGINT)")
        .await;
    h.sql("CREATE INDEX idx_a ON idx (a)").await;
    h.sql("CREATE INDEX idx_bd ON idx (b, d)").await;
    h.sql("CREATE UNIQUE INDEX idx_e ON idx (e)").await;
    // One that has not all, and what is no column's.
    h.sql(h.of(
        "CREATE INDEX idx_c ON idx (c(3))",
        "CREATE INDEX idx_c ON idx (c) WHERE a > 1",
        "CREATE INDEX idx_c ON idx (c) WHERE a > 1",
    ))
    .await;
    let table = model::TableName::new("idx").unwrap();
    let mut columns = h.database.search_columns(&table).await.unwrap();
    columns.sort_unstable();
    assert_eq!(columns.iter().map(ColumnName::as_str).collect::<Vec<_>>(), ["a", "b", "e", "id"]);
}

async fn a_value_is_nothing_but_a_value(h: Harness) {
    h.make_items("quoted").await;
    let schema = h.adopt("quoted", GUARDS[0]).await;
    let hostile = ["'", "\\' OR 1=1 -- ", "a'; DROP TABLE quoted; --", "?", "{}", "%", "łó\u{1f600}"];
    for (at, note) in (1..).zip(hostile) {
        let mut row = item(&format!("k{at}"), 1);
        row.insert(ColumnName::new("note").unwrap(), text(note));
        h.apply(&schema, &[put_row(&schema, row, at)]).await.unwrap();
    }
    for (at, note) in (1..).zip(hostile) {
        let found = find(&h, &schema, "note", &text(note), None, 10).await;
        assert_eq!(found.iter().map(|found| found.key.clone()).collect::<Vec<_>>(), [id(&format!("k{at}"))], "{note}");
    }
}

async fn values_of_every_type_are_found(h: Harness) {
    h.sql(&h.ddl(
        "CREATE TABLE kinds (id BIGINT NOT NULL PRIMARY KEY, amount DECIMAL(12,2), at DATETIME, day DATE, n BIGINT, label VARCHAR(100))",
    ))
    .await;
    let schema = h.adopt("kinds", GUARDS[0]).await;
    let row_of = |n: i64| {
        row([
            ("id", Value::Int64(n)),
            ("amount", Value::Decimal(format!("{n}.50"))),
            ("at", Value::DateTime(format!("2026-01-0{n}T10:00:00").parse().unwrap())),
            ("day", Value::Date(format!("2026-01-0{n}").parse().unwrap())),
            ("n", Value::Int64(-n)),
            ("label", text(&format!("l{n}"))),
        ])
    };
    let changes: Vec<_> = (1..=3).map(|n| put_row(&schema, row_of(n), n as u64)).collect();
    h.apply(&schema, &changes).await.unwrap();
    for (column, value) in row_of(2).iter() {
        let found = find(&h, &schema, column.as_str(), value, None, 10).await;
        assert_eq!(found.iter().map(|found| &found.row).collect::<Vec<_>>(), [&row_of(2)], "{column}");
    }
}

/// What a loose collation takes for equal is known to the database only, and may be thousands of rows before the one.
async fn a_text_is_found_character_by_character_however_its_column_compares(h: Harness) {
    let of_columns = |loose: &str, old: &str| {
        format!(
            "CREATE TABLE loose (id BIGINT NOT NULL PRIMARY KEY, t VARCHAR(20){loose}, c CHAR(20){loose}, old VARCHAR(20){old})"
        )
    };
    let latin = " CHARACTER SET latin1 COLLATE latin1_swedish_ci";
    h.sql(&h.of(
        of_columns(" CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", latin),
        of_columns("", ""),
        of_columns("", ""),
    ))
    .await;
    h.sql("CREATE INDEX loose_t ON loose (t)").await;
    let schema = h.adopt("loose", VersionGuard::Column).await;
    let texts = ["open", "OPEN", "öpen", "open ", "Open", "opén", "o", "", " "];
    let ids = 1_i64..;
    let changes = ids.clone().zip(texts).map(|(n, held)| {
        let columns = [("id", Value::Int64(n)), ("t", text(held)), ("c", text(held)), ("old", text(held))];
        let row = schema.accept_row(row(columns), moment(jiff::Timestamp::UNIX_EPOCH)).unwrap();
        put_row(&schema, row, 10)
    });
    h.apply(&schema, &changes.collect::<Vec<_>>()).await.unwrap();
    for (n, held) in ids.zip(texts) {
        for column in ["t", "old"] {
            for limit in [1, 100] {
                let found = find(&h, &schema, column, &text(held), None, limit).await;
                let found: Vec<&Key> = found.iter().map(|found| &found.key).collect();
                assert_eq!(found, [&Key(vec![Value::Int64(n)])], "{column} {held:?}");
            }
        }
    }
    assert_eq!(find(&h, &schema, "t", &text("oPeN"), None, 100).await, []);
    // Spaces at its end are none of a CHAR's.
    let found = find(&h, &schema, "c", &text("open"), None, 100).await;
    assert_eq!(found.len(), h.of(2, 2, 1), "{found:?}");
}

async fn a_row_that_can_not_be_read_is_passed(h: Harness) {
    for (guard, table) in [(VersionGuard::Ledger, "passed_ledger"), (VersionGuard::Column, "passed_column")] {
        let truth = ("BOOLEAN", Value::Bool(true), "7");
        let (ty, good, bad) = h.of(truth.clone(), ("REAL", Value::Double(1.0), "'NaN'"), truth);
        let create = format!("CREATE TABLE {table} (b {ty} NULL, id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL)");
        let schema = h.table(table, &create, guard).await;
        let of_id = |id: i64| row([("id", Value::Int64(id)), ("b", good.clone()), ("n", Value::Int64(1))]);
        let changes: Vec<_> = (1..=20).map(|id| put_row(&schema, of_id(id), id as u64)).collect();
        h.apply(&schema, &changes).await.unwrap();
        h.somebody_else().await.run(&format!("UPDATE {table} SET b = {bad} WHERE id IN (1, 9, 10, 20)")).await;
        let expected: Vec<i64> = (1..=20).filter(|id| ![1, 9, 10, 20].contains(id)).collect();
        for limit in [1, 2, 3, 7, 16, 17, 100] {
            let (mut ids, mut after) = (Vec::new(), None);
            loop {
                let found = find(&h, &schema, "n", &Value::Int64(1), after.as_ref(), limit).await;
                let is_end = found.len() < limit;
                for FoundRow { key, version: of, row } in found {
                    let Some(Value::Int64(id)) = key.0.first().cloned() else { panic!("{key:?}") };
                    assert_eq!((of, row), (version(id as u64), of_id(id)), "{guard:?}");
                    ids.push(id);
                    after = Some(key);
                }
                if is_end {
                    break;
                }
            }
            assert_eq!(ids, expected, "{guard:?}, by {limit}");
        }
    }
}
