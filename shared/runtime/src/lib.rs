//! What every Shock Absorber process needs around its work: settings, telemetry, an admin listener and an orderly end.
//! It knows nothing about records.
//!
//! A process goes through it in this order: [`ConfigArgs::load`], [`telemetry::init`], [`Shutdown::new`],
//! [`admin::serve`], its own parts by [`Shutdown::spawn`], and [`Shutdown::run`] until the end.

pub mod admin;
pub mod config;
pub mod lifecycle;
pub mod readiness;
pub mod telemetry;

pub use config::{ConfigArgs, ConfigError, ConfigSources, Settings};
pub use lifecycle::{Ending, Shutdown, Signals};
pub use readiness::{Readiness, ReadyPart};
