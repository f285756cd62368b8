//! What our role must be allowed to do, and what not.

use database::{Database, DatabaseError};
use model::{Epoch, Shard, ShardCount, VersionGuard};

use crate::harness::*;

on_servers!(who_may_make_nothing_starts_where_all_is_made);

/// A role of these tests, and none of its rights but to connect.
async fn role(h: &Harness, name: &str) {
    h.sql(&h.of(
        format!("CREATE USER '{name}'@'%' IDENTIFIED BY ''"),
        format!("CREATE ROLE {name} LOGIN"),
        String::new(),
    ))
    .await;
}

async fn drop_role(h: &Harness, name: &str) {
    let owned = format!("DROP OWNED BY {name}; DROP ROLE {name}");
    h.sql(&h.of(format!("DROP USER '{name}'@'%'"), owned, String::new())).await;
}

/// An operator makes our tables once, with a role that may. The services need no more than to read and write them.
async fn who_may_make_nothing_starts_where_all_is_made(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    let on_server = h.on_server().unwrap();
    let name = format!("{}_app", on_server.name());
    role(&h, &name).await;
    let rights = "SELECT, INSERT, UPDATE, DELETE";
    let grant = h.of(
        format!("GRANT {rights} ON {}.* TO '{name}'@'%'", on_server.name()),
        format!(
            "GRANT USAGE ON SCHEMA {0} TO {name}; GRANT {rights} ON ALL TABLES IN SCHEMA {0} TO {name}",
            on_server.name()
        ),
        String::new(),
    );
    h.sql(&grant).await;
    let as_role = |options: &mut database::DatabaseOptions| {
        let (scheme, place) = options.url.split_once("://").unwrap();
        options.url = format!("{scheme}://{name}@{}", place.split_once('@').unwrap().1);
    };
    let limited = h.another(as_role).await;
    assert_eq!(limited.prepare().await, Ok(()));
    assert_eq!(limited.probe().await, Ok(()));
    let shards = ShardCount::new(4).unwrap();
    assert_eq!(limited.shard_count(shards).await, Ok(4));
    assert_eq!(limited.next_epoch(Shard(0), Epoch(0)).await, Ok(Epoch(1)));
    for change in [put(&schema, "a", 10), put(&schema, "a", 20), delete(&schema, "a", 30)] {
        assert!(apply_as(&limited, &schema, &[change], &me()).await.is_ok());
    }
    // What is missing it is told.
    h.sql("DROP TABLE _sa_rate").await;
    let missing = limited.prepare().await;
    assert!(matches!(missing, Err(DatabaseError::Statement { .. })), "{missing:?}");
    drop(limited);
    drop_role(&h, &name).await;
}
