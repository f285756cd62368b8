//! The command-line arguments about configuration, for every binary.

use std::path::PathBuf;

use super::{ConfigError, ConfigSources, Settings};

/// To be flattened into a binary's arguments.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// A YAML file with settings
    #[arg(long, value_name = "FILE", env = "SHOCK_ABSORBER_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// One setting, over all other sources; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Loads the settings from the defaults, the file, the environment of this process, and the flags.
    ///
    /// # Errors
    /// [`ConfigError`], which names the source and the key.
    pub fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load(self.sources(ConfigSources::process_environment()))
    }

    /// What these arguments and an environment name as sources.
    pub fn sources(&self, environment: Vec<(String, String)>) -> ConfigSources {
        ConfigSources { file: self.config.clone(), environment, flags: self.set.clone() }
    }
}
