//! One member of the drain group on the embedded log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use model::Topic;
use tokio::{
    sync::{
        mpsc,
        oneshot::{self, error::TryRecvError},
        watch,
    },
    time::Instant,
};

use super::{assignor::MemberId, memory::Room, round::Job, writer::Shared};
use crate::{
    ledger::{AssignmentId, ProgressLedger},
    log::{Assignment, EventSource, LogError, Progress, SourceEvent, TopicPartition},
};

/// Noted progress is committed so often.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

type Committed = Vec<(TopicPartition, Progress)>;

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
    answer: Option<oneshot::Receiver<Committed>>,
}

/// A member of the drain group on the embedded log. One that is dropped without [`EventSource::close`] leaves at
/// once and commits nothing more.
pub struct EmbeddedSource {
    name: String,
    id: MemberId,
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    jobs: mpsc::Sender<Job>,
    session_timeout: Duration,
    ledger: ProgressLedger,
    held: BTreeMap<TopicPartition, Held>,
    /// Where the next delivery begins, so that a busy partition starves no other.
    turn: usize,
    revocation: Option<Revocation>,
    committing: Option<oneshot::Receiver<Committed>>,
    next_commit: Instant,
}

impl fmt::Debug for EmbeddedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedSource").field("name", &self.name).field("held", &self.held).finish_non_exhaustive()
    }
}

/// Marks the member as alive for as long as it is within `next`.
struct Alive {
    shared: Arc<Shared>,
    id: MemberId,
}

impl Alive {
    fn enter(shared: &Arc<Shared>, id: MemberId) -> Self {
        let mut memory = shared.memory();
        let memory = &mut *memory;
        if memory.group.enter(id, Instant::now(), &memory.topics) {
            shared.changed();
        }
        Self { shared: Arc::clone(shared), id }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shared.memory().group.exit(self.id, Instant::now());
    }
}

impl EmbeddedSource {
    pub(super) fn new(name: &str, shared: Arc<Shared>, jobs: mpsc::Sender<Job>, session_timeout: Duration) -> Self {
        let now = Instant::now();
        let id = shared.memory().group.join(now);
        Self {
            name: name.to_owned(),
            id,
            changes: shared.changes.subscribe(),
            shared,
            jobs,
            session_timeout,
            ledger: ProgressLedger::default(),
            held: BTreeMap::new(),
            turn: 0,
            revocation: None,
            committing: None,
            next_commit: now + COMMIT_INTERVAL,
        }
    }

