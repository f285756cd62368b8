//! The hot store on Redis: the contract on a server that is given, and what a server of the test's own does to it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod contract;
mod server;

use std::{path::Path, time::Duration};

use contract::{Backend, kit::*};
use hot_store::{
    Budget, Checkpoint, CleanOutcome, Dirty, Fill, Grant, HotStore, HotStoreError, LeaseOutcome, Precondition, Restore,
    Slot, Write, WriteOutcome,
    redis::{RedisOptions, RedisStore},
};
use model::{
    ColumnName, Content, Epoch, Image, Operation, Request, RequestDigest, RequestId, Row, Shard, Value, Version,
};
use redis::AsyncCommands as _;
use server::RedisServer;

/// A shard of a prefix that no other test uses.
struct OnRedis {
    store: RedisStore,
    prefix: String,
    raw: redis::aio::MultiplexedConnection,
}

impl OnRedis {
    async fn at(url: &str) -> Self {
        let prefix = format!("test-{:032x}", rand::random::<u128>());
        let options = RedisOptions { url: url.to_owned(), prefix: prefix.clone(), ..RedisOptions::default() };
        let store = RedisStore::connect(options).await.unwrap();
        let raw = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        Self { store, prefix, raw }
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}:{{s17}}:{suffix}", self.prefix)
    }

    fn record_key(&self, number: u32) -> Vec<u8> {
        let id = record(number);
        [self.key("r:").as_bytes(), id.namespace.as_str().as_bytes(), b"\0", id.key.as_bytes()].concat()
    }

    async fn ttl_millis(&self, number: u32) -> i64 {
        self.raw.clone().pttl(self.record_key(number)).await.unwrap()
    }
}

impl Backend for OnRedis {
    type Store = RedisStore;

    fn store(&self) -> &RedisStore {
        &self.store
    }

    fn shard(&self) -> Shard {
        Shard(17)
    }

    /// The server is shared with other tests, so the shard is made to name another incarnation than the live one.
    /// `a_killed_server_closes_its_shards` restarts a real one.
    async fn restart(&self) {
        let mut raw = self.raw.clone();
        for field in ["inc", "oinc"] {
            let header = self.key("h");
            if raw.hexists(&header, field).await.unwrap() {
                let () = raw.hset(&header, field, "0".repeat(40)).await.unwrap();
            }
        }
    }
}

async fn on_redis() -> OnRedis {
    let url = std::env::var("SHOCK_ABSORBER_TEST_REDIS")
        .expect("set SHOCK_ABSORBER_TEST_REDIS to redis://127.0.0.1:PORT, or run ./tests/run, which starts a server");
    OnRedis::at(&url).await
}

