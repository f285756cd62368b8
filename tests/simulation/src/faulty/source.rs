//! A member of the drain group in one process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use event_log::{EventSource, LogError, Progress, SourceEvent, TopicPartition};
use model::{Epoch, Topic};
use tokio::time::{Instant, sleep_until};

use crate::{
    climate::End,
    nature::{Place, brief},
    process::{Fault as _, Process},
    witness::Witness,
};

/// A member of the drain group in one process: what it is delivered comes late, or not now.
pub(crate) struct FaultySource<S> {
    inner: S,
    process: Arc<Process>,
    witness: Arc<Witness>,
    /// How far each assigned partition was done when that was told last.
    done: BTreeMap<TopicPartition, Progress>,
    /// How often the hot store had forgotten something when the process began.
    losses: usize,
    /// What is done next, and not before when. Kept, since `next` is cancelled all the time.
    next: Option<(Instant, End)>,
}

impl<S> FaultySource<S> {
    pub(crate) fn new(inner: S, process: Arc<Process>, witness: Arc<Witness>) -> Self {
        let losses = process.nature().losses();
        Self { inner, process, witness, done: BTreeMap::new(), losses, next: None }
    }
}

impl<S: EventSource> EventSource for FaultySource<S> {
    async fn subscribe(&mut self, topics: &[Topic]) -> Result<(), LogError> {
        self.process.turn().await;
        if self.process.nature().fate(Place::Log).end == End::Refused {
            return Err(LogError::refused());
        }
        self.inner.subscribe(topics).await
    }

    async fn next(&mut self) -> Result<SourceEvent, LogError> {
        self.process.turn().await;
        let nature = self.process.nature();
        let (at, end) = *self.next.get_or_insert_with(|| {
            let fate = nature.fate(Place::Log);
            (Instant::now() + fate.before, fate.end)
        });
        if at > Instant::now() {
            sleep_until(at).await;
        }
        if end == End::Refused {
            self.next = None;
            return Err(LogError::refused());
        }
        let event = self.inner.next().await;
        self.next = None;
        if let Ok(SourceEvent::Assigned(assigned)) = &event {
            let beginning = Progress { offset: 0, epoch: Epoch::ZERO };
            self.done.extend(assigned.iter().map(|a| (a.partition.clone(), a.committed.unwrap_or(beginning))));
        }
        nature.note(|| format!("{} is given {}", self.process.name(), brief(&format!("{event:?}"))));
        event
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.pause(partitions)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.inner.resume(partitions)
    }

    fn note_progress(&mut self, progress: &[(TopicPartition, Progress)]) {
        self.process.nature().note(|| format!("{} has done {}", self.process.name(), brief(&format!("{progress:?}"))));
        let may_have_forgotten = self.process.nature().losses() > self.losses;
        for (at, to) in progress {
            if let Some(from) = self.done.insert(at.clone(), *to) {
                self.witness.progressed(at, from, *to, may_have_forgotten);
            }
        }
        self.inner.note_progress(progress);
    }

    async fn close(self, within: Duration) -> Result<(), LogError> {
        self.process.turn().await;
        self.inner.close(within).await
    }
}
