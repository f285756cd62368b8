//! The hot store on Redis: the contract on a server that is given, and what a server of the test's own does to it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod broken;
#[path = "../contract/mod.rs"]
mod contract;
mod full;
mod round_trips;
#[path = "../server/mod.rs"]
mod server;
mod settings;
mod takeover;
mod torn;

use std::{path::Path, time::Duration};

use contract::{
    Backend,
    budgets::{limits, permit, rows},
    kit::*,
};
use hot_store::{
    AgreedLimit, Backlog, Budget, Checkpoint, Clean, CleanOutcome, Dirty, Ended, Fill, Grant, HotStore, HotStoreError,
    LeaseOutcome, Limit, ParkOutcome, Permit, Precondition, Restore, Slot, Stage, Stamp, Write, WriteOutcome,
    redis::{RedisOptions, RedisStore},
};
use model::{
    ColumnName, Content, Epoch, Image, Operation, Request, RequestDigest, RequestId, Row, Shard, Value, Version,
};
use redis::AsyncCommands as _;
use server::RedisServer;
use tokio::time::Instant;

/// A shard of a prefix that no other test uses.
struct OnRedis {
    store: RedisStore,
    url: String,
    prefix: String,
    raw: redis::aio::MultiplexedConnection,
}

impl OnRedis {
    /// As if the server's clock had stepped back by an hour.
    async fn step_clock_back(&self, key: &str) {
        let hour = 3_600_000_000_u64;
        let mut raw = self.raw.clone();
        let fields: Vec<(String, String)> = raw.hgetall(key).await.unwrap();
        let () = raw.del(key).await.unwrap();
        for (field, value) in fields {
            let ahead = |text: &str| (text.parse::<u64>().unwrap() + hour).to_string();
            let (field, value) = match (&field[..1], value.split_once(' ')) {
                ("f", _) => (format!("f{}", ahead(&field[1..])), value),
                ("p", Some((until, amount))) => (field, format!("{} {amount}", ahead(until))),
                _ if field == "at" => (field, ahead(&value)),
                _ => (field, value),
            };
            let () = raw.hset(key, field, value).await.unwrap();
        }
    }

    async fn at(url: &str) -> Self {
        let prefix = format!("test-{:032x}", rand::random::<u128>());
        let options = RedisOptions { url: url.to_owned(), prefix: prefix.clone(), ..RedisOptions::default() };
        let store = RedisStore::connect(options).await.unwrap();
        let raw = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        Self { store, url: url.to_owned(), prefix, raw }
    }

