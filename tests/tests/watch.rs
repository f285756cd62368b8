//! Watches over the whole system: every change that was acknowledged is told, whatever is killed meanwhile.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value as Json;
use shock_absorber_client::{Change, Client, Row, Value, Watch, WatchOptions};
use shock_absorber_tests::{Service, ServiceSettings, System, binary, eventually};
use tokio::task::JoinHandle;

const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n));\n"
);
const WITHIN: Duration = Duration::from_secs(120);
const KEYS: i64 = 40;

fn key(n: i64) -> Row {
    Row::new().set("tenant", "t").set("n", n)
}

fn entry(n: i64, count: i64) -> Row {
    key(n).set("amount", Value::Decimal("1.00".into())).set("note", count.to_string())
}

/// What was written, or seen, of each key: counts, in their order, each with its version where that is known.
type Seen = Arc<Mutex<BTreeMap<i64, Vec<(u64, i64)>>>>;

fn note(seen: &Seen, n: i64, version: u64, count: i64) {
    seen.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_default().push((version, count));
}

fn newest(seen: &Seen) -> BTreeMap<i64, i64> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let newest = |(n, all): (&i64, &Vec<(u64, i64)>)| Some((*n, all.iter().max()?.1));
    seen.iter().filter_map(newest).collect()
}

/// Writes that go on: each key's counter rises, and no write of a key begins before the one before it is acknowledged.
struct Traffic {
    written: Seen,
    count: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Result<()>>>,
}

impl Traffic {
    fn begin(client: &Client) -> Self {
        let (written, count, stop) = (Seen::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let writer = |first: i64| {
            let (client, written, count, stop) = (client.clone(), written.clone(), count.clone(), stop.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let n = first + 4 * (number % (KEYS / 4));
                    // What is not acknowledged may be told or not.
                    if client.put("entries", entry(n, number)).await.is_ok() {
                        note(&written, n, number.unsigned_abs(), number);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        };
        let writers = (0..4).map(writer).collect();
        Self { written, count, stop, writers }
    }

    /// Waits until so many more were acknowledged.
    async fn goes_on(&self, more: usize) -> Result<()> {
        let from = self.count.load(Ordering::Relaxed);
        eventually("acknowledged writes", WITHIN, || async {
            Ok((self.count.load(Ordering::Relaxed) >= from + more).then_some(()))
        })
        .await
    }

    async fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await??;
        }
        Ok(self.written)
    }
}

fn take(change: &Change, seen: &Seen) -> Result<()> {
    let Some(Value::Int64(n)) = change.key.get("n") else { anyhow::bail!("{change:?} has no n") };
    let Some(Value::Text(count)) = change.row.as_ref().and_then(|row| row.get("note")) else {
        anyhow::bail!("{change:?} has no note")
    };
    note(seen, *n, change.version, count.parse()?);
    Ok(())
}

/// Takes what a watch tells, until it is stopped or fails.
fn taking(mut watch: Watch, seen: &Seen) -> JoinHandle<Result<()>> {
    let seen = seen.clone();
    tokio::spawn(async move {
        loop {
            for change in watch.next().await?.changes {
                take(&change, &seen)?;
            }
        }
    })
}

/// Everything that was acknowledged was told, or something newer before it; the newest versions are what was written last.
async fn all_was_told(written: &Seen, seen: &Seen) -> Result<()> {
    let last = newest(written);
    eventually("the last changes", WITHIN, || async {
        let told = newest(seen);
        Ok(last.iter().all(|(n, count)| told.get(n) >= Some(count)).then_some(()))
    })
    .await?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (n, all) in written.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let told: Vec<i64> = seen.get(n).context("never told")?.iter().map(|(_, count)| *count).collect();
        let lost: Vec<_> = all.iter().filter(|(_, count)| !told.contains(count)).collect();
        ensure!(lost.is_empty(), "of key {n} these were never told: {lost:?}; told: {told:?}");
        let mut by_version = seen[n].clone();
        by_version.sort_unstable();
        by_version.dedup();
        ensure!(by_version.is_sorted_by_key(|(_, count)| *count), "of key {n} versions are mixed up: {by_version:?}");
    }
    Ok(())
}

