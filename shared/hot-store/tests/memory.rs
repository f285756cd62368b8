//! The hot store in memory: the contract, and what only it can do.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod contract;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::{Backend, kit::*};
use hot_store::{
    AgreedLimit, Budget, CleanOutcome, Dirty, Fill, HotStore, HotStoreError, Precondition, Restore, Slot, Write,
    WriteOutcome,
    memory::{MemoryStore, Survives},
};
use model::{Content, Image, Shard, ShardCount, Value};
use tokio::time::Instant;

struct InMemory {
    store: MemoryStore,
}

impl Backend for InMemory {
    type Store = MemoryStore;

    fn store(&self) -> &MemoryStore {
        &self.store
    }

    fn shard(&self) -> Shard {
        Shard(17)
    }

    async fn restart(&self) {
        self.store.restart(Survives::Everything);
    }
}

async fn in_memory() -> InMemory {
    of_bytes(64 << 20)
}

fn of_bytes(max_bytes: u64) -> InMemory {
    InMemory { store: MemoryStore::new(ShardCount::DEFAULT, max_bytes) }
}

contract_tests!(in_memory(), #[tokio::test(start_paused = true)]);

#[tokio::test(start_paused = true)]
async fn versions_follow_the_wall_clock_and_never_step_back_with_it() {
    let micros = Arc::new(AtomicU64::new(1_000_000));
    let clock = Arc::clone(&micros);
    let store = MemoryStore::new(ShardCount::DEFAULT, 1 << 20).with_wall_clock(move || clock.load(Ordering::Relaxed));
    let b = InMemory { store };
    open(&b).await;
    assert_eq!(put(&b, record(1), row(1)).await, version(1_000_000));
    micros.store(5, Ordering::Relaxed);
    assert_eq!(put(&b, record(1), row(1)).await, version(1_000_001));
    micros.store(2_000_000, Ordering::Relaxed);
    assert_eq!(put(&b, record(1), row(1)).await, version(2_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_restart_can_lose_everything_or_the_tail() {
    let b = in_memory().await;
    open(&b).await;
    let kept = put(&b, record(1), row(1)).await;
    let snapshot = b.store.snapshot();
    put(&b, record(2), row(2)).await;
    b.store.restart(Survives::Snapshot(snapshot.clone()));
    assert!(!b.store.header(b.shard()).await.unwrap().open);
    open(&b).await;
    let answer = b.store.read(b.shard(), vec![record(1), record(2)]).await.unwrap();
    assert_eq!(answer.slots, [image_slot(kept, row(1), true), Slot::Empty]);
    // The same snapshot again is another incarnation again: it never opens a shard by itself.
    b.store.restart(Survives::Snapshot(snapshot));
    assert!(!b.store.header(b.shard()).await.unwrap().open);
    let limit = AgreedLimit { per_second: 1.0, raised: 1, lowered: 2, troubled: 3 };
    assert!(b.store.agree("main", None, limit).await.unwrap());
    b.store.restart(Survives::Nothing);
    assert_eq!(b.store.agreed("main").await.unwrap().limit, None);
    let found = b.store.claim(b.shard(), &token("a")).await.unwrap().unwrap();
    assert_eq!((found.checkpoint, b.store.used_bytes()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_dirty_is_there_for_as_long_as_it_is() {
    let b = in_memory().await;
    open(&b).await;
    let written = put(&b, record(1), row(1)).await;
    tokio::time::advance(Duration::from_secs(30 * 86_400)).await;
    assert_eq!(read(&b, record(1)).await, image_slot(written, row(1), true));
    let restored = Restore::Dirty { record: record(2), version: version(5), behind: version(5), image: row(2) };
    b.restart().await;
    open_with(&b, false, vec![restored], written).await;
    tokio::time::advance(Duration::from_secs(30 * 86_400)).await;
    assert_eq!(read(&b, record(1)).await, image_slot(written, row(1), true));
    assert_eq!(read(&b, record(2)).await, image_slot(version(5), row(2), true));
}

#[tokio::test(start_paused = true)]
async fn a_horizon_is_not_undercut_when_the_wall_clock_steps_back() {
    let micros = Arc::new(AtomicU64::new(7_200_000_000));
    let clock = Arc::clone(&micros);
    let store = MemoryStore::new(ShardCount::DEFAULT, 1 << 20).with_wall_clock(move || clock.load(Ordering::Relaxed));
    let b = InMemory { store };
    open(&b).await;
    let horizon = async || b.store.backlog(b.shard(), vec![record(1).namespace]).await.unwrap().1[0].horizon;
    let given = horizon().await;
    assert_eq!(given, version(7_200_000_000));
    // An hour back, then as much on.
    micros.store(3_600_000_000, Ordering::Relaxed);
    assert_eq!(horizon().await, given);
    let written = put(&b, record(1), row(1)).await;
    assert_eq!(written.get(), given.get() + 1);
    assert_eq!(horizon().await, given);
    mark_clean(&b, record(1), written, LONG).await;
    micros.store(10_800_000_000, Ordering::Relaxed);
    assert_eq!(horizon().await, version(10_800_000_000));
}

#[tokio::test(start_paused = true)]
async fn requests_and_backlogs_are_lost_with_the_tail_that_they_belong_to() {
    let b = in_memory().await;
    let named = |id: &str| Image { request: Some(contract::requests::request(id, "a")), ..row(1) };
    let epoch = open(&b).await;
    let kept = put(&b, record(1), named("kept")).await;
    let snapshot = b.store.snapshot();
    put(&b, record(1), named("lost")).await;
    put(&b, record(2), named("lost-too")).await;
    mark_clean(&b, record(1), kept, LONG).await;
    b.store.restart(Survives::Snapshot(snapshot));
    let current = open(&b).await;
    let backlog = b.store.backlog(b.shard(), vec![record(1).namespace]).await.unwrap().1[0];
    assert_eq!((backlog.records, backlog.oldest), (1, Some(kept)));
    let again = contract::kit::write(&b, record(1), Precondition::None, named("kept")).await;
    assert_eq!(again, WriteOutcome::Repeated { version: kept, epoch, current });
    for id in ["lost", "lost-too"] {
        put(&b, record(2), named(id)).await;
    }
    b.store.restart(Survives::Nothing);
    open(&b).await;
    assert_eq!(b.store.used_bytes(), 0);
    put(&b, record(1), named("kept")).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_forgotten_after_its_window() {
    let request = |id| Image { request: Some(contract::requests::request(id, "a")), ..row(1) };
    let write = async |b: &InMemory, id| contract::kit::write(b, record(1), Precondition::None, request(id)).await;
    for (b, window) in [
        (in_memory().await, hot_store::REQUEST_WINDOW),
        (
            InMemory {
                store: MemoryStore::new(ShardCount::DEFAULT, 1 << 20).with_request_window(Duration::from_secs(5)),
            },
            Duration::from_secs(5),
        ),
    ] {
        open(&b).await;
        let bytes = b.store.used_bytes();
        stored(write(&b, "r").await);
        tokio::time::advance(window - Duration::from_millis(1)).await;
        assert!(matches!(write(&b, "r").await, WriteOutcome::Repeated { .. }));
        tokio::time::advance(Duration::from_millis(1)).await;
        let again = stored(write(&b, "r").await);
        mark_clean(&b, record(1), again, Duration::from_millis(1)).await;
        tokio::time::advance(window).await;
        b.store.header(b.shard()).await.unwrap();
        assert_eq!(b.store.used_bytes(), bytes, "nothing is left of them");
    }
}

/// The same calls, the same answers: also in another process, where hash maps have another order.
#[tokio::test(start_paused = true)]
async fn a_run_can_be_replayed() {
    let run = async || {
        let store = MemoryStore::new(ShardCount::DEFAULT, 1 << 20).with_wall_clock(|| 1_000_000);
        let b = InMemory { store };
        open(&b).await;
        let mut seen = Vec::new();
        for number in 0..50 {
            let image = Image { request: Some(contract::requests::request(&number.to_string(), "a")), ..row(1) };
            put(&b, record(number), image).await;
            seen.push(format!("{:?}", lease(&b, record(1000 + number), Duration::from_millis(50)).await));
        }
        tokio::time::advance(Duration::from_millis(50)).await;
        for discard in [false, true] {
            b.restart().await;
            let event =
                |n| Restore::Dirty { record: record(n), version: version(9), behind: version(7), image: row(1) };
            open_with(&b, discard, (0..20).map(event).collect(), version(9)).await;
            seen.push(format!("{:?}", b.store.dirty(b.shard(), Dirty::All, version(0), 100).await));
            seen.push(format!("{:?}", b.store.backlog(b.shard(), vec![record(1).namespace]).await));
        }
        seen
    };
    assert_eq!(run().await, run().await);
}

fn large(bytes: usize) -> Image {
    let Content::Row(mut columns) = row(1).content else { unreachable!("a row") };
    columns.insert(model::ColumnName::new("blob").unwrap(), Value::Bytes(vec![7; bytes].into()));
    Image { content: Content::Row(columns), ..row(1) }
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_writes_gives_up_fills_and_can_be_emptied() {
    let b = of_bytes(100_000);
    open(&b).await;
    let mut versions = Vec::new();
    let refused = loop {
        let number = versions.len() as u32;
        let write = Write { record: record(number), precondition: Precondition::None, image: large(1000), index: None };
        match b.store.write(b.shard(), Instant::now(), vec![write]).await {
            Ok(outcomes) => versions.push(stored(outcomes[0])),
            Err(error) => break error,
        }
        assert!(versions.len() < 100, "the limit is not kept");
    };
    assert_eq!(refused, HotStoreError::Full);
    assert!(versions.len() > 75 && b.store.used_bytes() <= 90_000, "{} bytes", b.store.used_bytes());
    let before = b.store.header(b.shard()).await.unwrap();
    assert_eq!((before.dirty, before.clock), (versions.len() as u64, *versions.last().unwrap()));

    let token = lease(&b, record(1000), LONG).await;
    let row_read = Fill::Image { version: version(5), image: row(1) };
    assert!(!fill(&b, record(1000), token, row_read.clone(), LONG).await);
    assert_eq!(read(&b, record(1000)).await, Slot::Empty, "the lease is given up");

    for (number, version) in versions.iter().enumerate() {
        let outcome = mark_clean(&b, record(number as u32), *version, Duration::from_secs(1)).await;
        assert_eq!(outcome, CleanOutcome::Cleaned);
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    // Nobody calls that shard any more; what expired in it makes room for another one all the same.
    let elsewhere = Shard(3);
    let opener = contract::kit::token("a");
    b.store.claim(elsewhere, &opener).await.unwrap();
    b.store.begin_opening(elsewhere, &opener, model::Epoch(1), start(false)).await.unwrap();
    b.store.finish_opening(elsewhere, &opener, version(0), hot_store::Checkpoint::default()).await.unwrap();
    let write = Write { record: record(0), precondition: Precondition::None, image: large(1000), index: None };
    assert!(b.store.write(elsewhere, Instant::now(), vec![write]).await.is_ok());
    let token = lease(&b, record(1000), LONG).await;
    assert!(fill(&b, record(1000), token, row_read, LONG).await);
}
