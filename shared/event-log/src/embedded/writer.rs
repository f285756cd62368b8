//! The one writer of the log, on a thread with a runtime of its own: no statement is broken off because the rest of
//! the process shuts down or loses interest.
//!
//! It works in rounds. A round takes all jobs that wait, puts what they want into one transaction, and answers them
//! when that is on the disk: the more wait, the more share one sync.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    directory::Directory,
    file::{LogFile, WriteError},
    memory::Memory,
    options::EmbeddedOptions,
    round::{Closers, Job, Plan, Round},
};
use crate::log::LogError;

/// Jobs taken at once.
const ROUND_JOBS: usize = 1024;
/// Blobs deleted in one round.
const ROUND_DELETIONS: usize = 64;

/// What the writer and the faces of the log share.
pub(super) struct Shared {
    memory: Mutex<Memory>,
    /// Counts changes of the memory, so that members can wait for one.
    pub(super) changes: watch::Sender<u64>,
    pub(super) ended: AtomicBool,
}

impl Shared {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

/// Marks the log as ended however the thread ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.changed();
    }
}

/// Opens the log and works until it is closed, all its handles are gone, or a commit fails.
pub(super) async fn run(
    options: EmbeddedOptions,
    mut jobs: mpsc::Receiver<Job>,
    opened: oneshot::Sender<Result<Arc<Shared>, LogError>>,
) {
    let (directory, file, memory) = match open(&options).await {
        Ok(parts) => parts,
        Err(error) => {
            // Nobody waits for it any more: there is nobody to tell.
            let _ = opened.send(Err(error));
            return;
        }
    };
    let shared =
        Arc::new(Shared { memory: Mutex::new(memory), changes: watch::Sender::new(0), ended: AtomicBool::new(false) });
    let ending = Ending(Arc::clone(&shared));
    if opened.send(Ok(Arc::clone(&shared))).is_err() {
        return;
    }
    let mut writer = Writer { options, file, shared, no_room: false };
    let closers = match writer.work(&mut jobs).await {
        Ok(closers) => closers,
        Err(reason) => {
            writer.options.last_words.speak(&reason);
            return;
        }
    };
    jobs.close();
    drop(ending);
    if let Err(error) = writer.file.close().await {
        tracing::warn!(%error, "the event log's file was not closed cleanly; nothing is lost");
    }
    drop(directory);
    for closer in closers {
        // Whoever closed has gone: all the same.
        let _ = closer.send(());
    }
}

async fn open(options: &EmbeddedOptions) -> Result<(Directory, LogFile, Memory), LogError> {
    let directory = Directory::lock(&options.dir)?;
    // Drained records share blobs with others for a while, and SQLite keeps free pages: leave room for both.
    let max_file_bytes = options.max_log_bytes.saturating_mul(4).saturating_add(64 << 20);
    let (file, memory) = LogFile::open(&directory.file(), max_file_bytes).await?;
    directory.sync()?;
    Ok((directory, file, memory))
}

struct Writer {
    options: EmbeddedOptions,
    file: LogFile,
    shared: Arc<Shared>,
    /// Not even deletions fitted on the disk: they wait for the next job.
    no_room: bool,
}

impl Writer {
    async fn work(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Result<Closers, String> {
        let mut waiting = VecDeque::new();
        let mut taken = Vec::new();
        loop {
            if waiting.is_empty() {
                if std::mem::take(&mut self.no_room) || self.superfluous().is_empty() {
                    if jobs.recv_many(&mut taken, ROUND_JOBS).await == 0 {
                        return Ok(Vec::new());
                    }
                } else if let Ok(job) = jobs.try_recv() {
                    taken.push(job);
                }
            }
            while taken.len() < ROUND_JOBS
                && let Ok(job) = jobs.try_recv()
            {
                taken.push(job);
            }
            waiting.extend(taken.drain(..));
            let (round, closers) = Round::take(&mut waiting);
            self.round(round).await?;
            if !closers.is_empty() {
                return Ok(closers);
            }
        }
    }

    fn superfluous(&self) -> Vec<i64> {
        self.shared.memory().superfluous(ROUND_DELETIONS, self.file.next_sequence() - 1)
    }

    async fn round(&mut self, round: Round) -> Result<(), String> {
        let superfluous = self.superfluous();
        let mut plan = Plan::new(round, superfluous, &self.options, &mut self.shared.memory());
        plan.encode();
        let written = if plan.changes.is_empty() { Ok(()) } else { self.file.write(&plan.changes).await };
        match written {
            Ok(()) => {}
            Err(WriteError::Full) => {
                tracing::error!(dir = %self.options.dir.display(), "the event log's disk is full; records are refused");
                plan.refuse_appends(&WriteError::Full);
                // What frees room may still fit.
                match self.file.write(&plan.changes).await {
                    Ok(()) => {}
                    Err(WriteError::Full) => {
                        plan.refuse_all(&WriteError::Full);
                        self.no_room = true;
                    }
                    Err(WriteError::Failed(reason)) => return Err(reason),
                }
            }
            Err(WriteError::Failed(reason)) => {
                plan.outcome_unknown();
                return Err(reason);
            }
        }
        let blob = self.file.next_sequence() - 1;
        let answers = plan.apply(&mut self.shared.memory(), blob);
        self.shared.changed();
        answers.send();
        Ok(())
    }
}
