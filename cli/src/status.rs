//! `shock-absorber status`: how it goes.

mod output;

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use shock_absorber_client::{Client, ClientError, TableRef};

use output::Progress;
pub(crate) use output::held;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// One table; without it all of them
    table: Option<String>,
    /// Look again every second, with a progress bar while what waits for the database gets less
    #[arg(long)]
    watch: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: StatusArgs, endpoint: &str) -> Result<()> {
    let StatusArgs { table, watch, json } = arguments;
    let table = table.as_deref().map(TableRef::from);
    let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
    let mut progress = Progress::default();
    let mut failed: Option<ClientError> = None;
    loop {
        match client.status(table.as_ref()).await {
            Ok(status) if json => println!("{}", output::json(&status)),
            Ok(status) => {
                let bar = watch.then(|| progress.bar(&status)).flatten();
                show(&output::text(&status), bar.as_deref(), watch)?;
            }
            Err(error) if !watch => return Err(error.into()),
            // It may come back: whoever watches wants to see that, too.
            Err(error) if failed.as_ref().is_none_or(|last| last.to_string() != error.to_string()) => {
                eprintln!("{error}");
                failed = Some(error);
            }
            Err(_) => {}
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn show(text: &str, bar: Option<&str>, watch: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if watch && out.is_terminal() {
        // Home, and nothing below.
        write!(out, "\x1b[H\x1b[J")?;
    }
    write!(out, "{text}")?;
    if let Some(bar) = bar {
        writeln!(out, "\n{bar}")?;
    }
    out.flush()?;
    Ok(())
}
