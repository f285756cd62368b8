//! One seed from the first process to the verdict.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::{Arc, Once},
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use crate::{
    driver,
    nature::{Nature, lock},
    operator, verdict,
    watching::Watchers,
    workload::{Client, Work},
    world::{Unmade, World},
};

/// The clients of a run are done by then, or something hangs.
const WORK_WITHIN: Duration = Duration::from_secs(60);
/// Everything is as it should be again by then.
const HEAL_WITHIN: Duration = Duration::from_secs(180);
/// Clients wait for the shards at the beginning, but no longer.
const FIRST_OPENING: Duration = Duration::from_millis(500);
/// Findings of one run that are told.
const FINDINGS: usize = 3;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a seed came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must not be; none if the seed passed.
    pub failures: Vec<String>,
    /// Everything that happened, if it was to be remembered.
    pub trace: Vec<String>,
    /// The history of each key that something is wrong with.
    pub histories: Vec<String>,
    /// What was acknowledged, and asked in all.
    pub acked: u64,
    /// All operations.
    pub operations: u64,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Panics are findings, and are told with the seed, not at once.
fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
        }));
    });
}

/// Runs a seed on this thread.
pub fn run(seed: u64, trace: bool) -> Report {
    remember_panics();
    PANICS.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let mut report = match runtime {
        Ok(runtime) => runtime.block_on(run_seed(seed, trace)),
        Err(error) => Report { failures: vec![format!("no runtime: {error}")], ..Report::default() },
    };
    report.seed = seed;
    report.failures.extend(PANICS.take().into_iter().map(|panic| format!("panic: {panic}")));
    report
}

async fn run_seed(seed: u64, trace: bool) -> Report {
    let nature = Nature::new(seed, trace);
    let world = match World::new(nature.clone()).await {
        Ok(world) => world,
        Err(Unmade(why)) => return Report { failures: vec![format!("no world: {why}")], ..Report::default() },
    };
    for _ in 0..nature.climate().ingests {
        world.start_ingest();
    }
    for _ in 0..nature.climate().drains {
        world.start_drain();
    }
    // Some begin with the stores half open.
    if nature.happens(0.9) {
        while nature.now() < FIRST_OPENING && !verdict::is_open(&world).await {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let mut weather = JoinSet::new();
    weather.spawn(driver::take_snapshots(world.clone()));
    weather.spawn(driver::strike(world.clone()));
    weather.spawn(operator::operate(world.clone()));
    let sampling = tokio::spawn(verdict::sample(world.clone()));

    let watchers = Watchers::start(&world);
    let work = Work::new(nature.climate().operations);
    let mut clients = JoinSet::new();
    for number in 0..nature.climate().clients {
        clients.spawn(Client::new(number as u32, world.clone()).run(work.clone()));
    }
    let worked = tokio::time::timeout(WORK_WITHIN, clients.join_all()).await;
    if worked.is_err() {
        world.complain("the clients got no answers".to_owned());
    }
    weather.abort_all();
    nature.note(|| "HEAL".to_owned());
    heal(&world).await;
    sampling.abort();
    watchers.have_been_told().await;
    verdict::look_at_the_end(&world).await;
    report(&world)
}

/// Faults end, and everything that is needed is started; then it must come right by itself.
async fn heal(world: &Arc<World>) {
    world.nature.calm_down();
    operator::let_all_go_on(world).await;
    for ingest in world.living_ingests() {
        ingest.process.go_on();
    }
    for drain in world.living_drains() {
        drain.process.go_on();
    }
    if world.living_ingests().is_empty() {
        world.start_ingest();
    }
    if world.living_drains().iter().all(|drain| drain.has_left()) {
        world.start_drain();
    }
    let healed = async {
        // Twice, since a relay may be about to produce again.
        let mut seen = 0;
        while seen < 2 {
            sleep(LOOK_EVERY).await;
            seen = if verdict::unhealed(world).await.is_none() { seen + 1 } else { 0 };
        }
    };
    let from = world.nature.now();
    if tokio::time::timeout(HEAL_WITHIN, healed).await.is_err() {
        let what = verdict::unhealed(world).await.unwrap_or_default();
        world.complain(format!("it does not heal: {what}"));
    }
    world.nature.note(|| format!("HEALED in {:?}", world.nature.now() - from));
}

fn report(world: &World) -> Report {
    let history = lock(&world.history);
    let findings = history.check();
    let mut failures = world.nature.complaints();
    // One wrong thing is often seen again and again.
    failures.extend(findings.all().take(FINDINGS).map(|(kind, finding)| format!("{kind}: {finding}")));
    let keys: BTreeSet<&str> = findings.all().map(|(_, finding)| finding.key.as_str()).collect();
    let histories = keys.into_iter().map(|key| history.of_key(key).to_string()).collect();
    let acked = history.operations.iter().filter(|operation| operation.acked_version().is_some()).count() as u64;
    let operations = history.operations.len() as u64;
    Report { seed: 0, failures, trace: world.nature.trace(), histories, acked, operations }
}
