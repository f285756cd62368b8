//! The version guards: nothing newer is overwritten, nothing deleted comes back.

use std::sync::Arc;

use database::{Applied, Database, DatabaseRow, ErrorClass};
use model::{Key, Value, VersionGuard};

use crate::{
    altered::as_update,
    harness::*,
    tables::{Holds, TableOf},
};

on_each_database!(
    what_is_newer_stays,
    a_replay_changes_nothing,
    a_delete_leaves_a_tombstone_that_a_late_put_does_not_undo,
    a_newer_put_over_a_tombstone_is_a_row_again,
    a_row_that_was_there_before_us_is_version_zero,
    deletes_of_rows_that_were_there_before_us_and_of_nothing,
    a_purged_record_is_not_inserted_again,
    since_lets_a_create_meet_only_its_own_history,
    a_row_of_somebody_else_where_our_tombstone_stands,
    a_row_that_somebody_else_removed,
    a_batch_decides_each_change_by_itself,
    a_table_of_nothing_but_its_key,
    reading_between_put_and_delete_never_finds_nothing,
    reading_many_keys_keeps_their_order;
    about_sql:
    an_update_of_an_older_schema_leaves_the_new_column_alone,
    an_update_of_an_older_schema_is_judged_by_what_becomes_of_its_row,
    a_key_equal_by_collation_is_one_key_or_refused,
);

async fn what_is_newer_stays(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 10)).await, Applied::Written);
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 20)).await, Applied::Written);
        let current = present(20, item("a", 20));
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 15)).await, Applied::Stale { current: current.clone() });
        assert_eq!(h.apply_one(&schema, delete(&schema, "a", 15)).await, Applied::Stale { current: current.clone() });
        assert_eq!(h.read(&schema, &id("a")).await, current);
    }
}

async fn a_replay_changes_nothing(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let changes = [put(&schema, "a", 10), delete(&schema, "b", 11), put(&schema, "c", 12)];
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; 3]);
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Same; 3]);
        assert_eq!(h.read(&schema, &id("a")).await, present(10, item("a", 10)));
        assert_eq!(h.read(&schema, &id("b")).await, deleted(11));
    }
}

async fn a_delete_leaves_a_tombstone_that_a_late_put_does_not_undo(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.apply_one(&schema, put(&schema, "a", 10)).await;
        assert_eq!(h.apply_one(&schema, delete(&schema, "a", 20)).await, Applied::Written);
        assert_eq!(h.read(&schema, &id("a")).await, deleted(20));
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 15)).await, Applied::Stale { current: deleted(20) });
        assert_eq!(h.read(&schema, &id("a")).await, deleted(20));
        assert_eq!(h.rows(&schema.table.table).await, 0);
    }
}

async fn a_newer_put_over_a_tombstone_is_a_row_again(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.apply_one(&schema, delete(&schema, "a", 20)).await;
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 30)).await, Applied::Written);
        assert_eq!(h.read(&schema, &id("a")).await, present(30, item("a", 30)));
        let entries = i64::from(guard == VersionGuard::Ledger);
        assert_eq!(h.ledger_entries(&schema.table.table).await, entries, "the tombstone is gone");
        // The version is not forgotten with the tombstone.
        assert_eq!(
            h.apply_one(&schema, put(&schema, "a", 25)).await,
            Applied::Stale { current: present(30, item("a", 30)) }
        );
    }
}

async fn a_row_that_was_there_before_us_is_version_zero(h: Harness) {
    for guard in GUARDS {
        let table = format!("old_{guard:?}").to_lowercase();
        h.make_items(&table).await;
        h.write_theirs(&name(&table), "a", 1).await;
        h.write_theirs(&name(&table), "b", 2).await;
        if guard == VersionGuard::Column {
            h.database.add_version_column(&name(&table)).await.unwrap();
            h.database.add_version_column(&name(&table)).await.unwrap();
        }
        let schema = h.introspect(&table).await.unwrap();
        assert_eq!((schema.guard, schema.columns.len()), (guard, 3));
        h.own(&schema).await;
        assert_eq!(h.read(&schema, &id("a")).await, present(0, item("a", 1)));
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 5)).await, Applied::Written);
        assert_eq!(h.read(&schema, &id("a")).await, present(5, item("a", 5)));
        assert_eq!(
            h.apply_one(&schema, put(&schema, "a", 4)).await,
            Applied::Stale { current: present(5, item("a", 5)) }
        );
        assert_eq!(h.read(&schema, &id("b")).await, present(0, item("b", 2)));
    }
}

