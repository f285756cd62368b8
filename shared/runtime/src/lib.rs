//! What every Shock Absorber process needs around its work: settings, telemetry, an admin listener and an orderly end.
//! It knows nothing about records.

pub mod config;

pub use config::{ConfigArgs, ConfigError, ConfigSources, Settings};
