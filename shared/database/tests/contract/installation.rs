//! The number of shards, the epochs and the catalog.

use std::{collections::HashSet, sync::Arc};

use database::{
    CatalogEntry, CreateCheck, Database, DatabaseError, Hold, HoldKind, HoldScope, SetRate, TableDirectory,
    TableSettings,
};
use model::{ColumnName, Epoch, Namespace, Shard, ShardCount, TableRef, Topic};

use crate::{
    harness::*,
    tables::{Holds, TableOf},
    tested::Tested,
};

on_each_database!(
    the_first_number_of_shards_stays,
    no_epoch_is_given_twice,
    the_catalog_is_kept_and_its_generation_rises,
    topics_and_namespaces_are_unique,
    preparing_again_does_no_harm,
    a_directory_follows_the_catalog,
    a_table_that_is_gone_stops_no_other_once_it_is_disabled,
    a_limit_is_kept_until_it_is_taken_back,
    what_is_stopped_stays_so_until_it_is_lifted;
    about_sql:
    a_limit_that_cant_be_read_hides_no_other,
    a_hold_of_a_later_release_is_a_pause,
    preparing_changes_what_an_earlier_release_made,
    preparing_waits_for_no_transaction,
);

fn entry(table: &str, topic: &str, namespace: &str) -> CatalogEntry {
    CatalogEntry {
        enabled: true,
        table: TableRef { database: main_database(), table: name(table) },
        settings: TableSettings {
            topic: Topic::new(topic).unwrap(),
            namespace: Namespace::new(namespace).unwrap(),
            group_by: vec![ColumnName::new("tenant").unwrap()],
            create_check: CreateCheck::HotStore,
            indexed_fields: vec![ColumnName::new("n").unwrap()],
        },
    }
}

async fn make_grouped(h: &Harness, table: &str) {
    let columns = [("id", Holds::Text), ("tenant", Holds::Text)];
    h.make(&TableOf { name: table, columns: &columns, key: &["id", "tenant"], unique: None }).await;
}

async fn the_first_number_of_shards_stays(h: Harness) {
    assert_eq!(h.database.shard_count(ShardCount::new(16).unwrap()).await, Ok(16));
    assert_eq!(h.database.shard_count(ShardCount::new(64).unwrap()).await, Ok(16));
    assert_eq!(h.another(|_| {}).await.shard_count(ShardCount::DEFAULT).await, Ok(16));
}

async fn no_epoch_is_given_twice(h: Harness) {
    assert_eq!(h.database.next_epoch(Shard(1), Epoch(0)).await, Ok(Epoch(1)));
    assert_eq!(h.database.next_epoch(Shard(1), Epoch(0)).await, Ok(Epoch(2)));
    assert_eq!(h.database.next_epoch(Shard(1), Epoch(10)).await, Ok(Epoch(11)));
    assert_eq!(h.database.next_epoch(Shard(1), Epoch(3)).await, Ok(Epoch(12)));
    assert_eq!(h.database.next_epoch(Shard(2), Epoch(5)).await, Ok(Epoch(6)));
    let mut drawers = Vec::new();
    for _ in 0..6 {
        let database = h.another(|options| options.pool = 2).await;
        drawers.push(tokio::spawn(async move {
            let mut drawn = Vec::new();
            for _ in 0..10 {
                // A shard that is new at first.
                drawn.push(database.next_epoch(Shard(3), Epoch(0)).await.unwrap());
            }
            assert!(drawn.is_sorted(), "{drawn:?}");
            drawn
        }));
    }
    let mut seen = HashSet::new();
    for drawer in drawers {
        for epoch in drawer.await.unwrap() {
            assert!(seen.insert(epoch), "{epoch} was given twice");
        }
    }
    assert_eq!(h.database.next_epoch(Shard(3), Epoch(0)).await, Ok(Epoch(61)));
    assert_eq!(h.database.next_epoch(Shard(2), Epoch(u32::MAX - 1)).await, Ok(Epoch(u32::MAX)));
    let error = h.database.next_epoch(Shard(2), Epoch(0)).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Unfit(_)), "{error}");
}

