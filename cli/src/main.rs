//! `shock-absorber`: the embedded edition, the demo, and the commands for data and operators.

mod config;
mod demo;
mod dev;
mod dlq;
mod find;
mod holds;
mod record;
mod status;
mod table;
mod verify;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use runtime::ConfigArgs;

/// The example table; also what `dev` starts with when it is given nothing else.
pub(crate) const PAYMENTS_SQL: &str = include_str!("../sql/payments.sql");

/// Stands in front of a database that must not be written faster than it can bear.
#[derive(Debug, Parser)]
#[command(name = "shock-absorber", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the API listens
    #[arg(long, global = true, env = "SHOCK_ABSORBER_ENDPOINT", default_value = "http://127.0.0.1:7070")]
    endpoint: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process, on memory and SQLite; no server is needed
    Dev(dev::DevArgs),
    /// Show a shock absorbed: a surge, a kill -9 in the middle, every row compared
    Demo(demo::DemoArgs),
    /// Read a record, or several
    Get(record::GetArgs),
    /// Find records by an indexed field: those that the database does not have yet and those that it has
    Find(find::FindArgs),
    /// Forget what is remembered of records that others have changed in the database
    Evict(record::EvictArgs),
    /// Write a record as a whole
    Put(record::PutArgs),
    /// Change columns of a record
    Update(record::UpdateArgs),
    /// Delete a record
    Delete(record::DeleteArgs),
    /// Show the changes of a table, or of one record, as they come in
    Watch(watch::WatchArgs),
    /// Wait until the database has what was written
    Wait(record::WaitArgs),
    /// Show how it goes: what waits for the database, how fast it is written, who does it, what is stopped
    Status(status::StatusArgs),
    /// Write nothing of a table, or of everything, to the database until `resume`; writes are accepted and wait
    Pause(holds::PauseArgs),
    /// Let a table, or everything, be written to the database again
    Resume(holds::ResumeArgs),
    /// Take no more writes of a table, or of everything, and empty what waits for the database, for maintenance
    DrainDown(holds::DrainDownArgs),
    /// Tables: list, show, enable, disable, prepare
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Dead letters, which the database refused for good: list, show, replay, purge
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Compare what log, hot store and database hold of a table, while writes go on; ends with 1 if records differ
    Verify(verify::VerifyArgs),
    /// Configuration: show what is in effect
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { config, endpoint, command } = Cli::parse();
    match command {
        Command::Verify(arguments) => return Ok(verify::run(arguments, &endpoint).await),
        Command::Dev(arguments) => dev::run(arguments, &config).await,
        Command::Demo(arguments) => demo::run(arguments, &config).await,
        Command::Get(arguments) => record::get(arguments, &endpoint).await,
        Command::Find(arguments) => find::run(arguments, &endpoint).await,
        Command::Evict(arguments) => record::evict(arguments, &endpoint).await,
        Command::Put(arguments) => record::put(arguments, &endpoint).await,
        Command::Update(arguments) => record::update(arguments, &endpoint).await,
        Command::Delete(arguments) => record::delete(arguments, &endpoint).await,
        Command::Watch(arguments) => watch::run(arguments, &endpoint).await,
        Command::Wait(arguments) => record::wait(arguments, &endpoint).await,
        Command::Status(arguments) => status::run(arguments, &endpoint).await,
        Command::Pause(arguments) => holds::pause(arguments, &endpoint).await,
        Command::Resume(arguments) => holds::resume(arguments, &endpoint).await,
        Command::DrainDown(arguments) => holds::drain_down(arguments, &endpoint).await,
        Command::Table(command) => table::run(command, &config, &endpoint).await,
        Command::Dlq(command) => dlq::run(command, &endpoint).await,
        Command::Config(command) => config::run(command, &config),
    }?;
    Ok(ExitCode::SUCCESS)
}
