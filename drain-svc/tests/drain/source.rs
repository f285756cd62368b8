//! A member of the drain group that remembers what it was told.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use event_log::{EventSource, LogError, Progress, SourceEvent, TopicPartition};
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
    /// How its last commit is refused.
    pub(crate) refused_close: Option<LogError>,
}

pub(crate) struct WatchedSource<S> {
    inner: S,
    told: Arc<Mutex<Told>>,
}

impl<S> WatchedSource<S> {
    pub(crate) fn new(inner: S) -> (Self, Arc<Mutex<Told>>) {
        let told = Arc::<Mutex<Told>>::default();
        (Self { inner, told: told.clone() }, told)
    }
}

impl<S: EventSource> EventSource for WatchedSource<S> {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        self.inner.subscribe(topics).await
    }

    async fn next(&mut self) -> Result<SourceEvent, LogError> {
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
