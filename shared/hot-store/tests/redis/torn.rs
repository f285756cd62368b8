//! What a power loss leaves in the middle of a transaction.

use super::*;

/// What INFO says of a field of its section `persistence`.
async fn persistence(server: &RedisServer, field: &str) -> u64 {
    let mut raw = server.connection().await.unwrap();
    let info: String = redis::cmd("INFO").arg("persistence").query_async(&mut raw).await.unwrap();
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {info}")).parse().unwrap()
}

async fn config(server: &RedisServer, name: &str, value: &str) {
    let mut raw = server.connection().await.unwrap();
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut raw).await.unwrap();
}

async fn take(store: &RedisStore, table: &str) -> Result<Grant, HotStoreError> {
    store.take(&limits([rows(table, 1e6)]), permit(1), &[]).await
}

/// Begins a snapshot that does not end before everything is deleted.
async fn begin_snapshot(server: &RedisServer) {
    let mut raw = server.connection().await.unwrap();
    config(server, "rdb-key-save-delay", "60000000").await;
    let () = raw.set("something", "to save").await.unwrap();
    redis::cmd("BGSAVE").exec_async(&mut raw).await.unwrap();
}

/// The scripts that run while every shard is closed write, too: a drain takes its budget.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_writes_its_file_anew_after_each_start_before_anybody_writes() {
    let mut server = RedisServer::start(&[]).await;
    let store = server.store().await;
    assert_eq!(persistence(&server, "aof_rewrites").await, 1);
    // Neither a second connection nor a second process asks again.
    for table in ["a", "b"] {
        take(&store, table).await.unwrap();
        take(&server.store().await, table).await.unwrap();
    }
    assert_eq!(persistence(&server, "aof_rewrites").await, 1);

    server.kill();
    server.resume().await;
    assert_eq!(persistence(&server, "aof_rewrites").await, 0);
    begin_snapshot(&server).await;
    let took = async || take(&store, "c").await;
    eventually("it is put off", async || {
        took().await.is_ok() || persistence(&server, "aof_rewrite_scheduled").await == 1
    })
    .await;
    for _ in 0..10 {
        let refused = took().await;
        assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "{refused:?}");
        assert!(RedisStore::connect(server.options()).await.is_err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut raw = server.connection().await.unwrap();
    let () = redis::cmd("FLUSHALL").query_async(&mut raw).await.unwrap();
    eventually("the snapshot is given up, and the file written", async || took().await.is_ok()).await;
    assert_eq!(persistence(&server, "aof_rewrites").await, 1);
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn without_an_append_only_file_nothing_is_asked() {
    let server = RedisServer::start(&["--appendonly", "no"]).await;
    begin_snapshot(&server).await;
    take(&server.store().await, "table").await.unwrap();
    assert_eq!(persistence(&server, "aof_rewrite_scheduled").await, 0);
}

/// Only what the server began counts as done.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_rewrite_that_was_refused_is_asked_for_again() {
    let server = RedisServer::start(&[]).await;
    let rules = ["SETUSER", "restricted", "reset", "on", ">sesame", "~*", "&*", "+@all", "-bgrewriteaof"];
    let mut raw = server.connection().await.unwrap();
    redis::cmd("ACL").arg(&rules[..]).exec_async(&mut raw).await.unwrap();
    let (username, password) = (Some("restricted".to_owned()), Some("sesame".to_owned()));
    let store = RedisStore::connect(RedisOptions { username, password, ..server.options() }).await.unwrap();
    let (url, prefix) = (server.options().url, "sa".to_owned());
    let b = OnRedis { store, url, prefix, raw: raw.clone() };
    // Nobody hangs on it.
    open(&b).await;
    assert_eq!(persistence(&server, "aof_rewrites").await, 0);
    redis::cmd("ACL").arg(&["SETUSER", "restricted", "+bgrewriteaof"]).exec_async(&mut raw).await.unwrap();
    b.restart().await;
    open(&b).await;
    assert_eq!(persistence(&server, "aof_rewrites").await, 1);
}

