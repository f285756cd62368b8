//! The one writer of the log, on a thread with a runtime of its own: no statement is broken off because the rest of
//! the process shuts down or loses interest.
//!
//! It works in rounds. A round takes all jobs that wait, puts what they want into one transaction, and answers them
//! when that is on the disk: the more wait, the more share one sync.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{mpsc, oneshot};

use super::{
    blobs::BlobIndex,
    directory::Directory,
    file::{LogFile, Restored, WriteError},
    options::EmbeddedOptions,
    round::{Closers, Job, Plan, Reading, Round},
};
use crate::{
    in_process::{Limits, Shared},
    log::LogError,
};

/// Jobs taken at once.
const ROUND_JOBS: usize = 1024;
/// Blobs deleted in one round.
const ROUND_DELETIONS: usize = 64;

/// What the writer shares with the log's handles.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    /// What the blobs in the file take up.
    pub(super) file_bytes: Arc<AtomicU64>,
}

/// Marks the log as ended however the thread ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Opens the log and works until it is closed, all its handles are gone, or a commit fails.
pub(super) async fn run(
    options: EmbeddedOptions,
    mut jobs: mpsc::Receiver<Job>,
    opened: oneshot::Sender<Result<Opened, LogError>>,
) {
    let (directory, file, restored) = match open(&options).await {
        Ok(parts) => parts,
        Err(error) => {
            // Nobody waits for it any more: there is nobody to tell.
            let _ = opened.send(Err(error));
            return;
        }
    };
    let Restored { records, blobs } = restored;
    let common = Opened { shared: Arc::new(Shared::new(records)), file_bytes: Arc::new(AtomicU64::new(blobs.bytes())) };
    let ending = Ending(Arc::clone(&common.shared));
    if opened.send(Ok(common.clone())).is_err() {
        return;
    }
    let limits = Limits { log_bytes: options.max_log_bytes, message_bytes: options.max_message_bytes };
    let mut writer = Writer { options, limits, file, blobs, common, no_room: false };
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

async fn open(options: &EmbeddedOptions) -> Result<(Directory, LogFile, Restored), LogError> {
    let directory = Directory::lock(&options.dir)?;
    let (file, restored) = LogFile::open(&directory.file(), options.max_file_bytes()).await?;
    directory.sync()?;
    Ok((directory, file, restored))
}

struct Writer {
    options: EmbeddedOptions,
    limits: Limits,
    file: LogFile,
    blobs: BlobIndex,
    common: Opened,
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
        self.blobs.superfluous(ROUND_DELETIONS, self.file.next_sequence() - 1)
    }

    async fn round(&mut self, round: Round) -> Result<(), String> {
        let superfluous = self.superfluous();
        let mut plan = Plan::new(round, superfluous, &self.limits, &mut self.common.shared.state());
        plan.encode();
        let readings = std::mem::take(&mut plan.readings);
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
        let answers = plan.apply(&mut self.common.shared.state(), &mut self.blobs, blob);
        self.common.file_bytes.store(self.blobs.bytes(), Ordering::Relaxed);
        self.common.shared.changed();
        answers.send();
        for reading in readings {
            self.read(reading).await;
        }
        Ok(())
    }

    /// Reads what is drained, and not in memory any more: what one blob holds of it.
    async fn read(&mut self, reading: Reading) {
        let Reading { partition, from, done } = reading;
        let records = match self.blobs.find(&partition, from) {
            Some(blob) => self.file.read(blob).await.map(|mut records| {
                records.retain(|record| record.from == partition && record.offset >= from);
                records
            }),
            None => Ok(Vec::new()),
        };
        // Who reads no more needs no answer.
        let _ = done.send(records);
    }
}