contract_tests!(on_redis(), #[tokio::test] #[ignore = "needs a server: ./tests/run starts one"]);

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn only_what_is_clean_has_a_ttl() {
    let b = on_redis().await;
    let epoch = open(&b).await;
    let no_ttl = -1;
    let first = put(&b, record(1), row(1)).await;
    assert_eq!(b.ttl_millis(1).await, no_ttl);
    assert!(mark_queued(&b, epoch, record(1), first).await);
    assert_eq!(b.ttl_millis(1).await, no_ttl);
    mark_clean(&b, record(1), first, LONG).await;
    assert!(b.ttl_millis(1).await > 500_000);
    put(&b, record(1), row(2)).await;
    assert_eq!(b.ttl_millis(1).await, no_ttl);
    assert_eq!(mark_clean(&b, record(1), first, LONG).await, CleanOutcome::Newer);
    assert_eq!(b.ttl_millis(1).await, no_ttl);

    let token = lease(&b, record(2), LONG).await;
    assert!(b.ttl_millis(2).await > 500_000);
    assert!(fill(&b, record(2), token, Fill::Image { version: version(5), image: row(1) }, LONG).await);
    assert!(b.ttl_millis(2).await > 500_000);

    b.restart().await;
    let event = Restore::Dirty { record: record(2), version: version(6), behind: version(6), image: row(2) };
    let clean = Restore::Clean { record: record(3), version: version(6), image: row(3) };
    open_with(&b, false, vec![event, clean], Version::ZERO).await;
    assert_eq!(b.ttl_millis(2).await, no_ttl);
    assert!(b.ttl_millis(3).await > 500_000);
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_a_discarding_opening_drops_is_freed() {
    let b = on_redis().await;
    open(&b).await;
    for number in 0..1200 {
        put(&b, record(number), row(1)).await;
    }
    b.restart().await;
    let event = Restore::Dirty { record: record(3), version: version(6), behind: version(6), image: row(3) };
    open_with(&b, true, vec![event], Version::ZERO).await;
    let mut raw = b.raw.clone();
    let mut left: Vec<Vec<u8>> = Vec::new();
    let mut keys = raw.scan_match::<_, Vec<u8>>(format!("{}:*", b.prefix)).await.unwrap();
    while let Some(key) = keys.next_item().await {
        left.push(key.unwrap());
    }
    left.sort();
    let ours = |suffix: &str| b.key(suffix).into_bytes();
    assert_eq!(left, [ours("b:main.payments"), ours("d"), ours("h"), ours("n"), b.record_key(3)]);
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_budget_outlives_neither_a_restart_nor_a_clock_that_steps_back() {
    let b = on_redis().await;
    let (key, rows, rate) = (format!("{}:budget:table", b.prefix), 10, 50.0);
    let interval = Duration::from_millis(200);
    let waits = async || match b.store.take("table", rows, rate).await.unwrap() {
        Grant::After(wait) => wait <= interval && wait > interval / 2,
        Grant::Now => false,
    };
    let granted = async || b.store.take("table", rows, rate).await == Ok(Grant::Now);
    // What was granted before the restart may have been lost with the tail of the store.
    for (field, value) in [("inc", "0".repeat(40)), ("at", "8000000000000000".to_owned())] {
        assert!(waits().await, "an unknown budget, or one that was just used");
        eventually("it is granted", granted).await;
        let () = b.raw.clone().hset(&key, field, value).await.unwrap();
        eventually("that would have been long enough", async || {
            matches!(b.store.take("other", rows, rate).await, Ok(Grant::Now))
        })
        .await;
    }
    assert!(waits().await);
    eventually("it is granted", granted).await;
}

/// A golden copy of what the scripts store: what one release wrote, the next must read. The head is written by Lua, so
/// it takes a server to make one.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_value_has_the_released_layout() {
    let b = on_redis().await;
    let opener = token("a");
    b.store.claim(b.shard(), &opener).await.unwrap();
    b.store.begin_opening(b.shard(), &opener, Epoch(3), start(true)).await.unwrap();
    let far = version(8_000_000_000_000_000);
    b.store.finish_opening(b.shard(), &opener, far, Checkpoint::default()).await.unwrap();
    let columns = [("id", Value::Int64(-7)), ("amount", Value::Decimal("12.50".to_owned()))];
    let columns: Row = columns.into_iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value)).collect();
    let image = Image {
        content: Content::Row(columns),
        operation: Operation::Create,
        fingerprint: model::Fingerprint(0x0123_4567_89ab_cdef),
        request: Some(Request { id: RequestId::new("request-1").unwrap(), digest: RequestDigest::of(b"asked for") }),
        ..row(0)
    };
    stored(write(&b, record(1), Precondition::AbsentFromStore, image).await);
    lease(&b, record(2), LONG).await;
    let token = lease(&b, record(3), LONG).await;
    assert!(fill(&b, record(3), token, Fill::Absent, LONG).await);

    let value = async |number| -> Vec<u8> { b.raw.clone().get(b.record_key(number)).await.unwrap() };
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/redis-value-v1-image-digest.bin");
    assert_eq!(value(1).await.escape_ascii().to_string(), std::fs::read(fixture).unwrap().escape_ascii().to_string());
    let lease = value(2).await;
    assert_eq!((lease[..43].escape_ascii().to_string(), lease.len()), (format!("L{:016}{:010}{:016}", 0, 3, 0), 75));
    assert_eq!(value(3).await.escape_ascii().to_string(), format!("A{:016}{:010}{:016}", 0, 3, 0));
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_killed_server_closes_its_shards_and_they_can_be_opened_again() {
    let mut server = RedisServer::start(&[]).await;
    let b = OnRedis::at(&server.options().url).await;
    let epoch = open(&b).await;
    let queued = put(&b, record(1), row(1)).await;
    assert!(mark_queued(&b, epoch, record(1), queued).await);
    let unqueued = put(&b, record(2), row(2)).await;
    b.store.checkpoint(b.shard(), epoch, Checkpoint(points(55))).await.unwrap();
    let late = lease(&b, record(3), LONG).await;
    let late_opener = token("late");
    let other = Shard(5);
    b.store.claim(other, &late_opener).await.unwrap();

    let mut ended = server.end_notice().await;
    server.kill();
    ended.recv().await.unwrap();
    let write = |number| vec![Write { record: record(number), precondition: Precondition::None, image: row(3) }];
    let refused = b.store.write(b.shard(), write(9)).await;
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "nothing was sent: {refused:?}");
    server.resume().await;

    let closed = HotStoreError::Closed { shard: b.shard() };
    eventually("the store reconnects", async || {
        !matches!(b.store.read(b.shard(), vec![record(1)]).await, Err(HotStoreError::Unavailable(_)))
    })
    .await;
    // Its scripts are forgotten too; nobody notices.
    assert_eq!(b.store.read(b.shard(), vec![record(1)]).await, Err(closed.clone()));
    assert_eq!(b.store.write(b.shard(), write(1)).await, Err(closed.clone()));
    let refused = b.store.fill(b.shard(), record(3), late, Fill::Absent, LONG).await;
    assert_eq!(refused, Err(closed));
    let refused = b.store.begin_opening(other, &late_opener, Epoch(1), start(false)).await;
    assert_eq!(refused, Err(HotStoreError::Superseded { shard: other }));

    let found = b.store.claim(b.shard(), &token("a")).await.unwrap().unwrap();
    assert_eq!((found.epoch, found.checkpoint, found.resumed), (epoch, Some(Checkpoint(points(55))), None));
    let now = open(&b).await;
    assert_eq!(now, Epoch(epoch.0 + 1));
    let answer = b.store.read(b.shard(), (1..=3).map(record).collect()).await.unwrap();
    assert_eq!(answer.slots, [image_slot(queued, row(1), true), image_slot(unqueued, row(2), true), Slot::Empty]);
    assert_eq!(dirty(&b, Dirty::Unqueued).await, [unqueued]);
    assert!(put(&b, record(1), row(3)).await > unqueued);
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_frozen_server_leaves_the_outcome_unknown() {
    let server = RedisServer::start(&[]).await;
    let options = RedisOptions { response_timeout: Duration::from_millis(200), ..server.options() };
    let store = RedisStore::connect(options).await.unwrap();
    let b = OnRedis { store, prefix: "sa".to_owned(), raw: server.connection().await.unwrap() };
    open(&b).await;
    // Only a script that the server knows can take effect without an answer.
    put(&b, record(2), row(2)).await;
    server.signal("STOP");
    let write = vec![Write { record: record(1), precondition: Precondition::None, image: row(1) }];
    let answer = b.store.write(b.shard(), write).await;
    assert!(matches!(answer, Err(HotStoreError::Unknown(_))), "{answer:?}");
    server.signal("CONT");
    // As here, where it took effect after all.
    eventually("the write takes effect", async || {
        matches!(
            b.store.read(b.shard(), vec![record(1)]).await.as_ref().map(|answer| &answer.slots[0]),
            Ok(Slot::Image { dirty: true, .. })
        )
    })
    .await;
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_that_is_not_there_is_unavailable() {
    let mut server = RedisServer::start(&[]).await;
    server.kill();
    let refused = RedisStore::connect(server.options()).await.map(drop);
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "{refused:?}");
}

fn large(number: u32) -> Write {
    let columns = [("id", Value::Int64(number.into())), ("blob", Value::Bytes(vec![number as u8; 10_000].into()))];
    let columns: Row = columns.into_iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value)).collect();
    let image = Image { content: Content::Row(columns), ..row(0) };
    Write { record: record(number), precondition: Precondition::None, image }
}

