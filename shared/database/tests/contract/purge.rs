//! Purging tombstones, and the horizon that readers of the database see.

use std::sync::Arc;

use database::{Applied, Database, DatabaseError, DatabaseRow, Horizon, Owner, ShardClaim, ShardRow};
use model::{Epoch, Shard, TableName, TableSchema, VersionGuard};

use crate::harness::*;

on_every_database!(
    a_purge_forgets_the_oldest_tombstones_and_raises_the_horizon,
    a_purge_is_the_owners,
    a_row_of_somebody_else_where_a_tombstone_was_purged,
    a_replay_after_a_purge_changes_nothing,
    live_entries_of_the_ledger_stay,
    a_horizon_never_falls_and_is_the_owners,
    after_an_opening_nothing_is_taken_that_was_said_before_it,
    an_announcement_is_never_taken_back,
    an_opening_waits_for_what_is_under_way_and_sees_it,
    a_purge_beside_applies_lets_nothing_deleted_come_back,
);

fn other() -> Owner {
    Owner("other".to_owned())
}

/// Keys of one shard.
fn keys_of(schema: &TableSchema, shard: Shard, count: usize) -> Vec<String> {
    let keys = (0..).map(|n| format!("k{n}")).filter(|key| schema.shard_of(&id(key), shards()) == shard);
    keys.take(count).collect()
}

async fn purge_horizon(h: &Harness, schema: &TableSchema, shard: Shard) -> u64 {
    let rows = h.database.shard_rows(std::slice::from_ref(&schema.table.table), shard).await.unwrap();
    rows[0].purge_horizon.get()
}

/// What a look finds just before, and a purge forgets; where nobody writes meanwhile.
async fn purge(h: &Harness, schema: &TableSchema, shard: Shard, up_to: u64, limit: usize) -> u64 {
    let horizon = horizon(shard, up_to);
    let found = h.database.count_tombstones(schema, &horizon, limit).await;
    let purged = h.database.purge_tombstones(schema, &horizon, limit).await.unwrap();
    assert_eq!(found, Ok(purged), "a look finds what a purge forgets");
    purged
}

async fn a_purge_forgets_the_oldest_tombstones_and_raises_the_horizon(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let shard = Shard(1);
        let keys = keys_of(&schema, shard, 6);
        // The oldest is neither the first nor the last written.
        let gone: Vec<_> = keys.iter().zip([30, 10, 20, 50, 40, 60]).map(|(key, n)| delete(&schema, key, n)).collect();
        h.apply(&schema, &gone).await.unwrap();
        assert_eq!(purge(&h, &schema, shard, 9, 100).await, 0);
        assert_eq!(purge_horizon(&h, &schema, shard).await, 0, "nothing was forgotten");
        assert_eq!(purge(&h, &schema, Shard(2), 100, 100).await, 0, "they are of another shard");
        assert_eq!(purge(&h, &schema, shard, 50, 2).await, 2);
        assert_eq!(purge_horizon(&h, &schema, shard).await, 20);
        assert_eq!(h.read(&schema, &id(&keys[1])).await, DatabaseRow::Absent);
        assert_eq!(h.read(&schema, &id(&keys[2])).await, DatabaseRow::Absent);
        assert_eq!(h.read(&schema, &id(&keys[0])).await, deleted(30));
        assert_eq!(purge(&h, &schema, shard, 50, 100).await, 3);
        assert_eq!(purge_horizon(&h, &schema, shard).await, 50);
        assert_eq!(h.read(&schema, &id(&keys[5])).await, deleted(60), "younger than asked");
        assert_eq!(purge(&h, &schema, shard, 50, 100).await, 0);
        // Late events of what was forgotten.
        for (key, number) in [(&keys[1], 10), (&keys[1], 5), (&keys[2], 50)] {
            let purged = Applied::Purged { horizon: version(50) };
            assert_eq!(h.apply_one(&schema, put(&schema, key, number)).await, purged);
            assert_eq!(h.apply_one(&schema, delete(&schema, key, number)).await, purged);
            assert_eq!(h.read(&schema, &id(key)).await, DatabaseRow::Absent);
        }
        assert_eq!(h.apply_one(&schema, put(&schema, &keys[1], 51)).await, Applied::Written);
    }
}