    fn options(&self) -> RedisOptions {
        RedisOptions { url: self.url.clone(), prefix: self.prefix.clone(), ..RedisOptions::default() }
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
async fn what_an_opener_has_no_use_for_is_freed() {
    let b = on_redis().await;
    open(&b).await;
    for number in 0..1200 {
        put(&b, record(number), row(1)).await;
    }
    b.restart().await;
    let event = Restore::Dirty { record: record(3), version: version(6), behind: version(6), image: row(3) };
    let gone = (0..1200).filter(|&number| number != 3);
    let gone = gone.map(|number| Restore::Gone { record: record(number), horizon: Version::MAX });
    open_with(&b, true, gone.chain([event]).collect(), Version::ZERO).await;
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
async fn a_budget_outlives_neither_a_restart_nor_a_clock_that_steps() {
    let b = on_redis().await;
    let key = format!("{}:{{b:main}}:table", b.prefix);
    let two = limits([Limit { unfinished: Some(2), ..rows("table", 50.0) }]);
    let take = async |permit: Permit| b.store.take(&two, permit, &[]).await.unwrap();
    let (pause, mut raw) = (Duration::from_millis(900), b.raw.clone());
    let (held, other) = (permit(2), permit(2));
    assert!(matches!(take(held).await, Grant::After(wait) if wait > pause), "an unknown budget");
    eventually("it is granted", async || matches!(take(held).await, Grant::Now(_))).await;

    // What was granted before the restart may have been lost with the tail of the store; who holds it puts it back.
    let () = raw.hset(&key, "inc", "0".repeat(40)).await.unwrap();
    b.store.tell(&two, &[held], &[]).await.unwrap();
    assert!(matches!(take(other).await, Grant::After(wait) if wait > pause), "another incarnation");
    eventually("it is granted", async || matches!(take(other).await, Grant::Now(_))).await;
    assert_eq!(take(permit(2)).await, Grant::Busy, "the renewed one counts");

    // All that is noted lies ahead. Neither is anything granted too early nor an hour too late.
    b.step_clock_back(&key).await;
    assert_eq!(take(permit(2)).await, Grant::Busy);
    b.store.tell(&two, &[], &[held, other].map(|permit| Ended { permit, ago: Duration::ZERO })).await.unwrap();
    let begun = std::time::Instant::now();
    let next = permit(2);
    eventually("it is granted", async || matches!(take(next).await, Grant::Now(_))).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_ends_in_the_first_call_after_a_step_back_of_the_clock_has_ended() {
    let b = on_redis().await;
    let key = format!("{}:{{b:main}}:table", b.prefix);
    let two = limits([Limit { unfinished: Some(2), ..rows("table", 1000.0) }]);
    let (first, second, third) = (permit(2), permit(2), permit(2));
    for permit in [first, second] {
        let granted = async || matches!(b.store.take(&two, permit, &[]).await, Ok(Grant::Now(_)));
        eventually("it is granted", granted).await;
    }
    b.step_clock_back(&key).await;
    let ended = [first, second].map(|permit| Ended { permit, ago: Duration::ZERO });
    b.store.take(&two, third, &ended).await.unwrap();
    let fields: Vec<String> = b.raw.clone().hkeys(&key).await.unwrap();
    let held = |permit: Permit| fields.contains(&format!("p{:016x}", permit.id.0));
    assert!(!held(first) && !held(second), "{fields:?}");
    // Nor is what ended and is renewed in one call forgotten, nor the one that only moves.
    b.store.tell(&two, &[third], &[]).await.unwrap();
    b.step_clock_back(&key).await;
    b.store.tell(&two, &[second], &[Ended { permit: second, ago: Duration::ZERO }]).await.unwrap();
    assert_eq!(b.store.take(&two, permit(2), &[]).await.unwrap(), Grant::Busy);
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_another_incarnation_agreed_on_is_forgotten() {
    let b = on_redis().await;
    let (key, mut raw) = (format!("{}:{{b:main}}:agreed", b.prefix), b.raw.clone());
    let limit = AgreedLimit { per_second: 0.1, raised: 1, lowered: 2, troubled: 3 };
    assert!(b.store.agree("main", None, limit).await.unwrap());
    // Released: what one release wrote, the next must read.
    let stored: String = raw.hget(&key, "limit").await.unwrap();
    assert_eq!(stored, "0.1 1 2 3");
    let () = raw.hset(&key, "inc", "0".repeat(40)).await.unwrap();
    assert_eq!(b.store.agreed("main").await.unwrap().limit, None);
    assert!(!b.store.agree("main", Some(limit), limit).await.unwrap());
    assert!(b.store.agree("main", None, limit).await.unwrap());
    assert_eq!(b.store.agreed("main").await.unwrap().limit, Some(limit));
    // What is none of ours is told, not taken for none.
    let () = raw.hset(&key, "limit", "fast").await.unwrap();
    let refused = b.store.agreed("main").await.unwrap_err();
    assert!(refused.to_string().contains("fast"), "{refused}");
}

#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_budget_keeps_nothing_that_is_over() {
    let b = on_redis().await;
    let limits = limits([rows("table", 2000.0)]);
    let begun = std::time::Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        let permit = permit(1);
        if let Grant::Now(_) = b.store.take(&limits, permit, &[]).await.unwrap() {
            b.store.tell(&limits, &[], &[Ended { permit, ago: Duration::ZERO }]).await.unwrap();
        }
        let fields: usize = b.raw.clone().hlen(format!("{}:{{b:main}}:table", b.prefix)).await.unwrap();
        most = most.max(fields);
    }
    assert!(most > 20 && most <= 110, "{most} fields");
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

/// It can be read by that release, and an event of the log must not take its place.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_a_later_release_stored_stops_an_opening_that_would_pass_it_over() {
    let b = on_redis().await;
    open(&b).await;
    let version = put(&b, record(1), row(1)).await;
    let mut raw = b.raw.clone();
    let stored: Vec<u8> = raw.get(b.record_key(1)).await.unwrap();
    // The layout's number is the first field of an image.
    let newer = [&stored[..43], &[0x08, 99]].concat();
    let () = raw.set(b.record_key(1), newer).await.unwrap();
    b.restart().await;
    let opener = token("a");
    let claim = b.store.claim(b.shard(), &opener).await.unwrap().unwrap();
    let next = Epoch(claim.epoch.0 + 1);
    b.store.begin_opening(b.shard(), &opener, next, start(true)).await.unwrap();
    let refused = b.store.set_aside(b.shard(), &opener, 0, 10).await.unwrap_err();
    assert!(matches!(&refused, HotStoreError::Corrupt { problem, .. } if problem.contains("upgrade")), "{refused}");
    let () = raw.set(b.record_key(1), stored).await.unwrap();
    let page = b.store.set_aside(b.shard(), &opener, 0, 10).await.unwrap();
    assert_eq!(page.records.iter().map(|found| found.version).collect::<Vec<_>>(), [version]);
}

/// One value that nobody here wrote, one that is gone, one name that is none of ours: the others are relayed, read and
/// marked all the same.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_bad_key_stops_nobody_else() {
    let b = on_redis().await;
    let epoch = open(&b).await;
    let mut raw = b.raw.clone();
    let mut versions = Vec::new();
    for number in 1..=5 {
        versions.push(put(&b, record(number), row(i64::from(number))).await);
    }
    let [v1, v2, v3, v4, v5] = versions[..] else { panic!("five") };
    for (number, value) in [(1, "junk"), (3, &*format!("Z{:042}", 9)), (4, &*format!("I{:042}junk", 9))] {
        let () = raw.set(b.record_key(number), value).await.unwrap();
    }
    let () = raw.del(b.record_key(2)).await.unwrap();
    for set in ["d", "u"] {
        let () = raw.zadd(b.key(set), "no name of ours", 1).await.unwrap();
    }
    for which in [Dirty::All, Dirty::Unqueued] {
        // A page of nothing but bad ones is not the end.
        let (_, page) = b.store.dirty(b.shard(), which, Version::ZERO, 1).await.unwrap();
        assert_eq!(page.iter().map(|found| found.version).collect::<Vec<_>>(), [v5]);
        assert_eq!(dirty(&b, which).await, [v5]);
        assert_eq!(b.store.dirty(b.shard(), which, v5, 1).await.unwrap().1, []);
    }
    let stamps = (1..).zip(&versions).map(|(number, at)| Stamp { record: record(number), version: *at });
    let marked = b.store.mark_queued(b.shard(), epoch, stamps.collect()).await.unwrap();
    assert_eq!((marked[0], marked[1], marked[2], marked[4]), (false, false, false, true));
    assert_eq!(dirty(&b, Dirty::Unqueued).await, []);
    let cleans = (1..).zip(&versions).map(|(number, at)| Clean { record: record(number), version: *at, newer: None });
    let outcomes = b.store.mark_clean(b.shard(), cleans.collect(), LONG).await.unwrap();
    assert_eq!((outcomes[1], outcomes[4]), (CleanOutcome::Gone, CleanOutcome::Cleaned));
    assert_eq!(read(&b, record(5)).await, image_slot(v5, row(5), false));
    // What is gone no longer holds the horizon; what can't be told still does, until somebody writes it again.
    let oldest = async || b.store.backlog(b.shard(), vec![record(1).namespace]).await.unwrap().1[0].oldest;
    assert_eq!(oldest().await, Some(v1));
    let again = put(&b, record(1), row(6)).await;
    assert_eq!(mark_clean(&b, record(1), again, LONG).await, CleanOutcome::Cleaned);
    assert_eq!(oldest().await, Some(v3));
    assert!(v2 < v3 && v3 < v4);
}

/// A request's key goes by itself, and no other store of the same prefix needs to know how long it lasts.
#[tokio::test]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_request_is_forgotten_after_its_window() {
    let mut b = on_redis().await;
    let request = contract::requests::request("r", "a");
    let write = |request: &Request| Image { request: Some(request.clone()), ..row(1) };
    open(&b).await;
    put(&b, record(1), write(&request)).await;
    let key = [b.key("q:").as_bytes(), b"main.payments\0r"].concat();
    let left: i64 = b.raw.clone().pttl(&key).await.unwrap();
    assert!((100_000..=120_000).contains(&left), "{left}");
    let window = Duration::from_secs(2);
    b.store = RedisStore::connect(RedisOptions { request_window: window, ..b.options() }).await.unwrap();
    let short = contract::requests::request("s", "a");
    put(&b, record(2), write(&short)).await;
    eventually("it is forgotten", async || {
        matches!(
            contract::kit::write(&b, record(2), Precondition::None, write(&short)).await,
            WriteOutcome::Stored { .. }
        )
    })
    .await;
    let kept = contract::kit::write(&b, record(1), Precondition::None, write(&request)).await;
    assert!(matches!(kept, WriteOutcome::Repeated { .. }), "{kept:?}");

    // Put back, it has the whole window.
    b.restart().await;
    b.store = RedisStore::connect(RedisOptions { request_window: LONG, ..b.options() }).await.unwrap();
    let restore = Restore::Request { namespace: record(1).namespace, request: request.clone(), version: Version::MAX };
    open_with(&b, false, vec![restore], Version::ZERO).await;
    let left: i64 = b.raw.clone().pttl(&key).await.unwrap();
    assert!(left > 500_000, "{left}");
}
