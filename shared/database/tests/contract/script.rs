//! Scripts that are not ours.

use database::ErrorClass;

use crate::harness::*;

on_every_sql_database!(a_script_runs_to_its_first_error, a_script_leaves_nothing_on_a_connection);

async fn a_script_runs_to_its_first_error(h: Harness) {
    let script = "CREATE TABLE s (n BIGINT); INSERT INTO s VALUES (1), (2); INSERT INTO nowhere VALUES (1); \
                  INSERT INTO s VALUES (3);";
    let error = h.database.sql().run_script(script).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    assert_eq!(h.database.sql().query_integers("SELECT n FROM s ORDER BY n").await, Ok(vec![1, 2]));
}

async fn a_script_leaves_nothing_on_a_connection(h: Harness) {
    let database = h.another(|options| options.pool = 1).await;
    database.sql().run_script("CREATE TABLE s (n BIGINT); BEGIN; INSERT INTO s VALUES (1)").await.unwrap();
    assert_eq!(
        database.sql().query_integers("SELECT count(*) FROM s").await,
        Ok(vec![0]),
        "its transaction is not ours to end"
    );
    database.sql().run_script("INSERT INTO s VALUES (2)").await.unwrap();
    assert_eq!(h.number("SELECT n FROM s").await, Some(2));
}