async fn client_of(services: &[&Service]) -> Result<Client> {
    let mut builder = Client::builder(services[0].api_url());
    for service in &services[1..] {
        builder = builder.endpoint(service.api_url());
    }
    Ok(builder.timeout(WITHIN).connect().await?)
}

fn settings() -> ServiceSettings {
    ServiceSettings::new().set("drain.rows_per_second", 500)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn every_acknowledged_change_is_told_whatever_is_killed() -> Result<()> {
    let mut system = System::on_own_servers(TABLES, settings()).await?;
    system.another_ingest().await?;
    let (one, other) = (0, system.services.len() - 1);
    let both = client_of(&[&system.services[one], &system.services[other]]).await?;
    // Goes on by itself, of all records and of one.
    let (all, of_one) = (Seen::default(), Seen::default());
    let mut of_all = both.watch("entries", &WatchOptions::default()).await?;
    ensure!(of_all.next().await?.is_live);
    let options = WatchOptions { keys: vec![key(7)], ..WatchOptions::default() };
    let mut of_seven = both.watch("entries", &options).await?;
    ensure!(of_seven.next().await?.is_live);
    let takers = [taking(of_all, &all), taking(of_seven, &of_one)];
    // Goes on by hand, at the other replica.
    let by_hand = Seen::default();
    let impatient = Client::builder(system.services[one].api_url()).without_retries().connect().await?;
    let mut here = impatient.watch("entries", &WatchOptions::default()).await?;
    ensure!(here.next().await?.is_live);

    let traffic = Traffic::begin(&both);
    while by_hand.lock().unwrap_or_else(PoisonError::into_inner).len() < 10 {
        for change in here.next().await?.changes {
            take(&change, &by_hand)?;
        }
    }
    system.services[one].kill9();
    while let Ok(told) = here.next().await {
        told.changes.iter().try_for_each(|change| take(change, &by_hand))?;
    }
    let from = here.token().map(str::to_owned);
    traffic.goes_on(100).await?;
    let there = client_of(&[&system.services[other]]).await?;
    let there = there.watch("entries", &WatchOptions { from, ..WatchOptions::default() }).await?;
    let going_on = taking(there, &by_hand);
    traffic.goes_on(100).await?;
    system.services[one].restart().await?;
    traffic.goes_on(100).await?;

    let own = system.own.as_mut().context("no servers of its own")?;
    own.redis.kill9();
    own.redis.restart().await?;
    traffic.goes_on(200).await?;
    own.kafka.kill9();
    own.kafka.restart().await?;
    traffic.goes_on(200).await?;
    let written = traffic.end().await?;

    all_was_told(&written, &all).await?;
    all_was_told(&written, &by_hand).await?;
    let of_seven: Seen = {
        let written = written.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::new(Mutex::new(written.iter().filter(|(n, _)| **n == 7).map(|(n, all)| (*n, all.clone())).collect()))
    };
    all_was_told(&of_seven, &of_one).await?;
    ensure!(of_one.lock().unwrap_or_else(PoisonError::into_inner).len() == 1, "another key was told");
    takers.iter().chain([&going_on]).for_each(JoinHandle::abort);
    Ok(())
}

/// `shock-absorber watch`, and what it prints.
struct Printing {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Printing {
    fn begin(system: &System, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("shock-absorber")?);
        command.args(["--endpoint", &system.services[0].api_url(), "watch", "entries", "--json"]).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, lines })
    }

    /// The next change, and the token behind its message.
    fn change(&mut self) -> Result<(Json, String)> {
        let mut change = None;
        loop {
            let line = self.line()?;
            match (line["resume_token"].as_str(), change.take()) {
                (Some(token), Some(change)) => return Ok((change, token.to_owned())),
                (Some(_), None) => {}
                (None, _) => change = Some(line),
            }
        }
    }

    fn line(&mut self) -> Result<Json> {
        Ok(serde_json::from_str(&self.lines.next().context("it has ended")??)?)
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        // It has ended by itself if this fails.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn the_command_shows_changes_and_goes_on_behind_a_token(system: &System) -> Result<()> {
    let mut all = Printing::begin(system, &[])?;
    ensure!(all.line()?["live"] == true);
    system.client.put("entries", entry(900, 1)).await?;
    let (change, token) = all.change()?;
    ensure!(change["operation"] == "put" && change["key"]["n"] == 900 && change["row"]["note"] == "1", "{change}");
    drop(all);
    system.client.put("entries", entry(901, 2)).await?;
    system.client.delete("entries", key(900)).await?;
    let mut one = Printing::begin(system, &[r#"{"tenant": "t", "n": 900}"#, "--from", &token])?;
    let (change, _) = one.change()?;
    ensure!(change["operation"] == "delete" && change["row"].is_null(), "{change}");
    let wrong = system.operator(&["watch", "entries", "--from", "nonsense"]).await?;
    ensure!(wrong.code != 0 && wrong.err.contains("resume_token"), "{wrong:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_edition_tells_every_change_across_its_death() -> Result<()> {
    let mut system = System::embedded(TABLES, settings()).await?;
    system.client.enable_table("entries").await?;
    the_command_shows_changes_and_goes_on_behind_a_token(&system).await?;
    let client = client_of(&[&system.services[0]]).await?;
    let mut watch = client.watch("entries", &WatchOptions::default()).await?;
    ensure!(watch.next().await?.is_live);
    let seen = Seen::default();
    let taker = taking(watch, &seen);
    let traffic = Traffic::begin(&client);
    traffic.goes_on(200).await?;
    system.kill_and_restart().await?;
    traffic.goes_on(200).await?;
    let written = traffic.end().await?;
    all_was_told(&written, &seen).await?;
    taker.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn watches_on_servers_are_many_and_cost_little() -> Result<()> {
    const MANY: u64 = 40;
    let system = System::on_shared_servers(TABLES, settings()).await?;
    the_command_shows_changes_and_goes_on_behind_a_token(&system).await?;
    let ingest = &system.services[0];
    let warm = client_of(&[ingest]).await?;
    let mut watches = vec![warm.watch("entries", &WatchOptions::default()).await?];
    watches[0].next().await?;
    let before = ingest.resident_bytes()?;
    for _ in 0..MANY {
        let mut watch = warm.watch("entries", &WatchOptions::default()).await?;
        watch.next().await?;
        watches.push(watch);
    }
    let idle = ingest.resident_bytes()?;
    // All but the first take nothing, while more comes in than is kept for all.
    let note = "x".repeat(40);
    for n in 0..100 {
        let write = |at: i64| {
            let row = key(n * 100 + at).set("amount", Value::Decimal("1.00".into())).set("note", note.as_str());
            shock_absorber_client::Write::put("entries", row)
        };
        for result in warm.batch_write(&(0..100).map(write).collect::<Vec<_>>()).await {
            result?;
        }
    }
    let mut seen = 0;
    while seen < 10_000 {
        seen += watches[0].next().await?.changes.len();
    }
    let slow = ingest.resident_bytes()?;
    let each = |after: u64| after.saturating_sub(before) / MANY / 1024;
    println!("a watch takes {} KiB when it is idle, {} KiB when its client is slow", each(idle), each(slow));
    ensure!(each(idle) < 256 && each(slow) < 2048, "{} KiB, {} KiB", each(idle), each(slow));
    for watch in &mut watches[1..4] {
        let mut seen = 0;
        while seen < 10_000 {
            seen += watch.next().await?.changes.len();
        }
    }
    Ok(())
}
