//! What was measured, and what it has to be, for people and for machines.

use std::fs;

use anyhow::Result;
use serde::{Serialize, Serializer};

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reach {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing is promised; it is told.
    Any,
}

impl Reach {
    fn is_met_by(self, measured: f64) -> bool {
        match self {
            Self::AtMost(most) => measured <= most,
            Self::AtLeast(least) => measured >= least,
            Self::Any => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {}", rounded(most)),
            Self::AtLeast(least) => format!(">= {}", rounded(least)),
            Self::Any => "-".to_owned(),
        }
    }
}

impl Serialize for Reach {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    measured: f64,
    unit: &'static str,
    baseline: f64,
    reach: Reach,
    reached: bool,
}

/// All figures of a subject.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    machine: String,
    figures: Vec<Figure>,
    /// What stands behind them, for machines only.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    details: serde_json::Map<String, serde_json::Value>,
}

impl Report {
    /// One without figures yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, machine: machine(), figures: Vec::new(), details: serde_json::Map::new() }
    }

    /// Notes what stands behind the figures.
    pub(crate) fn detail(&mut self, name: String, detail: serde_json::Value) {
        self.details.insert(name, detail);
    }

    /// Notes a figure, and tells it at once. `baseline` is what it is to be compared with.
    pub(crate) fn add(&mut self, what: String, measured: f64, unit: &'static str, baseline: f64, reach: Reach) {
        let measured = rounded(measured);
        let reached = reach.is_met_by(measured);
        match (reach, reached) {
            (Reach::Any, _) => eprintln!("  {what}: {measured} {unit}"),
            (_, true) => eprintln!("  {what}: {measured} {unit}, {} (reached)", reach.text()),
            (_, false) => eprintln!("  {what}: {measured} {unit}, {} (NOT REACHED)", reach.text()),
        }
        self.figures.push(Figure { what, measured, unit, baseline, reach, reached });
    }

    /// Whether all of them are.
    pub(crate) fn is_reached(&self) -> bool {
        self.figures.iter().all(|figure| figure.reached)
    }

    /// Prints a table, or one JSON object on one line.
    ///
    /// # Errors
    /// If it can't be written as JSON: a figure that is no number.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!("\n{} on {}", self.name, self.machine);
        let width = self.figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or_default();
        for Figure { what, measured, unit, reach, reached, .. } in &self.figures {
            let verdict = if *reached { "" } else { "  NOT REACHED" };
            println!("  {what:<width$}  {measured:>9} {unit:<7} {:>9}{verdict}", reach.text());
        }
        Ok(())
    }
}

/// As many digits as are worth it.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// What the figures depend on most.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{cores} cores ({}), {build} build", model.unwrap_or("of an unknown kind"))
}
