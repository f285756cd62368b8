//! One member of the drain group of a log within one process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Duration,
};

use model::Topic;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use super::{MemberId, Room, Shared, ended};
use crate::{
    ledger::{AssignmentId, ProgressLedger},
    log::{Assignment, Committed, LogError, Progress, SourceEvent, TopicPartition},
};

/// Noted progress is committed so often.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Commits by partition.
pub(crate) type Commit = Vec<(TopicPartition, Committed)>;

/// How progress gets into the log. Answered with what was committed: what the member does not own any more is left out.
pub(crate) trait Commits: Send + Sync + 'static {
    /// Hands a commit over, if there is room for it now.
    fn try_commit(&self, member: MemberId, progress: Commit) -> Option<oneshot::Receiver<Commit>>;

    /// Hands a commit over as soon as there is room. May be given up: then nothing was handed over.
    fn commit(
        &self,
        member: MemberId,
        progress: Commit,
    ) -> impl Future<Output = Result<oneshot::Receiver<Commit>, LogError>> + Send;
}

/// What it means that a member is dropped without having been closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It leaves at once.
    #[cfg(feature = "embedded")]
    Leave,
    /// Its process was killed: the others have to wait for its session's end.
    #[cfg(feature = "memory")]
    Vanish,
}

/// The terms of a membership.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// For the logs.
    pub(crate) name: String,
    /// A member that is silent for so long is expelled.
    pub(crate) session_timeout: Duration,
    /// How long ago that must have been committed which readers of requests start from.
    pub(crate) request_window: Duration,
    pub(crate) parting: Parting,
}

#[derive(Debug)]
struct Held {
    assignment: AssignmentId,
    /// The offset of the next record to be delivered.
    position: i64,
    paused: bool,
}

/// Partitions on their way out: their progress is committed before they go. Kept across calls of `next`, so that
/// one that is given up loses nothing.
#[derive(Debug)]
struct Revocation {
    partitions: Vec<TopicPartition>,
    answer: Option<oneshot::Receiver<Commit>>,
}

/// See the module.
pub(crate) struct GroupMember<C> {
    terms: Membership,
    id: MemberId,
    shared: Arc<Shared>,
    commits: C,
    ledger: ProgressLedger,
    held: BTreeMap<TopicPartition, Held>,
    /// Where the next delivery begins, so that a busy partition starves no other.
    turn: usize,
    revocation: Option<Revocation>,
    committing: Option<oneshot::Receiver<Commit>>,
    next_commit: Instant,
    left: bool,
}

impl<C> fmt::Debug for GroupMember<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupMember").field("name", &self.terms.name).field("held", &self.held).finish_non_exhaustive()
    }
}

/// Marks the member as alive for as long as it is within `next`.
struct Alive {
    shared: Arc<Shared>,
    id: MemberId,
}

impl Alive {
    fn enter(shared: &Arc<Shared>, id: MemberId) -> Self {
        let mut state = shared.state();
        let state = &mut *state;
        if state.group.enter(id, Instant::now(), &state.records.topics) {
            shared.changed();
        }
        Self { shared: Arc::clone(shared), id }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.state().group.exit(self.id, Instant::now());
    }
}

impl<C: Commits> GroupMember<C> {
    /// Joins the group, as a member without a subscription.
    pub(crate) fn join(terms: Membership, shared: &Arc<Shared>, commits: C) -> Self {
        let now = Instant::now();
        let id = shared.state().group.join(now);
        Self {
            id,
            shared: Arc::clone(shared),
            commits,
            ledger: ProgressLedger::new(terms.request_window),
            terms,
            held: BTreeMap::new(),
            turn: 0,
            revocation: None,
            committing: None,
            next_commit: now + COMMIT_INTERVAL,
            left: false,
        }
    }

    /// What happens to the membership now, if anything. Without waiting.
    fn membership(&mut self) -> Option<SourceEvent> {
        let mut state = self.shared.state();
        let state = &mut *state;
        let now = Instant::now();
        if state.group.expel_silent(now, self.terms.session_timeout, &state.records.topics) {
            tracing::warn!("a member of the drain group was silent for too long and was expelled");
            self.shared.changed();
        }
        let lost = state.group.take_lost(self.id);
        if !lost.is_empty() {
            tracing::warn!(member = self.terms.name, partitions = lost.len(), "our partitions went to others");
            self.revocation = None;
            let lost = self.ledger.give_up(&lost);
            self.held.retain(|partition, _| !lost.contains(partition));
            if !lost.is_empty() {
                return Some(SourceEvent::Lost(lost));
            }
        }
        if self.revocation.is_some() {
            return None;
        }
        let partitions = state.group.to_give_up(self.id);
        if !partitions.is_empty() {
            self.revocation = Some(Revocation { partitions, answer: None });
            return None;
        }
        let taken = state.group.take_over(self.id);
        if taken.is_empty() {
            return None;
        }
        let assigned = taken.into_iter().map(|partition| {
            let committed = state.records.committed(&partition);
            let first = state.records.bounds(&partition).map_or(0, |(first, _)| first);
            let position = committed.map_or(first, |committed| committed.done.offset);
            let in_log = committed.map(|committed| committed.done.offset);
            let assignment = self.ledger.assign(partition.clone(), committed, in_log, first, now);
            self.held.insert(partition.clone(), Held { assignment, position, paused: false });
            Assignment { partition, committed: committed.map(|committed| committed.done) }
        });
        Some(SourceEvent::Assigned(assigned.collect()))
    }

