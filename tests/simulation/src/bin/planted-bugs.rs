//! Checks the checkers: runs the simulation with each planted bug, and says whether it was noticed.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use clap::Parser;
use planted::{Bug, VARIABLE};
use serde_json::{Value, json};

/// Runs the simulation with each planted bug switched on, and says whether it was noticed.
#[derive(Debug, Parser)]
struct Arguments {
    /// One object on one line at the end.
    #[arg(long)]
    json: bool,
    /// Only the bug of this name; may be given again.
    #[arg(long)]
    only: Vec<String>,
    /// A bug that is not noticed within so many seconds is none that is noticed.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Seeds that are run without any bug: they must all pass, or to fail with a bug would say nothing.
    #[arg(long, default_value_t = 500)]
    control: u64,
}

/// What a run of the simulation came to.
struct Run {
    failed: Option<u64>,
    seeds: u64,
    seconds: f64,
}

fn main() -> ExitCode {
    match hunt(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

/// Whether every bug was noticed.
fn hunt(arguments: &Arguments) -> Result<bool, String> {
    let bugs = bugs(&arguments.only)?;
    let simulate = beside("simulate")?;
    let from = arguments.from.to_string();
    let control = run(&simulate, None, &["--from", &from, "--seeds", &arguments.control.to_string()])?;
    if let Some(seed) = control.failed {
        return Err(format!("seed {seed} fails without any bug: what fails with one would say nothing"));
    }
    let mut all_caught = true;
    let mut told = Vec::new();
    println!("{:<32} {:>9} {:>9} {:>9}", "bug", "seconds", "seeds", "caught by");
    for bug in bugs {
        let seconds = arguments.seconds.to_string();
        let run = run(
            &simulate,
            Some(bug),
            &["--from", &from, "--seeds", "100000000", "--seconds", &seconds, "--stop-at-first"],
        )?;
        let by = run.failed.map(|seed| format!("simulation, seed {seed}"));
        all_caught &= by.is_some();
        println!("{:<32} {:>9.1} {:>9} {}", bug.name(), run.seconds, run.seeds, by.as_deref().unwrap_or("NOBODY"));
        told.push(json!({
            "name": bug.name(),
            "caught": by.is_some(),
            "by": by.as_ref().map(|_| "simulation"),
            "seed": run.failed,
            "seconds": (run.seconds * 10.0).round() / 10.0,
        }));
    }
    if arguments.json {
        println!("{}", json!({ "bugs": told }));
    }
    // What can't be written can't be told either.
    let _ = std::io::stdout().flush();
    Ok(all_caught)
}

fn bugs(only: &[String]) -> Result<Vec<Bug>, String> {
    if only.is_empty() {
        return Ok(Bug::ALL.to_vec());
    }
    only.iter().map(|name| name.parse().map_err(|unknown: planted::UnknownBug| unknown.to_string())).collect()
}

fn beside(name: &str) -> Result<PathBuf, String> {
    let this = env::current_exe().map_err(|error| format!("can't see where this program lies: {error}"))?;
    Ok(this.with_file_name(name))
}

fn run(simulate: &Path, bug: Option<Bug>, arguments: &[&str]) -> Result<Run, String> {
    let began = Instant::now();
    let output = Command::new(simulate)
        .args(arguments)
        .arg("--json")
        .env(VARIABLE, bug.map_or("", Bug::name))
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("{} can't be run: {error}", simulate.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let seeds = told["seeds"].as_u64().ok_or_else(|| format!("the simulation broke off: {}", output.status))?;
    // The bug may be one that the environment can't switch on: then no seed fails, and it is told so.
    Ok(Run { failed: told["failed"][0].as_u64(), seeds, seconds: began.elapsed().as_secs_f64() })
}
