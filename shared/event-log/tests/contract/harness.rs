//! What a backend must offer to be tested, and the little tools of the tests.

use std::{collections::BTreeMap, future::Future, ops::Range, time::Duration};

use bytes::Bytes;
use event_log::{
    Assignment, EventPublisher, EventSource, LogReader, LogRecord, LogSettings, Outgoing, Progress, SourceEvent,
    TopicPartition,
};
use model::{Epoch, Topic};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The request window of the logs under test; an assignment and a commit take less.
pub(crate) const REQUEST_WINDOW: Duration = Duration::from_secs(8);

/// One fresh log for one test: topics and a group of its own.
pub(crate) trait Backend: Sized {
    type Log: EventPublisher + LogReader + Clone;
    type Source: EventSource;

    fn start() -> impl Future<Output = Self>;
    fn log(&self) -> &Self::Log;
    fn topic(&self, name: &str) -> Topic;
    /// Another member of the one group.
    fn join(&self) -> Self::Source;
}

pub(crate) const SETTINGS: LogSettings = LogSettings { allow_single_node: true };

pub(crate) fn at(topic: &Topic, partition: u16) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition }
}

pub(crate) fn outgoing(topic: &Topic, partition: u16, text: &str) -> Outgoing {
    Outgoing {
        to: at(topic, partition),
        key: Bytes::from(format!("key of {text}")),
        payload: Bytes::copy_from_slice(text.as_bytes()),
    }
}

pub(crate) fn progress(offset: i64, epoch: u32) -> Progress {
    Progress { offset, epoch: Epoch(epoch) }
}

pub(crate) fn text(record: &LogRecord) -> String {
    String::from_utf8(record.payload.to_vec()).unwrap()
}

/// Publishes and expects that all of it is taken.
pub(crate) async fn publish<L: EventPublisher>(log: &L, records: Vec<Outgoing>) -> Vec<i64> {
    let answers = within("publishing", log.publish(records)).await;
    answers.into_iter().map(|answer| answer.unwrap()).collect()
}

/// `count` numbered records into one partition.
pub(crate) async fn fill<L: EventPublisher>(log: &L, topic: &Topic, partition: u16, numbers: std::ops::Range<usize>) {
    publish(log, numbers.map(|n| outgoing(topic, partition, &n.to_string())).collect()).await;
}

pub(crate) async fn read_all<L: LogReader>(log: &L, partition: &TopicPartition) -> Vec<LogRecord> {
    let (first, next) = log.bounds(std::slice::from_ref(partition)).await.unwrap()[0];
    read(log, partition, first, next).await
}

pub(crate) async fn read<L: LogReader>(log: &L, partition: &TopicPartition, from: i64, to: i64) -> Vec<LogRecord> {
    let mut records = Vec::new();
    let mut each = |record| {
        records.push(record);
        true
    };
    within("reading", log.read(partition, from, to, &mut each)).await.unwrap();
    records
}

/// How far the group has committed that the partitions are drained.
pub(crate) async fn drained<L: LogReader>(log: &L, partitions: &[TopicPartition]) -> Vec<Option<Progress>> {
    let committed = log.committed(partitions).await.unwrap();
    committed.into_iter().map(|committed| committed.map(|committed| committed.done)).collect()
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took longer than {PATIENCE:?}"),
    }
}

/// A member together with what it has seen: the order rules are checked on every event.
pub(crate) struct Observed<S> {
    pub(crate) source: S,
    /// Owned partitions, and what of each was delivered.
    pub(crate) owned: BTreeMap<TopicPartition, Vec<LogRecord>>,
    pub(crate) last_assigned: Vec<Assignment>,
    pub(crate) last_lost: Vec<TopicPartition>,
    /// What was told to be missing, under whatever assignment.
    pub(crate) missing: Vec<(TopicPartition, Range<i64>)>,
}

