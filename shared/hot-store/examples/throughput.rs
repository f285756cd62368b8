//! What a Redis takes: `cargo run -p hot-store --example throughput -- redis://127.0.0.1:6379`.
//! Each of 16 callers works on shards of its own, in calls of 100 records: write, write again, mark queued, read, mark
//! clean, and write under a request. The microseconds are the server's processor time. Then 1,000 records of all shards are
//! read in one call, one by one, and by a plain MGET of values as large.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hot_store::{
    Checkpoint, Clean, HotStore, OpeningStart, OpeningToken, Precondition, RecordId, Stamp, Write, WriteOutcome,
    redis::{RedisOptions, RedisStore},
};
use model::{
    ColumnName, Content, Epoch, Fingerprint, Image, KeyBytes, Namespace, Operation, Request, RequestDigest, RequestId,
    Row, Shard, Value, Version,
};

const CALLERS: u16 = 16;
const RECORDS_PER_CALL: u32 = 100;
const CALLS: u32 = 40;

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).expect("give the URL of a Redis that may be written to");
    let prefix = format!("throughput-{}", rand::random::<u64>());
    let mut raw = redis::Client::open(url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let store = Arc::new(RedisStore::connect(RedisOptions { url, prefix, ..RedisOptions::default() }).await.unwrap());
    for shard in (0..CALLERS).map(Shard) {
        open(&store, shard).await;
    }
    let mut versions = Vec::new();
    for step in ["write", "write again", "mark queued", "read", "mark clean", "requests"] {
        let (start, busy) = (Instant::now(), server_micros(&mut raw).await);
        let given = std::mem::take(&mut versions);
        let callers = (0..CALLERS).map(|caller| {
            let (store, shard) = (Arc::clone(&store), Shard(caller));
            let given = given.get(usize::from(caller)).cloned().unwrap_or_default();
            tokio::spawn(async move { run(&store, shard, step, given).await })
        });
        for caller in callers.collect::<Vec<_>>() {
            versions.push(caller.await.unwrap());
        }
        let records = u32::from(CALLERS) * CALLS * RECORDS_PER_CALL;
        let rate = f64::from(records) / start.elapsed().as_secs_f64();
        let busy = (server_micros(&mut raw).await - busy) / f64::from(records);
        println!("{step:12} {rate:8.0} records/s {busy:6.2} us of Redis per record");
    }
    at_once(&store, &mut raw).await;
}

/// The shards of an installation, of which those of the callers are open already.
const SHARDS: u16 = 64;
const RECORDS_AT_ONCE: u32 = 1000;
const ROUNDS: usize = 101;

/// How long it takes until 1,000 records of all shards are there.
async fn at_once(store: &Arc<RedisStore>, raw: &mut redis::aio::MultiplexedConnection) {
    for shard in (CALLERS..SHARDS).map(Shard) {
        open(store, shard).await;
    }
    let groups: Vec<(Shard, Vec<RecordId>)> = (0..SHARDS)
        .map(|shard| (Shard(shard), (u32::from(shard)..RECORDS_AT_ONCE).step_by(SHARDS.into()).map(record).collect()))
        .collect();
    let mut plain = redis::cmd("MGET");
    for (shard, records) in &groups {
        let write = |id: &RecordId| Write {
            record: id.clone(),
            precondition: Precondition::None,
            image: image(None),
            index: None,
        };
        store.write(*shard, Instant::now().into(), records.iter().map(write).collect()).await.unwrap();
        for (at, _) in records.iter().enumerate() {
            let name = format!("{{throughput}}-{shard}-{at}");
            let value = image(None).encode();
            let set = redis::cmd("SET").arg(&name).arg(&value[..]).arg("EX").arg(600).to_owned();
            set.exec_async(raw).await.unwrap();
            plain.arg(name);
        }
    }
    let mut took: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let answers = store.read_many(groups.clone(), 4 << 20).await;
        took[0].push(begun.elapsed());
        let read: usize = answers.into_iter().map(|answer| answer.unwrap().slots.len()).sum();
        assert_eq!(read, RECORDS_AT_ONCE as usize);

        let begun = Instant::now();
        let mut singles = tokio::task::JoinSet::new();
        for (shard, records) in &groups {
            for record in records {
                let (store, shard, record) = (Arc::clone(store), *shard, record.clone());
                singles.spawn(async move { store.read(shard, vec![record]).await.unwrap() });
            }
        }
        singles.join_all().await;
        took[1].push(begun.elapsed());

        let begun = Instant::now();
        let values: Vec<Option<Vec<u8>>> = plain.query_async(raw).await.unwrap();
        took[2].push(begun.elapsed());
        assert!(values.iter().all(Option::is_some));
    }
    for (what, mut took) in
        ["1,000 records in one call", "1,000 calls at once", "a plain MGET of 1,000"].iter().zip(took)
    {
        took.sort_unstable();
        println!("{what:26} {:7.2} ms, the median of {ROUNDS}", took[ROUNDS / 2].as_secs_f64() * 1e3);
    }
}

