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

/// The same as ingest-svc has: nearly all that is allocated is small and soon gone.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Args::parse().config.load()?;
    let metrics = telemetry::init(&settings.telemetry)?;
    let signals = Signals::of_process()?;
    let (shutdown, deadline) = (Shutdown::new(), settings.shutdown_deadline);
    shutdown.spawn("drain", app::run(settings, metrics, shutdown.clone()));
    shutdown.run(signals, deadline).await.exit()
}
