//! `shock-absorber config`.

use anyhow::Result;
use clap::Subcommand;
use runtime::ConfigArgs;

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings in effect, without secrets
    Show,
}

pub(crate) fn run(command: ConfigCommand, config: &ConfigArgs) -> Result<()> {
    match command {
        ConfigCommand::Show => print!("{}", config.load()?.redacted_yaml()?),
    }
    Ok(())
}
