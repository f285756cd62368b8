//! A log whose every answer a test can bend: it refuses, loses, delays or hangs on demand.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use event_log::{
    Committed, EventPublisher, Following, LogError, LogReader, LogRecord, LogSettings, Outgoing, Progress,
    PublishError, TopicPartition,
};
use futures::{StreamExt as _, stream};
use model::{Event, Topic};
use tokio::sync::{
    Notify,
    mpsc::{self, UnboundedSender},
};

/// What becomes of the records of the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are appended.
    Append,
    /// They are refused.
    Refuse,
    /// Nobody knows; they lie aside until [`BentLog::land`].
    Delay,
    /// The call does not return before [`BentLog::release`]; then they are appended.
    Hold,
}

type Hook = Box<dyn FnOnce() + Send>;

/// Somebody who follows some partitions.
type Follower = (Vec<TopicPartition>, UnboundedSender<Result<Vec<LogRecord>, LogError>>);

pub struct BentLog {
    partitions: Mutex<HashMap<TopicPartition, Vec<Option<LogRecord>>>>,
    topics: Mutex<HashMap<Topic, u16>>,
    pub committed: Mutex<HashMap<TopicPartition, Progress>>,
    /// Where the request window begins; where nothing is said, at what is committed.
    pub windows: Mutex<HashMap<TopicPartition, Progress>>,
    /// Topics whose questions are not answered.
    pub silent: Mutex<BTreeSet<Topic>>,
    /// Partitions that nobody leads.
    pub leaderless: Mutex<BTreeSet<TopicPartition>>,
    fate: Mutex<Fate>,
    aside: Mutex<Vec<Outgoing>>,
    after_publish: Mutex<Option<Hook>>,
    followers: Mutex<Vec<Follower>>,
    available: AtomicBool,
    has_room: AtomicBool,
    max_payload: AtomicUsize,
    held: Notify,
    arrived: Notify,
}

impl BentLog {
    pub fn new() -> Self {
        Self {
            partitions: Mutex::default(),
            topics: Mutex::default(),
            committed: Mutex::default(),
            windows: Mutex::default(),
            silent: Mutex::default(),
            leaderless: Mutex::default(),
            fate: Mutex::new(Fate::Append),
            aside: Mutex::default(),
            after_publish: Mutex::default(),
            followers: Mutex::default(),
            available: AtomicBool::new(true),
            has_room: AtomicBool::new(true),
            max_payload: AtomicUsize::new(1_000_000),
            held: Notify::new(),
            arrived: Notify::new(),
        }
    }

    pub fn set_fate(&self, fate: Fate) {
        *self.fate.lock().unwrap() = fate;
    }

    pub fn set_available(&self, available: bool) {
        self.available.store(available, Ordering::SeqCst);
    }

    pub fn set_room(&self, room: bool) {
        self.has_room.store(room, Ordering::SeqCst);
    }

    pub fn set_max_payload(&self, bytes: usize) {
        self.max_payload.store(bytes, Ordering::SeqCst);
    }

    /// Does something after the next publish has appended, before it returns.
    pub fn after_publish(&self, hook: impl FnOnce() + Send + 'static) {
        *self.after_publish.lock().unwrap() = Some(Box::new(hook));
    }

    /// What was delayed gets into the log after all.
    pub fn land(&self) {
        let aside = std::mem::take(&mut *self.aside.lock().unwrap());
        assert!(!aside.is_empty(), "nothing was delayed");
        for record in aside {
            self.append(record);
        }
    }

    /// Waits for a publish that is held.
    pub async fn arrival(&self) {
        self.arrived.notified().await;
    }

    pub fn release(&self) {
        self.set_fate(Fate::Append);
        self.held.notify_waiters();
    }

    /// Deletes what lies before `low`, as retention does.
    pub fn trim(&self, partition: &TopicPartition, low: i64) {
        let mut partitions = self.partitions.lock().unwrap();
        let records = partitions.get_mut(partition).unwrap();
        records[..low as usize].fill(None);
    }

    /// Deletes a topic that nothing was written to.
    pub fn delete_topic(&self, topic: &Topic) {
        self.topics.lock().unwrap().remove(topic);
    }

    /// Loses all from `end` on, as in a power cut what was not on the disk yet.
    pub fn lose_end(&self, partition: &TopicPartition, end: i64) {
        let mut partitions = self.partitions.lock().unwrap();
        let records = partitions.get_mut(partition).unwrap();
        assert!(records.len() > end as usize, "there is nothing to lose");
        records.truncate(end as usize);
    }

    /// Deletes all of a partition, which begins anew; what was committed of it stays.
    pub fn make_anew(&self, partition: &TopicPartition) {
        self.partitions.lock().unwrap().remove(partition);
    }

    fn answers(&self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let (silent, leaderless) = (self.silent.lock().unwrap(), self.leaderless.lock().unwrap());
        match partitions.iter().find(|at| silent.contains(&at.topic) || leaderless.contains(at)) {
            Some(partition) => Err(LogError::Unavailable(format!("{} has no leader", partition.topic))),
            None => {
                let topics = self.topics.lock().unwrap();
                match partitions.iter().find(|at| !topics.contains_key(&at.topic)) {
                    Some(partition) => Err(LogError::NoSuchTopic(partition.topic.clone())),
                    None => Ok(()),
                }
            }
        }
    }

