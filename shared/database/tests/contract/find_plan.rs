//! By which index PostgreSQL finds rows, whatever it believes about the table.

use database::{Database, Search};
use model::{ColumnName, Value, VersionGuard};

use crate::harness::*;

on_postgres!(rows_are_found_by_the_index_of_their_column_whatever_the_statistics_say);

/// The newest text of a search that one of our sessions has sent.
const SENT: &str = "SELECT query FROM pg_stat_activity WHERE application_name = current_schema() \
                    AND pid <> pg_backend_pid() AND query LIKE '%LIMIT 7' ORDER BY query_start DESC LIMIT 1";

async fn rows_are_found_by_the_index_of_their_column_whatever_the_statistics_say(h: Harness) {
    h.sql(
        "CREATE TABLE many (id VARCHAR(30) NOT NULL PRIMARY KEY, n BIGINT NOT NULL) WITH (autovacuum_enabled = false)",
    )
    .await;
    h.sql("CREATE INDEX many_by_n ON many (n)").await;
    let schema = h.adopt("many", VersionGuard::Column).await;
    h.sql("INSERT INTO many (id, n, _sa_version) SELECT lpad(g::text, 8, '0'), 7, g FROM generate_series(1, 50000) g")
        .await;
    // It is told that all have the value, and then they are the last ones only.
    h.sql("ANALYZE many").await;
    h.sql("UPDATE many SET n = 8 WHERE id <= '00049980'").await;
    let (column, value) = (ColumnName::new("n").unwrap(), Value::Int64(7));
    let (mut after, mut met) = (None, 0);
    for _ in 0..2 {
        let search = Search { schema: &schema, column: &column, value: &value, after: after.as_ref(), limit: 7 };
        let found = h.database.find(search).await.unwrap();
        met += found.len();
        let sent = h.text(SENT).await.unwrap();
        let arguments = if after.is_some() { "7, 7, 7, '00000001'" } else { "7, 7" };
        for plan_cache_mode in ["force_custom_plan", "force_generic_plan"] {
            let mut session = h.somebody_else().await;
            // As our sessions have it.
            session.run("SET enable_seqscan = off").await;
            session.run(&format!("SET plan_cache_mode = {plan_cache_mode}")).await;
            session.run(&format!("PREPARE search AS {sent}")).await;
            let plan = session.text(&format!("EXPLAIN (FORMAT JSON) EXECUTE search({arguments})")).await.unwrap();
            assert!(plan.contains("many_by_n") && !plan.contains("many_pkey"), "{plan_cache_mode}: {sent}\n{plan}");
        }
        after = found.last().map(|found| found.key.clone());
    }
    assert_eq!(met, 14);
}