    /// Brings a revocation to its end. May be given up and called again at any await.
    async fn revoke(&mut self) -> Result<Option<SourceEvent>, LogError> {
        let Some(revocation) = &mut self.revocation else { return Ok(None) };
        if revocation.answer.is_none() {
            let due = self.ledger.due_for(&revocation.partitions, Instant::now());
            if !due.is_empty() {
                revocation.answer = Some(self.commits.commit(self.id, due).await?);
            }
        }
        if let Some(answer) = &mut revocation.answer {
            answer.await.map_err(|_| ended())?;
        }
        let Some(Revocation { partitions, .. }) = self.revocation.take() else { return Ok(None) };
        let given = self.shared.state().group.give_up(self.id, &partitions);
        self.shared.changed();
        let given = self.ledger.give_up(&given);
        self.held.retain(|partition, _| !given.contains(partition));
        Ok((!given.is_empty()).then_some(SourceEvent::Revoked(given)))
    }

    /// Sends off what was noted, once a second, and takes note of what came of it. Without waiting.
    fn commit_when_due(&mut self) {
        let now = Instant::now();
        if let Some(answer) = &mut self.committing {
            match answer.try_recv() {
                Ok(commit) => {
                    for (partition, committed) in commit {
                        self.ledger.confirm(&partition, committed, now);
                    }
                    self.committing = None;
                }
                Err(TryRecvError::Closed) => self.committing = None,
                Err(TryRecvError::Empty) => {}
            }
        }
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + COMMIT_INTERVAL;
        let due = self.ledger.due(now);
        if self.committing.is_none() && !due.is_empty() {
            // Without room it is tried again in a second.
            self.committing = self.commits.try_commit(self.id, due);
        }
    }

    /// Records that are there. Without waiting.
    fn fetch(&mut self) -> Result<Option<SourceEvent>, LogError> {
        let mut records = Vec::new();
        let mut room = Room::default();
        self.turn = if self.held.is_empty() { 0 } else { (self.turn + 1) % self.held.len() };
        let state = self.shared.state();
        // The order of the map, beginning with the one whose turn it is.
        for round in 0..2 {
            for (index, (partition, held)) in self.held.iter_mut().enumerate() {
                if (index < self.turn) == (round == 0) || held.paused || room.is_used_up() {
                    continue;
                }
                let before = records.len();
                state.records.copy(partition, held.position, i64::MAX, &mut room, &mut records)?;
                held.position += (records.len() - before) as i64;
            }
        }
        Ok((!records.is_empty()).then_some(SourceEvent::Records(records)))
    }

    /// [`crate::EventSource::subscribe`]
    pub(crate) fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        {
            let mut state = self.shared.state();
            let state = &mut *state;
            if let Some(missing) = topics.iter().find(|topic| !state.records.topics.contains_key(*topic)) {
                return Err(LogError::NoSuchTopic(missing.clone()));
            }
            let topics: BTreeSet<Topic> = topics.iter().cloned().collect();
            state.group.subscribe(self.id, topics, &state.records.topics);
        }
        self.shared.changed();
        Ok(())
    }

    /// [`crate::EventSource::next`]
    pub(crate) async fn next(&mut self) -> Result<SourceEvent, LogError> {
        let _alive = Alive::enter(&self.shared, self.id);
        loop {
            // Before the look: a change during it ends the wait at once.
            let seen = self.shared.changes();
            if self.shared.has_ended() {
                return Err(ended());
            }
            self.commit_when_due();
            if let Some(event) = self.membership() {
                return Ok(event);
            }
            if let Some(event) = self.revoke().await? {
                return Ok(event);
            }
            if let Some(event) = self.fetch()? {
                return Ok(event);
            }
            let expulsion = self.shared.state().group.next_expulsion(self.terms.session_timeout);
            let until = expulsion.map_or(self.next_commit, |expulsion| expulsion.min(self.next_commit));
            tokio::select! {
                biased;
                () = self.shared.changed_since(seen) => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// [`crate::EventSource::pause`] and [`crate::EventSource::resume`]
    pub(crate) fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.paused = paused;
            }
        }
    }

    /// [`crate::EventSource::note_progress`]
    pub(crate) fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]) {
        for (partition, progress) in progress {
            if let Some(held) = self.held.get(partition) {
                self.ledger.note(partition, held.assignment, *progress);
            }
        }
    }

    /// [`crate::EventSource::close`]
    pub(crate) async fn close(mut self, within: Duration) -> Result<(), LogError> {
        let due = self.ledger.due(Instant::now());
        let outcome = if due.is_empty() {
            Ok(())
        } else {
            let committed = async { self.commits.commit(self.id, due).await?.await.map_err(|_| ended()) };
            match tokio::time::timeout(within, committed).await {
                Ok(outcome) => outcome.map(|_| ()),
                Err(_) => Err(LogError::Unavailable(format!(
                    "progress was not committed within {within:?}; what was not comes again"
                ))),
            }
        };
        self.leave();
        outcome
    }
}

impl<C> GroupMember<C> {
    fn leave(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        {
            let mut state = self.shared.state();
            let state = &mut *state;
            state.group.leave(self.id, &state.records.topics);
        }
        self.shared.changed();
    }
}

impl<C> Drop for GroupMember<C> {
    fn drop(&mut self) {
        match self.terms.parting {
            _ if self.left => {}
            #[cfg(feature = "embedded")]
            Parting::Leave => self.leave(),
            #[cfg(feature = "memory")]
            Parting::Vanish => {
                self.shared.state().group.vanish(self.id);
                // So that somebody waits for the session's end.
                self.shared.changed();
            }
        }
    }
}