impl<S: EventSource> Observed<S> {
    pub(crate) async fn subscribed(mut source: S, topics: &[Topic]) -> Self {
        within("subscribing", source.subscribe(topics)).await.unwrap();
        Self { source, owned: BTreeMap::new(), last_assigned: Vec::new(), last_lost: Vec::new(), missing: Vec::new() }
    }

    pub(crate) async fn step(&mut self) {
        let event = self.source.next().await.unwrap();
        self.observe(event);
    }

    pub(crate) fn observe(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Records(records) => {
                assert!(!records.is_empty(), "an empty delivery");
                for record in records {
                    let Some(seen) = self.owned.get_mut(&record.from) else {
                        panic!("a record of {:?}, which is not assigned", record.from);
                    };
                    if let Some(last) = seen.last() {
                        let skipped = (record.from.clone(), last.offset + 1..record.offset);
                        assert!(
                            record.offset == last.offset + 1 || self.missing.contains(&skipped),
                            "{} after {} in {:?}",
                            record.offset,
                            last.offset,
                            record.from
                        );
                    }
                    seen.push(record);
                }
            }
            SourceEvent::Missing(partition, offsets) => {
                assert!(self.owned.contains_key(&partition), "{partition:?} is not assigned");
                self.missing.push((partition, offsets));
            }
            SourceEvent::Assigned(assigned) => {
                for assignment in &assigned {
                    let before = self.owned.insert(assignment.partition.clone(), Vec::new());
                    assert!(before.is_none(), "{:?} assigned twice", assignment.partition);
                }
                self.last_assigned = assigned;
            }
            SourceEvent::Revoked(partitions) => self.forget(&partitions),
            SourceEvent::Lost(partitions) => {
                self.forget(&partitions);
                self.last_lost = partitions;
            }
        }
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            assert!(self.owned.remove(partition).is_some(), "{partition:?} was taken but never assigned");
        }
    }

    /// Goes on until the condition holds.
    pub(crate) async fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let reached = async {
            while !condition(self) {
                self.step().await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            let owned: Vec<_> =
                self.owned.iter().map(|(p, seen)| (p.partition, seen.first().map(|r| r.offset), seen.len())).collect();
            panic!("not within {PATIENCE:?}: {what}; owned (partition, first, count): {owned:?}");
        }
    }

    /// Goes on for so long; for what must not happen.
    pub(crate) async fn linger(&mut self, time: Duration) {
        let deadline = tokio::time::Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(deadline, self.source.next()).await {
            self.observe(event.unwrap());
        }
    }

    pub(crate) fn delivered(&self) -> usize {
        self.owned.values().map(Vec::len).sum()
    }

    pub(crate) fn delivered_of(&self, partition: &TopicPartition) -> Vec<String> {
        self.owned.get(partition).map(|seen| seen.iter().map(text).collect()).unwrap_or_default()
    }

    /// Notes everything delivered as done.
    pub(crate) fn note_all(&mut self, epoch: u32) {
        let done: Vec<_> = self
            .owned
            .iter()
            .filter_map(|(partition, seen)| Some((partition.clone(), progress(seen.last()?.offset + 1, epoch))))
            .collect();
        self.source.note_progress(&done);
    }
}

/// Two members go on until the condition holds for both together.
pub(crate) async fn both_until<S: EventSource>(
    what: &str,
    a: &mut Observed<S>,
    b: &mut Observed<S>,
    condition: impl Fn(&Observed<S>, &Observed<S>) -> bool,
) {
    let reached = async {
        while !condition(a, b) {
            // `next` is cancel-safe: whichever comes first, the other loses nothing.
            tokio::select! {
                event = a.source.next() => a.observe(event.unwrap()),
                event = b.source.next() => b.observe(event.unwrap()),
            }
        }
    };
    if tokio::time::timeout(PATIENCE, reached).await.is_err() {
        let owned = |o: &Observed<S>| o.owned.iter().map(|(p, s)| (p.partition, s.len())).collect::<Vec<_>>();
        panic!("not within {PATIENCE:?}: {what}; a {:?}, b {:?}", owned(a), owned(b));
    }
}
