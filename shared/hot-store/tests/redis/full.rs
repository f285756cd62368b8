//! A server whose memory is used up, or may be.

use super::*;

fn large(number: u32) -> Write {
    let columns = [("id", Value::Int64(number.into())), ("blob", Value::Bytes(vec![number as u8; 10_000].into()))];
    let columns: Row = columns.into_iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value)).collect();
    let request = Some(contract::requests::request(&format!("large-{number}"), "a"));
    let image = Image { content: Content::Row(columns), request, ..row(0) };
    Write { record: record(number), precondition: Precondition::None, image, index: None }
}

async fn set_config(b: &OnRedis, setting: &str, value: &str) {
    redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).exec_async(&mut b.raw.clone()).await.unwrap();
}

async fn memory_used(b: &OnRedis) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut b.raw.clone()).await.unwrap();
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap()
}

/// How many keys the store has.
async fn keys(b: &OnRedis) -> u64 {
    redis::cmd("DBSIZE").query_async(&mut b.raw.clone()).await.unwrap()
}

async fn payments_backlog(b: &OnRedis) -> Backlog {
    b.store.backlog(b.shard(), vec![record(1).namespace]).await.unwrap().1[0]
}

/// Writes until the store refuses; answers the error and the versions.
async fn fill_up(b: &OnRedis) -> (HotStoreError, Vec<Version>) {
    let mut versions = Vec::new();
    loop {
        let first = versions.len() as u32;
        match b.store.write(b.shard(), Instant::now(), (first..first + 10).map(large).collect()).await {
            Ok(outcomes) => versions.extend(outcomes.into_iter().map(stored)),
            Err(error) => return (error, versions),
        }
        assert!(versions.len() < 10_000, "the limit is not kept");
    }
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_full_server_refuses_writes_whole_and_can_be_emptied() {
    let server = RedisServer::start(&["--maxmemory", "20mb"]).await;
    let b = OnRedis::at(&server.options().url).await;
    let epoch = open(&b).await;
    let (refused, versions) = fill_up(&b).await;
    assert_eq!(refused, HotStoreError::Full);
    let written = versions.len() as u64;
    let (backlog, stored_keys) = (payments_backlog(&b).await, keys(&b).await);
    assert_eq!((backlog.records, backlog.oldest), (written, Some(versions[0])));
    let untouched = async || {
        assert_eq!((payments_backlog(&b).await, keys(&b).await), (backlog, stored_keys));
        let header = b.store.header(b.shard()).await.unwrap();
        assert_eq!((header.dirty, header.unqueued, header.clock), (written, written, versions[written as usize - 1]));
        assert_eq!(read(&b, record(written as u32)).await, Slot::Empty);
    };
    untouched().await;
    // Reads go on; what they find is not stored, and their lease is given up.
    let found = Fill::Image { version: version(5), image: row(1) };
    let gives_up_a_fill = async || {
        let token = lease(&b, record(99_999), LONG).await;
        assert!(!fill(&b, record(99_999), token, found.clone(), LONG).await);
        assert_eq!(read(&b, record(99_999)).await, Slot::Empty);
    };
    gives_up_a_fill().await;

    // Beyond Redis's own limit it is Redis that refuses: it leaves nothing half done either.
    let mut raw = b.raw.clone();
    let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("2mb").query_async(&mut raw).await.unwrap();
    let error = redis::cmd("SET").arg("x").arg("y").exec_async(&mut raw).await.unwrap_err();
    assert_eq!(error.code(), Some("OOM"));
    let refused = b.store.write(b.shard(), Instant::now(), vec![large(0), large(written as u32)]).await;
    assert_eq!(refused, Err(HotStoreError::Full));
    untouched().await;
    // Also when the scripts have been forgotten meanwhile.
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut raw).await.unwrap();
    assert_eq!(b.store.write(b.shard(), Instant::now(), vec![large(0)]).await, Err(HotStoreError::Full));
    untouched().await;
    gives_up_a_fill().await;

    // The drain goes on, or it could never empty.
    b.store.checkpoint(b.shard(), epoch, Checkpoint(points(9))).await.unwrap();
    let (limits, permit) = (limits([rows("rows:payments", 1e6)]), permit(10));
    assert!(matches!(b.store.take(&limits, permit, &[]).await, Ok(Grant::After(_))));
    eventually("a budget is granted", async || matches!(b.store.take(&limits, permit, &[]).await, Ok(Grant::Now(_))))
        .await;
    b.store.tell(&limits, &[permit], &[]).await.unwrap();
    assert!(mark_queued(&b, epoch, record(0), versions[0]).await);
    assert_eq!(payments_backlog(&b).await, backlog);
    for (number, at) in versions.iter().enumerate() {
        // Every other one is replaced by a row that is new to the store.
        let (at, newer) = if number % 2 == 0 { (*at, None) } else { (version(at.get() + 1), Some(row(1))) };
        let outcome = clean_with(&b, record(number as u32), at, newer, Duration::from_millis(20)).await;
        assert_eq!(outcome, CleanOutcome::Cleaned);
    }
    let header = b.store.header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued), (0, 0));
    let drained = payments_backlog(&b).await;
    assert_eq!((drained.records, drained.bytes, drained.oldest), (0, 0, None));
    assert!(drained.horizon > versions[written as usize - 1], "the horizon goes on");
    set_config(&b, "maxmemory", "20mb").await;
    // The refused write left no request: it is a first one still. The one that was stored did.
    let refused = large(written as u32);
    eventually("what was drained has expired", async || {
        match b.store.write(b.shard(), Instant::now(), vec![refused.clone()]).await.as_deref() {
            Ok([WriteOutcome::Stored { .. }]) => true,
            Ok(other) => panic!("{other:?}"),
            Err(_) => false,
        }
    })
    .await;
    let again = b.store.write(b.shard(), Instant::now(), vec![large(0)]).await.unwrap();
    assert_eq!(again, [WriteOutcome::Repeated { version: versions[0], epoch, current: epoch }]);
    eventually("fills are stored again", async || {
        match b.store.lease(b.shard(), record(99_999), LONG).await.unwrap() {
            LeaseOutcome::Granted(token) => fill(&b, record(99_999), token, found.clone(), LONG).await,
            LeaseOutcome::Taken(slot) => panic!("taken: {slot:?}"),
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_full_server_can_be_opened() {
    let server = RedisServer::start(&["--maxmemory", "20mb"]).await;
    let b = OnRedis::at(&server.options().url).await;
    open(&b).await;
    let (_, versions) = fill_up(&b).await;
    b.restart().await;
    let mut raw = b.raw.clone();
    let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("2mb").query_async(&mut raw).await.unwrap();
    let event = Restore::Dirty { record: record(77_777), version: version(5), behind: version(5), image: row(1) };
    let request = Restore::Request {
        namespace: record(1).namespace,
        request: contract::requests::request("put-back", "a"),
        version: version(5),
    };
    let clean = Restore::Clean { record: record(0), version: versions[0], image: row(1) };
    // What is new in a call by itself: the plain commands for it are refused then, and the script is not.
    let (store, shard, opener) = (b.store(), b.shard(), token("opener"));
    let claim = store.claim(shard, &opener).await.unwrap().unwrap();
    store.begin_opening(shard, &opener, Epoch(claim.epoch.0 + 1), start(false)).await.unwrap();
    for part in [vec![event, request], vec![clean]] {
        store.restore(shard, &opener, part, LONG).await.unwrap();
    }
    store.finish_opening(shard, &opener, *versions.last().unwrap(), Checkpoint(points(100))).await.unwrap();
    assert_eq!(read(&b, record(77_777)).await, image_slot(version(5), row(1), true));
    assert_eq!(b.store.header(b.shard()).await.unwrap().dirty, versions.len() as u64);
    let backlog = payments_backlog(&b).await;
    assert_eq!((backlog.records, backlog.oldest), (versions.len() as u64, Some(version(5))));

    // Also when everything is discarded; and what the opener finds to be of no use makes room for writes again.
    set_config(&b, "maxmemory", "0").await;
    b.restart().await;
    set_config(&b, "maxmemory", "2mb").await;
    let numbers = (0..versions.len() as u32).chain([77_777]);
    let gone = numbers.map(|number| Restore::Gone { record: record(number), horizon: Version::MAX });
    open_with(&b, true, gone.collect(), *versions.last().unwrap()).await;
    assert_eq!(payments_backlog(&b).await.records, 0);
    set_config(&b, "maxmemory", "20mb").await;
    eventually("what was discarded is freed", async || {
        matches!(
            b.store.write(b.shard(), Instant::now(), vec![large(88_888)]).await.as_deref(),
            Ok([WriteOutcome::Stored { .. }])
        )
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn fills_stop_before_writes_do() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]).await;
    let b = OnRedis::at(&server.options().url).await;
    open(&b).await;
    for first in 0..100 {
        b.store.write(b.shard(), Instant::now(), (first * 10..first * 10 + 10).map(large).collect()).await.unwrap();
    }
    let used_part = async |part: f64| {
        let limit = (memory_used(&b).await as f64 / part) as u64;
        set_config(&b, "maxmemory", &limit.to_string()).await;
    };
    let fills = async |number| {
        let token = lease(&b, record(number), LONG).await;
        fill(&b, record(number), token, Fill::Image { version: version(5), image: row(1) }, LONG).await
    };
    let writes = async |number| {
        b.store.write(b.shard(), Instant::now(), vec![large(number)]).await.map(|outcomes| stored(outcomes[0]))
    };
    used_part(0.6).await;
    assert!(fills(5000).await && writes(5001).await.is_ok());
    used_part(0.8).await;
    assert!(!fills(5002).await && writes(5003).await.is_ok());
    used_part(0.95).await;
    assert!(!fills(5004).await);
    assert_eq!(writes(5005).await, Err(HotStoreError::Full));
    used_part(0.6).await;
    assert!(fills(5006).await && writes(5005).await.is_ok());
}

/// Nothing dirty has a TTL, nor is it thrown away: who changes the policy while we run is noticed by the next write.
#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_that_may_evict_by_now_takes_no_writes() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]).await;
    let b = OnRedis::at(&server.options().url).await;
    let epoch = open(&b).await;
    let first = put(&b, record(1), row(1)).await;
    set_config(&b, "maxmemory-policy", "volatile-lru").await;
    let write = || vec![Write { record: record(2), precondition: Precondition::None, image: row(2), index: None }];
    let refused = b.store.write(b.shard(), Instant::now(), write()).await;
    assert!(matches!(&refused, Err(HotStoreError::Unavailable(why)) if why.contains("noeviction")), "{refused:?}");
    assert_eq!(read(&b, record(2)).await, Slot::Empty);
    assert!(mark_queued(&b, epoch, record(1), first).await, "what is there drains");
    assert_eq!(mark_clean(&b, record(1), first, LONG).await, CleanOutcome::Cleaned);
    set_config(&b, "maxmemory-policy", "noeviction").await;
    assert!(b.store.write(b.shard(), Instant::now(), write()).await.is_ok());
}
