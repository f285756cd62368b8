//! One member of the drain group on the embedded log.

use std::{fmt, sync::Arc, time::Duration};

use model::Topic;
use tokio::sync::{mpsc, oneshot};

use super::{options::EmbeddedOptions, round::Job};
use crate::{
    in_process::{Commit, Commits, GroupMember, MemberId, Membership, Parting, Shared, ended},
    log::{EventSource, LogError, Progress, SourceEvent, TopicPartition},
};

/// A member of the drain group on the embedded log. One that is dropped without [`EventSource::close`] leaves at
/// once and commits nothing more.
pub struct EmbeddedSource {
    member: GroupMember<ByWriter>,
}

impl fmt::Debug for EmbeddedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddedSource").field(&self.member).finish()
    }
}

/// Commits go to the writer.
struct ByWriter {
    jobs: mpsc::Sender<Job>,
}

fn job(member: MemberId, progress: Commit) -> (Job, oneshot::Receiver<Commit>) {
    let (done, answer) = oneshot::channel();
    (Job::Commit { member, progress, done }, answer)
}

impl Commits for ByWriter {
    fn try_commit(&self, member: MemberId, progress: Commit) -> Option<oneshot::Receiver<Commit>> {
        let (job, answer) = job(member, progress);
        self.jobs.try_send(job).is_ok().then_some(answer)
    }

    async fn commit(&self, member: MemberId, progress: Commit) -> Result<oneshot::Receiver<Commit>, LogError> {
        let room = self.jobs.reserve().await.map_err(|_| ended())?;
        let (job, answer) = job(member, progress);
        room.send(job);
        Ok(answer)
    }
}

impl EmbeddedSource {
    pub(super) fn new(name: &str, options: &EmbeddedOptions, shared: &Arc<Shared>, jobs: mpsc::Sender<Job>) -> Self {
        let terms = Membership {
            name: name.to_owned(),
            session_timeout: options.session_timeout,
            request_window: options.request_window,
            parting: Parting::Leave,
        };
        Self { member: GroupMember::join(terms, shared, ByWriter { jobs }) }
    }
}

impl EventSource for EmbeddedSource {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        self.member.subscribe(topics)
    }

    async fn next(&mut self) -> Result<SourceEvent, LogError> {
        self.member.next().await
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.member.set_paused(partitions, true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.member.set_paused(partitions, false);
        Ok(())
    }

    fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]) {
        self.member.note_progress(progress);
    }

    async fn close(self, within: Duration) -> Result<(), LogError> {
        self.member.close(within).await
    }
}
