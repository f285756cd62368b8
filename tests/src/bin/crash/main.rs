//! Kills, freezes and cuts off everything at random while clients work, heals it, and checks that every answer that a
//! client got is true: cycle after cycle on the same servers and data.

mod client;
mod faults;
mod injure;
mod look;
mod places;
mod recorder;
mod report;
mod stand;
mod takeover;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use futures::future::join_all;
use history::{Base, Findings, Image};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};
use shock_absorber_client::Client;
use tokio::sync::watch;

use client::Worker;
use faults::Fault;
use injure::Injurer;
use look::Onlooker;
use places::{Place, Table};
use recorder::Recorder;
use report::Report;
use stand::Stand;

/// Keys of each table that are written in every cycle.
const KEPT: u64 = 20;
/// Keys of each table that only one cycle writes.
const FRESH: u64 = 15;
/// Keys of earlier cycles that are looked at again.
const OLD: usize = 20;
/// Rows of each table that were there before us.
const BEFORE: u64 = 8;
const CLIENTS: u32 = 16;
/// The shortest time for which clients work; they also go on a little after the last fault.
const WORK: Duration = Duration::from_millis(1_200);
const AFTERMATH: Duration = Duration::from_millis(400);
/// From the moment when everything answers to a drained backlog; only the slowest machines need so long.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
/// After this a write whose client has given up has come to its end in the server.
const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// Every so many cycles the time is taken that a killed drain's partitions need to move on.
const TAKEOVER_EVERY: u64 = 20;

