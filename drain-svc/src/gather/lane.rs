//! A lane: some shards of a table, written by one task.

use std::sync::{Arc, Mutex, PoisonError};

use database::CatalogTable;
use event_log::TopicPartition;
use model::{Shard, Topic};
use tokio::{
    sync::{Notify, mpsc},
    time::{self, Instant},
};

use super::{Coalescer, Due, Limits};
use crate::dead_letter::Undeliverable;

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
    /// To the lane's dead letters. What waits there is gathered still, so the lane's room bounds it.
    undeliverable: mpsc::UnboundedSender<Undeliverable>,
}

impl Lane {
    /// A lane, and what comes out of it for the dead letters.
    pub(crate) fn new(
        topic: Topic,
        index: usize,
        table: Arc<CatalogTable>,
    ) -> (Self, mpsc::UnboundedReceiver<Undeliverable>) {
        let (undeliverable, given_up) = mpsc::unbounded_channel();
        (Self { topic, index, table, gathered: Mutex::default(), changed: Notify::new(), undeliverable }, given_up)
    }

    /// Hands something over to the dead letters. Whoever does so has counted it as gathered, and leaves it counted.
    pub(crate) fn give_up(&self, undeliverable: Undeliverable) {
        // Without a receiver the drain ends; what is not done is delivered again.
        let _ = self.undeliverable.send(undeliverable);
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