async fn a_purge_is_the_owners(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let change = delete(&schema, "a", 10);
        let shard = change.shard;
        h.apply_one(&schema, change).await;
        let refused = Err(DatabaseError::NotOwner(schema.table.table.clone()));
        assert_eq!(
            h.database.purge_tombstones(&schema, &Horizon { owner: other(), ..horizon(shard, 20) }, 100).await,
            refused
        );
        let claim = ShardClaim { table: schema.table.table.clone(), shard };
        h.database.take_ownership(&[claim], &other()).await.unwrap();
        assert_eq!(h.database.purge_tombstones(&schema, &horizon(shard, 20), 100).await, refused);
        assert_eq!((h.read(&schema, &id("a")).await, purge_horizon(&h, &schema, shard).await), (deleted(10), 0));
        assert_eq!(
            h.database.purge_tombstones(&schema, &Horizon { owner: other(), ..horizon(shard, 20) }, 100).await,
            Ok(1)
        );
    }
}

async fn a_row_of_somebody_else_where_a_tombstone_was_purged(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let (made, gone) = (put(&schema, "a", 10), delete(&schema, "a", 20));
        let shard = gone.shard;
        for change in [&made, &gone] {
            assert_eq!(h.apply_one(&schema, change.clone()).await, Applied::Written);
        }
        assert_eq!(purge(&h, &schema, shard, 20, 100).await, 1);
        h.write_theirs(&schema.table.table, "a", 7).await;
        let stale = Applied::Stale { current: present(20, item("a", 7)) };
        for change in [made.clone(), gone, since(made, 10)] {
            assert_eq!(h.apply_one(&schema, change).await, stale, "it was decided before they put their row");
        }
        assert_eq!(h.read(&schema, &id("a")).await, present(0, item("a", 7)));
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 21)).await, Applied::Written);
    }
}

async fn a_replay_after_a_purge_changes_nothing(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let mut history = Vec::new();
        for number in 1..120_u64 {
            let key = format!("k{}", number * 7 % 20);
            let delete_it = number % 3 == 0;
            history.push(if delete_it { delete(&schema, &key, number) } else { put(&schema, &key, number) });
        }
        for change in &history {
            h.apply_one(&schema, change.clone()).await;
        }
        let keys: Vec<_> = (0..20).map(|n| id(&format!("k{n}"))).collect();
        let before = h.database.read(&schema, &keys).await.unwrap();
        let mut purged = 0;
        for shard in shards().all() {
            purged += purge(&h, &schema, shard, 110, 1000).await;
        }
        assert!(purged > 0, "the test is about purged tombstones");
        let after: Vec<DatabaseRow> = before
            .into_iter()
            .map(|row| match row {
                DatabaseRow::Deleted { version } if version.get() <= 110 => DatabaseRow::Absent,
                other => other,
            })
            .collect();
        for _ in 0..2 {
            assert_eq!(h.database.read(&schema, &keys).await.unwrap(), after);
            for change in &history {
                let applied = h.apply_one(&schema, change.clone()).await;
                assert!(applied != Applied::Written, "{guard:?}: {} was written again", change.version);
            }
        }
        assert_eq!(h.database.read(&schema, &keys).await.unwrap(), after);
    }
}

async fn live_entries_of_the_ledger_stay(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let shard = Shard(3);
        let keys = keys_of(&schema, shard, 4);
        let changes = [
            put(&schema, &keys[0], 10),
            delete(&schema, &keys[1], 11),
            put(&schema, &keys[2], 12),
            delete(&schema, &keys[3], 13),
        ];
        h.apply(&schema, &changes).await.unwrap();
        // A row again, and a delete of what was a row.
        h.apply(&schema, &[put(&schema, &keys[1], 14), delete(&schema, &keys[2], 15)]).await.unwrap();
        assert_eq!(purge(&h, &schema, shard, 100, 100).await, 2);
        assert_eq!(purge_horizon(&h, &schema, shard).await, 15);
        for (key, number) in [(&keys[0], 10), (&keys[1], 14)] {
            assert_eq!(h.read(&schema, &id(key)).await, present(number, item(key, number as i64)));
            let stale = Applied::Stale { current: present(number, item(key, number as i64)) };
            assert_eq!(h.apply_one(&schema, put(&schema, key, 5)).await, stale, "its version was not forgotten");
            assert_eq!(h.apply_one(&schema, put(&schema, key, 20)).await, Applied::Written);
        }
    }
}

