//! One round of the writer, apart from its I/O: what is asked, what becomes of it, and who is told.

use std::collections::{BTreeMap, VecDeque};

use model::Topic;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    blob,
    blobs::BlobIndex,
    file::{Changes, WriteError},
};
use crate::{
    in_process::{Commit, Limits, MemberId, Records, State},
    log::{LogError, LogRecord, Outgoing, PublishError, TopicPartition},
};

/// A round takes no further job once it has so many bytes.
const ROUND_BYTES: usize = 8 << 20;

/// What is asked of the writer.
pub(super) enum Job {
    Append {
        records: Vec<Outgoing>,
        done: oneshot::Sender<Vec<Result<i64, PublishError>>>,
        /// Bounds the bytes that wait.
        permit: OwnedSemaphorePermit,
    },
    /// Answers what was committed; what the member does not own any more is left out.
    Commit {
        member: MemberId,
        progress: Commit,
        done: oneshot::Sender<Commit>,
    },
    EnsureTopic {
        topic: Topic,
        partitions: u16,
        done: oneshot::Sender<Result<(), LogError>>,
    },
    Read(Reading),
    /// Answered when everything asked before it is done.
    Barrier {
        done: oneshot::Sender<()>,
    },
    /// The last job.
    Close {
        done: oneshot::Sender<()>,
    },
}

/// Asks for the records of a partition from an offset on, as far as one blob goes.
pub(super) struct Reading {
    pub(super) partition: TopicPartition,
    pub(super) from: i64,
    pub(super) done: oneshot::Sender<Result<Vec<LogRecord>, LogError>>,
}

type Verdict = Result<(), PublishError>;
type Outcome = Vec<Result<i64, PublishError>>;
type Append = (Vec<Outgoing>, oneshot::Sender<Outcome>, OwnedSemaphorePermit);
type TopicVerdict = Result<(), LogError>;

/// Those who wait for the end of the log.
pub(super) type Closers = Vec<oneshot::Sender<()>>;

/// The jobs of one round, by kind.
#[derive(Default)]
pub(super) struct Round {
    appends: Vec<Append>,
    commits: Vec<(MemberId, Commit, oneshot::Sender<Commit>)>,
    topics: Vec<(Topic, u16, oneshot::Sender<TopicVerdict>)>,
    readings: Vec<Reading>,
    barriers: Vec<oneshot::Sender<()>>,
}

impl Round {
    /// Takes jobs up to the bound of bytes. Once there is somebody who closes, this is the last round.
    pub(super) fn take(waiting: &mut VecDeque<Job>) -> (Self, Closers) {
        let mut round = Self::default();
        let mut closers = Vec::new();
        let mut bytes = 0;
        while bytes < ROUND_BYTES
            && let Some(job) = waiting.pop_front()
        {
            match job {
                Job::Append { records, done, permit } => {
                    bytes += records.iter().map(|r| r.key.len() + r.payload.len()).sum::<usize>();
                    round.appends.push((records, done, permit));
                }
                Job::Commit { member, progress, done } => round.commits.push((member, progress, done)),
                Job::EnsureTopic { topic, partitions, done } => round.topics.push((topic, partitions, done)),
                Job::Read(reading) => round.readings.push(reading),
                Job::Barrier { done } => round.barriers.push(done),
                Job::Close { done } => {
                    closers.push(done);
                    break;
                }
            }
        }
        (round, closers)
    }
}

/// What becomes of a round: the changes for the file, and the verdicts for those who wait for them.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) changes: Changes,
    appends: Vec<(Append, Vec<Verdict>)>,
    /// The first offset that each partition gets in this round.
    first_offsets: BTreeMap<TopicPartition, i64>,
    commits: Vec<(Commit, oneshot::Sender<Commit>)>,
    pub(super) readings: Vec<Reading>,
    topics: Vec<(TopicVerdict, oneshot::Sender<TopicVerdict>)>,
    barriers: Vec<oneshot::Sender<()>>,
}

impl Plan {
    /// Decides what each job gets.
    pub(super) fn new(round: Round, superfluous: Vec<i64>, limits: &Limits, state: &mut State) -> Self {
        let mut plan = Self { changes: Changes { superfluous, ..Changes::default() }, ..Self::default() };
        for (topic, partitions, done) in round.topics {
            let verdict = plan.ensure(topic, partitions, &state.records);
            plan.topics.push((verdict, done));
        }
        for (member, mut progress, done) in round.commits {
            progress.retain(|(partition, committed)| {
                state.records.may_commit(partition, *committed) && state.group.begin_commit(member, partition)
            });
            plan.changes.committed.extend(progress.iter().cloned());
            plan.commits.push((progress, done));
        }
        let mut held = state.records.held();
        for append in round.appends {
            let mut verdicts = Vec::with_capacity(append.0.len());
            for record in &append.0 {
                let verdict = state.records.admit(record, held, limits);
                if verdict.is_ok() {
                    held.add(record);
                    if !plan.first_offsets.contains_key(&record.to) {
                        let next = state.records.bounds(&record.to).map_or(0, |(_, next)| next);
                        plan.first_offsets.insert(record.to.clone(), next);
                    }
                }
                verdicts.push(verdict);
            }
            plan.appends.push((append, verdicts));
        }
        plan.readings = round.readings;
        plan.barriers = round.barriers;
        plan
    }

