//! Runs seeds, and says which failed.

use std::{
    io::Write as _,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use simulation::run::{Report, run};

/// Simulates the use cases under faults that seeds decide.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One object on one line at the end.
    #[arg(long)]
    json: bool,
    /// Everything that happens, and the history of the keys with which something is wrong.
    #[arg(long)]
    trace: bool,
    /// Stops at the first failure.
    #[arg(long)]
    stop_at_first: bool,
    /// Stops after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Threads.
    #[arg(long)]
    threads: Option<usize>,
}

/// Which seed each thread runs, and since when.
type Running = Arc<Mutex<Vec<Option<(u64, Instant)>>>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let threads = arguments.threads.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    let next = Arc::new(AtomicU64::new(arguments.from));
    let stop = Arc::new(AtomicBool::new(false));
    let end = arguments.from.saturating_add(arguments.seeds);
    let running: Running = Arc::new(Mutex::new(vec![None; threads]));
    let (reports, inbox) = mpsc::channel::<Report>();
    for thread in 0..threads {
        let (next, stop, reports, running) = (next.clone(), stop.clone(), reports.clone(), running.clone());
        let trace = arguments.trace;
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return;
                }
                running.lock().unwrap_or_else(PoisonError::into_inner)[thread] = Some((seed, Instant::now()));
                if reports.send(run(seed, trace)).is_err() {
                    return;
                }
            }
        });
    }
    drop(reports);

    let (mut seeds, mut acked, mut operations) = (0_u64, 0, 0);
    let mut failed = Vec::new();
    let mut told = Instant::now();
    loop {
        let report = match inbox.recv_timeout(Duration::from_secs(1)) {
            Ok(report) => Some(report),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        if let Some(report) = report {
            seeds += 1;
            acked += report.acked;
            operations += report.operations;
            if arguments.trace {
                report.trace.iter().for_each(|line| println!("{line}"));
            }
            if !report.failures.is_empty() {
                eprintln!("seed {} failed:", report.seed);
                report.failures.iter().take(8).for_each(|failure| eprintln!("  {failure}"));
                if arguments.trace {
                    report.histories.iter().for_each(|history| eprintln!("{history}"));
                }
                failed.push(report.seed);
                if arguments.stop_at_first {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
        if arguments.seconds.is_some_and(|most| began.elapsed() >= Duration::from_secs(most)) {
            stop.store(true, Ordering::Relaxed);
        }
        if told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            let rate = seeds as f64 / began.elapsed().as_secs_f64();
            eprintln!("{seeds} of {} seeds, {} failed, {rate:.0}/s", arguments.seeds, failed.len());
            for (seed, since) in running.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
                if since.elapsed() > Duration::from_secs(30) {
                    eprintln!("seed {seed} has been running for {:?}", since.elapsed());
                }
            }
        }
    }
    failed.sort_unstable();
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{seeds} seeds in {seconds:.1} s, {operations} operations, {acked} acknowledged; failed: {failed:?}");
    if arguments.json {
        let summary = serde_json::json!({
            "seeds": seeds,
            "failures": failed.len(),
            "failed": failed,
            "from": arguments.from,
            "operations": operations,
            "acked": acked,
            "seconds": (seconds * 1000.0).round() / 1000.0,
        });
        println!("{summary}");
        // What can't be written can't be told either.
        let _ = std::io::stdout().flush();
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