async fn a_horizon_never_falls_and_is_the_owners(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    let table = &schema.table.table;
    let note = async |horizons: &[(Shard, Owner, u64)]| {
        let horizons: Vec<_> =
            horizons.iter().map(|(s, o, n)| Horizon { owner: o.clone(), ..horizon(*s, *n) }).collect();
        h.database.note_horizons(table, &horizons).await.unwrap();
    };
    note(&[]).await;
    assert_eq!(h.horizon(table).await, 0);
    let all = |n: u64| -> Vec<_> { shards().all().rev().map(|shard| (shard, me(), n + u64::from(shard.0))).collect() };
    note(&all(100)).await;
    assert_eq!(h.horizon(table).await, 100, "the lowest of all shards");
    note(&all(50)).await;
    assert_eq!(h.horizon(table).await, 100, "it never falls");
    note(&[(Shard(0), other(), 900), (Shard(1), me(), 900), (Shard(9), me(), 5)]).await;
    assert_eq!(h.horizon(table).await, 100, "only its owner tells, and a shard without row gets none");
    note(&[(Shard(0), me(), 900)]).await;
    assert_eq!(h.horizon(table).await, 102);
    let claim = ShardClaim { table: table.clone(), shard: Shard(2) };
    h.database.take_ownership(&[claim], &other()).await.unwrap();
    note(&all(1000)).await;
    assert_eq!(h.horizon(table).await, 102, "a new owner finds what the former one left, which says nothing more");
    note(&[(Shard(2), other(), 1000)]).await;
    assert_eq!(h.horizon(table).await, 1000);
    let rows = h.database.shard_rows(std::slice::from_ref(table), Shard(3)).await.unwrap();
    assert_eq!(rows[0].horizon, version(1003), "an opening can tell as well");
}

async fn after_an_opening_nothing_is_taken_that_was_said_before_it(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let table = &schema.table.table;
        let shard = Shard(1);
        let (key, other) = (&keys_of(&schema, shard, 1)[0], &keys_of(&schema, Shard(2), 1)[0]);
        let (gone, neighbour) = (delete(&schema, key, 10), delete(&schema, other, 10));
        let at = async |shard: Shard| h.database.shard_rows(std::slice::from_ref(table), shard).await.unwrap()[0];
        h.apply(&schema, &[gone, neighbour.clone()]).await.unwrap();
        let said = |epoch, up_to| Horizon { epoch: Epoch(epoch), ..horizon(shard, up_to) };
        h.database.note_horizons(table, &[said(1, 20)]).await.unwrap();

        let found = h.database.announce_opening(std::slice::from_ref(table), shard, Epoch(2)).await.unwrap();
        let row = ShardRow { high_water: version(10), horizon: version(20), epoch: Epoch(2), ..ShardRow::default() };
        assert_eq!((found.as_slice(), at(shard).await), ([row].as_slice(), row), "{guard:?}");
        let elsewhere = Horizon { epoch: Epoch(1), ..horizon(neighbour.shard, 90) };
        h.database.note_horizons(table, &[said(1, 90), elsewhere.clone()]).await.unwrap();
        assert_eq!(at(shard).await, row, "it came late");
        assert_eq!(at(neighbour.shard).await.horizon, version(90), "that shard was not opened");
        let outdated = DatabaseError::Outdated { table: table.clone(), shard };
        assert_eq!(h.database.purge_tombstones(&schema, &said(1, 20), 10).await, Err(outdated));
        assert_eq!((at(shard).await, h.read(&schema, &id(key)).await), (row, deleted(10)), "nothing was done");
        assert_eq!(h.database.purge_tombstones(&schema, &elsewhere, 10).await, Ok(1));

        for (epoch, up_to) in [(2, 30), (3, 40)] {
            h.database.note_horizons(table, &[said(epoch, up_to)]).await.unwrap();
            assert_eq!(at(shard).await.horizon, version(up_to), "it was said after the opening");
        }
        assert_eq!(at(shard).await.epoch, Epoch(2), "only an opening announces itself");
        h.own(&schema).await;
        h.database.note_horizons(table, &[said(1, 90)]).await.unwrap();
        assert_eq!(at(shard).await.horizon, version(40), "an owner that comes later finds the epoch");
        assert_eq!(h.database.purge_tombstones(&schema, &said(2, 20), 10).await, Ok(1));
    }
}

