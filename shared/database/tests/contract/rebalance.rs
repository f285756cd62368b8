//! Shards that change hands while transactions are under way: whatever the former owner still has running, nothing
//! gets older, no delete is undone, no tombstone is lost.

use std::{collections::BTreeMap, sync::Arc};

use database::{Applied, Change, Database, DatabaseError, DatabaseRow, Owner, ShardClaim};
use model::{Key, TableSchema, Version};

use crate::{harness::*, tested::Tested};

on_each_database!(
    owners_that_take_shards_from_each_other_leave_the_newest;
    about_sql:
    a_transaction_that_waits_for_its_shard_finds_the_new_owner,
);

fn claims(schema: &TableSchema) -> Vec<ShardClaim> {
    shards().all().map(|shard| ShardClaim { table: schema.table.table.clone(), shard }).collect()
}

fn other() -> Owner {
    Owner("other".to_owned())
}

const KEYS: u64 = 6;

/// Version n of key n modulo 6; each seventh one is a delete.
fn history(schema: &TableSchema) -> Vec<Change> {
    let change = |number: u64| {
        let key = format!("k{}", number % KEYS);
        if number.is_multiple_of(7) { delete(schema, &key, number) } else { put(schema, &key, number) }
    };
    (1..=84).map(change).collect()
}

/// Takes all shards and applies what it is delivered, from anywhere in the history, until they are lost; again and
/// again. How often they were lost.
async fn replica(database: Tested, schema: TableSchema, me: Owner, mut seed: u64) -> usize {
    let history = history(&schema);
    let mut draw = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut lost = 0;
    for _ in 0..12 {
        while let Err(error) = database.take_ownership(&claims(&schema), &me).await {
            assert!(error.class().may_pass(), "{error}");
        }
        for _ in 0..6 {
            let start = draw(history.len());
            let batch: BTreeMap<Vec<u8>, Change> = history[start..]
                .iter()
                .take(1 + draw(8))
                .map(|change| (change.key.to_bytes().as_bytes().to_vec(), change.clone()))
                .collect();
            let batch: Vec<Change> = batch.into_values().collect();
            match apply_as(&database, &schema, &batch, &me).await {
                Ok(_) => {}
                Err(DatabaseError::NotOwner(_)) => {
                    lost += 1;
                    break;
                }
                Err(error) => assert!(error.class().may_pass(), "{error}"),
            }
        }
    }
    lost
}

async fn owners_that_take_shards_from_each_other_leave_the_newest(h: Harness) {
    let h = Arc::new(h);
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let mut replicas = Vec::new();
        for n in 0..3_u64 {
            let database = h.another(|options| options.pool = 2).await;
            replicas.push(tokio::spawn(replica(database, schema.clone(), Owner(format!("replica-{n}")), n + 1)));
        }
        // Whoever looks meanwhile sees no key get older, nor vanish.
        let keys: Vec<Key> = (0..KEYS).map(|n| id(&format!("k{n}"))).collect();
        let mut seen = vec![version(0); keys.len()];
        while !replicas.iter().all(|replica| replica.is_finished()) {
            let rows = h.database.read(&schema, &keys).await.unwrap();
            for (row, seen) in rows.into_iter().zip(&mut seen) {
                let now: Version = match row {
                    DatabaseRow::Present { version, row } => {
                        assert_eq!(row.get("n"), Some(&model::Value::Int64(version.get() as i64)), "{guard:?}");
                        version
                    }
                    DatabaseRow::Deleted { version } => version,
                    DatabaseRow::Absent => version(0),
                };
                assert!(now >= *seen, "{guard:?}: version {now} after {seen}");
                *seen = now;
            }
            tokio::task::yield_now().await;
        }
        let mut lost = 0;
        for replica in replicas {
            lost += replica.await.unwrap();
        }
        assert!(lost > 0, "{guard:?}: the test is about shards that are lost");
        // The last owner is delivered everything.
        h.own(&schema).await;
        for change in history(&schema) {
            h.apply_one(&schema, change).await;
        }
        for (n, row) in h.database.read(&schema, &keys).await.unwrap().into_iter().enumerate() {
            let key = &keys[n];
            let newest = history(&schema).into_iter().rfind(|change| change.key == *key).unwrap();
            let number = newest.version.get();
            let expected = match newest.image.content {
                model::Content::Tombstone => deleted(number),
                model::Content::Row(row) => present(number, row),
            };
            assert_eq!(row, expected, "{guard:?}");
        }
    }
}

