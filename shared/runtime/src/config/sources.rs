//! Where settings come from, and in which order.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{ConfigError, Settings, layers, secret::redact_url};

/// Every setting with its default and its description: the bottom layer.
pub const DEFAULT_YAML: &str = include_str!("default.yaml");

/// Environment variables that begin so are settings; two underscores stand between the levels.
pub const ENVIRONMENT_PREFIX: &str = "SHOCK_ABSORBER__";

/// What is laid over the defaults, from bottom to top. The environment is handed in, so that whoever tests or embeds
/// this never touches the environment of the process.
#[derive(Debug, Clone, Default)]
pub struct ConfigSources {
    /// A YAML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those without the prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags of the form `key.key=value`.
    pub flags: Vec<String>,
}

impl ConfigSources {
    /// The variables of this process's environment that are settings.
    pub fn process_environment() -> Vec<(String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect()
    }
}

impl Default for Settings {
    /// What is compiled in.
    fn default() -> Self {
        match Layered::defaults() {
            Ok(layered) => layered.settings,
            // The text is part of the program; a test reads it.
            Err(error) => unreachable!("default.yaml does not fit the settings: {error}"),
        }
    }
}

impl Settings {
    /// Lays the sources over the defaults, and checks the outcome.
    ///
    /// # Errors
    /// [`ConfigError`], which names the source and the key.
    pub fn load(sources: ConfigSources) -> Result<Self, ConfigError> {
        let mut layered = Layered::defaults()?;
        if let Some(path) = &sources.file {
            let text =
                fs::read_to_string(path).map_err(|problem| ConfigError::Unreadable { path: path.clone(), problem })?;
            layered.lay_text(&path.display().to_string(), &text)?;
        }
        for (name, path, value) in settings_in(sources.environment) {
            layered.lay_value(&format!("environment variable {name}"), &path, &value)?;
        }
        for flag in &sources.flags {
            let (key, value) = flag.split_once('=').ok_or_else(|| ConfigError::Syntax {
                origin: "--set".to_owned(),
                problem: format!("{flag:?} has no =; write --set key.key=value"),
            })?;
            let origin = format!("--set {key}");
            let path = layers::split_path(key)
                .map_err(|problem| ConfigError::Syntax { origin: origin.clone(), problem: problem.to_owned() })?;
            layered.lay_value(&origin, &path, value)?;
        }
        layered.settings.validate()?;
        Ok(layered.settings)
    }

    /// What is in effect, as YAML, without secrets.
    ///
    /// # Errors
    /// If YAML can't say it, which no setting brings about.
    pub fn redacted_yaml(&self) -> Result<String, serde_saphyr::SerializeError> {
        serde_saphyr::to_string(self)
    }
}

/// The variables that are settings, with their paths; sorted, so that a list's entry 0 is there before entry 1.
fn settings_in(environment: Vec<(String, String)>) -> Vec<(String, Vec<String>, String)> {
    let mut found: Vec<_> = environment
        .into_iter()
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(ENVIRONMENT_PREFIX)?.split("__").map(str::to_lowercase).collect::<Vec<_>>();
            Some((name, path, value))
        })
        .collect();
    found.sort_by_cached_key(|(_, path, _)| path.iter().map(|part| (part.len(), part.clone())).collect::<Vec<_>>());
    found
}

/// The tree laid together so far, and the settings it makes. They are read anew after each layer: so an error is the
/// fault of the layer that was just laid.
struct Layered {
    tree: Value,
    settings: Settings,
}

impl Layered {
    fn defaults() -> Result<Self, ConfigError> {
        let origin = "default.yaml";
        let tree = parse_yaml(origin, DEFAULT_YAML)?;
        let settings = read(origin, &tree)?;
        Ok(Self { tree, settings })
    }

    fn lay_text(&mut self, origin: &str, text: &str) -> Result<(), ConfigError> {
        let layer = parse_yaml(origin, text)?;
        if !matches!(layer, Value::Object(_) | Value::Null) {
            let problem = "there must be a map of settings at the top".to_owned();
            return Err(ConfigError::Syntax { origin: origin.to_owned(), problem });
        }
        layers::overlay(&mut self.tree, layer);
        self.settings = read(origin, &self.tree)?;
        Ok(())
    }

    /// Lays one value. As it stands it is text; where text won't do it is read as YAML. So a password of digits stays
    /// text, and `100`, `true`, `[a, b]` or `{ttl: 1h}` are what they look like where that is what is wanted.
    fn lay_value(&mut self, origin: &str, path: &[String], value: &str) -> Result<(), ConfigError> {
        let mut as_text = self.tree.clone();
        let set = layers::set(&mut as_text, path, Value::from(value));
        set.map_err(|problem| ConfigError::Key { origin: origin.to_owned(), key: path.join("."), problem })?;
        let (tree, outcome) = match read(origin, &as_text) {
            Ok(settings) => (as_text, Ok(settings)),
            Err(text_error) => match parse_yaml(origin, value) {
                Ok(parsed @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                    let mut tree = self.tree.clone();
                    // The path could be set a moment ago.
                    let _ = layers::set(&mut tree, path, parsed);
                    let settings = read(origin, &tree);
                    (tree, settings)
                }
                _ => (as_text, Err(text_error)),
            },
        };
        self.settings = outcome?;
        self.tree = tree;
        Ok(())
    }
}

fn parse_yaml(origin: &str, text: &str) -> Result<Value, ConfigError> {
    // Without snippets: the line that is quoted may hold a password.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options::<Option<Value>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|error| ConfigError::Syntax { origin: origin.to_owned(), problem: error.to_string() })
}

fn read(origin: &str, tree: &Value) -> Result<Settings, ConfigError> {
    let mut track = serde_path_to_error::Track::new();
    Settings::deserialize(serde_path_to_error::Deserializer::new(tree, &mut track)).map_err(|error| ConfigError::Key {
        origin: origin.to_owned(),
        key: track.path().to_string(),
        problem: redact_url(&error.to_string()),
    })
}
