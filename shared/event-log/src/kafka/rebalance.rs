//! What librdkafka calls back: partitions that come and go, commits that were answered, errors.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::time::Instant;

use super::{
    client::{REQUEST_TIMEOUT, failed, log_line},
    commit::{commit_list, committed_from, committed_of, list, partitions_of},
    reader::bounds,
};
use crate::{
    ledger::{AssignmentId, ProgressLedger},
    log::{Assignment, Committed, LogError, LogRecord, Progress, TopicPartition},
};

/// What goes to the drain's end.
#[derive(Debug)]
pub(super) enum Delivery {
    Records(Vec<LogRecord>),
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
    last_error: Mutex<String>,
    /// The drain's end wants to leave: no more waiting for answers.
    closing: AtomicBool,
}

impl MemberContext {
    pub(super) fn new(ledger: Arc<Mutex<ProgressLedger>>) -> Self {
        Self {
            ledger,
            happened: Mutex::default(),
            served: AtomicU64::new(0),
            last_error: Mutex::default(),
            closing: AtomicBool::new(false),
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

    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No more waiting for answers.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
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
                let offset = start.map_or(Offset::Beginning, |committed| Offset::Offset(committed.done.offset));
                partitions
                    .set_partition_offset(partition.topic.as_str(), i32::from(partition.partition), offset)
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
                let mut ledger = self.ledger();
                let assigned = ours.into_iter().zip(starts).map(|(partition, committed)| {
                    let id = ledger.assign(partition.clone(), committed, 0, Instant::now());
                    (Assignment { partition, committed: committed.map(|committed| committed.done) }, id)
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
    fn starts(
        &self,
        consumer: &BaseConsumer<Self>,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let answer = consumer
                .committed_offsets(list(partitions), REQUEST_TIMEOUT)
                .map_err(|error| failed("the committed offsets of new partitions", &error))
                .and_then(|answer| committed_from(&answer, partitions));
            match answer {
                Ok(starts) => {
                    warn_of_gaps(consumer, partitions, &starts);
                    return Ok(starts);
                }
                Err(LogError::Unavailable(why))
                    if !consumer.assignment_lost() && !self.closing.load(Ordering::Relaxed) =>
                {
                    tracing::warn!(why, "the committed offsets of new partitions are not known yet; asking again");
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: &TopicPartitionList) {
        let theirs = partitions_of(partitions);
        let lost = consumer.assignment_lost();
        if !lost {
            let due = self.ledger().due_for(&theirs, Instant::now());
            if let Err(error) = commit(consumer, &due, CommitMode::Sync) {
                tracing::warn!(%error, "progress could not be committed before partitions were given up; \
                    the next owner gets these records again");
            }
        }
        let given_up = self.ledger().give_up(&theirs);
        let unassigned = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(partitions),
            _ => consumer.unassign(),
        };
        if let Err(error) = unassigned {
            tracing::debug!(%error, "giving partitions up");
        }
        if given_up.is_empty() {
            return;
        }
        if lost {
            tracing::warn!(partitions = given_up.len(), "the group has given our partitions to others");
            self.tell(Delivery::Lost(given_up));
        } else {
            self.tell(Delivery::Revoked(given_up));
        }
    }
}

/// Says loudly what the log has lost: what was not drained before it was deleted is gone.
fn warn_of_gaps(consumer: &BaseConsumer<MemberContext>, partitions: &[TopicPartition], starts: &[Option<Committed>]) {
    let bounds = match bounds(consumer, partitions) {
        Ok(bounds) => bounds,
        Err(error) => {
            tracing::debug!(%error, "the bounds of new partitions are not known");
            return;
        }
    };
    for ((TopicPartition { topic, partition }, start), (first, next)) in partitions.iter().zip(starts).zip(bounds) {
        let Some(Committed { done: Progress { offset, .. }, .. }) = *start else { continue };
        if offset < first {
            tracing::error!(%topic, partition, committed = offset, first,
                "events were deleted from the log before they were drained; raise the topic's retention");
        } else if offset > next {
            tracing::error!(%topic, partition, committed = offset, next,
                "the log ends before what was drained: the topic was made anew or has lost its tail; it is drained \
                 from its beginning");
        }
    }
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
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, partitions),
            _ => self.revoked(consumer, partitions),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.served.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) => {
                let (mut ledger, now) = (self.ledger(), Instant::now());
                for partition in partitions_of(offsets) {
                    // One that was refused alone is tried again.
                    if let Ok(Some(committed)) = committed_of(offsets, &partition) {
                        ledger.confirm(&partition, committed, now);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "progress was not committed; it is tried again"),
        }
    }
}
