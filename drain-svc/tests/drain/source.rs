//! A member of the drain group that remembers what it was told.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use event_log::{EventSource, LogError, LogRecord, Progress, SourceEvent, TopicPartition};
use model::Topic;

use crate::world::topic;

/// What a source was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) pauses: usize,
    pub(crate) paused: HashSet<TopicPartition>,
    pub(crate) delivered: usize,
    /// Of the topic of most tests.
    pub(crate) noted: HashMap<u16, Progress>,
    /// What it is answered the next time that it asks what happened.
    pub(crate) next_error: Option<LogError>,
    /// How often such an answer was given.
    pub(crate) errors: usize,
    /// A record that the log has lost: its member is told so in its place.
    pub(crate) lost: Option<(TopicPartition, i64)>,
    /// How its last commit is refused.
    pub(crate) refused_close: Option<LogError>,
}

pub(crate) struct WatchedSource<S> {
    inner: S,
    told: Arc<Mutex<Told>>,
    /// What is behind a lost record.
    behind: VecDeque<SourceEvent>,
}

impl<S> WatchedSource<S> {
    pub(crate) fn new(inner: S) -> (Self, Arc<Mutex<Told>>) {
        let told = Arc::<Mutex<Told>>::default();
        (Self { inner, told: told.clone(), behind: VecDeque::new() }, told)
    }

    /// What comes before a record that is lost; the rest comes later.
    fn without_lost(&mut self, mut records: Vec<LogRecord>) -> SourceEvent {
        let mut told = self.told.lock().unwrap();
        let is_lost = |record: &LogRecord| {
            told.lost.as_ref().is_some_and(|(at, offset)| (at, offset) == (&record.from, &record.offset))
        };
        if let Some(at) = records.iter().position(is_lost) {
            let behind = records.split_off(at + 1);
            if let Some(LogRecord { from, offset, .. }) = records.pop() {
                self.behind.push_back(SourceEvent::Missing(from, offset..offset + 1));
            }
            self.behind.push_back(SourceEvent::Records(behind));
            told.lost = None;
        }
        SourceEvent::Records(records)
    }
}

impl<S: EventSource> EventSource for WatchedSource<S> {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        self.inner.subscribe(topics).await
    }

    async fn next(&mut self) -> Result<SourceEvent, LogError> {
        if let Some(event) = self.behind.pop_front() {
            return Ok(event);
        }
        // Looks again now and then, for the error is planted while it waits.
        let event = loop {
            {
                let mut told = self.told.lock().unwrap();
                if let Some(error) = told.next_error.take() {
                    told.errors += 1;
                    return Err(error);
                }
            }
            if let Ok(event) = tokio::time::timeout(Duration::from_millis(20), self.inner.next()).await {
                break event;
            }
        };
        let event = match event {
            Ok(SourceEvent::Records(records)) => Ok(self.without_lost(records)),
            event => event,
        };
        if let Ok(SourceEvent::Records(records)) = &event {
            self.told.lock().unwrap().delivered += records.len();
        }
        event
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let mut told = self.told.lock().unwrap();
        told.pauses += 1;
        told.paused.extend(partitions.iter().cloned());
        self.inner.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.told.lock().unwrap().paused.retain(|paused| !partitions.contains(paused));
        self.inner.resume(partitions)
    }

    fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]) {
        for (at, progress) in progress.iter().filter(|(at, _)| at.topic == topic()) {
            let earlier = self.told.lock().unwrap().noted.insert(at.partition, *progress);
            assert!(earlier.is_none_or(|earlier| earlier <= *progress), "{progress:?} after {earlier:?}");
        }
        self.inner.note_progress(progress);
    }

    async fn close(self, within: Duration) -> Result<(), LogError> {
        let refused = self.told.lock().unwrap().refused_close.take();
        match refused {
            // It vanishes, with what it has noted.
            Some(error) => Err(error),
            None => self.inner.close(within).await,
        }
    }
}
