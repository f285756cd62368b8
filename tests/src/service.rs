//! Our own binaries as processes.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Process, eventually, http, port};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a service is started with.
#[derive(Debug, Clone, Default)]
pub struct ServiceSettings {
    arguments: Vec<String>,
    yaml: String,
    set: Vec<String>,
    environment: Vec<(String, String)>,
    binaries: Option<PathBuf>,
}

impl ServiceSettings {
    /// Nothing but the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arguments before all others: a subcommand, say.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// A configuration file with this text.
    #[must_use]
    pub fn yaml(mut self, text: impl Into<String>) -> Self {
        self.yaml = text.into();
        self
    }

    /// One setting, over the file.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.set.push(format!("{key}={value}"));
        self
    }

    /// Binaries from that directory instead of the one that this test was built into.
    #[must_use]
    pub fn binaries(mut self, dir: Option<PathBuf>) -> Self {
        self.binaries = dir;
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One of our binaries, running. Killed when dropped.
#[derive(Debug)]
pub struct Service {
    binary: PathBuf,
    settings: ServiceSettings,
    api: SocketAddr,
    admin: SocketAddr,
    process: Process,
    dir: TempDir,
}

impl Service {
    /// Starts `ingest-svc`, `drain-svc` or `shock-absorber` on free ports, without waiting until it is ready.
    ///
    /// # Errors
    /// If the binary is not built or can't be started.
    pub fn spawn(binary: &str, settings: ServiceSettings) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("{binary}-")).tempdir()?;
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()?));
        fs::write(dir.path().join("config.yaml"), &settings.yaml)?;
        let binary = path_of(binary, settings.binaries.as_deref())?;
        let process =
            Process::spawn(&name_of(&binary), command(&binary, &settings, api, admin, dir.path()), dir.path())?;
        Ok(Self { binary, settings, api, admin, process, dir })
    }

    /// Starts a binary and waits until it is ready.
    ///
    /// # Errors
    /// If it ends, with the end of its log, or isn't ready in time.
    pub async fn start(binary: &str, settings: ServiceSettings) -> Result<Self> {
        let mut service = Self::spawn(binary, settings)?;
        service.ready().await?;
        Ok(service)
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// If it ends, with the end of its log, or isn't ready in time.
    pub async fn ready(&mut self) -> Result<()> {
        let (process, admin) = (&mut self.process, self.admin);
        eventually("readiness", PATIENCE, || {
            let runs = process.must_run();
            async move {
                runs?;
                Ok(matches!(http::get(admin, "/readyz").await, Ok((200, _))).then_some(()))
            }
        })
        .await
        .with_context(|| format!("{}: its log ends:\n{}", self.process.name(), self.process.log_tail()))
    }

    /// Where its gRPC API is, if it has one: `http://127.0.0.1:PORT`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// The same as an address.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Where its metrics and health are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its metrics, as text.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn metrics(&self) -> Result<String> {
        let (status, text) = http::get(self.admin, "/metrics").await?;
        ensure!(status == 200, "/metrics answered {status}");
        Ok(text)
    }

    /// What it holds in memory, in bytes.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.resident_bytes()
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its directory, where relative paths of its settings lead.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Kills it as kill -9 does.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it doesn't in time; then it is killed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.stop(PATIENCE).await
    }

    /// Freezes it: it keeps its connections and does nothing.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Starts it again on the same ports and directory, and waits until it is ready. One that still runs is killed first.
    ///
    /// # Errors
    /// As for [`Service::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.relaunch()?;
        self.ready().await
    }

    /// The same without waiting: see [`Service::ready`].
    ///
    /// # Errors
    /// If it can't be started.
    pub fn relaunch(&mut self) -> Result<()> {
        self.process.kill9();
        let command = command(&self.binary, &self.settings, self.api, self.admin, self.dir.path());
        self.process = Process::spawn(&name_of(&self.binary), command, self.dir.path())?;
        Ok(())
    }
}

fn command(binary: &Path, settings: &ServiceSettings, api: SocketAddr, admin: SocketAddr, dir: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(dir).args(&settings.arguments).arg("--config").arg(dir.join("config.yaml"));
    let listen =
        [format!("ingest.listen={api}"), format!("ingest.admin_listen={admin}"), format!("drain.admin_listen={admin}")];
    for setting in listen.iter().chain(&settings.set) {
        command.arg("--set").arg(setting);
    }
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    command
}

/// Where one of our binaries is, for tests that call it.
///
/// # Errors
/// If it is not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    path_of(name, None)
}

/// Beside the test that runs: `target/PROFILE/deps/TEST` and `target/PROFILE/BINARY`.
fn path_of(binary: &str, dir: Option<&Path>) -> Result<PathBuf> {
    let test = env::current_exe()?;
    let profile = test.ancestors().skip(1).find(|dir| dir.file_name().is_some_and(|name| name != "deps"));
    let path = dir.or(profile).context("this test doesn't run from a target directory")?.join(binary);
    ensure!(path.exists(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}

fn name_of(binary: &Path) -> String {
    binary.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
