//! Configuration: documented defaults that are compiled in, over them a file, the environment and flags.
//!
//! `default.yaml` beside this module is the documentation of every setting; the structs of [`Settings`] mirror it field
//! by field, and a test holds them together.

mod args;
mod duration;
mod error;
mod layers;
mod secret;
mod settings;
mod sources;
mod tables;
mod validate;

pub use args::ConfigArgs;
pub use duration::{DurationError, format_duration, parse_duration};
pub use error::ConfigError;
pub use secret::{ConnectionUrl, Secret};
pub use settings::{
    AdaptiveSettings, DatabaseSettings, DrainSettings, EmbeddedSettings, GroupProtocol, HostNameUnknown,
    IngestSettings, KafkaSettings, LogFormat, RedisSettings, SecurityProtocol, Settings, TelemetrySettings,
};
pub use sources::{ConfigSources, DEFAULT_YAML, ENVIRONMENT_PREFIX};
pub use tables::{Ack, CreateCheck, EffectiveTable, TableDefaults, TableOverrides, TablesSettings};