/// An image without the marks that are written behind it.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn an_image_that_lost_its_marks_gets_them_back_from_its_event() {
    let b = on_redis().await;
    open(&b).await;
    let mut versions = Vec::new();
    for number in 1..=4 {
        versions.push(put(&b, record(number), row(i64::from(number))).await);
    }
    let [v1, v2, v3, v4] = versions[..] else { panic!("four") };
    mark_clean(&b, record(4), v4, LONG).await;
    let backlog = async || b.store.backlog(b.shard(), vec![record(1).namespace]).await.unwrap().1[0];
    let before = backlog().await;
    let mut raw = b.raw.clone();
    let name = |number| b.record_key(number)[b.key("r:").len()..].to_vec();
    // The first keeps its image alone, the second all but the last marks.
    for (set, number) in [("d", 1), ("u", 1), ("b:main.payments", 1), ("b:main.payments", 2)] {
        let removed: u32 = raw.zrem(b.key(set), name(number)).await.unwrap();
        assert_eq!(removed, 1, "{set}");
    }
    let size = i64::try_from(before.bytes / before.records).unwrap();
    let () = raw.hincr(b.key("n"), "main.payments", -2 * size).await.unwrap();
    assert_eq!(backlog().await.records, 1);

    b.restart().await;
    let event = |(number, at): (u32, &Version)| Restore::Dirty {
        record: record(number),
        version: *at,
        behind: *at,
        image: row(i64::from(number)),
    };
    open_with(&b, false, (1..).zip(&versions).map(event).collect(), Version::ZERO).await;
    assert_eq!((dirty(&b, Dirty::All).await, dirty(&b, Dirty::Unqueued).await), (vec![v1, v2, v3], vec![v2, v3]));
    assert_eq!(backlog().await, before);
    // What is clean, and has a TTL, stays so.
    assert_eq!(read(&b, record(4)).await, image_slot(v4, row(4), false));
    assert!(b.ttl_millis(4).await > 0);
    for (number, at) in (1..).zip(&versions[..3]) {
        assert_eq!(mark_clean(&b, record(number), *at, LONG).await, CleanOutcome::Cleaned);
    }
    let after = backlog().await;
    assert_eq!((after.records, after.bytes, after.oldest), (0, 0, None));
}

/// As a release without backlogs wrote it, or an old replica beside a new one does.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_dirty_record_without_an_entry_in_the_backlog_holds_the_horizon_all_the_same() {
    let b = on_redis().await;
    open(&b).await;
    let mut raw = b.raw.clone();
    let first = put(&b, record(1), row(1)).await;
    for number in 2..=150 {
        put(&b, record(number), row(1)).await;
    }
    let other = record_in("main.orders", 1);
    put(&b, other.clone(), row(1)).await;
    let look = async |namespace: &model::Namespace| {
        b.store.backlog(b.shard(), vec![namespace.clone()]).await.unwrap().1.remove(0)
    };
    let (of_all, of_other) = (look(&record(1).namespace).await, look(&other.namespace).await);
    assert_eq!(of_all.oldest, Some(first));

    let name = |number| b.record_key(number)[b.key("r:").len()..].to_vec();
    let () = raw.zrem(b.key("b:main.payments"), name(1)).await.unwrap();
    let without = look(&record(1).namespace).await;
    assert_eq!((without.oldest, without.horizon), (Some(first), first.before()));
    // Its own table's is what it was, for those that can be told apart cheaply; never above what is dirty.
    assert!(look(&other.namespace).await.horizon <= of_other.horizon);

    // Nobody has an entry.
    let () = raw.del(&[b.key("b:main.payments"), b.key("b:main.orders"), b.key("n")]).await.unwrap();
    for namespace in [record(1).namespace, other.namespace.clone()] {
        let found = look(&namespace).await;
        assert!(found.horizon <= of_other.horizon, "{namespace}: {found:?}");
    }
    assert_eq!(look(&record(1).namespace).await.horizon, first.before());

    // It goes on as they are drained.
    for number in 1..=150 {
        let Slot::Image { version, .. } = read(&b, record(number)).await else { panic!() };
        mark_clean(&b, record(number), version, LONG).await;
    }
    assert_eq!(look(&other.namespace).await.horizon, of_other.horizon);
    assert_eq!(look(&record(1).namespace).await.oldest, None);
}
