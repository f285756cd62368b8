#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};

use hot_store::{AgreedLimit, Agreement, Ended, Limits, PERMIT_LEASE, memory::MemoryStore};
use model::{DatabaseName, ShardCount, TableName};
use tokio::{task::JoinHandle, time::sleep};

use super::*;

/// A store that counts what it is asked; it can fail at first, and grant everything at once, as one does that has lost its
/// memory.
struct Store {
    memory: MemoryStore,
    failures: AtomicU32,
    generous: bool,
    calls: AtomicU32,
}

impl Store {
    fn new() -> Self {
        let memory = MemoryStore::new(ShardCount::DEFAULT, 1 << 20);
        Self { memory, failures: AtomicU32::new(0), generous: false, calls: AtomicU32::new(0) }
    }
}

impl Budget for Store {
    async fn take(&self, limits: &Limits, permit: Permit, ended: &[Ended]) -> Result<Grant, HotStoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_micros(300)).await;
        let answer = self.memory.take(limits, permit, ended).await;
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
            return Err(HotStoreError::Unknown("down".into()));
        }
        sleep(Duration::from_micros(300)).await;
        if self.generous { Ok(Grant::Now(Duration::ZERO)) } else { answer }
    }

    async fn tell(&self, limits: &Limits, held: &[Permit], ended: &[Ended]) -> Result<(), HotStoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_micros(300)).await;
        self.memory.tell(limits, held, ended).await
    }

    async fn agreed(&self, database: &str) -> Result<Agreement, HotStoreError> {
        self.memory.agreed(database).await
    }

    async fn agree(
        &self,
        database: &str,
        before: Option<AgreedLimit>,
        after: AgreedLimit,
    ) -> Result<bool, HotStoreError> {
        self.memory.agree(database, before, after).await
    }
}

fn rows(per_second: f64) -> Rates {
    Rates { rows: Some(per_second), ..Rates::default() }
}

/// The gate of a replica, and the task that keeps the store up to date.
fn gate(store: &Arc<Store>, rates: Rates, batch_rows: usize, seed: u64) -> (Arc<Gate<Store>>, JoinHandle<()>) {
    let table = TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() };
    let chance = Chance::seeded(seed);
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2), chance.clone());
    let sizes = SizeBounds { min: batch_rows, max: batch_rows, target: Duration::from_secs(1) };
    let gate = Arc::new(Gate::new(table, rates, sizes, store.clone(), chance, backoff));
    let keeping = tokio::spawn(gate.clone().keep_told(CancellationToken::new()));
    (gate, keeping)
}

/// Lanes of one replica that write as soon as they may, each batch taking as long as `takes` says.
fn write(
    gate: &Arc<Gate<Store>>,
    lanes: u64,
    until: Instant,
    takes: impl Fn(u64) -> Duration + Copy + Send + 'static,
) -> Vec<JoinHandle<Vec<(Instant, usize)>>> {
    let lane = |lane: u64| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let mut commits = Vec::new();
            for turn in 0.. {
                let granted = gate.pass(|| 1000).await;
                if Instant::now() > until {
                    break;
                }
                sleep(takes(turn * 7 + lane * 13)).await;
                commits.push((Instant::now(), granted.rows));
            }
            commits
        })
    };
    (0..lanes).map(lane).collect()
}

async fn all(tasks: Vec<JoinHandle<Vec<(Instant, usize)>>>) -> Vec<(Instant, usize)> {
    let mut commits = Vec::new();
    for task in tasks {
        commits.extend(task.await.unwrap());
    }
    commits.sort_unstable();
    commits
}

