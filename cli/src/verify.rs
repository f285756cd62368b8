//! `shock-absorber verify`: whether log, hot store and database agree about a table.

mod output;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use shock_absorber_client::{Client, Verified, VerifyOptions};

/// Nothing differs.
const AGREES: u8 = 0;
/// Something does.
const DIFFERS: u8 = 1;
/// It could not be found out. Also what a wrong command line ends with.
const FAILED: u8 = 2;

/// Where nobody sees a bar, it is told so often how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is compared.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The table
    table: String,
    /// Only records whose newest write is from this time on: a duration before now, as 2h, or an instant, as
    /// 2026-11-21T05:06:07Z
    #[arg(long, value_parser = crate::dlq::parse_time)]
    since: Option<Timestamp>,
    /// Records of the event log that are compared per second [default: 1000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// How many of the records that differ are told; all are counted [default: 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    list: Option<u32>,
    /// As JSON: one object a line for each record that differs, and one for what it came to
    #[arg(long)]
    json: bool,
}

/// Ends with 0 if nothing differs, with 1 if something does, and with 2 if that could not be found out.
pub(crate) async fn run(arguments: VerifyArgs, endpoint: &str) -> ExitCode {
    match verify(&arguments, endpoint).await {
        Ok(true) => ExitCode::from(AGREES),
        Ok(false) => ExitCode::from(DIFFERS),
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::from(FAILED)
        }
    }
}

/// Whether nothing differs.
async fn verify(arguments: &VerifyArgs, endpoint: &str) -> Result<bool> {
    let VerifyArgs { table, since, rate, list, json } = arguments;
    let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
    let options = VerifyOptions { since: *since, records_per_second: *rate, max_listed: *list };
    let mut verification = client.verify(table.as_str(), &options).await?;
    let mut bar = Bar::new();
    let mut last = None;
    let ended = loop {
        match verification.next().await {
            Ok(Some(Verified { progress, differences, is_complete })) => {
                bar.clear();
                for difference in &differences {
                    println!("{}", output::difference(difference, *json)?);
                }
                if !is_complete {
                    bar.show(&progress);
                }
                last = Some((progress, is_complete));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    bar.clear();
    let (progress, is_complete) = last.unwrap_or_default();
    if ended.is_ok() || progress.read > 0 {
        println!("{}", output::summary(table, &progress, is_complete, *json)?);
    }
    ended.context("the verification broke off")?;
    anyhow::ensure!(is_complete, "the verification ended before all was compared");
    Ok(progress.differ == 0)
}

/// How far it is, on the standard error: a bar where somebody looks, else a line now and then.
struct Bar {
    begun: Instant,
    is_seen: bool,
    is_drawn: bool,
    told: Instant,
}

impl Bar {
    fn new() -> Self {
        let now = Instant::now();
        Self { begun: now, is_seen: io::stderr().is_terminal(), is_drawn: false, told: now }
    }

    fn show(&mut self, progress: &shock_absorber_client::VerifyProgress) {
        let line = output::bar(progress, self.begun.elapsed());
        if self.is_seen {
            eprint!("{line}");
            self.is_drawn = true;
            // Nobody can do anything about a terminal that takes nothing.
            drop(io::stderr().flush());
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            eprintln!("{line}");
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            eprint!("\r\x1b[2K");
        }
    }
}
