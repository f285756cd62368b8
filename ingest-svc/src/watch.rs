//! The changes of a table or of some of its keys, as they come into the event log, for those who react to them.
//!
//! One reader per watched table goes on at the end of the log and keeps what came last ([`head`]): whoever is there reads
//! from that. Whoever is behind, since it was resumed or since its client is slow, reads the log itself, a piece at a time,
//! and as fast as the client takes it. So nothing is ever kept for a client but one piece of the log.
//!
//! Where a watch is, is a place per partition: an offset, and the epoch in force there, by which it knows what is void, as
//! the drain does. Both are in its token ([`token`]), so it can be resumed at any replica. A token is good as long as the log
//! has what comes after it; that it is still the same log is told by one record that the watch has seen.
//!
//! | file | subject |
//! |---|---|
//! | `change` | what is asked for, and what is told |
//! | `start` | where a watch begins: now, or at a token |
//! | `run` | how it goes on |
//! | `head` | what came last, read once for all who watch a table |
//! | `sent` | which versions were told, to leave out what comes late |
//! | `token` | places as text |

mod change;
mod error;
mod head;
mod logged;
mod run;
mod sent;
mod start;
mod token;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogReader, TopicPartition};
use hot_store::HotStore;
use model::Topic;
use opentelemetry::{global, metrics::UpDownCounter};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

pub use change::{Change, MAX_KEYS, Tell, Told, WatchRequest};
pub use error::WatchError;
pub use token::{InvalidWatchToken, WatchToken};

use crate::Core;
use change::Filter;
use head::Head;
use run::Run;

/// Pieces of the log that are read at once for watches that are behind.
const READINGS: usize = 4;

/// Watches tables.
pub struct Watcher<H, L, D> {
    core: Arc<Core<H, L, D>>,
    shared: Arc<Shared>,
}

/// What the watches of a replica share.
struct Shared {
    watches: Semaphore,
    readings: Semaphore,
    heads: Mutex<BTreeMap<Topic, Weak<Head>>>,
    count: UpDownCounter<i64>,
}

impl<H, L, D> Clone for Watcher<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), shared: self.shared.clone() }
    }
}

/// Counts a watch as long as it lasts.
struct Counted<'a>(&'a UpDownCounter<i64>);

impl<'a> Counted<'a> {
    fn new(count: &'a UpDownCounter<i64>) -> Self {
        count.add(1, &[]);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}

impl<H, L, D> Watcher<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// On these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        let count = global::meter("shock_absorber.ingest")
            .i64_up_down_counter("shock_absorber.ingest.watches")
            .with_description("watches that go on")
            .build();
        let shared = Shared {
            watches: Semaphore::new(core.options.max_watches),
            readings: Semaphore::new(READINGS),
            heads: Mutex::default(),
            count,
        };
        Self { core, shared: Arc::new(shared) }
    }

    /// Tells of the changes that are asked for, one message at once and then as they come in. It never ends by itself.
    ///
    /// # Errors
    /// [`WatchError`], also where nobody listens any more, and with `stopping`. What was told by then is right.
    pub async fn watch(&self, request: &WatchRequest, tell: &Tell, stopping: &CancellationToken) -> WatchError {
        let ended = tokio::select! {
            biased;
            () = stopping.cancelled() => return WatchError::Stopping,
            () = tell.closed() => return WatchError::NobodyListens,
            ended = self.run(request, tell) => ended,
        };
        match ended {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn run(&self, request: &WatchRequest, tell: &Tell) -> Result<std::convert::Infallible, WatchError> {
        let core = &*self.core;
        let table = enabled(core, request)?;
        let filter = Filter::of(request, &table.schema)?;
        let partitions = filter.partitions(&table.schema, core.shards);
        let _watch = self.shared.watches.try_acquire().map_err(|_| WatchError::TooMany(core.options.max_watches))?;
        let _counted = Counted::new(&self.shared.count);
        let topic = &table.settings.topic;
        let start = match &request.from {
            None => start::now(core, topic, &partitions).await?,
            Some(token) => start::resumed(core, &table, &partitions, token).await?,
        };
        let head = self.head(&table).await?;
        let run = Run::new(core, &self.shared.readings, filter, request.max_bytes, (table, head), start, tell);
        run.forever().await
    }

    /// The reader that goes on at the end of a table's topic: the one there is, or a new one.
    async fn head(&self, table: &CatalogTable) -> Result<Arc<Head>, WatchError> {
        let (core, topic) = (&*self.core, &table.settings.topic);
        let mut heads = self.shared.heads.lock().await;
        heads.retain(|_, head| head.strong_count() > 0);
        if let Some(head) = heads.get(topic).and_then(Weak::upgrade).filter(|head| !head.has_ended()) {
            return Ok(head);
        }
        let partitions: Vec<_> =
            core.shards.all().map(|shard| TopicPartition { topic: topic.clone(), partition: shard.0 }).collect();
        let bounds = core.log.bounds(&partitions).await?;
        let from: Vec<_> = partitions.into_iter().zip(bounds).map(|(at, (_, end))| (at, end)).collect();
        let head = Head::new(from.iter().map(|(_, end)| *end));
        core.tasks.spawn(head::follow(Arc::downgrade(&head), head.ends(), core.log.follow(from)));
        heads.insert(topic.clone(), Arc::downgrade(&head));
        Ok(head)
    }
}

fn enabled<H, L, D: Database>(core: &Core<H, L, D>, request: &WatchRequest) -> Result<Arc<CatalogTable>, WatchError> {
    core.directory.table(&request.table).ok_or_else(|| WatchError::TableNotEnabled(request.table.clone()))
}