/// Kill everything at random while clients work, and check every answer
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// How many cycles
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    cycles: u64,
    /// What chance begins with; 0 draws one
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the figures as one JSON object on one line
    #[arg(long)]
    json: bool,
    /// At most five cycles
    #[arg(long)]
    quick: bool,
    /// Where ingest-svc and drain-svc are, if not beside this program
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where logs and history of a failed run are put
    #[arg(long, default_value = "crash-failed")]
    keep: PathBuf,
    /// Send no write twice under one request id
    #[arg(long)]
    no_repeats: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::parse();
    if arguments.seed == 0 {
        arguments.seed = rand::random_range(1..1_000_000);
    }
    if arguments.quick {
        arguments.cycles = arguments.cycles.min(5);
    }
    eprintln!("seed {}: starting Redis, Kafka, MariaDB, two ingest replicas and three drains", arguments.seed);
    let begun = Instant::now();
    let mut run = Run::start(&arguments).await?;
    let mut failed = None;
    for cycle in 1..=arguments.cycles {
        if let Err(error) = run.cycle(cycle).await {
            failed = Some(error.context(format!("seed {}, cycle {cycle}", arguments.seed)));
            break;
        }
    }
    if failed.is_none() {
        failed = run.settle_everything().await.err();
    }
    run.report.seconds = begun.elapsed().as_secs_f64();
    run.report.print(arguments.json)?;
    if let Some(error) = failed {
        run.keep(&arguments.keep).context("logs and history can't be kept")?;
        eprintln!("FAILED: {error:#}\nlogs and history are in {}", arguments.keep.display());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A run, from cycle to cycle.
struct Run {
    seed: u64,
    repeats: bool,
    recorder: Arc<Recorder>,
    stand: Stand,
    onlooker: Onlooker,
    replicas: Vec<Client>,
    /// Every record that was ever written.
    places: BTreeSet<Place>,
    report: Report,
}

impl Run {
    async fn start(arguments: &Arguments) -> Result<Self> {
        let recorder = Arc::new(Recorder::new());
        let before: Vec<(Place, u64)> = all(0..BEFORE).into_iter().zip(1..).collect();
        let sql: String = before.iter().map(|(place, value)| place.insert(*value)).collect();
        recorder.with(|history| {
            for (place, value) in &before {
                let base = Base { version: 0, image: Some(Image::whole(*value)) };
                history.initial.insert(place.to_string(), base);
            }
        });
        let stand = Stand::start(arguments.bin_dir.clone(), &sql).await?;
        let onlooker = Onlooker {
            database: stand.database.clone(),
            schemas: Arc::new(stand.schemas.clone()),
            shards: stand.shards,
            recorder: recorder.clone(),
        };
        let replicas = stand.clients().await?;
        let report = Report { seed: arguments.seed, ..Report::default() };
        let (seed, repeats) = (arguments.seed, !arguments.no_repeats);
        Ok(Self { seed, repeats, recorder, stand, onlooker, replicas, places: BTreeSet::new(), report })
    }

    async fn cycle(&mut self, cycle: u64) -> Result<()> {
        let begun = Instant::now();
        let from = self.recorder.now();
        let mut rng = SmallRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(cycle));
        let fresh = cycle * 1_000..cycle * 1_000 + FRESH;
        let places: Arc<[Place]> = all(0..KEPT).into_iter().chain(all(fresh)).collect();
        let plan = faults::plan(&mut rng, self.stand.cast());
        let names: Vec<String> = plan.iter().map(ToString::to_string).collect();
        eprintln!("cycle {cycle}: {}", names.join(", "));

        // A clock that steps forward ends the time of all request ids.
        let repeats = self.repeats && !plan.iter().any(|planned| matches!(planned.fault, Fault::SetClock { .. }));

        let (stop, stopped) = watch::channel(false);
        let working = (0..CLIENTS).map(|number| {
            let worker = Worker {
                number,
                replicas: self.replicas.clone(),
                places: places.clone(),
                recorder: self.recorder.clone(),
                rng: SmallRng::seed_from_u64(rng.random()),
                repeats,
            };
            tokio::spawn(worker.run(stopped.clone()))
        });
        let working: Vec<_> = working.collect();
        let watching = tokio::spawn(self.onlooker.clone().watch(places.clone(), stopped.clone()));

        let mut injurer = Injurer::new(&mut self.stand, &self.recorder, &mut self.report.injuries)?;
        injurer.run(&plan).await?;
        tokio::time::sleep(AFTERMATH.max(WORK.saturating_sub(begun.elapsed()))).await;
        stop.send_replace(true);
        injurer.heal().await.inspect_err(|_| self.report.stuck += 1)?;
        join_all(working).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        watching.await?;

        let healed = Instant::now();
        self.stand.drained(CONVERGED_WITHIN).await.inspect_err(|_| self.report.stuck += 1)?;
        let converged = healed.elapsed();
        self.report.seconds_from_heal_to_converged.add(converged.as_secs_f64());
        let old: Vec<Place> = self.places.iter().copied().collect();
        let mut looked_at: BTreeSet<Place> = old.sample(&mut rng, OLD).copied().collect();
        looked_at.extend(places.iter());
        self.places.extend(places.iter());
        self.settle(&looked_at, from).await?;

        if cycle.is_multiple_of(TAKEOVER_EVERY) {
            let victim = rng.random_range(0..self.stand.drains.len());
            let took = takeover::measure(&mut self.stand, &self.replicas[0], cycle, victim).await?;
            self.report.seconds_to_take_over.add(took.as_secs_f64());
        }
        eprintln!(
            "  {:.1} s, {:.1} s of them from heal to converged",
            begun.elapsed().as_secs_f64(),
            converged.as_secs_f64()
        );
        Ok(())
    }

    /// Looks at records everywhere, checks what is known so far, and goes on from there.
    async fn settle(&mut self, places: &BTreeSet<Place>, from: u64) -> Result<()> {
        let tally = self.recorder.tally(from);
        let places: Vec<Place> = places.iter().copied().collect();
        self.onlooker.settle(&places, &self.replicas).await.inspect_err(|_| self.report.stuck += 1)?;
        let findings = self.recorder.with(|history| history.check());
        self.report.add(tally, &findings);
        eprintln!(
            "  {} acked, {} refused, {} unknown, {} reads",
            tally.acked, tally.refused, tally.unknown, tally.reads
        );
        if !findings.is_empty() {
            bail!("what was answered can't be:\n{}", self.told(&findings));
        }
        let since = self.recorder.now().saturating_sub(u64::try_from(SETTLED_AFTER.as_micros())?);
        self.recorder.with(|history| *history = history.next(since));
        Ok(())
    }

    /// At the end, every record that was ever written.
    async fn settle_everything(&mut self) -> Result<()> {
        let from = self.recorder.now();
        let places = self.places.clone();
        let cycles = self.report.cycles;
        let settled = self.settle(&places, from).await;
        self.report.cycles = cycles;
        settled
    }

    /// Findings, each with its key's history.
    fn told(&self, findings: &Findings) -> String {
        let keys: BTreeSet<&str> = findings.all().map(|(_, finding)| finding.key.as_str()).collect();
        let histories = self.recorder.with(|history| {
            keys.iter().take(3).map(|key| history.of_key(key).to_string()).collect::<Vec<_>>().join("\n")
        });
        format!("{findings}\n{histories}")
    }

    fn keep(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        for (name, log) in self.stand.logs() {
            std::fs::write(dir.join(format!("{name}.log")), log)?;
        }
        let keys: BTreeSet<String> =
            self.recorder.with(|history| history.operations.iter().map(|operation| operation.key.clone()).collect());
        let histories: Vec<String> =
            self.recorder.with(|history| keys.iter().map(|key| history.of_key(key).to_string()).collect());
        Ok(std::fs::write(dir.join("history"), histories.join("\n"))?)
    }
}

fn all(numbers: std::ops::Range<u64>) -> Vec<Place> {
    numbers.flat_map(|n| Table::ALL.map(|table| Place { table, n })).collect()
}