async fn the_catalog_is_kept_and_its_generation_rises(h: Harness) {
    let (start, tables) = h.database.catalog().await.unwrap();
    assert_eq!(tables, []);
    let (a, b) = (entry("a", "topic.a", "main.a"), entry("b", "topic.b", "main.b"));
    assert_eq!(h.database.enable(&b).await, Ok(true));
    assert_eq!(h.database.enable(&a).await, Ok(true));
    let (enabled, tables) = h.another(|_| {}).await.catalog().await.unwrap();
    assert_eq!(tables, [a.clone(), b.clone()]);
    assert!(enabled > start);
    let mut changed = a.clone();
    changed.settings.create_check = CreateCheck::Database;
    changed.settings.group_by.clear();
    assert_eq!(h.database.enable(&changed).await, Ok(true));
    let (again, tables) = h.database.catalog().await.unwrap();
    assert_eq!(tables, [changed.clone(), b.clone()]);
    assert!(again > enabled);
    assert_eq!(h.database.disable(&a.table).await, Ok(true));
    assert_eq!(h.database.disable(&a.table).await, Ok(false));
    let (disabled, tables) = h.database.catalog().await.unwrap();
    assert_eq!(tables, [CatalogEntry { enabled: false, ..changed.clone() }, b.clone()], "its entry stays");
    assert!(disabled > again);
    assert_eq!(h.database.enable(&CatalogEntry { enabled: false, ..changed.clone() }).await, Ok(true));
    assert_eq!(h.database.catalog().await.unwrap().1, [changed, b]);
}

async fn topics_and_namespaces_are_unique(h: Harness) {
    assert_eq!(h.database.enable(&entry("a", "topic.a", "main.a")).await, Ok(true));
    let (generation, before) = h.database.catalog().await.unwrap();
    assert_eq!(h.database.enable(&entry("b", "topic.a", "main.b")).await, Ok(false));
    assert_eq!(h.database.enable(&entry("b", "topic.b", "main.a")).await, Ok(false));
    assert_eq!(h.database.catalog().await.unwrap(), (generation, before), "a refusal changes nothing");
    let mut racers = Vec::new();
    for n in 0..6 {
        let database = h.database.clone();
        racers.push(tokio::spawn(async move {
            database.enable(&entry(&format!("r{n}"), "topic.contested", &format!("main.r{n}"))).await
        }));
    }
    let mut won = 0;
    for racer in racers {
        won += i32::from(racer.await.unwrap().unwrap());
    }
    assert_eq!(won, 1);
}

async fn preparing_again_does_no_harm(h: Harness) {
    h.database.enable(&entry("a", "topic.a", "main.a")).await.unwrap();
    let mut replicas = Vec::new();
    for _ in 0..4 {
        let database = h.another(|options| options.pool = 1).await;
        replicas.push(tokio::spawn(async move { database.prepare().await }));
    }
    for replica in replicas {
        replica.await.unwrap().unwrap();
    }
    assert_eq!(h.database.catalog().await.unwrap().1.len(), 1);
}

/// A replica that starts does not wait for what others have under way, nor do they for it.
async fn preparing_waits_for_no_transaction(h: Harness) {
    let schema = h.items(model::VersionGuard::Ledger).await;
    h.apply_one(&schema, delete(&schema, "a", 10)).await;
    if h.of(true, true, false) {
        let mut theirs = h.somebody_else().await;
        theirs.run("BEGIN").await;
        theirs.run("UPDATE _sa_shard SET horizon = horizon").await;
        theirs.run("UPDATE _sa_ledger SET version = version").await;
        assert_eq!(h.another(|options| options.pool = 1).await.prepare().await, Ok(()));
        theirs.run("ROLLBACK").await;
    }
}

async fn preparing_changes_what_an_earlier_release_made(h: Harness) {
    let schema = h.items(model::VersionGuard::Ledger).await;
    let gone = delete(&schema, "a", 10);
    let shard = gone.shard;
    h.apply_one(&schema, gone).await;
    h.sql("ALTER TABLE _sa_shard DROP COLUMN horizon").await;
    h.sql("ALTER TABLE _sa_shard DROP COLUMN epoch").await;
    h.sql(h.of(
        "ALTER TABLE _sa_ledger DROP INDEX tombstones",
        "DROP INDEX _sa_ledger_tombstones",
        "DROP INDEX _sa_ledger_tombstones",
    ))
    .await;
    let mut replicas = Vec::new();
    for _ in 0..4 {
        let database = h.another(|options| options.pool = 1).await;
        replicas.push(tokio::spawn(async move { database.prepare().await }));
    }
    for replica in replicas {
        replica.await.unwrap().unwrap();
    }
    h.database.note_horizons(&schema.table.table, &[horizon(shard, 20)]).await.unwrap();
    assert_eq!(h.number("SELECT max(horizon) FROM _sa_shard").await, Some(20));
    assert_eq!(h.read(&schema, &id("a")).await, deleted(10), "what was there stays");
    assert_eq!(h.database.purge_tombstones(&schema, &horizon(shard, 20), 10).await, Ok(1));
}

