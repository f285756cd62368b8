//! Owners of shards: who lost a shard writes nothing to it any more.

use std::sync::Arc;

use database::{Applied, Database, DatabaseError, DatabaseRow, Owner, ShardClaim};
use model::{Shard, TableName, TableSchema, VersionGuard};

use crate::harness::*;

on_every_database!(
    who_is_not_the_owner_writes_nothing,
    a_shard_that_nobody_took_is_nobodys,
    the_high_water_version_rises_with_all_that_was_decided,
    after_taking_a_shard_nothing_of_the_former_owner_arrives,
    replicas_that_take_shards_at_once_do_not_hinder_each_other,
    a_batch_must_say_who_owns_its_shards,
);

fn claims(schema: &TableSchema) -> Vec<ShardClaim> {
    shards().all().map(|shard| ShardClaim { table: schema.table.table.clone(), shard }).collect()
}

fn other() -> Owner {
    Owner("other".to_owned())
}

async fn high_water(h: &Harness, schema: &TableSchema, shard: Shard) -> u64 {
    let rows = h.database.shard_rows(std::slice::from_ref(&schema.table.table), shard).await.unwrap();
    rows[0].high_water.get()
}

async fn who_is_not_the_owner_writes_nothing(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let changes: Vec<_> = (0..8).map(|n| put(&schema, &format!("k{n}"), 10)).collect();
        // One shard of the batch is enough.
        let lost = changes[3].shard;
        let claim = ShardClaim { table: schema.table.table.clone(), shard: lost };
        h.database.take_ownership(&[claim], &other()).await.unwrap();
        let error = h.apply(&schema, &changes).await.unwrap_err();
        assert_eq!(error, DatabaseError::NotOwner(schema.table.table.clone()));
        assert_eq!(h.rows(&schema.table.table).await, 0);
        for shard in shards().all() {
            assert_eq!(high_water(&h, &schema, shard).await, 0, "undone with the rest");
        }
    }
}

async fn a_shard_that_nobody_took_is_nobodys(h: Harness) {
    h.make_items("fresh").await;
    let schema = h.introspect("fresh").await.unwrap();
    let error = h.apply(&schema, &[put(&schema, "a", 10)]).await.unwrap_err();
    assert_eq!(error, DatabaseError::NotOwner(schema.table.table.clone()));
    assert_eq!(high_water(&h, &schema, Shard(0)).await, 0);
}

async fn the_high_water_version_rises_with_all_that_was_decided(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let (a, shard) = (put(&schema, "a", 10), put(&schema, "a", 10).shard);
        h.apply_one(&schema, a).await;
        assert_eq!(high_water(&h, &schema, shard).await, 10);
        h.apply_one(&schema, delete(&schema, "a", 20)).await;
        assert_eq!(high_water(&h, &schema, shard).await, 20);
        h.apply_one(&schema, put(&schema, "a", 15)).await;
        assert_eq!(high_water(&h, &schema, shard).await, 20, "it never falls");
        // Refused, yet decided.
        h.write_theirs(&schema.table.table, "a", 1).await;
        assert_eq!(h.apply_one(&schema, since(put(&schema, "a", 30), 30)).await, Applied::SinceRefused);
        assert_eq!(high_water(&h, &schema, shard).await, 30);
        h.own(&schema).await;
        assert_eq!(high_water(&h, &schema, shard).await, 30, "a new owner finds what the former one left");
        let unknown = TableName::new("unknown").unwrap();
        let rows = h.database.shard_rows(&[unknown, schema.table.table.clone()], shard).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.high_water.get()).collect::<Vec<_>>(), [0, 30]);
    }
}

async fn after_taking_a_shard_nothing_of_the_former_owner_arrives(h: Harness) {
    let h = Arc::new(h);
    for guard in GUARDS {
        let schema = h.items(guard).await;
        for round in 0..5_u64 {
            h.own(&schema).await;
            let (begun, wait) = tokio::sync::oneshot::channel();
            let former = {
                let (h, schema) = (h.clone(), schema.clone());
                let mut begun = Some(begun);
                tokio::spawn(async move {
                    let mut number = round * 100_000 + 1;
                    while number < round * 100_000 + 20_000 {
                        match h.apply(&schema, &[put(&schema, "a", number)]).await {
                            Ok(applied) => assert_eq!(applied, [Applied::Written]),
                            Err(DatabaseError::NotOwner(_)) => return number,
                            Err(error) => panic!("{error}"),
                        }
                        if let Some(begun) = begun.take() {
                            begun.send(()).unwrap();
                        }
                        number += 1;
                    }
                    panic!("the former owner goes on writing");
                })
            };
            wait.await.unwrap();
            h.database.take_ownership(&claims(&schema), &other()).await.unwrap();
            let at_once = h.read(&schema, &id("a")).await;
            let refused = former.await.unwrap();
            assert_eq!(h.read(&schema, &id("a")).await, at_once, "{guard:?}");
            let DatabaseRow::Present { version, .. } = at_once else { panic!("{guard:?}: no row") };
            assert_eq!(version.get(), refused - 1, "{guard:?}: what was told to be written is there");
        }
    }
}

async fn replicas_that_take_shards_at_once_do_not_hinder_each_other(h: Harness) {
    let tables: Vec<TableName> = ["t1", "t2", "t3"].into_iter().map(name).collect();
    let claims: Vec<ShardClaim> = tables
        .iter()
        .flat_map(|table| (0..64).map(|shard| ShardClaim { table: table.clone(), shard: Shard(shard) }))
        .collect();
    let mut replicas = Vec::new();
    for replica in 0..4 {
        let database = h.another(|options| options.pool = 2).await;
        let mut claims = claims.clone();
        // Each in an order of its own.
        claims.rotate_left(replica * 37);
        replicas.push(tokio::spawn(async move {
            for _ in 0..5 {
                database.take_ownership(&claims, &Owner(format!("replica-{replica}"))).await.unwrap();
            }
        }));
    }
    for replica in replicas {
        replica.await.unwrap();
    }
    let (count, owners) = h.shard_owners(&tables, 64).await;
    assert_eq!((count, owners.len()), (3 * 64, 1), "each takes all in one transaction");
}

async fn a_batch_must_say_who_owns_its_shards(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    let changes = [put(&schema, "a", 10), put(&schema, "a", 11)];
    let batch = |owners, changes| database::Batch { schema: &schema, owners, changes };
    let error = h.database.apply(batch(vec![], &changes[..1])).await.unwrap_err();
    assert!(error.to_string().contains("without saying who owns it"), "{error}");
    let error = h.apply(&schema, &changes).await.unwrap_err();
    assert!(error.to_string().contains("a key twice"), "{error}");
    assert_eq!(h.database.apply(batch(vec![], &[])).await, Ok(vec![]));
}