/// The processor time that the server's main thread has taken so far; another load on the machine disturbs it less than
/// the rates.
async fn server_micros(raw: &mut redis::aio::MultiplexedConnection) -> f64 {
    let info: String = redis::cmd("INFO").arg("cpu").query_async(raw).await.unwrap();
    let seconds = |line: &str| -> f64 {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.ends_with("_main_thread") { value.trim().parse().unwrap() } else { 0.0 }
    };
    info.lines().map(seconds).sum::<f64>() * 1e6
}

async fn open(store: &RedisStore, shard: Shard) {
    let token = OpeningToken("throughput".to_owned());
    store.claim(shard, &token).await.unwrap();
    let start = OpeningStart { points: Default::default(), discard: true };
    store.begin_opening(shard, &token, Epoch(1), start).await.unwrap();
    store.finish_opening(shard, &token, Version::ZERO, Checkpoint::default()).await.unwrap();
}

async fn run(store: &RedisStore, shard: Shard, step: &str, versions: Vec<Version>) -> Vec<Version> {
    let mut out = Vec::new();
    for call in 0..CALLS {
        let numbers = call * RECORDS_PER_CALL..(call + 1) * RECORDS_PER_CALL;
        let stamped = || numbers.clone().map(|n| (record(n), versions[n as usize]));
        match step {
            "write" | "write again" | "requests" => {
                let request = |n: u32| (step == "requests").then(|| request(n));
                let write = |n| Write {
                    record: record(n),
                    precondition: Precondition::None,
                    image: image(request(n)),
                    index: None,
                };
                let writes = numbers.map(write);
                for outcome in store.write(shard, Instant::now().into(), writes.collect()).await.unwrap() {
                    let WriteOutcome::Stored { version, .. } = outcome else { panic!("{outcome:?}") };
                    out.push(version);
                }
            }
            "mark queued" => {
                let stamps = stamped().map(|(record, version)| Stamp { record, version }).collect();
                store.mark_queued(shard, Epoch(1), stamps).await.unwrap();
            }
            "read" => {
                store.read(shard, numbers.map(record).collect()).await.unwrap();
            }
            _ => {
                let cleans = stamped().map(|(record, version)| Clean { record, version, newer: None }).collect();
                store.mark_clean(shard, cleans, Duration::from_secs(5)).await.unwrap();
            }
        }
    }
    if out.is_empty() { versions } else { out }
}

fn record(number: u32) -> RecordId {
    let key = KeyBytes::from_stored(number.to_be_bytes().to_vec().into());
    RecordId { namespace: Namespace::new("main.payments").unwrap(), key }
}

fn request(number: u32) -> Request {
    let id = RequestId::new(&format!("0192f3c4-7d1e-7c3a-9b1d-{number:012}")).unwrap();
    Request { id, digest: RequestDigest::of(b"asked for") }
}

/// About 300 bytes, as the notes on Redis were measured with.
fn image(request: Option<Request>) -> Image {
    let columns = (0..10).map(|n| (ColumnName::new(format!("column_{n}")).unwrap(), Value::Text("x".repeat(16))));
    Image {
        content: Content::Row(columns.collect::<Row>()),
        operation: Operation::Put,
        fingerprint: Fingerprint(1),
        request,
        since: None,
    }
}
