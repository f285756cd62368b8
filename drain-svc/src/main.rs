//! The drain service on real servers.

use clap::Parser;
use drain_svc::app;
use runtime::{ConfigArgs, Shutdown, Signals, telemetry};

/// Carries writes from the log into the database, in order and never faster than it can bear
#[derive(Debug, Parser)]
#[command(name = "drain-svc", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Args::parse().config.load()?;
    let metrics = telemetry::init(&settings.telemetry)?;
    let signals = Signals::of_process()?;
    let (shutdown, deadline) = (Shutdown::new(), settings.shutdown_deadline);
    shutdown.spawn("drain", app::run(settings, metrics, shutdown.clone()));
    shutdown.run(signals, deadline).await.exit()
}