async fn a_directory_follows_the_catalog(h: Harness) {
    make_grouped(&h, "grouped").await;
    let directory = TableDirectory::new(vec![(main_database(), h.database.clone() as Arc<_>)]);
    assert_eq!(directory.refresh(false).await, Ok(false));
    let entry = entry("grouped", "topic.g", "main.g");
    h.database.enable(&entry).await.unwrap();
    assert_eq!(directory.refresh(false).await, Ok(true));
    assert_eq!(directory.refresh(false).await, Ok(false), "nothing has changed");
    let table = directory.table(&entry.table).unwrap();
    assert_eq!(table.schema.group, [1], "the shard is decided by the tenant");
    assert_eq!(directory.by_topic(&entry.settings.topic).as_ref(), Some(&table));
    assert_eq!(directory.by_namespace(&entry.settings.namespace).as_ref(), Some(&table));
    match &*h.database {
        Tested::Sql(_) => h.sql("ALTER TABLE grouped ADD COLUMN more BIGINT NULL").await,
        Tested::Memory(_) => {
            let columns = [("id", Holds::Text), ("tenant", Holds::Text), ("more", Holds::Number)];
            h.make(&TableOf { name: "grouped", columns: &columns, key: &["id", "tenant"], unique: None }).await;
        }
    }
    assert_eq!(directory.refresh(true).await, Ok(true));
    assert!(directory.table(&entry.table).unwrap().schema.column("more").is_some());
    h.database.disable(&entry.table).await.unwrap();
    assert_eq!(directory.refresh(false).await, Ok(true));
    assert_eq!(directory.table(&entry.table), None);
    assert!(directory.known(&entry.table).is_some_and(|known| !known.enabled), "what was accepted is still drained");
    assert_eq!(directory.all().len(), 1);
}

async fn a_table_that_is_gone_stops_no_other_once_it_is_disabled(h: Harness) {
    let (here, gone) = (entry("here", "topic.here", "main.here"), entry("gone", "topic.gone", "main.gone"));
    make_grouped(&h, "here").await;
    h.database.enable(&here).await.unwrap();
    h.database.enable(&gone).await.unwrap();
    let directory = TableDirectory::new(vec![(main_database(), h.database.clone() as Arc<_>)]);
    let refused = directory.refresh(false).await.unwrap_err();
    assert!(matches!(&refused, DatabaseError::Unfit(text) if text.contains("main.gone")), "{refused}");
    let lenient = TableDirectory::new(vec![(main_database(), h.database.clone() as Arc<_>)]);
    let lenient = lenient.leaving_out_what_cant_be_used();
    assert_eq!(lenient.refresh(false).await, Ok(true));
    assert!(lenient.table(&here.table).is_some() && lenient.known(&gone.table).is_none());
    h.database.disable(&gone.table).await.unwrap();
    assert_eq!(directory.refresh(false).await, Ok(true));
    assert!(directory.table(&here.table).is_some());
    assert_eq!(directory.known(&gone.table), None);
    assert_eq!(directory.refresh(false).await, Ok(false));
    make_grouped(&h, "gone").await;
    assert_eq!(directory.refresh(false).await, Ok(true), "it is looked for until it is there");
    assert!(directory.known(&gone.table).is_some_and(|known| !known.enabled));
    assert_eq!(lenient.refresh(false).await, Ok(true));
    assert!(lenient.known(&gone.table).is_some());
}

async fn a_limit_is_kept_until_it_is_taken_back(h: Harness) {
    let table = |table: &str| TableRef { database: main_database(), table: name(table) };
    assert_eq!(h.database.rates().await.unwrap(), []);
    for rate in [0.2, 1.0 / 3.0, 50.0, f64::MAX, f64::MIN_POSITIVE] {
        h.database.set_rate(&table("a"), SetRate::new(rate)).await.unwrap();
        assert_eq!(h.database.rates().await.unwrap(), [(table("a"), Ok(SetRate::RowsPerSecond(rate)))]);
    }
    for _ in 0..2 {
        h.database.set_rate(&table("B"), Some(SetRate::Unlimited)).await.unwrap();
        h.database.set_rate(&table("b"), SetRate::new(7.0)).await.unwrap();
    }
    h.database.prepare().await.unwrap();
    for _ in 0..2 {
        h.database.set_rate(&table("a"), None).await.unwrap();
    }
    let expected = [(table("B"), Ok(SetRate::Unlimited)), (table("b"), Ok(SetRate::RowsPerSecond(7.0)))];
    assert_eq!(h.database.rates().await.unwrap(), expected);
}

