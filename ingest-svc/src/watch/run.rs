//! How a watch goes on.

use std::{convert::Infallible, sync::Arc, time::Duration};

use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogError, LogReader, LogRecord, TopicPartition};
use hot_store::HotStore;
use model::{CodecError, Event, EventBody, Mutation, Shard};
use opentelemetry::{global, metrics::Counter};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::{
    Change, Tell, Told, WatchError, WatchToken,
    change::Filter,
    head::{After, Head},
    logged::Logged,
    sent::Sent,
    start::Start,
    token::{Place, Witness},
};
use crate::Core;

/// Records of the log, and their bytes, that are read at once for a watch that is behind.
const PIECE_RECORDS: i64 = 500;
const PIECE_BYTES: usize = 256 << 10;
/// Changes of one message.
const MESSAGE_CHANGES: usize = 256;
/// For how long it waits until somebody takes what it tells.
const TAKEN_WITHIN: Duration = Duration::from_secs(300);
/// How often it is looked whether the table is still enabled, when nothing comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A watch.
pub(super) struct Run<'a, H, L, D> {
    core: &'a Core<H, L, D>,
    readings: &'a Semaphore,
    filter: Filter,
    max_bytes: usize,
    table: Arc<CatalogTable>,
    head: Arc<Head>,
    places: Vec<Place>,
    ends: Vec<i64>,
    witness: Option<Witness>,
    sent: Sent,
    is_live: bool,
    changes: Vec<Change>,
    /// Of the events that these changes come from.
    bytes: usize,
    tell: &'a Tell,
    told_at: Instant,
    /// Which partition comes first next time, so that a busy one starves no other.
    turn: usize,
    counter: Counter<u64>,
}

