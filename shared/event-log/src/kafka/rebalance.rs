//! What librdkafka calls back: partitions that come and go, errors; and how progress is committed.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::time::Instant;

use super::{
    bounds::bounds_of_each,
    client::{failed, log_line},
    commit::{commit_list, committed_from, list, partitions_of},
    start::Start,
};
use crate::{
    ledger::{AssignmentId, ProgressLedger},
    log::{Assignment, Committed, LogError, LogRecord, TopicPartition},
};

/// Looking whether the log is still the same may take so long.
pub(super) const COMPARE_TIMEOUT: Duration = Duration::from_secs(1);
/// One question for what was committed of new partitions may take so long; it is asked again. Whoever closes waits for
/// it.
const STARTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Where new partitions begin and end may be asked for so long. Meanwhile the member's thread polls nothing, and whoever
/// takes the partitions of a process that died over shall have them within two seconds of its session's end. A
/// committed offset that is outside the log shows without it too, by the brokers' refusal.
const BOUNDS_WITHIN: Duration = Duration::from_secs(1);

/// What goes to the drain's end.
#[derive(Debug)]
pub(super) enum Delivery {
    Records(Vec<LogRecord>),
    Missing(TopicPartition, Range<i64>),
    Assigned(Vec<(Assignment, AssignmentId)>),
    Revoked(Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
    /// Something that may pass.
    Failed(LogError),
    /// The last word.
    Ended(LogError),
}

/// What librdkafka's callbacks work on. They run inside `poll`, on the member's thread.
pub(super) struct MemberContext {
    ledger: Arc<Mutex<ProgressLedger>>,
    /// What the callbacks have to tell, until the poll returns.
    happened: Mutex<Vec<Delivery>>,
    served: AtomicU64,
    /// The group has given it a share, if only an empty one.
    joined: AtomicBool,
    last_error: Mutex<String>,
    /// The drain's end wants to leave: no more waiting for answers. It says so itself, for this thread may be waiting.
    closing: Arc<AtomicBool>,
}

impl MemberContext {
    pub(super) fn new(ledger: Arc<Mutex<ProgressLedger>>, closing: Arc<AtomicBool>) -> Self {
        Self {
            ledger,
            happened: Mutex::default(),
            served: AtomicU64::new(0),
            joined: AtomicBool::new(false),
            last_error: Mutex::default(),
            closing,
        }
    }

    /// What happened since the last call.
    pub(super) fn take_happened(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.happened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts callbacks: a poll that served one returns nothing, like a poll of an empty queue.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Whether it has ever been a member of the group.
    pub(super) fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, ProgressLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, delivery: Delivery) {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) {
        let ours = partitions_of(partitions);
        let starts = self.starts(consumer, &ours);
        let taken = starts.and_then(|starts| {
            for (partition, start) in ours.iter().zip(&starts) {
                partitions
                    .set_partition_offset(partition.topic.as_str(), i32::from(partition.partition), start.offset())
                    .map_err(|error| failed("the start of a partition", &error))?;
            }
            Ok(starts)
        });
        let assign = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(partitions),
            _ => consumer.assign(partitions),
        };
        // A pause of an earlier assignment would still hold.
        let resumed = assign.and_then(|()| consumer.resume(partitions));
        match (taken, resumed) {
            (Ok(starts), Ok(())) if starts.is_empty() => {}
            (Ok(starts), Ok(())) => {
                let (mut ledger, now) = (self.ledger(), Instant::now());
                let assigned = ours.into_iter().zip(starts).map(|(partition, start)| {
                    start.complain(&partition);
                    let id = ledger.assign(partition.clone(), start.committed, start.in_log, start.first, now);
                    (Assignment { partition, committed: start.committed.map(|committed| committed.done) }, id)
                });
                self.tell(Delivery::Assigned(assigned.collect()));
            }
            // Where to start, or in which epoch, is not known: leave rather than guess.
            (Err(error), _) => self.tell(Delivery::Ended(error)),
            (_, Err(error)) => self.tell(Delivery::Ended(failed("taking over partitions", &error))),
        }
    }