async fn an_announcement_is_never_taken_back(h: Harness) {
    let schema = h.items(VersionGuard::Column).await;
    let (table, unknown) = (&schema.table.table, TableName::new("unknown").unwrap());
    let shard = Shard(1);
    let announce = async |tables: &[TableName], epoch| {
        let rows = h.database.announce_opening(tables, shard, Epoch(epoch)).await.unwrap();
        rows.into_iter().map(|row| row.epoch.0).collect::<Vec<_>>()
    };
    assert_eq!(announce(&[], 7).await, [] as [u32; 0]);
    assert_eq!(announce(std::slice::from_ref(table), 7).await, [7]);
    // The other one has no row yet: it gets one, or what is taken later of an earlier epoch would find none.
    assert_eq!(announce(&[unknown.clone(), table.clone()], 5).await, [5, 7], "in the order of the tables");
    assert_eq!(announce(&[table.clone(), unknown.clone(), table.clone()], 9).await, [9, 9, 9]);
    let claim = ShardClaim { table: unknown.clone(), shard };
    let note = Horizon { epoch: Epoch(8), ..horizon(shard, 20) };
    h.database.note_horizons(&unknown, std::slice::from_ref(&note)).await.unwrap();
    h.database.take_ownership(&[claim], &me()).await.unwrap();
    h.database.note_horizons(&unknown, std::slice::from_ref(&note)).await.unwrap();
    let row = ShardRow { epoch: Epoch(9), ..ShardRow::default() };
    assert_eq!(h.database.shard_rows(std::slice::from_ref(&unknown), shard).await, Ok(vec![row]));
    h.database.note_horizons(&unknown, &[Horizon { epoch: Epoch(9), ..note }]).await.unwrap();
    assert_eq!(h.horizon(&unknown).await, 20);

    // Openings of several shards and of several replicas at once.
    let h = Arc::new(h);
    let mut replicas = Vec::new();
    for n in 0..24 {
        let (h, tables) = (h.clone(), [unknown.clone(), schema.table.table.clone()]);
        replicas.push(tokio::spawn(async move {
            let tables = if n % 2 == 0 { tables } else { [tables[1].clone(), tables[0].clone()] };
            let rows = h.database.announce_opening(&tables, Shard(n % 3), Epoch(100 + u32::from(n))).await.unwrap();
            assert!(rows.iter().all(|row| row.epoch >= Epoch(100 + u32::from(n))));
        }));
    }
    for replica in replicas {
        replica.await.unwrap();
    }
    for n in 0..3 {
        let rows = h.database.shard_rows(&[unknown.clone(), schema.table.table.clone()], Shard(n)).await.unwrap();
        assert!(rows.iter().all(|row| row.epoch == Epoch(121 + u32::from(n))), "{rows:?}");
    }
}

async fn an_opening_waits_for_what_is_under_way_and_sees_it(h: Harness) {
    let h = Arc::new(h);
    let schema = h.items(VersionGuard::Ledger).await;
    let table = schema.table.table.clone();
    let mut epoch = 0;
    for round in 1..40_u64 {
        epoch += 1;
        let shard = Shard((round % 4) as u16);
        let noter = {
            let (h, table) = (h.clone(), table.clone());
            let note = Horizon { epoch: Epoch(epoch), ..horizon(shard, round * 100) };
            tokio::spawn(async move { h.database.note_horizons(&table, &[note]).await.unwrap() })
        };
        let found = h.database.announce_opening(std::slice::from_ref(&table), shard, Epoch(epoch + 1)).await.unwrap();
        noter.await.unwrap();
        let after = h.database.shard_rows(std::slice::from_ref(&table), shard).await.unwrap();
        assert_eq!(found, after, "what the opening did not see was not taken");
    }
}

async fn a_purge_beside_applies_lets_nothing_deleted_come_back(h: Harness) {
    let h = Arc::new(h);
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let shard = Shard(0);
        let keys = keys_of(&schema, shard, 3);
        let purger = {
            let (h, schema) = (h.clone(), schema.clone());
            tokio::spawn(async move {
                let mut purged = 0;
                while purge_horizon(&h, &schema, shard).await < 90 {
                    let rows = h.database.shard_rows(std::slice::from_ref(&schema.table.table), shard).await.unwrap();
                    let horizon = horizon(shard, rows[0].high_water.get());
                    purged += h.database.purge_tombstones(&schema, &horizon, 2).await.unwrap();
                    tokio::task::yield_now().await;
                }
                purged
            })
        };
        for round in 0..30_u64 {
            for (n, key) in keys.iter().enumerate() {
                let made = (round * 3 + n as u64) * 2 + 1;
                let gone = made + 1;
                // Each create is delivered once more after its delete, while the tombstone may be purged.
                assert_eq!(h.apply_one(&schema, put(&schema, key, made)).await, Applied::Written);
                assert_eq!(h.apply_one(&schema, delete(&schema, key, gone)).await, Applied::Written);
                let late = h.apply_one(&schema, put(&schema, key, made)).await;
                assert!(matches!(late, Applied::Stale { .. } | Applied::Purged { .. }), "{guard:?}: {late:?}");
            }
        }
        assert!(purger.await.unwrap() > 0);
        for key in &keys {
            let row = h.read(&schema, &id(key)).await;
            assert!(matches!(row, DatabaseRow::Absent | DatabaseRow::Deleted { .. }), "{guard:?}: {row:?}");
        }
    }
}