async fn deletes_of_rows_that_were_there_before_us_and_of_nothing(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.write_theirs(&schema.table.table, "a", 1).await;
        let changes = [delete(&schema, "a", 5), delete(&schema, "nothing", 6)];
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), vec![Applied::Written; 2]);
        for (key, number) in [("a", 5), ("nothing", 6)] {
            assert_eq!(h.read(&schema, &id(key)).await, deleted(number));
            assert_eq!(h.apply_one(&schema, put(&schema, key, 3)).await, Applied::Stale { current: deleted(number) });
        }
    }
}

async fn a_purged_record_is_not_inserted_again(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.apply_one(&schema, delete(&schema, "a", 20)).await;
        let shard = schema.shard_of(&id("a"), shards());
        assert_eq!(h.database.purge_tombstones(&schema, &horizon(shard, 20), 10).await, Ok(1));
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 15)).await, Applied::Purged { horizon: version(20) });
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 20)).await, Applied::Purged { horizon: version(20) });
        assert_eq!(h.read(&schema, &id("a")).await, DatabaseRow::Absent);
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 21)).await, Applied::Written);
        let rows = h
            .database
            .shard_rows(std::slice::from_ref(&schema.table.table), schema.shard_of(&id("a"), shards()))
            .await
            .unwrap();
        assert_eq!(rows[0].purge_horizon, version(20));
    }
}

async fn since_lets_a_create_meet_only_its_own_history(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.write_theirs(&schema.table.table, "theirs", 1).await;
        h.apply_one(&schema, put(&schema, "older", 10)).await;
        h.apply_one(&schema, delete(&schema, "gone", 10)).await;
        let changes = [
            since(put(&schema, "theirs", 20), 20),
            since(put(&schema, "older", 20), 20),
            since(put(&schema, "gone", 20), 20),
            since(put(&schema, "new", 20), 20),
        ];
        let expected = vec![Applied::SinceRefused, Applied::SinceRefused, Applied::Written, Applied::Written];
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), expected);
        assert_eq!(h.read(&schema, &id("theirs")).await, present(0, item("theirs", 1)));
        assert_eq!(h.read(&schema, &id("older")).await, present(10, item("older", 10)));
        // An update of the create, while it is not clean yet: the row there is the create itself.
        assert_eq!(h.apply_one(&schema, since(put(&schema, "new", 21), 20)).await, Applied::Written);
        assert_eq!(
            h.apply_one(&schema, since(put(&schema, "new", 20), 20)).await,
            Applied::Stale { current: present(21, item("new", 21)) }
        );
    }
}

async fn a_row_of_somebody_else_where_our_tombstone_stands(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.apply_one(&schema, delete(&schema, "a", 20)).await;
        h.write_theirs(&schema.table.table, "a", 1).await;
        assert_eq!(h.read(&schema, &id("a")).await, present(20, item("a", 1)));
        assert_eq!(
            h.apply_one(&schema, put(&schema, "a", 15)).await,
            Applied::Stale { current: present(20, item("a", 1)) }
        );
        assert_eq!(h.apply_one(&schema, put(&schema, "a", 25)).await, Applied::Written);
        assert_eq!(h.read(&schema, &id("a")).await, present(25, item("a", 25)));
    }
}

async fn a_row_that_somebody_else_removed(h: Harness) {
    let schema = h.items(VersionGuard::Ledger).await;
    h.apply_one(&schema, put(&schema, "a", 20)).await;
    h.remove_theirs(&schema.table.table).await;
    assert_eq!(h.apply_one(&schema, put(&schema, "a", 15)).await, Applied::Stale { current: deleted(20) });
    assert_eq!(h.apply_one(&schema, put(&schema, "a", 25)).await, Applied::Written);
    assert_eq!(h.read(&schema, &id("a")).await, present(25, item("a", 25)));
    // Where the version stood in the row, it has gone with it: what is delivered again comes back.
    let schema = h.items(VersionGuard::Column).await;
    h.apply_one(&schema, put(&schema, "a", 20)).await;
    h.remove_theirs(&schema.table.table).await;
    assert_eq!(h.read(&schema, &id("a")).await, DatabaseRow::Absent);
    assert_eq!(h.apply_one(&schema, put(&schema, "a", 20)).await, Applied::Written);
}