fn worst_second(commits: &[(Instant, usize)]) -> usize {
    let second = |i: usize| commits[i..].iter().take_while(move |(at, _)| *at < commits[i].0 + Duration::from_secs(1));
    (0..commits.len()).map(|i| second(i).map(|(_, rows)| rows).sum()).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn replicas_together_use_the_limit_and_keep_to_it() {
    for (rate, replicas) in [(0.5, 3), (5.0, 8), (50.0, 3), (2000.0, 1), (2000.0, 8)] {
        let store = Arc::new(Store::new());
        let (begun, seconds) = (Instant::now(), if rate < 1.0 { 100 } else { 30 });
        let until = begun + Duration::from_secs(seconds);
        // Ever so often a batch is held up.
        let takes = |n: u64| Duration::from_micros(2000 + n * 7919 % 16_000 + if n % 97 == 96 { 400_000 } else { 0 });
        let tasks = (0..replicas).flat_map(|seed| write(&gate(&store, rows(rate), 500, seed).0, 4, until, takes));
        let commits = all(tasks.collect()).await;
        let worst = worst_second(&commits) as f64;
        assert!(
            worst <= rate + (rate / 20.0).max(1.0),
            "{worst} rows in a second, at {rate}/s with {replicas} replicas"
        );
        let (written, counted) = (commits.iter().map(|(_, rows)| rows).sum::<usize>() as f64, seconds as f64 - 2.0);
        assert!(written >= 0.95 * rate * counted - 2.0, "{written} in {seconds} s at {rate}/s by {replicas} replicas");
    }
}

/// Also where each has but one hot shard, whose batches are written one after the other.
#[tokio::test(start_paused = true)]
async fn of_transactions_that_take_up_to_60_ms_nearly_all_of_the_limit_is_used() {
    let mut short = Vec::new();
    for (rate, replicas, lanes) in
        [(5.0, 1, 1), (50.0, 1, 1), (2000.0, 1, 1), (50.0, 3, 4), (2000.0, 3, 4), (2000.0, 8, 4)]
    {
        for millis in [30, 45, 60] {
            let store = Arc::new(Store::new());
            let begun = Instant::now();
            let takes = move |n: u64| Duration::from_micros(millis * 1000 - n * 7919 % 3000);
            let tasks =
                |seed| write(&gate(&store, rows(rate), 1000, seed).0, lanes, begun + Duration::from_secs(25), takes);
            let commits = all((0..replicas).flat_map(tasks).collect()).await;
            let worst = worst_second(&commits) as f64;
            let what = format!("at {rate}/s with {replicas} replicas and {lanes} lanes, {millis} ms");
            assert!(worst <= rate + (rate / 20.0).max(1.0), "{worst} rows in a second, {what}");
            let later = commits.iter().filter(|(at, _)| *at >= begun + Duration::from_secs(5));
            let mean = later.map(|(_, rows)| rows).sum::<usize>() as f64 / 20.0;
            if mean < 0.97 * rate {
                short.push(format!("{mean} rows/s, {what}"));
            }
        }
    }
    assert!(short.is_empty(), "{short:#?}");
}

/// Where it is the database that is slow, and not the limit, replicas compete for what may be unfinished.
#[tokio::test(start_paused = true)]
async fn replicas_share_a_slow_database_and_one_alone_has_all_of_it() {
    let (rate, takes, seconds) = (1000.0, Duration::from_millis(300), 60);
    for replicas in [1, 2, 3, 6] {
        let store = Arc::new(Store::new());
        let until = Instant::now() + Duration::from_secs(seconds);
        let replicas: Vec<_> =
            (0..replicas).map(|seed| write(&gate(&store, rows(rate), 500, seed).0, 4, until, move |_| takes)).collect();
        let mut shares = Vec::new();
        for tasks in replicas {
            shares.push(all(tasks).await.len() as f64);
        }
        let (total, possible) = (shares.iter().sum::<f64>(), (seconds - 1) as f64 * 2.0 / takes.as_secs_f64());
        let loss = if shares.len() == 1 { 0.02 } else { 0.1 };
        assert!(total >= (1.0 - loss) * possible, "{total} of {possible} batches: {shares:?}");
        let fair = total / shares.len() as f64;
        assert!(shares.iter().all(|share| *share >= 0.8 * fair), "{shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_costs_one_call() {
    let store = Arc::new(Store::new());
    let (gate, _) = gate(&store, rows(2000.0), 500, 1);
    let until = Instant::now() + Duration::from_secs(30);
    let commits = all(write(&gate, 4, until, |_| Duration::from_millis(8))).await;
    let (batches, calls) = (commits.len(), store.calls.load(Ordering::Relaxed));
    assert!(batches > 500 && f64::from(calls) < batches as f64 * 1.1, "{calls} calls for {batches} batches");
}

#[tokio::test(start_paused = true)]
async fn replicas_that_wait_ask_now_and_then() {
    let store = Arc::new(Store::new());
    let held = gate(&store, rows(100.0), 500, 0).0;
    let (_first, _second) = (held.pass(|| 5).await, held.pass(|| 5).await);
    let others: Vec<_> = (1..5).map(|seed| gate(&store, rows(100.0), 500, seed).0).collect();
    let waiting: Vec<_> =
        others.iter().cloned().map(|gate| tokio::spawn(async move { gate.pass(|| 5).await })).collect();
    let before = store.calls.load(Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    let calls = f64::from(store.calls.load(Ordering::Relaxed) - before) / 60.0 / 4.0;
    assert!(calls > 1.0 && calls <= 52.0, "{calls} calls per second and replica");
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "two are unfinished: however long they take");
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_replica_held_falls_free() {
    let store = Arc::new(Store::new());
    let (killed, keeping) = gate(&store, rows(100.0), 500, 0);
    let held = (killed.pass(|| 5).await, killed.pass(|| 5).await);
    keeping.abort();
    let (gate, _) = gate(&store, rows(100.0), 500, 1);
    let begun = Instant::now();
    let granted = gate.pass(|| 5).await;
    let waited = begun.elapsed();
    assert!(granted.rows == 5 && waited <= PERMIT_LEASE + Duration::from_secs(1), "{waited:?}");
    assert!(waited >= PERMIT_LEASE / 2, "{waited:?}");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_store_that_does_not_answer_gets_through_and_leaves_nothing_behind() {
    let store = Arc::new(Store { failures: AtomicU32::new(500), ..Store::new() });
    let (gate, _) = gate(&store, rows(1000.0), 500, 1);
    assert_eq!(gate.pass(|| 5).await.rows, 5);
    assert_eq!(store.failures.load(Ordering::Relaxed), 0);
    sleep(Duration::from_secs(1)).await;
    // Some of the calls that got no answer did take something; it was given back.
    let begun = Instant::now();
    let (_one, _two) = (gate.pass(|| 5).await, gate.pass(|| 5).await);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn another_limit_holds_at_once() {
    let store = Arc::new(Store::new());
    let (gate, _) = gate(&store, rows(0.01), 500, 1);
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.pass(|| 400).await.rows }
    });
    sleep(Duration::from_secs(30)).await;
    assert!(!waiting.is_finished());
    gate.set_rates(rows(1000.0));
    let begun = Instant::now();
    assert_eq!(waiting.await.unwrap(), 50, "as many as the new limit allows");
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(gate.batch_rows(), 50);

    gate.set_rates(rows(0.2));
    assert_eq!(gate.pass(|| 400).await.rows, 1);
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.pass(|| 400).await.rows }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    gate.set_rates(Rates::default());
    assert_eq!(waiting.await.unwrap(), 400, "without a limit");
}

#[tokio::test(start_paused = true)]
async fn a_process_never_exceeds_the_limit_by_more_than_two_batches_whatever_the_store_grants() {
    let (limit, batch) = (1000.0, 50);
    let store = Arc::new(Store { generous: true, ..Store::new() });
    let (gate, _) = gate(&store, rows(limit), batch, 0);
    let begun = Instant::now();
    let mut written = 0;
    for _ in 0..7 {
        written += gate.pass(|| batch).await.rows;
        let allowed = begun.elapsed().as_secs_f64() * limit + 2.0 * batch as f64;
        assert!(written as f64 <= allowed + 1.0, "{written} rows, {allowed} allowed");
    }
    // Nor does it have more than two batches unfinished.
    let first = gate.pass(|| 1).await;
    let _second = gate.pass(|| 1).await;
    let third = gate.pass(|| 1);
    tokio::pin!(third);
    assert!(time::timeout(Duration::from_secs(1), third.as_mut()).await.is_err());
    drop(first);
    assert_eq!(third.await.rows, 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_nobody_is_asked() {
    let store = Arc::new(Store { failures: AtomicU32::new(u32::MAX), ..Store::new() });
    let (gate, _) = gate(&store, Rates::default(), 5, 0);
    assert_eq!(gate.pass(|| 5).await.rows, 5);
    assert_eq!(store.calls.load(Ordering::Relaxed), 0);
}