/// Writes until the store refuses; answers the error and the versions.
async fn fill_up(b: &OnRedis) -> (HotStoreError, Vec<Version>) {
    let mut versions = Vec::new();
    loop {
        let first = versions.len() as u32;
        match b.store.write(b.shard(), (first..first + 10).map(large).collect()).await {
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
    let untouched = async || {
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
    let refused = b.store.write(b.shard(), vec![large(0), large(written as u32)]).await;
    assert_eq!(refused, Err(HotStoreError::Full));
    untouched().await;
    // Also when the scripts have been forgotten meanwhile.
    let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut raw).await.unwrap();
    assert_eq!(b.store.write(b.shard(), vec![large(0)]).await, Err(HotStoreError::Full));
    untouched().await;
    gives_up_a_fill().await;

    // The drain goes on, or it could never empty.
    b.store.checkpoint(b.shard(), epoch, Checkpoint(points(9))).await.unwrap();
    assert!(matches!(b.store.take("main.payments", 10, 1e6).await, Ok(Grant::After(_))));
    eventually("a budget is granted", async || b.store.take("main.payments", 10, 1e6).await == Ok(Grant::Now)).await;
    assert!(mark_queued(&b, epoch, record(0), versions[0]).await);
    for (number, at) in versions.iter().enumerate() {
        // Every other one is replaced by a row that is new to the store.
        let (at, newer) = if number % 2 == 0 { (*at, None) } else { (version(at.get() + 1), Some(row(1))) };
        let outcome = clean_with(&b, record(number as u32), at, newer, Duration::from_millis(20)).await;
        assert_eq!(outcome, CleanOutcome::Cleaned);
    }
    let header = b.store.header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued), (0, 0));
    let () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("20mb").query_async(&mut raw).await.unwrap();
    eventually("what was drained has expired", async || {
        matches!(b.store.write(b.shard(), vec![large(0)]).await.as_deref(), Ok([WriteOutcome::Stored { .. }]))
    })
    .await;
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
    open_with(&b, false, vec![event], *versions.last().unwrap()).await;
    assert_eq!(read(&b, record(77_777)).await, image_slot(version(5), row(1), true));
    assert_eq!(b.store.header(b.shard()).await.unwrap().dirty, versions.len() as u64 + 1);
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_is_judged_by_its_settings() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]).await;
    let fit = server.store().await.settings().await.unwrap();
    assert_eq!(fit, hot_store::Settings::default());

    let other = RedisOptions { shards: model::ShardCount::new(32).unwrap(), ..server.options() };
    let refused = RedisStore::connect(other).await.unwrap().settings().await.unwrap().refused;
    assert!(refused.len() == 1 && refused[0].contains("64 shards"), "{refused:?}");

    let mut raw = server.connection().await.unwrap();
    for (setting, value) in [("maxmemory-policy", "allkeys-lru"), ("appendfsync", "everysec")] {
        let () = redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async(&mut raw).await.unwrap();
    }
    let unfit = server.store().await.settings().await.unwrap();
    assert!(unfit.refused.len() == 1 && unfit.refused[0].contains("allkeys-lru"), "{unfit:?}");
    assert!(unfit.warned.len() == 1 && unfit.warned[0].contains("everysec"), "{unfit:?}");

    // Where CONFIG is forbidden, INFO tells the rest.
    let rules = ["SETUSER", "app", "on", ">sesame", "~*", "+@all", "-config"];
    let () = redis::cmd("ACL").arg(&rules[..]).query_async(&mut raw).await.unwrap();
    let (username, password) = (Some("app".to_owned()), Some("sesame".to_owned()));
    let options = RedisOptions { username, password, ..server.options() };
    let store = RedisStore::connect(options.clone()).await.unwrap();
    let unfit = store.settings().await.unwrap();
    assert!(unfit.refused.len() == 1 && unfit.warned[0].contains("CONFIG GET is forbidden"), "{unfit:?}");

    let wrong = RedisOptions { password: Some("wrong".to_owned()), ..options };
    let refused = RedisStore::connect(wrong).await.map(drop);
    assert!(matches!(refused, Err(HotStoreError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs redis-server: ./tests/run installs it"]
async fn a_server_with_a_replica_is_refused() {
    let primary = RedisServer::start(&["--maxmemory", "100mb"]).await;
    let address = primary.options().url;
    let port = address.rsplit(':').next().unwrap();
    let replica = RedisServer::start(&["--maxmemory", "100mb", "--replicaof", &format!("127.0.0.1 {port}")]).await;
    let store = primary.store().await;
    eventually("the replica connects", async || !store.settings().await.unwrap().refused.is_empty()).await;
    assert!(store.settings().await.unwrap().refused[0].contains("a replica is connected"));
    let refused = replica.store().await.settings().await;
    // It has not got the key that holds the number of shards until it has synchronised, and can't be given it.
    match refused {
        Ok(settings) => assert!(settings.refused[0].contains("is a replica"), "{settings:?}"),
        Err(error) => assert!(matches!(error, HotStoreError::Unavailable(_)), "{error:?}"),
    }
}
