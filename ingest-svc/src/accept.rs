//! Accepting writes: validate, check preconditions, write into the hot store, put into the event log, acknowledge.
//!
//! A batch is the general case, a single write a batch of one. Nothing is stored before the whole batch has been
//! validated. The shards of a batch are written at the same time, the records of one shard in the order of the
//! batch as far as they concern the same key; then everything that was stored goes into the log in one call, is
//! marked queued under the epoch in which it was written, and only then acknowledged as QUEUED.

mod acknowledge;
mod admit;
mod altered;
mod digest;
mod draft;
mod error;
mod merge;
mod parked;
mod queue;
mod repeat;
mod request;
mod rounds;
mod store;
mod validate;
mod write_stream;

use std::{collections::BTreeMap, future::Future, sync::Arc};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::HotStore;
use model::{Moment, Shard};
use tokio::time::Instant;

pub(crate) use altered::{FormsMet, LastLooks};
pub use error::WriteError;
pub(crate) use parked::Parked;
pub use request::{Accepted, AckLevel, Acknowledge, Change, Require, WriteRequest};
pub use write_stream::{Arrival, StreamEnd, StreamOptions, StreamResult};

use crate::{Core, StoreError};
use store::{Item, Stored};

/// Accepts writes.
pub struct Writer<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Writer<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<H, L, D> Writer<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// A writer on these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// Accepts one write.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, request: WriteRequest, ack: Acknowledge) -> Result<Accepted, WriteError> {
        let mut results = self.write_batch(vec![request], ack).await;
        results.pop().unwrap_or_else(|| Err(WriteError::OutcomeUnknown("the batch gave no result".to_owned())))
    }

    /// Accepts several writes, each with a result of its own, in the order of the requests. Writes to the same key
    /// take effect in that order.
    ///
    /// The work goes on when the caller stops waiting: a client that hangs up does not leave a write half-way
    /// between the stores.
    pub async fn write_batch(
        &self,
        requests: Vec<WriteRequest>,
        ack: Acknowledge,
    ) -> Vec<Result<Accepted, WriteError>> {
        let count = requests.len();
        self.finish(accept(self.core.clone(), Instant::now(), requests, ack), count).await
    }

    /// Does the work in a task of its own, which goes on when the caller stops waiting.
    async fn finish(
        &self,
        work: impl Future<Output = Vec<Result<Accepted, WriteError>>> + Send + 'static,
        count: usize,
    ) -> Vec<Result<Accepted, WriteError>> {
        self.core.tasks.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a batch of writes ended before its results were known");
            vec![Err(WriteError::OutcomeUnknown("the server failed while it worked on the write".to_owned())); count]
        })
    }
}

/// One batch from the first check to the acknowledgement.
async fn accept<H, L, D>(
    core: Arc<Core<H, L, D>>,
    asked: Instant,
    requests: Vec<WriteRequest>,
    ack: Acknowledge,
) -> Vec<Result<Accepted, WriteError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let moment = core.options.moment();
    let max = core.log.max_payload_bytes();
    let mut results = vec![Err(WriteError::OutcomeUnknown("the write was not worked on".to_owned())); requests.len()];
    let mut by_shard: BTreeMap<Shard, Vec<Item>> = BTreeMap::new();
    for (index, request) in requests.into_iter().enumerate() {
        let Some(table) = core.directory.table(&request.table) else {
            results[index] = Err(WriteError::TableNotEnabled(request.table));
            continue;
        };
        let table = altered::naming(&core, table, &request.change).await;
        let wish = ack.for_table(core.options.rules.of(&request.table).ack);
        match validate::check(table, request, core.shards, max, moment) {
            Ok(checked) => by_shard.entry(checked.shard).or_default().push(Item { index, checked, wish }),
            Err(error) => results[index] = Err(error),
        }
    }
    carry(&core, asked, by_shard, results, moment).await
}

/// The rest of the way of writes that the table accepts, and that were asked for at that moment; `results` holds those of
/// the others.
async fn carry<H, L, D>(
    core: &Arc<Core<H, L, D>>,
    asked: Instant,
    mut by_shard: BTreeMap<Shard, Vec<Item>>,
    mut results: Vec<Result<Accepted, WriteError>>,
    moment: Moment<'_>,
) -> Vec<Result<Accepted, WriteError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    admit::admit(core, &mut by_shard, &mut results).await;

    let at_once = core.options.shards_at_once.max(1);
    let written: Vec<_> = stream::iter(by_shard)
        .map(|(shard, items)| store::write_shard(core, shard, asked, items, moment))
        .buffer_unordered(at_once)
        .collect()
        .await;
    let mut stored = Vec::new();
    for (index, result) in written.into_iter().flatten() {
        match result {
            Ok(write) => stored.push(write),
            Err(error) => results[index] = Err(error),
        }
    }
    let names: Vec<_> = stored.iter().map(|write: &Stored| (write.index, write.etag, write.token())).collect();
    let levels = acknowledge::reach(core, stored).await;
    for ((index, etag, token), level) in names.into_iter().zip(levels) {
        results[index] = level.map(|reached| Accepted { reached, etag, token: token.reached(reached) });
    }
    results
}

/// What is left of a shard's batch when a call to the hot store failed: it was not attempted, lest a write of which
/// nobody knows whether it will still take effect be overtaken by a later one of the same key.
fn not_attempted(cause: &WriteError) -> WriteError {
    match cause {
        WriteError::OutcomeUnknown(problem) => WriteError::Store(StoreError::HotStoreDown(format!(
            "an earlier write of the batch is unanswered, so this one was not attempted ({problem})"
        ))),
        other => other.clone(),
    }
}