async fn a_transaction_that_waits_for_its_shard_finds_the_new_owner(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let table = schema.table.table.clone();
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 10)).await, Applied::Written);
        // The new owner's transaction is under way: it has the shard rows.
        let mut theirs = h.somebody_else().await;
        theirs.run(h.of("BEGIN", "BEGIN", "BEGIN IMMEDIATE")).await;
        theirs.run(&format!("UPDATE _sa_shard SET owner = 'other' WHERE table_name = '{table}'")).await;
        let former = {
            let (database, schema) = (h.database.clone(), schema.clone());
            let changes = [put(&schema, "a", 20), put(&schema, "new", 21)];
            tokio::spawn(async move { apply_as(&database, &schema, &changes, &me()).await })
        };
        if !h.is_sqlite() {
            h.waiting(1).await;
        }
        assert!(!former.is_finished(), "it waits for its shard");
        theirs.run("COMMIT").await;
        assert_eq!(former.await.unwrap(), Err(DatabaseError::NotOwner(table)));
        assert_eq!(h.read(&schema, &id("a")).await, present(10, item("a", 10)), "{guard:?}");
        assert_eq!(h.read(&schema, &id("new")).await, DatabaseRow::Absent);
        assert_eq!(h.database.take_ownership(&claims(&schema), &other()).await, Ok(()));
        assert_eq!(
            apply_as(&h.database, &schema, &[put(&schema, "a", 20)], &other()).await,
            Ok(vec![Applied::Written])
        );
    }
}

/// Row locks, which SQLite has not: there the new owner waits for the only writer.
mod row_locks {
    use super::*;

    on_servers!(
        a_new_owner_waits_for_the_former_ones_transaction,
        a_transaction_whose_connection_is_killed_is_undone_and_the_next_owner_goes_on,
    );

    /// The former owner has its shards locked and waits for a row of somebody else; the new one waits for the shards.
    struct UnderWay {
        schema: TableSchema,
        theirs: SomebodyElse,
        connection: i64,
        former: tokio::task::JoinHandle<Result<Vec<Applied>, DatabaseError>>,
        taking: tokio::task::JoinHandle<Result<(), DatabaseError>>,
    }

    async fn under_way(h: &Harness, guard: model::VersionGuard) -> UnderWay {
        let schema = h.items(guard).await;
        h.apply_one(&schema, put(&schema, "a", 10)).await;
        let mut theirs = h.somebody_else().await;
        theirs.run("BEGIN").await;
        theirs.run(&format!("UPDATE {} SET n = n WHERE id = 'a'", schema.table.table)).await;
        let database = h.another(|options| options.pool = 1).await;
        let connection =
            database.sql().query_integers(h.of("SELECT CONNECTION_ID()", "SELECT pg_backend_pid()", "")).await.unwrap()
                [0];
        let former = {
            let schema = schema.clone();
            let changes = [put(&schema, "a", 20), delete(&schema, "b", 21)];
            tokio::spawn(async move { apply_as(&database, &schema, &changes, &me()).await })
        };
        h.waiting(1).await;
        let taking = {
            let (database, claims) = (h.database.clone(), claims(&schema));
            tokio::spawn(async move { database.take_ownership(&claims, &other()).await })
        };
        h.waiting(2).await;
        UnderWay { schema, theirs, connection, former, taking }
    }

    pub(super) async fn a_new_owner_waits_for_the_former_ones_transaction(h: Harness) {
        for guard in GUARDS {
            let UnderWay { schema, mut theirs, former, taking, .. } = under_way(&h, guard).await;
            assert!(!taking.is_finished(), "the former owner could still commit");
            theirs.run("ROLLBACK").await;
            assert_eq!(taking.await.unwrap(), Ok(()));
            // The shards are ours: what the former owner had running is there, and no more comes.
            assert_eq!(h.read(&schema, &id("a")).await, present(20, item("a", 20)));
            assert_eq!(h.read(&schema, &id("b")).await, deleted(21));
            assert_eq!(former.await.unwrap(), Ok(vec![Applied::Written; 2]));
            let late = h.apply(&schema, &[put(&schema, "a", 30)]).await;
            assert_eq!(late, Err(DatabaseError::NotOwner(schema.table.table.clone())));
        }
    }

    pub(super) async fn a_transaction_whose_connection_is_killed_is_undone_and_the_next_owner_goes_on(h: Harness) {
        for guard in GUARDS {
            let UnderWay { schema, mut theirs, connection, former, taking } = under_way(&h, guard).await;
            let terminate = format!("SELECT pg_terminate_backend({connection})");
            h.sql(&h.of(format!("KILL {connection}"), terminate, String::new())).await;
            assert_eq!(taking.await.unwrap(), Ok(()), "its locks are gone with it");
            let error = former.await.unwrap().unwrap_err();
            assert!(error.class().may_pass(), "{error}");
            theirs.run("ROLLBACK").await;
            assert_eq!(h.read(&schema, &id("a")).await, present(10, item("a", 10)), "all of it was undone");
            assert_eq!(h.read(&schema, &id("b")).await, DatabaseRow::Absent);
            let changes = [put(&schema, "a", 20), delete(&schema, "b", 21)];
            assert_eq!(apply_as(&h.database, &schema, &changes, &other()).await, Ok(vec![Applied::Written; 2]));
        }
    }
}
