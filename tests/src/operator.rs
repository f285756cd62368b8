//! What an operator types.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::service;

/// What a command came to.
#[derive(Debug)]
pub struct Told {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it said beside that.
    pub err: String,
}

impl Told {
    /// Its lines as JSON, once it has ended well.
    ///
    /// # Errors
    /// If it ended with an error, or printed anything else.
    pub fn json(&self) -> Result<Vec<serde_json::Value>> {
        ensure!(self.code == 0, "{self:?}");
        self.lines()
    }

    /// Its lines as JSON, however it ended.
    ///
    /// # Errors
    /// If it printed anything else.
    pub fn lines(&self) -> Result<Vec<serde_json::Value>> {
        self.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// Runs `shock-absorber` against a service, to its end.
///
/// # Errors
/// If it is not built, or is killed.
pub async fn run(endpoint: &str, arguments: &[&str]) -> Result<Told> {
    let mut command = Command::new(service::binary("shock-absorber")?);
    command.args(["--endpoint", endpoint]).args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    Ok(Told {
        code: output.status.code().context("it was killed")?,
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