impl<'a, H, L, D> Run<'a, H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    pub(super) fn new(
        core: &'a Core<H, L, D>,
        readings: &'a Semaphore,
        filter: Filter,
        max_bytes: usize,
        (table, head): (Arc<CatalogTable>, Arc<Head>),
        start: Start,
        tell: &'a Tell,
    ) -> Self {
        let Start { places, ends, witness } = start;
        Self {
            core,
            readings,
            filter,
            max_bytes,
            table,
            head,
            places,
            ends,
            witness,
            sent: Sent::default(),
            is_live: false,
            changes: Vec::new(),
            bytes: 0,
            tell,
            told_at: Instant::now(),
            turn: 0,
            counter: global::meter("shock_absorber.ingest")
                .u64_counter("shock_absorber.ingest.watched_changes")
                .with_description("changes that watches were told")
                .build(),
        }
    }

    /// Tells at once where it begins, and then what comes.
    pub(super) async fn forever(mut self) -> Result<Infallible, WatchError> {
        self.is_live = self.has_come_up();
        self.tell().await?;
        loop {
            self.look_at_the_table()?;
            // Counted before the look, so that nothing is missed.
            let seen = self.head.changes();
            let has_moved = self.advance().await?;
            let becomes_live = !self.is_live && self.has_come_up();
            self.is_live |= becomes_live;
            let progress_at = self.told_at + self.core.options.watch_progress;
            if becomes_live || !self.changes.is_empty() || Instant::now() >= progress_at {
                self.tell().await?;
            }
            if has_moved {
                tokio::task::yield_now().await;
                continue;
            }
            let progress_at = self.told_at + self.core.options.watch_progress;
            tokio::select! {
                biased;
                () = self.head.changed_since(seen) => {}
                () = sleep_until(progress_at.min(Instant::now() + LOOK_EVERY)) => {}
            }
        }
    }

    /// It may have been disabled, or altered.
    fn look_at_the_table(&mut self) -> Result<(), WatchError> {
        let table = &self.table.schema.table;
        self.table = self.core.directory.table(table).ok_or_else(|| WatchError::TableNotEnabled(table.clone()))?;
        Ok(())
    }

    /// All that was in the log when it began was told.
    fn has_come_up(&self) -> bool {
        self.places.iter().zip(&self.ends).all(|(place, end)| place.offset >= *end)
    }

    /// Goes on in each partition by as much as is given at once. Says whether there was anything.
    async fn advance(&mut self) -> Result<bool, WatchError> {
        let (count, mut has_moved) = (self.places.len(), false);
        for step in 0..count {
            let at = (self.turn + step) % count;
            let Place { partition, offset, .. } = self.places[at];
            let records = match self.head.after(partition, offset)? {
                After::Records(records) => records,
                After::InTheLog(to) => self.read(partition, offset, to).await?,
                After::Nothing => continue,
            };
            has_moved = true;
            for record in records {
                self.take(at, &record)?;
                if self.changes.len() >= MESSAGE_CHANGES || self.bytes >= self.max_bytes {
                    self.tell().await?;
                }
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        Ok(has_moved)
    }

    /// A piece of the log itself.
    async fn read(&self, partition: u16, from: i64, to: i64) -> Result<Vec<Arc<Logged>>, WatchError> {
        let Ok(_turn) = self.readings.acquire().await else { return Err(WatchError::Stopping) };
        let at = TopicPartition { topic: self.table.settings.topic.clone(), partition };
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut each = |record: LogRecord| {
            let logged = Logged::of(record);
            bytes += logged.bytes;
            records.push(Arc::new(logged));
            bytes < PIECE_BYTES
        };
        match self.core.log.read(&at, from, to.min(from + PIECE_RECORDS), &mut each).await {
            Ok(()) => Ok(records),
            Err(LogError::Unfit(problem)) => {
                let bounds = self.core.log.bounds(std::slice::from_ref(&at)).await?;
                match bounds.first() {
                    Some((low, _)) if *low > from => Err(WatchError::Expired(problem)),
                    _ => Err(WatchError::LogUnfit(problem)),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a record in that lies where the watch is. What counts is what counts for the drain.
    fn take(&mut self, at: usize, record: &Logged) -> Result<(), WatchError> {
        let place = &mut self.places[at];
        if record.offset != place.offset {
            return Err(WatchError::LogDown(format!(
                "offset {} came where {} was to come",
                record.offset, place.offset
            )));
        }
        match &record.said {
            Err(CodecError::Malformed { .. }) => {}
            Err(error) => return Err(self.unreadable(record.offset, error)),
            Ok(Event { shard, .. }) if *shard != Shard(place.partition) => {}
            Ok(Event { epoch, body, .. }) => match body {
                EventBody::Fence(_) => place.epoch = place.epoch.max(*epoch),
                EventBody::Requests(_) => {}
                EventBody::Mutations(_) if epoch.is_void_under(place.epoch) => {}
                EventBody::Mutations(mutations) => {
                    for mutation in mutations {
                        self.changed(*epoch, mutation, record.bytes)?;
                    }
                }
            },
        }
        let place = &mut self.places[at];
        place.offset = record.offset + 1;
        self.witness = Some(Witness { partition: place.partition, offset: record.offset, digest: record.digest });
        Ok(())
    }

    fn changed(&mut self, epoch: model::Epoch, mutation: &Mutation, bytes: usize) -> Result<(), WatchError> {
        let schema = &self.table.schema;
        if mutation.table != schema.table {
            return Ok(());
        }
        let key = mutation.key.to_bytes();
        if self.filter.takes(&key) && self.sent.is_news(&key, mutation.version) {
            self.changes.push(self.filter.show(schema, epoch, mutation)?);
            self.bytes += bytes;
        }
        Ok(())
    }

    fn unreadable(&self, offset: i64, error: &CodecError) -> WatchError {
        WatchError::LogUnfit(format!("{}, offset {offset}: {error}", self.table.settings.topic))
    }

    async fn tell(&mut self) -> Result<(), WatchError> {
        let changes = std::mem::take(&mut self.changes);
        self.bytes = 0;
        self.counter.add(changes.len() as u64, &[]);
        let token = WatchToken {
            table: self.table.schema.table.clone(),
            topic: self.table.settings.topic.clone(),
            shards: self.core.shards.get(),
            places: self.places.clone(),
            witness: self.witness,
        };
        let told = Told { changes, token, is_live: self.is_live };
        let told = self.tell.send_timeout(told, TAKEN_WITHIN).await;
        self.told_at = Instant::now();
        told.map_err(|_| WatchError::NobodyListens)
    }
}