async fn a_limit_that_cant_be_read_hides_no_other(h: Harness) {
    let table = |table: &str| TableRef { database: main_database(), table: name(table) };
    h.database.set_rate(&table("a"), SetRate::new(7.0)).await.unwrap();
    h.database.set_rate(&table("z"), Some(SetRate::Unlimited)).await.unwrap();
    let insert = |row: &str| format!("INSERT INTO _sa_rate (database_name, table_name, rate) VALUES ({row})");
    // SQLite alone takes bytes that are no text.
    let bytes = if h.is_sqlite() { "'main', 'c', x'ff'" } else { "'main', 'c', '-1'" };
    for row in ["'main', 'b', 'fifty'", bytes, "'main', 'd', ''", "'Ma in', 't', '1'", "'main', '', '1'"] {
        h.database.sql().run_script(&insert(row)).await.unwrap();
    }
    let rates = h.database.rates().await.unwrap();
    let fine = [(table("a"), Ok(SetRate::RowsPerSecond(7.0))), (table("z"), Ok(SetRate::Unlimited))];
    assert_eq!(rates.iter().filter(|(_, rate)| rate.is_ok()).cloned().collect::<Vec<_>>(), fine);
    for bad in ["b", "c", "d"] {
        let why = rates.iter().find_map(|(of, rate)| (*of == table(bad)).then(|| rate.clone().unwrap_err())).unwrap();
        let told = why.to_string();
        assert!(told.contains(&format!("main.{bad}")) && told.contains("set-rate"), "{told}");
    }
    assert_eq!(rates.len(), 5, "{rates:?}");
}

async fn what_is_stopped_stays_so_until_it_is_lifted(h: Harness) {
    let table = |table: &str| HoldScope::Table(TableRef { database: main_database(), table: name(table) });
    let at = |micros: i64| jiff::Timestamp::from_microsecond(micros).unwrap();
    let hold = |scope: HoldScope, kind, reason: &str| Hold {
        scope,
        kind,
        reason: reason.to_owned(),
        by: "żółć".to_owned(),
        since: at(1_700_000_000_000_001),
    };
    assert_eq!(h.database.holds().await.unwrap(), database::Holds::default());
    let mut revisions = vec![h.database.set_hold(&hold(table("b"), HoldKind::Pause, "first")).await.unwrap()];
    assert_eq!(revisions, [1_700_000_000_000_001]);
    for (scope, kind, reason) in [
        (table("b"), HoldKind::Pause, "again"),
        (table("B"), HoldKind::Pause, "'; --"),
        (HoldScope::Everything, HoldKind::DrainDown, ""),
        (HoldScope::Everything, HoldKind::Pause, "all"),
        (table("b"), HoldKind::DrainDown, "both"),
    ] {
        revisions.push(h.database.set_hold(&hold(scope, kind, reason)).await.unwrap());
    }
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    h.database.prepare().await.unwrap();
    let expected = [
        hold(HoldScope::Everything, HoldKind::DrainDown, ""),
        hold(HoldScope::Everything, HoldKind::Pause, "all"),
        hold(table("B"), HoldKind::Pause, "'; --"),
        hold(table("b"), HoldKind::DrainDown, "both"),
        hold(table("b"), HoldKind::Pause, "again"),
    ];
    let mut holds = h.database.holds().await.unwrap();
    let order = |hold: &Hold| (hold.scope.clone(), hold.kind != HoldKind::DrainDown);
    holds.list.sort_by_key(order);
    assert_eq!((holds.revision, &holds.list[..]), (revisions[5], &expected[..]));

    let (lifted, revision) = h.database.lift_hold(&HoldScope::Everything, HoldKind::Pause, at(5)).await.unwrap();
    assert!(lifted && revision == revisions[5] + 1, "a clock that steps back lowers no revision");
    // What is not stopped raises the revision as well: a hot store may have an earlier wish.
    let now = at(1_800_000_000_000_000);
    let again = h.database.lift_hold(&HoldScope::Everything, HoldKind::Pause, now).await.unwrap();
    assert_eq!(again, (false, 1_800_000_000_000_000));
    let left = h.database.holds().await.unwrap();
    assert_eq!((left.revision, left.list.len()), (1_800_000_000_000_000, 4));
}

async fn a_hold_of_a_later_release_is_a_pause(h: Harness) {
    let table = |table: &str| HoldScope::Table(TableRef { database: main_database(), table: name(table) });
    for row in ["'main', 'a', 'read_only', 'why', 'ann', 7", "'Ma in', 't', 'pause', '', '', 7"] {
        let insert = "INSERT INTO _sa_hold (database_name, table_name, kind, reason, set_by, since) VALUES";
        h.database.sql().run_script(&format!("{insert} ({row})")).await.unwrap();
    }
    let holds = h.database.holds().await.unwrap().list;
    let [hold] = &holds[..] else { panic!("{holds:?}") };
    assert_eq!((&hold.scope, hold.kind), (&table("a"), HoldKind::Pause));
    assert!(hold.reason.contains("read_only") && hold.reason.contains("why"), "{hold:?}");
}