    /// What was committed for new partitions. While the brokers don't answer nothing can be delivered anyway, so
    /// this waits for them, until the group has given the partitions to others.
    fn starts(&self, consumer: &BaseConsumer<Self>, partitions: &[TopicPartition]) -> Result<Vec<Start>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let answer = consumer
                .committed_offsets(list(partitions), STARTS_TIMEOUT)
                .map_err(|error| failed("the committed offsets of new partitions", &error))
                .and_then(|answer| committed_from(&answer, partitions));
            match answer {
                Ok(committed) => {
                    let bounds = known_bounds(consumer, partitions);
                    return Ok(committed.into_iter().zip(bounds).map(|(c, bounds)| Start::new(c, bounds)).collect());
                }
                Err(LogError::Unavailable(why))
                    if !consumer.assignment_lost() && !self.closing.load(Ordering::Acquire) =>
                {
                    tracing::warn!(why, "the committed offsets of new partitions are not known yet; asking again");
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn commit_before_parting(
        &self,
        consumer: &BaseConsumer<Self>,
        due: &[(TopicPartition, Committed)],
    ) -> Result<(), LogError> {
        match self.compare(consumer, due)? {
            Some(why) => Err(LogError::Unfit(why)),
            None => commit(consumer, due, CommitMode::Sync).map_err(|error| failed("committing progress", &error)),
        }
    }

    /// Compares what was committed with what the group has: takes note of what has got there (the answers to commits
    /// themselves don't reach us), and says if something was deleted, together with a topic, or set back. A topic that
    /// was made anew may be longer than the old one was: then nothing else shows.
    pub(super) fn compare(
        &self,
        consumer: &BaseConsumer<Self>,
        due: &[(TopicPartition, Committed)],
    ) -> Result<Option<String>, LogError> {
        if due.is_empty() {
            return Ok(None);
        }
        let partitions: Vec<_> = due.iter().map(|(partition, _)| partition.clone()).collect();
        let answer = consumer.committed_offsets(list(&partitions), COMPARE_TIMEOUT);
        let in_log = answer
            .map_err(|error| failed("the group's committed offsets", &error))
            .and_then(|answer| committed_from(&answer, &partitions))?;
        let (mut ledger, now) = (self.ledger(), Instant::now());
        for ((partition, due), in_log) in due.iter().zip(in_log) {
            let before = ledger.in_log(partition);
            if let Some(before) = before
                && in_log.is_none_or(|in_log| in_log.done.offset < before)
            {
                let TopicPartition { topic, partition } = partition;
                let in_log = in_log.map_or("nothing".to_owned(), |in_log| in_log.done.offset.to_string());
                return Ok(Some(format!(
                    "offset {before} was committed of {topic}/{partition}, and now it is {in_log}: the topic was made \
                     anew, or somebody has set the offset"
                )));
            }
            // What lies further is of another log, which this one has taken the place of.
            if let Some(in_log) = in_log.filter(|in_log| in_log.done.offset <= due.done.offset) {
                ledger.confirm(partition, in_log, now);
            }
        }
        Ok(None)
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let theirs = partitions_of(partitions);
        let lost = consumer.assignment_lost();
        if !lost {
            let due = self.ledger().due_for(&theirs, Instant::now());
            if let Err(error) = self.commit_before_parting(consumer, &due) {
                tracing::warn!(%error, "progress could not be committed before partitions were given up; \
                    the next owner gets these records again");
            }
        }
        let (revoked, lost) = {
            let mut ledger = self.ledger();
            let (trusted, others): (Vec<_>, Vec<_>) =
                theirs.into_iter().partition(|partition| !lost && ledger.trusts(partition));
            (ledger.give_up(&trusted), ledger.give_up(&others))
        };
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            _ => consumer.unassign(),
        };
        if let Err(error) = unassigned {
            tracing::debug!(%error, "giving partitions up");
        }
        if !lost.is_empty() {
            tracing::warn!(partitions = lost.len(), "partitions were lost: nothing more is committed for them");
            self.tell(Delivery::Lost(lost));
        }
        if !revoked.is_empty() {
            self.tell(Delivery::Revoked(revoked));
        }
    }
}

/// First and next offsets, as far as the brokers tell. A partition without a leader holds up no other one.
fn known_bounds(consumer: &BaseConsumer<MemberContext>, partitions: &[TopicPartition]) -> Vec<Option<(i64, i64)>> {
    let bounds = bounds_of_each(consumer, partitions, BOUNDS_WITHIN);
    let unknown = bounds.iter().filter(|bounds| bounds.is_err()).count();
    if let Some(Err(error)) = bounds.iter().find(|bounds| bounds.is_err()) {
        tracing::warn!(unknown, %error, "where some new partitions begin and end is not known; their committed offsets \
            are believed");
    }
    bounds.into_iter().map(Result::ok).collect()
}

/// Commits progress.
pub(super) fn commit<X: ConsumerContext>(
    consumer: &BaseConsumer<X>,
    progress: &[(TopicPartition, Committed)],
    mode: CommitMode,
) -> KafkaResult<()> {
    if progress.is_empty() {
        return Ok(());
    }
    consumer.commit(&commit_list(progress)?, mode)
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        reason.clone_into(&mut self.last_error.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        self.served.fetch_add(1, Ordering::Relaxed);
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.joined.store(true, Ordering::Relaxed);
                self.assigned(consumer, partitions);
            }
            _ => self.revoked(consumer, partitions),
        }
    }
}
