//! A child process that can be hurt, and that never outlives its test.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::eventually;

/// Lines of a log that an error shows.
const TAIL: usize = 40;

/// A child process in a process group of its own, so that what it starts goes with it. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Option<Child>,
    log: PathBuf,
    pid_file: PathBuf,
}

impl Process {
    /// Starts a command; what it prints is appended to `log` in `dir`. Its process group's number lies in `pid` there,
    /// so that `./tests/run` can end what a killed test leaves behind.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn spawn(name: &str, mut command: Command, dir: &Path) -> Result<Self> {
        let log = dir.join("log");
        let output = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().with_context(|| {
            format!(
                "{name} can't be started ({}); ./tests/run installs what is missing",
                command.get_program().display()
            )
        })?;
        let pid_file = dir.join("pid");
        fs::write(&pid_file, child.id().to_string())?;
        Ok(Self { name: name.to_owned(), child: Some(child), log, pid_file })
    }

    /// What it holds in memory, in bytes.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn resident_bytes(&self) -> Result<u64> {
        let id = self.child.as_ref().map(Child::id).with_context(|| format!("{} doesn't run", self.name))?;
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let kib: u64 = line.with_context(|| format!("{} has no memory", self.name))?.trim().parse()?;
        Ok(kib * 1024)
    }

    /// What it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it and its predecessors in the same directory have printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it runs; a frozen one does.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Fails with the end of its log if it has ended.
    ///
    /// # Errors
    /// If it has.
    pub fn must_run(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        bail!("{} has ended; its log ends:\n{}", self.name, self.log_tail())
    }

    /// Kills it as kill -9 does, with what it has started, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.signal_all(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            // If the group was gone, or could not be signalled.
            let _ = child.kill();
            let _ = child.wait();
            // Only with a child that was there: by now the number may be that of its successor.
            let _ = fs::remove_file(&self.pid_file);
        }
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it takes longer than `within`; then it is killed.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.stop_by(Signal::TERM, within).await
    }

    /// Asks it to stop by another signal than TERM, and waits until it has.
    ///
    /// # Errors
    /// As for [`Process::stop`].
    pub async fn stop_by(&mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        if self.child.is_none() {
            return Ok(ExitStatus::from_raw(0));
        }
        self.signal(signal);
        // A frozen process only hears it once thawed.
        self.thaw();
        let child = &mut self.child;
        let ended = eventually("end", within, || {
            let status = child.as_mut().map(|child| child.try_wait()).transpose();
            async move { Ok(status?.flatten()) }
        })
        .await;
        let tail = self.log_tail();
        self.kill9();
        ended.with_context(|| format!("{} was asked to stop; its log ends:\n{tail}", self.name))
    }

    /// Freezes it: it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    fn id(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.id() {
            // That it is gone already is as well.
            let _ = kill_process_group(group, signal);
        }
    }

    /// The same for those of its children that have left its group, as PostgreSQL's do.
    fn signal_all(&self, signal: Signal) {
        let children = self.id().map(children_of).unwrap_or_default();
        self.signal(signal);
        for child in children {
            let _ = kill_process(child, signal);
        }
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let is_child = |stat: String| {
        // What follows the name in parentheses: state, parent.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        (fields.nth(1)? == parent.as_raw_nonzero().to_string()).then_some(())
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(is_child).is_some())
        .filter_map(Pid::from_raw)
        .collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str, dir: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("a shell", command, dir).unwrap()
    }

    fn state_of(pid: &str) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    async fn becomes(pid: &str, wanted: &[Option<char>]) {
        eventually("state", Duration::from_secs(60), || {
            let there = wanted.contains(&state_of(pid));
            async move { Ok(there.then_some(())) }
        })
        .await
        .unwrap();
    }

    /// The process that a shell has started, once it has.
    async fn grandchild(process: &Process) -> String {
        eventually("line", Duration::from_secs(60), || {
            let line = process.log().lines().next().map(str::to_owned);
            async move { Ok(line) }
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn what_it_started_is_frozen_thawed_and_killed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell("sleep 600 & echo $!; wait", dir.path());
        let grandchild = grandchild(&process).await;
        becomes(&grandchild, &[Some('S')]).await;
        process.freeze();
        becomes(&grandchild, &[Some('T')]).await;
        process.thaw();
        becomes(&grandchild, &[Some('S')]).await;
        drop(process);
        becomes(&grandchild, &[None, Some('Z')]).await;
    }

    #[tokio::test]
    async fn a_stop_that_takes_too_long_ends_in_a_kill_and_an_error_with_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("trap 'echo heard it' TERM; echo up; while :; do sleep 0.05; done", dir.path());
        grandchild(&process).await;
        let error = format!("{:#}", process.stop(Duration::from_secs(1)).await.unwrap_err());
        assert!(error.contains("heard it"), "{error}");
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn one_that_ended_by_itself_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("echo cannot open the data; exit 3", dir.path());
        eventually("end", Duration::from_secs(60), || {
            let ended = !process.is_running();
            async move { Ok(ended.then_some(())) }
        })
        .await
        .unwrap();
        let error = process.must_run().unwrap_err().to_string();
        assert!(error.contains("cannot open the data"), "{error}");
    }

    #[tokio::test]
    async fn the_exit_code_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done", dir.path());
        grandchild(&process).await;
        assert_eq!(process.stop(Duration::from_secs(60)).await.unwrap().code(), Some(7));
    }
}