async fn a_batch_decides_each_change_by_itself(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let before: Vec<_> = (0..40).map(|n| put(&schema, &format!("k{n:02}"), 100)).collect();
        h.apply(&schema, &before).await.unwrap();
        h.apply(&schema, &[delete(&schema, "k01", 110), delete(&schema, "k05", 110)]).await.unwrap();
        let mut changes = Vec::new();
        let mut expected = Vec::new();
        for n in (0..60_u64).rev() {
            let key = format!("k{n:02}");
            let (change, outcome) = match n {
                1 => (put(&schema, &key, 105), Applied::Stale { current: deleted(110) }),
                5 => (put(&schema, &key, 120), Applied::Written),
                7 => (put(&schema, &key, 50), Applied::Stale { current: present(100, item("k07", 100)) }),
                8 => (put(&schema, &key, 100), Applied::Same),
                _ if n.is_multiple_of(3) => (delete(&schema, &key, 200 + n), Applied::Written),
                _ => (put(&schema, &key, 200 + n), Applied::Written),
            };
            changes.push(change);
            expected.push(outcome);
        }
        assert_eq!(h.apply(&schema, &changes).await.unwrap(), expected);
        let keys: Vec<Key> = (0..60).map(|n| id(&format!("k{n:02}"))).collect();
        let rows = h.database.read(&schema, &keys).await.unwrap();
        for (n, row) in rows.into_iter().enumerate() {
            let n = n as u64;
            let key = format!("k{n:02}");
            let expected = match n {
                1 => deleted(110),
                5 => present(120, item(&key, 120)),
                7 | 8 => present(100, item(&key, 100)),
                _ if n.is_multiple_of(3) => deleted(200 + n),
                _ => present(200 + n, item(&key, 200 + n as i64)),
            };
            assert_eq!(row, expected, "{key}");
        }
    }
}

async fn a_table_of_nothing_but_its_key(h: Harness) {
    for guard in GUARDS {
        let table = format!("tags_{guard:?}").to_lowercase();
        let columns = [("owner", Holds::Text), ("tag", Holds::Number)];
        let tags = TableOf { name: &table, columns: &columns, key: &["tag", "owner"], unique: None };
        let schema = h.table_of(&tags, guard).await;
        let tag = |n: i64| row([("owner", text("o")), ("tag", model::Value::Int64(n))]);
        let all: Vec<_> = (0..9).map(|n| put_row(&schema, tag(n), 10)).collect();
        assert_eq!(h.apply(&schema, &all).await.unwrap(), vec![Applied::Written; 9]);
        let all: Vec<_> = (0..9).map(|n| put_row(&schema, tag(n), 11)).collect();
        assert_eq!(h.apply(&schema, &all).await.unwrap(), vec![Applied::Written; 9]);
        assert_eq!(h.read(&schema, &schema.key_of(&tag(3)).unwrap()).await, present(11, tag(3)));
        let gone = change(&schema, schema.key_of(&tag(3)).unwrap(), 12, model::Content::Tombstone);
        assert_eq!(h.apply_one(&schema, gone).await, Applied::Written);
        assert_eq!(h.rows(&schema.table.table).await, 8);
    }
}

/// And not by a row that has the new column's default in place of what is there.
async fn an_update_of_an_older_schema_is_judged_by_what_becomes_of_its_row(h: Harness) {
    for guard in GUARDS {
        let table = format!("priced_{guard:?}").to_lowercase();
        let create = format!("CREATE TABLE {table} (id VARCHAR(9) NOT NULL PRIMARY KEY, price BIGINT NOT NULL)");
        let schema = h.table(&table, &create, guard).await;
        let priced = |price: i64| row([("id", text("a")), ("price", Value::Int64(price))]);
        h.apply_one(&schema, put_row(&schema, priced(5), 10)).await;
        let version = if guard == VersionGuard::Column { ", _sa_version" } else { "" };
        let altered = h.of(
            format!(
                "ALTER TABLE {table} ADD COLUMN least BIGINT NOT NULL DEFAULT 0, ADD COLUMN most BIGINT NOT NULL DEFAULT 7, \
                 ADD CHECK (price <= most); UPDATE {table} SET least = 1, most = 100; \
                 ALTER TABLE {table} ALTER COLUMN least DROP DEFAULT"
            ),
            format!(
                "ALTER TABLE {table} ADD COLUMN least BIGINT NOT NULL DEFAULT 0, ADD COLUMN most BIGINT NOT NULL DEFAULT 7, \
                 ADD CHECK (price <= most); UPDATE {table} SET least = 1, most = 100; \
                 ALTER TABLE {table} ALTER COLUMN least DROP DEFAULT"
            ),
            format!(
                "ALTER TABLE {table} RENAME TO older; CREATE TABLE {table} (id VARCHAR(9) NOT NULL PRIMARY KEY, price BIGINT \
                 NOT NULL, _sa_version BIGINT NOT NULL DEFAULT 0, least BIGINT NOT NULL, most BIGINT NOT NULL DEFAULT 7, \
                 CHECK (price <= most)); INSERT INTO {table} (id, price{version}, least, most) \
                 SELECT id, price{version}, 1, 100 FROM older; DROP TABLE older"
            )
            .replace(if guard == VersionGuard::Ledger { "_sa_version BIGINT NOT NULL DEFAULT 0, " } else { "\0" }, ""),
        );
        h.sql(&altered).await;
        let grown = h.introspect(&table).await.unwrap();
        assert_eq!(h.apply_one(&grown, as_update(put_row(&grown, priced(50), 20))).await, Applied::Written);
        let kept = [("least", Value::Int64(1)), ("most", Value::Int64(100))];
        assert_eq!(h.read(&grown, &id("a")).await, present(20, priced(50).merged_with(row(kept))));
        let error = h.apply(&grown, &[as_update(put_row(&grown, priced(500), 30))]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permanent, "{error}");
    }
}

