//! Pages of found rows, in orders that only MySQL and MariaDB have.

use database::{Database, Search};
use model::{ColumnName, Key, TableSchema, Value};

use crate::harness::*;

on_mysql!(keys_of_enums_and_sets_are_paged, a_row_that_is_no_record_ends_no_pages);

/// The keys of the rows with `n` = 5, found in pages of so many.
async fn paged(h: &Harness, schema: &TableSchema, limit: usize) -> Vec<Key> {
    let (column, value) = (ColumnName::new("n").unwrap(), Value::Int64(5));
    let (mut met, mut after) = (Vec::new(), None);
    while met.len() < 100 {
        let page =
            h.database.find(Search { schema, column: &column, value: &value, after: after.as_ref(), limit }).await;
        let page = page.unwrap();
        let Some(last) = page.last() else { return met };
        after = Some(last.key.clone());
        met.extend(page.into_iter().map(|found| found.key));
    }
    panic!("the pages have no end: {met:?}");
}

async fn keys_of_enums_and_sets_are_paged(h: Harness) {
    h.sql(
        "CREATE TABLE labels (e ENUM('z', 'm', 'a') NOT NULL, s SET('y', 'x', 'b') NOT NULL, n BIGINT NOT NULL, \
         PRIMARY KEY (e, s), KEY (n))",
    )
    .await;
    h.sql(
        "INSERT INTO labels VALUES ('z','x',5), ('z','y,x',5), ('z','',5), ('m','b',5), ('m','y',5), ('a','y,b',5), \
         ('a','x,b',5)",
    )
    .await;
    let schema = h.adopt("labels", GUARDS[0]).await;
    for limit in [1, 2, 3, 10] {
        let mut met: Vec<_> = paged(&h, &schema, limit).await.iter().map(Key::to_bytes).collect();
        assert_eq!(met.len(), 7, "pages of {limit}");
        met.sort();
        met.dedup();
        assert_eq!(met.len(), 7, "each once, in pages of {limit}");
    }
}

async fn a_row_that_is_no_record_ends_no_pages(h: Harness) {
    h.sql("CREATE TABLE loose (id VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, n BIGINT, KEY (n))")
        .await;
    h.sql("INSERT INTO loose VALUES ('a',5), ('b',5), ('é',5), ('è1',5), ('f',5), ('g',5), ('ö',5)").await;
    let schema = h.adopt("loose", GUARDS[0]).await;
    for limit in [1, 2, 3, 10] {
        assert_eq!(paged(&h, &schema, limit).await, ["a", "b", "f", "g"].map(id), "pages of {limit}");
    }
}