    /// All events of a partition with their offsets.
    pub fn events(&self, partition: &TopicPartition) -> Vec<(i64, Event)> {
        let partitions = self.partitions.lock().unwrap();
        let records = partitions.get(partition).into_iter().flatten().flatten();
        records.map(|record| (record.offset, Event::decode(record.payload.clone()).unwrap())).collect()
    }

    /// All that lies in a partition once more, in its order, as late retries of a producer may leave it.
    pub fn append_again(&self, partition: &TopicPartition) {
        let records: Vec<LogRecord> =
            self.partitions.lock().unwrap().get(partition).into_iter().flatten().flatten().cloned().collect();
        for LogRecord { from, key, payload, .. } in records {
            self.append(Outgoing { to: from, key, payload });
        }
    }

    pub fn append(&self, record: Outgoing) -> i64 {
        let topics = self.topics.lock().unwrap();
        let partitions = topics.get(&record.to.topic).copied().unwrap_or(0);
        assert!(record.to.partition < partitions, "no such partition: {:?}", record.to);
        let mut partitions = self.partitions.lock().unwrap();
        let records = partitions.entry(record.to.clone()).or_default();
        let offset = records.len() as i64;
        let record = LogRecord { from: record.to, offset, key: record.key, payload: record.payload };
        records.push(Some(record.clone()));
        let mut followers = self.followers.lock().unwrap();
        followers.retain(|(of, taken)| !of.contains(&record.from) || taken.send(Ok(vec![record.clone()])).is_ok());
        offset
    }

    /// Whoever follows it is told that it can't be followed any more.
    pub fn break_following(&self) {
        for (_, taken) in self.followers.lock().unwrap().drain(..) {
            drop(taken.send(Err(LogError::Unavailable("told to".into()))));
        }
    }

    /// How many follow it.
    pub fn followers(&self) -> usize {
        self.followers.lock().unwrap().iter().filter(|(_, taken)| !taken.is_closed()).count()
    }
}

impl EventPublisher for BentLog {
    fn is_available(&self) -> bool {
        self.available.load(Ordering::SeqCst)
    }

    fn has_room(&self, _: usize, _: usize) -> bool {
        self.has_room.load(Ordering::SeqCst)
    }

    fn max_payload_bytes(&self) -> usize {
        self.max_payload.load(Ordering::SeqCst)
    }

    async fn ensure_topic(&self, topic: &Topic, partitions: u16, _: LogSettings) -> Result<(), LogError> {
        let made = *self.topics.lock().unwrap().entry(topic.clone()).or_insert(partitions);
        if made == partitions { Ok(()) } else { Err(LogError::Unfit(format!("{topic} has {made} partitions"))) }
    }

    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<i64, PublishError>> {
        let fate = *self.fate.lock().unwrap();
        if fate == Fate::Hold {
            let released = self.held.notified();
            self.arrived.notify_one();
            released.await;
        }
        let answers = records
            .into_iter()
            .map(|record| match fate {
                Fate::Append | Fate::Hold => Ok(self.append(record)),
                Fate::Refuse => Err(PublishError::Refused("told to".into())),
                Fate::Delay => {
                    self.aside.lock().unwrap().push(record);
                    Err(PublishError::Unknown("told to".into()))
                }
            })
            .collect();
        let hook = self.after_publish.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        answers
    }

    async fn flush(&self, _: Duration) {}
}

impl LogReader for BentLog {
    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, LogError> {
        self.answers(partitions)?;
        let log = self.partitions.lock().unwrap();
        let bounds = |partition| {
            let records = log.get(partition).map_or(&[][..], Vec::as_slice);
            let low = records.iter().position(Option::is_some).unwrap_or(records.len());
            (low as i64, records.len() as i64)
        };
        Ok(partitions.iter().map(bounds).collect())
    }

    async fn bounds_of_each(&self, partitions: &[TopicPartition]) -> Vec<Result<(i64, i64), LogError>> {
        let mut answers = Vec::new();
        for partition in partitions {
            answers.push(self.bounds(std::slice::from_ref(partition)).await.map(|bounds| bounds[0]));
        }
        answers
    }

    async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, LogError> {
        self.answers(partitions)?;
        let committed = self.committed.lock().unwrap();
        let windows = self.windows.lock().unwrap();
        let of = |partition| {
            let done = *committed.get(partition)?;
            Some(Committed { done, window: windows.get(partition).copied().unwrap_or(done) })
        };
        Ok(partitions.iter().map(of).collect())
    }

    async fn read(
        &self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> Result<(), LogError> {
        let records: Vec<LogRecord> = {
            let log = self.partitions.lock().unwrap();
            log.get(partition).map_or(&[][..], Vec::as_slice)[from as usize..to as usize]
                .iter()
                .flatten()
                .cloned()
                .collect()
        };
        for record in records {
            if !each(record) {
                break;
            }
        }
        Ok(())
    }

    fn follow(&self, from: Vec<(TopicPartition, i64)>) -> Following {
        let log = self.partitions.lock().unwrap();
        let (taken, records) = mpsc::unbounded_channel();
        for (partition, from) in &from {
            let there = log.get(partition).map_or(&[][..], Vec::as_slice).iter().flatten();
            let there: Vec<_> = there.filter(|record| record.offset >= *from).cloned().collect();
            if !there.is_empty() {
                taken.send(Ok(there)).unwrap();
            }
        }
        let partitions = from.into_iter().map(|(partition, _)| partition).collect();
        self.followers.lock().unwrap().push((partitions, taken));
        stream::unfold(records, |mut records| async { Some((records.recv().await?, records)) }).boxed()
    }
}
