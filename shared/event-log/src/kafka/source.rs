//! One member of the drain group, as the drain sees it. The consumer itself lives on a thread of its own
//! ([`super::member`]); this end only receives and asks.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::Duration,
};

use model::Topic;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    member::{Member, Signal},
    options::KafkaOptions,
    rebalance::Delivery,
};
use crate::{
    ledger::{AssignmentId, ProgressLedger},
    log::{Assignment, EventSource, LogError, Progress, SourceEvent, TopicPartition},
};

/// Deliveries that wait for the drain; one more waits in the member's hands.
const WAITING_DELIVERIES: usize = 2;
/// How long a close waits until the group has been left. A member that vanishes without a word keeps its partitions from
/// everybody else for the session's time-out; but librdkafka has hung here.
const LEAVING: Duration = Duration::from_secs(3);

/// A member of the drain group on Kafka.
pub struct KafkaSource {
    deliveries: mpsc::Receiver<Delivery>,
    signals: std_mpsc::Sender<Signal>,
    ledger: Arc<Mutex<ProgressLedger>>,
    /// The assignments that the drain has been told of: only under these can it have made progress.
    told: HashMap<TopicPartition, AssignmentId>,
    end: Option<LogError>,
    /// Ends with the member, when its consumer has left the group.
    left: oneshot::Receiver<Infallible>,
    closing: Closing,
}

/// Tells the member's thread, which may be waiting for an answer of the brokers, that nobody wants it any more.
struct Closing(Arc<AtomicBool>);

impl Closing {
    fn announce(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.announce();
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("told", &self.told).field("end", &self.end).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Starts the member. It joins the group with the first subscription.
    ///
    /// # Errors
    /// [`LogError::Unfit`] for settings that can't work.
    pub fn join(options: &KafkaOptions) -> Result<Self, LogError> {
        options.check()?;
        let (signals, received) = std_mpsc::channel();
        let (deliver, deliveries) = mpsc::channel(WAITING_DELIVERIES);
        let ledger = Arc::new(Mutex::new(ProgressLedger::new(options.request_window)));
        let closing = Closing(Arc::default());
        let heard = Arc::clone(&closing.0);
        let member = Member::new(options, Arc::clone(&ledger), signals.clone(), received, deliver, heard)?;
        let (last, left) = oneshot::channel();
        thread::Builder::new()
            .name("kafka-member".into())
            .spawn(move || {
                member.run();
                drop(last);
            })
            .map_err(|error| LogError::Unavailable(format!("no thread for the Kafka consumer: {error}")))?;
        Ok(Self { deliveries, signals, ledger, told: HashMap::new(), end: None, left, closing })
    }

    fn signal(&self, signal: Signal) -> Result<(), LogError> {
        self.signals.send(signal).map_err(|_| self.ended())
    }

    fn ended(&self) -> LogError {
        self.end.clone().unwrap_or_else(|| LogError::Fatal("the Kafka consumer has ended".into()))
    }
}

/// A member that has ended gives the same answer for ever: it must not read as if asking again could help, or the
/// drain would stand still without a sound.
fn last_word(error: LogError) -> LogError {
    match error {
        LogError::Fatal(_) | LogError::Unfit(_) => error,
        other => LogError::Fatal(format!("the Kafka member has ended, start it again: {other}")),
    }
}

impl EventSource for KafkaSource {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        let (answer, answered) = oneshot::channel();
        self.signal(Signal::Subscribe(topics.to_vec(), answer))?;
        answered.await.unwrap_or_else(|_| Err(self.ended()))
    }

    async fn next(&mut self) -> Result<SourceEvent, LogError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let delivery = self.deliveries.recv().await;
        // The member may be waiting for room. If it is gone the channel says so.
        let _ = self.signals.send(Signal::Room);
        match delivery {
            Some(Delivery::Records(records)) => Ok(SourceEvent::Records(records)),
            Some(Delivery::Missing(partition, offsets)) => Ok(SourceEvent::Missing(partition, offsets)),
            Some(Delivery::Assigned(assigned)) => {
                let assignments: Vec<Assignment> = assigned
                    .into_iter()
                    .map(|(assignment, id)| {
                        self.told.insert(assignment.partition.clone(), id);
                        assignment
                    })
                    .collect();
                Ok(SourceEvent::Assigned(assignments))
            }
            Some(Delivery::Revoked(partitions)) => {
                self.told.retain(|partition, _| !partitions.contains(partition));
                Ok(SourceEvent::Revoked(partitions))
            }
            Some(Delivery::Lost(partitions)) => {
                self.told.retain(|partition, _| !partitions.contains(partition));
                Ok(SourceEvent::Lost(partitions))
            }
            Some(Delivery::Failed(error)) => Err(error),
            Some(Delivery::Ended(error)) => {
                let error = last_word(error);
                self.end = Some(error.clone());
                Err(error)
            }
            None => {
                let error = self.ended();
                self.end = Some(error.clone());
                Err(error)
            }
        }
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.signal(Signal::Pause(partitions.to_vec()))
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.signal(Signal::Resume(partitions.to_vec()))
    }

    fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, progress) in progress {
            if let Some(assignment) = self.told.get(partition) {
                ledger.note(partition, *assignment, *progress);
            }
        }
    }

    async fn close(self, within: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + within;
        let (answer, answered) = oneshot::channel();
        self.closing.announce();
        self.signal(Signal::Close(deadline, answer))?;
        // Nobody takes deliveries any more; the member must not wait for room.
        drop(self.deliveries);
        let committed = match timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(LogError::Unavailable("the Kafka consumer ended before it had committed".into())),
            Err(_) => {
                return Err(LogError::Unavailable(format!(
                    "the Kafka consumer did not commit within {within:?}; what it had not committed comes again"
                )));
            }
        };
        if timeout_at(deadline.min(Instant::now() + LEAVING), self.left).await.is_err() {
            tracing::warn!(
                "the Kafka consumer did not leave the group in time; its partitions wait for the session's end"
            );
        }
        committed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_member_is_never_one_that_is_waited_out() {
        let told = last_word(LogError::Unavailable("taking over partitions: timed out".into()));
        assert!(matches!(&told, LogError::Fatal(why) if why.contains("timed out")), "{told}");
        let fenced = LogError::Fatal("fenced".into());
        assert_eq!(last_word(fenced.clone()), fenced);
    }
}
