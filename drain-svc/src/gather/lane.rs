//! A lane: some shards of a table, written by one task.

use std::sync::{Arc, Mutex, PoisonError};

use database::CatalogTable;
use event_log::TopicPartition;
use model::{Shard, Topic};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::{Coalescer, Due, Limits};

/// What the consumer fills and the writer empties. A key always lies in the same lane, so no two transactions of this
/// process meet in a row.
pub(crate) struct Lane {
    /// The topic whose records it takes.
    pub(crate) topic: Topic,
    /// Which of the table's lanes it is.
    pub(crate) index: usize,
    /// The table as it was when the lane was made; the directory knows whether it has changed.
    pub(crate) table: Arc<CatalogTable>,
    gathered: Mutex<Coalescer>,
    changed: Notify,
}

impl Lane {
    pub(crate) fn new(topic: Topic, index: usize, table: Arc<CatalogTable>) -> Self {
        Self { topic, index, table, gathered: Mutex::default(), changed: Notify::new() }
    }

    /// Looks at, or changes, what is gathered. Short and without waiting.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Coalescer) -> R) -> R {
        // Nothing in the coalescer panics half-way; if it did, the task that did so ends the process.
        act(&mut self.gathered.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the writer that there is more.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits until a batch is due. For the one writer only.
    pub(crate) async fn due(&self, limits: Limits) {
        loop {
            match self.with(|gathered| gathered.due(limits, Instant::now())) {
                Due::Rows(_) => return,
                Due::Nothing => self.changed.notified().await,
                Due::At(at) => tokio::select! {
                    biased;
                    () = self.changed.notified() => {}
                    () = time::sleep_until(at) => {}
                },
            }
        }
    }

    /// How many rows a batch would have now.
    pub(crate) fn due_rows(&self, limits: Limits) -> usize {
        match self.with(|gathered| gathered.due(limits, Instant::now())) {
            Due::Rows(rows) => rows,
            Due::At(_) | Due::Nothing => 0,
        }
    }

    /// The partition of a shard.
    pub(crate) fn partition(&self, shard: Shard) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: shard.0 }
    }
}
