//! One member of the drain group on the memory log.

use std::{fmt, sync::Arc, time::Duration};

use model::Topic;
use tokio::sync::oneshot;

use super::MemoryLogOptions;
use crate::{
    in_process::{Commit, Commits, GroupMember, MemberId, Membership, Parting, Shared},
    log::{EventSource, LogError, Progress, SourceEvent, TopicPartition},
};

/// A member of the drain group on the memory log. One that is dropped without [`EventSource::close`] has died.
pub struct MemorySource {
    member: GroupMember<AtOnce>,
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemorySource").field(&self.member).finish()
    }
}

/// Commits take no time.
struct AtOnce {
    shared: Arc<Shared>,
    keep_drained: bool,
}

impl AtOnce {
    fn commit(&self, member: MemberId, mut progress: Commit) -> oneshot::Receiver<Commit> {
        {
            let state = &mut *self.shared.state();
            progress.retain(|(partition, committed)| {
                state.group.owns(member, partition) && state.records.may_commit(partition, *committed)
            });
            for (partition, committed) in &progress {
                state.records.commit(partition, *committed);
                if !self.keep_drained {
                    state.records.forget(partition, committed.window.offset);
                }
            }
        }
        let (done, answer) = oneshot::channel();
        // The receiver is here.
        let _ = done.send(progress);
        answer
    }
}

impl Commits for AtOnce {
    fn try_commit(&self, member: MemberId, progress: Commit) -> Option<oneshot::Receiver<Commit>> {
        Some(self.commit(member, progress))
    }

    async fn commit(&self, member: MemberId, progress: Commit) -> Result<oneshot::Receiver<Commit>, LogError> {
        Ok(self.commit(member, progress))
    }
}

impl MemorySource {
    pub(super) fn new(name: &str, options: &MemoryLogOptions, shared: &Arc<Shared>) -> Self {
        let terms = Membership {
            name: name.to_owned(),
            session_timeout: options.session_timeout,
            request_window: options.request_window,
            parting: Parting::Vanish,
        };
        let commits = AtOnce { shared: Arc::clone(shared), keep_drained: options.keep_drained };
        Self { member: GroupMember::join(terms, shared, commits) }
    }
}

impl EventSource for MemorySource {
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
