//! Why there is no configuration.

use std::{io, path::PathBuf};

/// What is wrong with the configuration, where, and what to do about it. No message repeats a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("the configuration file {} could not be read: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        problem: io::Error,
    },
    /// A source is not YAML, or its top is not a map.
    #[error("{origin}: {problem}")]
    Syntax {
        /// The file, variable or flag.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key is unknown, or its value is of the wrong type.
    #[error("{origin}: {key}: {problem}")]
    Key {
        /// The file, variable or flag.
        origin: String,
        /// The key, from the top: `redis.url`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Every value has its type, but together, or one by one, they can't be used.
    #[error("the configuration can't be used:{}", problems.iter().map(|p| format!("\n  - {p}")).collect::<String>())]
    Invalid {
        /// All that is wrong, each with its key.
        problems: Vec<String>,
    },
}
