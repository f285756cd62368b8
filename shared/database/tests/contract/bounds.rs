//! Batches as large as they may be.

use database::{Applied, Database, ErrorClass};
use model::{Value, VersionGuard};

use crate::harness::*;

on_each_database!(
    a_batch_of_every_size_is_written_once,
    a_batch_that_is_too_large_is_refused;
    about_sql:
    a_batch_larger_than_a_packet_is_cut,
    a_table_with_many_columns_stays_below_the_placeholders,
);

async fn a_batch_of_every_size_is_written_once(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let mut number = 10;
        for size in [1_usize, 2, 3, 7, 31, 100, 257, 500] {
            let batch =
                |number| -> Vec<_> { (0..size).map(|n| put(&schema, &format!("s{size}-{n}"), number)).collect() };
            for _ in 0..2 {
                assert_eq!(h.apply(&schema, &batch(number)).await.unwrap(), vec![Applied::Written; size], "{size}");
                assert_eq!(h.apply(&schema, &batch(number)).await.unwrap(), vec![Applied::Same; size], "{size}");
                number += 1;
            }
        }
        assert_eq!(h.rows(&schema.table.table).await, 901);
        let gone: Vec<_> = (0..500).map(|n| delete(&schema, &format!("s500-{n}"), 100)).collect();
        assert_eq!(h.apply(&schema, &gone).await.unwrap(), vec![Applied::Written; 500]);
        assert_eq!(h.rows(&schema.table.table).await, 401);
    }
}

async fn a_batch_larger_than_a_packet_is_cut(h: Harness) {
    let text_type = h.of("LONGTEXT", "TEXT", "TEXT");
    let create = format!("CREATE TABLE large (id BIGINT NOT NULL PRIMARY KEY, body {text_type} NOT NULL)");
    let schema = h.table("large", &create, VersionGuard::Column).await;
    let body = |n: usize, of: usize| Value::Text(format!("{n:02}").repeat(of / 2));
    let large = |id: i64, body: Value| row([("id", Value::Int64(id)), ("body", body)]);
    for number in [10, 11] {
        let changes: Vec<_> =
            (0..40).map(|n| put_row(&schema, large(n, body(n as usize + number as usize, 1 << 20)), number)).collect();
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; 40]);
    }
    assert_eq!(h.number("SELECT count(*) FROM large WHERE length(body) = 1048576").await, Some(40));
    if h.is_mysql() {
        let packet = h.number("SELECT @@max_allowed_packet").await.unwrap() as usize;
        let too_large = put_row(&schema, large(99, body(1, packet)), 20);
        let error = h.apply(&schema, &[too_large]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
        assert!(error.to_string().contains("max_allowed_packet"), "{error}");
        // Just below: one statement takes nearly a whole packet.
        let nearly = put_row(&schema, large(98, body(1, packet - 80_000)), 20);
        assert_eq!(h.apply_one(&schema, nearly).await, Applied::Written);
    }
}

async fn a_table_with_many_columns_stays_below_the_placeholders(h: Harness) {
    let columns: Vec<String> = (0..300).map(|n| format!("c{n} BIGINT NULL")).collect();
    let create = format!("CREATE TABLE wide (id BIGINT NOT NULL PRIMARY KEY, {})", columns.join(", "));
    let schema = h.table("wide", &create, VersionGuard::Column).await;
    let wide = |id: i64, value: i64| {
        let mut row = row([("id", Value::Int64(id))]);
        for n in 0..300 {
            row.insert(model::ColumnName::new(format!("c{n}")).unwrap(), Value::Int64(value + n));
        }
        row
    };
    for number in [10, 20] {
        let changes: Vec<_> = (0..400).map(|n| put_row(&schema, wide(n, number), number as u64)).collect();
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; 400]);
    }
    assert_eq!(h.read(&schema, &model::Key(vec![Value::Int64(399)])).await, present(20, wide(399, 20)));
}

async fn a_batch_that_is_too_large_is_refused(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    let most = h.database.max_batch_rows(&schema);
    let changes: Vec<_> = (0..=most).map(|n| put(&schema, &format!("k{n}"), 10)).collect();
    let error = h.apply(&schema, &changes).await.unwrap_err();
    assert!(error.to_string().contains("larger than a transaction may be"), "{error}");
    assert_eq!(h.apply(&schema, &changes[..most]).await.unwrap(), vec![Applied::Written; most]);
}