    fn ensure(&mut self, topic: Topic, partitions: u16, records: &Records) -> TopicVerdict {
        let added = self.changes.topics.iter().find(|(name, _)| *name == topic).map(|(_, count)| *count);
        let has = records.topics.get(&topic).copied().or(added);
        Records::check_topic(&topic, has, partitions)?;
        if has.is_none() {
            self.changes.topics.push((topic, partitions));
        }
        Ok(())
    }

    /// Makes the blob of the records that were admitted. Apart from the decisions, since it needs no lock.
    pub(super) fn encode(&mut self) {
        let mut next: BTreeMap<&TopicPartition, i64> =
            self.first_offsets.iter().map(|(partition, offset)| (partition, *offset)).collect();
        let mut staged = Vec::new();
        for ((records, _, _), verdicts) in &self.appends {
            for (record, _) in records.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_ok()) {
                if let Some(offset) = next.get_mut(&record.to) {
                    staged.push((record, *offset));
                    *offset += 1;
                }
            }
        }
        if !staged.is_empty() {
            self.changes.blob = Some(blob::encode(staged));
        }
    }

    /// There is no room for records: what else there is to do goes on without them.
    pub(super) fn refuse_appends(&mut self, why: &WriteError) {
        self.changes.blob = None;
        for verdict in self.appends.iter_mut().flat_map(|(_, verdicts)| verdicts) {
            if verdict.is_ok() {
                *verdict = Err(PublishError::Refused(why.to_string()));
            }
        }
    }

    /// There is no room for anything.
    pub(super) fn refuse_all(&mut self, why: &WriteError) {
        self.refuse_appends(why);
        self.changes = Changes::default();
        for (verdict, _) in self.topics.iter_mut().filter(|(verdict, _)| verdict.is_ok()) {
            *verdict = Err(LogError::Unavailable(why.to_string()));
        }
    }

    /// The disk has failed: nobody knows what it holds.
    pub(super) fn outcome_unknown(self) {
        for ((records, done, _), _) in self.appends {
            let unknown = Err(PublishError::Unknown("the event log's disk failed".into()));
            let _ = done.send(vec![unknown; records.len()]);
        }
    }

    /// Everything is on the disk, the records in this blob: shows it to readers and members.
    pub(super) fn apply(self, state: &mut State, blobs: &mut BlobIndex, blob: i64) -> Answers {
        state.records.topics.extend(self.changes.topics);
        if let Some(body) = &self.changes.blob {
            blobs.add(blob, body.len() as u64);
        }
        let mut answers = Answers { topics: self.topics, barriers: self.barriers, ..Answers::default() };
        for ((records, done, permit), verdicts) in self.appends {
            let mut append = |record: &Outgoing| {
                let offset = state.records.append(record);
                blobs.hold(&record.to, offset, blob);
                offset
            };
            let outcome = records.iter().zip(verdicts).map(|(r, verdict)| verdict.map(|()| append(r)));
            answers.appends.push((done, outcome.collect()));
            drop(permit);
        }
        let written = !self.changes.committed.is_empty();
        for (partition, committed) in &self.changes.committed {
            state.records.commit(partition, *committed);
            state.records.forget(partition, committed.done.offset);
            blobs.pass(partition, committed.window.offset);
        }
        for (progress, done) in self.commits {
            for (partition, _) in &progress {
                state.group.commit_ended(partition);
            }
            answers.commits.push((done, if written { progress } else { Vec::new() }));
        }
        blobs.deleted(&self.changes.superfluous);
        answers
    }
}

/// What is to be said once the memory's lock is released.
#[derive(Default)]
pub(super) struct Answers {
    appends: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    commits: Vec<(oneshot::Sender<Commit>, Commit)>,
    topics: Vec<(TopicVerdict, oneshot::Sender<TopicVerdict>)>,
    barriers: Vec<oneshot::Sender<()>>,
}

impl Answers {
    /// Who doesn't wait any more has given up the answer, not the matter.
    pub(super) fn send(self) {
        for (done, outcome) in self.appends {
            let _ = done.send(outcome);
        }
        for (done, committed) in self.commits {
            let _ = done.send(committed);
        }
        for (verdict, done) in self.topics {
            let _ = done.send(verdict);
        }
        for done in self.barriers {
            let _ = done.send(());
        }
    }
}
