//! What was measured, for people and for machines.

use std::fs;

use anyhow::Result;
use serde::{Serialize, Serializer};

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    RecordsPerSecond,
    Milliseconds,
    Microseconds,
    Seconds,
    Rows,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::RecordsPerSecond => "records/s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Seconds => "s",
            Self::Rows => "rows",
        }
    }

    /// As many digits as it is worth.
    fn round(self, measured: f64) -> f64 {
        match self {
            Self::RecordsPerSecond | Self::Rows => measured.round(),
            Self::Milliseconds | Self::Microseconds => (measured * 10.0).round() / 10.0,
            Self::Seconds => (measured * 100.0).round() / 100.0,
        }
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    measured: f64,
    unit: Unit,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    machine: String,
    figures: Vec<Figure>,
}

impl Report {
    /// One without figures yet.
    pub(crate) fn new() -> Self {
        Self { name: "throughput", machine: machine(), figures: Vec::new() }
    }

    /// Notes a figure, and tells it at once.
    pub(crate) fn add(&mut self, what: impl Into<String>, measured: f64, unit: Unit) {
        let (what, measured) = (what.into(), unit.round(measured));
        eprintln!("  {what}: {measured} {}", unit.name());
        self.figures.push(Figure { what, measured, unit });
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
        for Figure { what, measured, unit } in &self.figures {
            println!("  {what:<width$}  {measured:>9} {}", unit.name());
        }
        Ok(())
    }
}

/// What the figures depend on most.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{cores} cores ({}), {build} build", model.unwrap_or("of an unknown kind"))
}