async fn an_update_of_an_older_schema_leaves_the_new_column_alone(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.apply_one(&schema, put(&schema, "a", 10)).await;
        let table = &schema.table.table;
        h.sql(&format!("ALTER TABLE {table} ADD COLUMN added BIGINT DEFAULT 7")).await;
        let newer = h.introspect(table.as_str()).await.unwrap();
        h.sql(&format!("UPDATE {table} SET added = 8 WHERE id = 'a'")).await;
        let changes = [put(&newer, "a", 20), put(&newer, "b", 20)].map(as_update);
        assert_eq!(h.apply(&newer, &changes).await.unwrap(), vec![Applied::Written; 2]);
        assert_eq!(h.number(&format!("SELECT added FROM {table} WHERE id = 'a'")).await, Some(8));
        assert_eq!(h.number(&format!("SELECT added FROM {table} WHERE id = 'b'")).await, Some(7));
        assert_eq!(h.number(&format!("SELECT n FROM {table} WHERE id = 'a'")).await, Some(20));
    }
}

async fn reading_between_put_and_delete_never_finds_nothing(h: Harness) {
    let h = Arc::new(h);
    for guard in GUARDS {
        let schema = h.items(guard).await;
        h.apply_one(&schema, put(&schema, "a", 1)).await;
        let writer = {
            let (h, schema) = (h.clone(), schema.clone());
            tokio::spawn(async move {
                for number in 2..150 {
                    let change = if number % 2 == 0 { delete(&schema, "a", number) } else { put(&schema, "a", number) };
                    assert_eq!(h.apply_one(&schema, change).await, Applied::Written);
                }
            })
        };
        let mut last = version(0);
        while !writer.is_finished() {
            let seen = match h.read(&schema, &id("a")).await {
                DatabaseRow::Present { version, row } => {
                    assert_eq!(row, item("a", version.get() as i64), "{guard:?}");
                    version
                }
                DatabaseRow::Deleted { version } => version,
                DatabaseRow::Absent => panic!("{guard:?}: neither row nor tombstone after version {last}"),
            };
            assert!(seen >= last, "{guard:?}: version {seen} after {last}");
            last = seen;
        }
        writer.await.unwrap();
    }
}

async fn reading_many_keys_keeps_their_order(h: Harness) {
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let rows: Vec<_> = (0..300).map(|n| put(&schema, &format!("k{n}"), 10 + n)).collect();
        h.apply(&schema, &rows).await.unwrap();
        let keys: Vec<Key> = (0..700).rev().map(|n| id(&format!("k{}", n % 350))).collect();
        let read = h.database.read(&schema, &keys).await.unwrap();
        assert_eq!(read.len(), 700);
        for (n, row) in (0..700_u64).rev().zip(read) {
            let n = n % 350;
            let expected =
                if n < 300 { present(10 + n, item(&format!("k{n}"), 10 + n as i64)) } else { DatabaseRow::Absent };
            assert_eq!(row, expected, "k{n}");
        }
        assert_eq!(h.database.read(&schema, &[]).await.unwrap(), vec![]);
    }
}

async fn a_key_equal_by_collation_is_one_key_or_refused(h: Harness) {
    let loose = "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    h.sql(h.of("SELECT 1", loose, "SELECT 1")).await;
    let collate = h.of("", "COLLATE folding", "COLLATE NOCASE");
    let create = format!(
        "CREATE TABLE folded (id VARCHAR(64) {collate} NOT NULL PRIMARY KEY, n BIGINT NULL, note VARCHAR(100) NULL)"
    );
    if !h.is_mysql() {
        h.sql(&create).await;
        let refused = h.introspect("folded").await.unwrap_err();
        assert!(refused.to_string().contains("collation"), "{refused}");
        return;
    }
    let schema = h.table("folded", &create, VersionGuard::Column).await;
    assert_eq!(h.apply_one(&schema, put(&schema, "ABC", 10)).await, Applied::Written);
    assert_eq!(h.apply_one(&schema, put(&schema, "abc", 20)).await, Applied::Written);
    assert_eq!(h.read(&schema, &id("abc")).await, present(20, item("abc", 20)));
    assert_eq!(h.number("SELECT count(*) FROM folded").await, Some(1));
}