    /// What happens to the membership now, if anything. Without waiting.
    fn membership(&mut self) -> Option<SourceEvent> {
        let mut memory = self.shared.memory();
        let memory = &mut *memory;
        if memory.group.expel_silent(Instant::now(), self.session_timeout, &memory.topics) {
            tracing::warn!("a member of the drain group was silent for too long and was expelled");
            self.shared.changed();
        }
        let lost = memory.group.take_lost(self.id);
        if !lost.is_empty() {
            tracing::warn!(member = self.name, partitions = lost.len(), "our partitions went to others");
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
        let partitions = memory.group.to_give_up(self.id);
        if !partitions.is_empty() {
            self.revocation = Some(Revocation { partitions, answer: None });
            return None;
        }
        let taken = memory.group.take_over(self.id);
        if taken.is_empty() {
            return None;
        }
        let assigned = taken.into_iter().map(|partition| {
            let committed = memory.committed(&partition);
            let first = memory.bounds(&partition).map_or(0, |(first, _)| first);
            let position = committed.map_or(first, |progress| progress.offset);
            let assignment = self.ledger.assign(partition.clone(), committed);
            self.held.insert(partition.clone(), Held { assignment, position, paused: false });
            Assignment { partition, committed }
        });
        Some(SourceEvent::Assigned(assigned.collect()))
    }

    /// Brings a revocation to its end. May be given up and called again at any await.
    async fn revoke(&mut self) -> Result<Option<SourceEvent>, LogError> {
        let Some(revocation) = &mut self.revocation else { return Ok(None) };
        if revocation.answer.is_none() {
            let due = self.ledger.due_for(&revocation.partitions);
            if !due.is_empty() {
                let room = self.jobs.reserve().await.map_err(|_| ended())?;
                let (done, answer) = oneshot::channel();
                room.send(Job::Commit { member: self.id, progress: due, done });
                revocation.answer = Some(answer);
            }
        }
        if let Some(answer) = &mut revocation.answer {
            answer.await.map_err(|_| ended())?;
        }
        let Some(Revocation { partitions, .. }) = self.revocation.take() else { return Ok(None) };
        let given = self.shared.memory().group.give_up(self.id, &partitions);
        self.shared.changed();
        let given = self.ledger.give_up(&given);
        self.held.retain(|partition, _| !given.contains(partition));
        Ok((!given.is_empty()).then_some(SourceEvent::Revoked(given)))
    }

    /// Sends off what was noted, once a second, and takes note of what came of it. Without waiting.
    fn commit_when_due(&mut self) {
        if let Some(answer) = &mut self.committing {
            match answer.try_recv() {
                Ok(committed) => {
                    for (partition, progress) in committed {
                        self.ledger.confirm(&partition, progress.offset);
                    }
                    self.committing = None;
                }
                Err(TryRecvError::Closed) => self.committing = None,
                Err(TryRecvError::Empty) => {}
            }
        }
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + COMMIT_INTERVAL;
        let due = self.ledger.due();
        if self.committing.is_none() && !due.is_empty() {
            let (done, answer) = oneshot::channel();
            // Without room it is tried again in a second.
            if self.jobs.try_send(Job::Commit { member: self.id, progress: due, done }).is_ok() {
                self.committing = Some(answer);
            }
        }
    }

    /// Records that are there. Without waiting.
    fn fetch(&mut self) -> Result<Option<SourceEvent>, LogError> {
        let mut records = Vec::new();
        let mut room = Room::default();
        self.turn = if self.held.is_empty() { 0 } else { (self.turn + 1) % self.held.len() };
        let memory = self.shared.memory();
        // The order of the map, beginning with the one whose turn it is.
        for round in 0..2 {
            for (index, (partition, held)) in self.held.iter_mut().enumerate() {
                if (index < self.turn) == (round == 0) || held.paused || room.is_used_up() {
                    continue;
                }
                let before = records.len();
                memory.copy(partition, held.position, i64::MAX, &mut room, &mut records)?;
                held.position += (records.len() - before) as i64;
            }
        }
        Ok((!records.is_empty()).then_some(SourceEvent::Records(records)))
    }
}

fn ended() -> LogError {
    LogError::Fatal("the embedded event log has ended".into())
}

impl EventSource for EmbeddedSource {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        {
            let mut memory = self.shared.memory();
            let memory = &mut *memory;
            if let Some(missing) = topics.iter().find(|topic| !memory.topics.contains_key(*topic)) {
                return Err(LogError::NoSuchTopic(missing.clone()));
            }
            let topics: BTreeSet<Topic> = topics.iter().cloned().collect();
            memory.group.subscribe(self.id, topics, &memory.topics);
        }
        self.shared.changed();
        Ok(())
    }

    async fn next(&mut self) -> Result<SourceEvent, LogError> {
        let _alive = Alive::enter(&self.shared, self.id);
        loop {
            // Before the look: a change during it ends the wait at once.
            self.changes.borrow_and_update();
            if self.shared.ended.load(Ordering::Acquire) {
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
            tokio::select! {
                changed = self.changes.changed() => changed.map_err(|_| ended())?,
                () = tokio::time::sleep_until(self.next_commit) => {}
            }
        }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.paused = true;
            }
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition) {
                held.paused = false;
            }
        }
        Ok(())
    }

    fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]) {
        for (partition, progress) in progress {
            if let Some(held) = self.held.get(partition) {
                self.ledger.note(partition, held.assignment, *progress);
            }
        }
    }

    async fn close(self, within: Duration) -> Result<(), LogError> {
        let due = self.ledger.due();
        if due.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let committed = async {
            let job = Job::Commit { member: self.id, progress: due, done };
            self.jobs.send(job).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())
        };
        match tokio::time::timeout(within, committed).await {
            Ok(outcome) => outcome.map(|_| ()),
            Err(_) => Err(LogError::Unavailable(format!(
                "progress was not committed within {within:?}; what was not comes again"
            ))),
        }
    }
}

impl Drop for EmbeddedSource {
    fn drop(&mut self) {
        {
            let mut memory = self.shared.memory();
            let memory = &mut *memory;
            memory.group.leave(self.id, &memory.topics);
        }
        self.shared.changed();
    }
}
