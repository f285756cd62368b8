//! Tombstones are forgotten, and nothing comes back.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use database::{Applied, Batch, Change, Database, DatabaseRow, ErrorClass, Owner, ShardClaim};
use drain_svc::DrainOptions;
use model::{Chance, Content, Image, Key, Operation, Shard, ShardCount, TableName, TableRef, Value, Version};
use tokio::time::sleep;

use crate::{
    db::id,
    hot::Damaged,
    world::{SHARDS, Still, options, until},
};

pub(crate) fn purging(retention: Duration) -> DrainOptions {
    let mut options = options();
    options.purge_interval = Duration::from_secs(1);
    options.tombstone_retention = retention;
    options
}

impl Still {
    /// The versions of all tombstones that the database holds.
    pub(crate) fn tombstones(&self) -> Vec<Version> {
        let records = self.db.straight().records(&self.schema.table.table).unwrap();
        let version = |(_, row)| match row {
            DatabaseRow::Deleted { version } => Some(version),
            _ => None,
        };
        records.into_iter().filter_map(version).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_is_kept_for_its_time_and_then_forgotten() {
    let world = Still::still().await;
    let drain = world.start(purging(Duration::from_secs(600)));
    for n in 0..50 {
        world.write(n, Some(n)).await;
        world.write(n, None).await;
    }
    world.until_clean().await;
    sleep(Duration::from_secs(590)).await;
    assert_eq!(world.tombstones().len(), 50);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.tombstones(), []);
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_forgotten_that_a_write_the_database_lacks_may_lie_below() {
    let world = Still::still().await;
    let shard = world.shard(&id(0));
    let mine: Vec<i64> = (1..200).filter(|n| world.shard(&id(*n)) == shard).take(20).collect();
    let [below, missing, above] = [&mine[..9], &mine[9..10], &mine[10..]];
    let drain = world.start(purging(Duration::from_millis(400)));
    for n in below {
        world.write(*n, None).await;
    }
    world.until_clean().await;
    sleep(Duration::from_millis(500)).await;
    world.db.poison.lock().unwrap().replace((id(missing[0]), ErrorClass::Dependent));
    let (oldest, _) = world.write(missing[0], Some(1)).await;
    world.write(missing[0], Some(2)).await;
    for n in above {
        world.write(*n, None).await;
    }
    until("those below are forgotten", || async { world.tombstones().len() == above.len() }).await;
    sleep(Duration::from_secs(60)).await;
    let kept = world.tombstones();
    assert!(kept.len() == above.len() && kept.iter().all(|version| *version > oldest), "{kept:?}");
    let horizon = world.db.straight().shard_state(&world.schema.table.table, shard).unwrap().purge_horizon;
    assert!(horizon < oldest, "{horizon}");

    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    until("the others are forgotten as well", || async { world.tombstones().is_empty() }).await;
    let kept = world.rows([missing[0]]).await.remove(&missing[0]).unwrap();
    assert!(matches!(kept, DatabaseRow::Present { .. }), "{kept:?}");
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_counts_against_the_limit() {
    let world = Still::still().await;
    let drain = world.start(options());
    for n in 0..200 {
        world.write(n, None).await;
    }
    world.until_clean().await;
    drain.stop().await;
    let mut slow = purging(Duration::ZERO);
    slow.default_table.rows_per_second = Some(20.0);
    let drain = world.start(slow);
    until("it begins", || async { world.tombstones().len() < 200 }).await;
    let begun = tokio::time::Instant::now();
    while !world.tombstones().is_empty() {
        sleep(Duration::from_millis(100)).await;
        let (gone, allowed) = (200 - world.tombstones().len(), begun.elapsed().as_secs_f64() * 20.0 + 3.0);
        assert!(gone as f64 <= allowed, "{gone}, {allowed} allowed");
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_waits_for_a_database_that_is_away() {
    let world = Still::still().await;
    let drain = world.start(purging(Duration::ZERO));
    world.write(1, None).await;
    world.until_clean().await;
    world.db.away.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(20)).await;
    world.db.away.store(false, Ordering::SeqCst);
    until("it is forgotten", || async { world.tombstones().is_empty() }).await;
    drain.stop().await;
}

/// Replicas that were deployed together shall not purge together: their limit is one second's.
#[tokio::test(start_paused = true)]
async fn the_first_round_comes_at_a_time_of_its_own() {
    let mut times = BTreeSet::new();
    for seed in 0..8 {
        let world = Still::still().await;
        world.write(1, None).await;
        let mut options = purging(Duration::ZERO);
        options.purge_interval = Duration::from_secs(10);
        options.chance = Chance::seeded(seed);
        let drain = world.start(options);
        world.until_clean().await;
        let begun = tokio::time::Instant::now();
        while !world.tombstones().is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
        let after = begun.elapsed().as_millis();
        assert!((4_900..=10_100).contains(&after), "{after} ms");
        times.insert(after);
        drain.stop().await;
    }
    assert!(times.len() > 4, "{times:?}");
}

impl Still {
    /// Eight tombstones of the other table, which an earlier owner has left.
    async fn deleted_orders(&self) {
        let (database, owner) = (self.db.straight(), Owner("earlier".to_owned()));
        let table = TableRef { table: TableName::new("orders").unwrap(), ..self.schema.table.clone() };
        let schema = database.introspect(&table.database, &table.table).await.unwrap();
        let shards = ShardCount::new(SHARDS).unwrap();
        let claims: Vec<ShardClaim> =
            shards.all().map(|shard| ShardClaim { table: table.table.clone(), shard }).collect();
        database.take_ownership(&claims, &owner).await.unwrap();
        for n in 0..8 {
            let key = Key(vec![Value::Int64(n)]);
            let shard = schema.shard_of(&key, shards);
            let version = Version::new(1).unwrap();
            let image = Image {
                content: Content::Tombstone,
                operation: Operation::Delete,
                fingerprint: schema.fingerprint(),
                request: None,
                since: None,
            };
            let changes = [Change { shard, key, version, image }];
            let batch = Batch { schema: &schema, owners: vec![(shard, owner.clone())], changes: &changes };
            assert_eq!(database.apply(batch).await, Ok(vec![Applied::Written]));
        }
    }

    /// A deleted row in each shard, in the order of the shards.
    async fn delete_in_each_shard(&self) -> Vec<i64> {
        let in_shard = |shard| (0..).find(|n| self.shard(&id(*n)) == Shard(shard)).unwrap();
        let keys: Vec<i64> = (0..SHARDS as u16).map(in_shard).collect();
        for n in &keys {
            self.write(*n, None).await;
        }
        keys
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_looked_at_keeps_only_itself_from_being_purged() {
    let world = Still::still().await;
    // The others come after it.
    let hot = Arc::new(Damaged { inner: world.hot.clone(), shard: Shard(0) });
    let drain = world.start_on(hot, purging(Duration::ZERO));
    let keys = world.delete_in_each_shard().await;
    world.until_clean().await;
    until("the others are forgotten", || async { world.tombstones().len() == 1 }).await;
    sleep(Duration::from_secs(10)).await;
    let kept = world.rows(keys.iter().copied()).await;
    assert!(matches!(kept[&keys[0]], DatabaseRow::Deleted { .. }), "{kept:?}");
    drain.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_table_that_waits_for_its_budget_keeps_no_other_one_from_being_purged() {
    let world = Still::still().await;
    world.enable_orders().await;
    world.deleted_orders().await;
    let mut options = purging(Duration::ZERO);
    // The next row of it is due in an hour.
    let hourly = drain_svc::TableOptions { rows_per_second: Some(1.0 / 3600.0), ..options.default_table.clone() };
    options.per_table.insert("main.orders".into(), hourly);
    let drain = world.start(options);
    for n in 0..3 {
        world.write(n, None).await;
        world.until_clean().await;
        until("it is forgotten", || async { world.tombstones().is_empty() }).await;
    }
    assert!(world.db.straight().records(&TableName::new("orders").unwrap()).unwrap().len() >= 7, "it was not waiting");
    drain.stop().await;
}

/// A look at every shard, each second, would take all of such a limit.
#[tokio::test(start_paused = true)]
async fn where_there_is_nothing_to_forget_all_of_the_limit_is_for_rows() {
    let world = Still::still().await;
    let mut slow = purging(Duration::ZERO);
    slow.default_table.rows_per_second = Some(2.0);
    let drain = world.start(slow);
    for n in 0..1 + 2 * 20 {
        world.write(n, Some(n)).await;
    }
    let begun = tokio::time::Instant::now();
    world.until_clean().await;
    assert!(begun.elapsed() < Duration::from_secs(24), "{:?}", begun.elapsed());
    assert!(world.db.calls().iter().any(|call| call.contains("count tombstones")), "nobody looked");
    assert!(!world.db.calls().iter().any(|call| call.contains("purge")), "there is nothing to forget");
    drain.stop().await;
}

/// A round begins before the last shard was reached.
#[tokio::test(start_paused = true)]
async fn a_low_limit_lets_the_last_shard_have_its_turn() {
    let world = Still::still().await;
    let keys = world.delete_in_each_shard().await;
    let drain = world.start(options());
    world.until_clean().await;
    drain.stop().await;
    let mut slow = purging(Duration::ZERO);
    slow.default_table.rows_per_second = Some(0.5);
    let drain = world.start(slow);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.tombstones(), [], "of {keys:?}");
    drain.stop().await;
}
