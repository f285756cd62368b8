//! Puts back what the hot store lacks: reads a partition from the start to the fence, and compares what may be in
//! the database already with the database.

use std::collections::BTreeMap;

use database::{CatalogTable, Database, DatabaseRow, ShardRow};
use event_log::{EventPublisher, LogReader, LogRecord, TopicPartition};
use hot_store::{HotStore, LogPoint, OpeningToken, RecordId, Restore};
use model::{CodecError, Epoch, Event, EventBody, Key, KeyBytes, Mutation, Shard, TableRef, Topic, Version};

use super::OpeningError;
use crate::{Core, read::cold::image_of};

/// Keys and bytes gathered before they are put back: what bounds the memory of an opening.
const MAX_KEYS: usize = 8192;
const MAX_BYTES: usize = 8 << 20;
/// Records of one call to the hot store, and of one read of the database.
const MAX_CALL: usize = 256;

/// What there is to read: one partition up to its fence.
pub(super) struct Stretch<'a> {
    pub(super) topic: &'a Topic,
    pub(super) start: LogPoint,
    pub(super) fence: i64,
    /// The table of the topic, and its shard row as read after the fence was appended.
    pub(super) table: &'a CatalogTable,
    pub(super) row: ShardRow,
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// The epoch in force just before the fence.
    pub(super) in_force: Epoch,
    /// The highest version met.
    pub(super) seen: Version,
    /// Mutations that count.
    pub(super) mutations: u64,
    /// Mutations that are void.
    pub(super) void: u64,
    /// Records that could not be read, and mutations of another table than the topic's.
    pub(super) strange: u64,
}

/// Reads a stretch and puts its records back.
pub(super) async fn restore<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    token: &OpeningToken,
    stretch: &Stretch<'_>,
) -> Result<Tally, OpeningError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let partition = TopicPartition { topic: stretch.topic.clone(), partition: shard.0 };
    let mut gathered = Gathered::new(stretch);
    let mut from = stretch.start.offset;
    while from < stretch.fence {
        let mut next = from;
        let mut each = |record: LogRecord| {
            next = record.offset + 1;
            gathered.take(record)
        };
        core.log.read(&partition, from, stretch.fence, &mut each).await?;
        let is_full = gathered.is_full();
        if let Some(error) = gathered.error.take() {
            return Err(error);
        }
        let newest = std::mem::take(&mut gathered.newest);
        gathered.bytes = 0;
        put_back(core, shard, token, stretch, newest.into_values().collect()).await?;
        if !is_full {
            break;
        }
        from = next;
    }
    Ok(gathered.tally)
}

/// The newest mutation of each key that was read since the last call to the hot store.
struct Gathered<'a> {
    topic: &'a Topic,
    table: &'a TableRef,
    newest: BTreeMap<KeyBytes, Mutation>,
    bytes: usize,
    tally: Tally,
    error: Option<OpeningError>,
}

impl<'a> Gathered<'a> {
    fn new(stretch: &Stretch<'a>) -> Self {
        Self {
            topic: stretch.topic,
            table: &stretch.table.schema.table,
            newest: BTreeMap::new(),
            bytes: 0,
            tally: Tally { in_force: stretch.start.epoch, ..Tally::default() },
            error: None,
        }
    }

    fn is_full(&self) -> bool {
        self.newest.len() >= MAX_KEYS || self.bytes >= MAX_BYTES
    }

    /// Takes a record in; `false` breaks off the reading.
    fn take(&mut self, record: LogRecord) -> bool {
        let (offset, bytes) = (record.offset, record.payload.len());
        match Event::decode(record.payload) {
            Ok(event) => self.take_event(event, bytes),
            // A replica of the later release can open the shard.
            Err(error @ CodecError::TooNew { .. }) => {
                self.error = Some(OpeningError::Event { topic: self.topic.clone(), offset, error });
                return false;
            }
            // None of ours: the drain puts it aside, and it stops nobody.
            Err(error @ CodecError::Malformed { .. }) => {
                self.tally.strange += 1;
                tracing::error!(topic = %self.topic, offset, %error, "a record of the log can't be read; the opening goes on without it");
            }
        }
        !self.is_full()
    }

    fn take_event(&mut self, event: Event, bytes: usize) {
        let mutations = match event.body {
            EventBody::Fence(_) => {
                self.tally.in_force = self.tally.in_force.max(event.epoch);
                return;
            }
            EventBody::Mutations(mutations) => mutations,
        };
        for mutation in mutations {
            // A version is never given again, even if its event is void.
            self.tally.seen = self.tally.seen.max(mutation.version);
            if event.epoch.is_void_under(self.tally.in_force) {
                self.tally.void += 1;
                continue;
            }
            if mutation.table != *self.table {
                self.tally.strange += 1;
                continue;
            }
            self.tally.mutations += 1;
            let key = mutation.key.to_bytes();
            if self.newest.get(&key).is_none_or(|held| held.version < mutation.version) {
                self.bytes += bytes;
                self.newest.insert(key, mutation);
            }
        }
    }
}

async fn put_back<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    token: &OpeningToken,
    stretch: &Stretch<'_>,
    mutations: Vec<Mutation>,
) -> Result<(), OpeningError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let schema = &stretch.table.schema;
    let ttl = core.options.hot_ttl.of(&schema.table);
    let database = core
        .directory
        .database(&schema.table.database)
        .ok_or_else(|| OpeningError::NoDatabase(schema.table.database.clone()))?;
    let mut mutations = mutations.into_iter().peekable();
    while mutations.peek().is_some() {
        let (written, fresh): (Vec<Mutation>, Vec<Mutation>) =
            mutations.by_ref().take(MAX_CALL).partition(|mutation| mutation.version <= stretch.row.high_water);
        let keys: Vec<Key> = written.iter().map(|mutation| mutation.key.clone()).collect();
        let rows = if keys.is_empty() { Vec::new() } else { database.read(schema, &keys).await? };
        if rows.len() < keys.len() {
            return Err(OpeningError::Incomplete { asked: keys.len(), got: rows.len() });
        }
        let compared = written.into_iter().zip(rows).map(|(mutation, row)| compare(stretch, mutation, row));
        let dirty = fresh.into_iter().map(|mutation| dirty(stretch, mutation));
        let records = compared.chain(dirty).collect();
        core.hot.restore(shard, token, records, ttl).await?;
    }
    Ok(())
}

/// An event at or below the high-water version may be in the database already, or something newer: order in the log
/// is not order of versions, and a slow older event must not bury a newer row.
fn compare(stretch: &Stretch<'_>, mutation: Mutation, row: DatabaseRow) -> Restore {
    match image_of(stretch.table, row) {
        Some((version, image)) if version >= mutation.version => {
            Restore::Clean { record: record_of(stretch, &mutation), version, image }
        }
        None if mutation.version <= stretch.row.purge_horizon => {
            Restore::Gone { record: record_of(stretch, &mutation), horizon: stretch.row.purge_horizon }
        }
        _ => dirty(stretch, mutation),
    }
}

fn dirty(stretch: &Stretch<'_>, mutation: Mutation) -> Restore {
    let record = record_of(stretch, &mutation);
    let Mutation { version, image, .. } = mutation;
    Restore::Dirty { record, version, behind: version, image }
}

fn record_of(stretch: &Stretch<'_>, mutation: &Mutation) -> RecordId {
    RecordId { namespace: stretch.table.settings.namespace.clone(), key: mutation.key.to_bytes() }
}
