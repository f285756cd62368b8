//! Puts back what the hot store lacks: reads a partition from the start to the fence, and compares what may be in
//! the database already with the database.

use std::collections::{BTreeMap, btree_map::Entry};

use database::{CatalogTable, Database, ShardRow};
use event_log::{EventPublisher, LogReader, LogRecord, TopicPartition};
use hot_store::{HotStore, LogPoint, OpeningToken, RecordId, Restore};
use model::{
    CodecError, Epoch, Event, EventBody, Key, KeyBytes, Mutation, Request, RequestNote, Shard, TableRef, Topic, Version,
};
use planted::Bug;

use super::{OpeningError, compare};
use crate::Core;

/// Keys and bytes gathered before they are put back: what bounds the memory of an opening.
const MAX_KEYS: usize = 8192;
const MAX_BYTES: usize = 8 << 20;
/// Records of one call to the hot store, and of one read of the database.
pub(super) const MAX_CALL: usize = 256;

/// What there is to read: one partition up to its fence.
pub(super) struct Stretch<'a> {
    pub(super) topic: &'a Topic,
    pub(super) start: LogPoint,
    /// Below this offset only requests are put back.
    pub(super) records_from: i64,
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
    /// Mutations and notes of requests that are void.
    pub(super) void: u64,
    /// Requests that were put back.
    pub(super) requests: u64,
    /// Records that could not be read, and what is of another table than the topic's.
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
        let known = std::mem::take(&mut gathered.known);
        gathered.bytes = 0;
        put_back(core, shard, token, stretch, Source::Log, newest.into_values().collect()).await?;
        // After the records, since a note is about one of them: what took the request's place was produced before it, in
        // the same call. So that was put back by now, unless the store kept it or the database has it.
        put_known_back(core, shard, token, stretch, known).await?;
        if !is_full {
            break;
        }
        from = next;
    }
    Ok(gathered.tally)
}

/// The newest mutation of a key, and the lowest version of it that was met beside.
pub(super) struct Newest {
    pub(super) mutation: Mutation,
    pub(super) lowest: Version,
}

/// A request that took effect.
struct Known {
    request: Request,
    version: Version,
    /// The key of its record, where a note names it and records are put back.
    noted: Option<KeyBytes>,
}

/// What was read since the last call to the hot store.
struct Gathered<'a> {
    topic: &'a Topic,
    table: &'a TableRef,
    records_from: i64,
    newest: BTreeMap<KeyBytes, Newest>,
    known: Vec<Known>,
    bytes: usize,
    tally: Tally,
    error: Option<OpeningError>,
}

impl<'a> Gathered<'a> {
    fn new(stretch: &Stretch<'a>) -> Self {
        Self {
            topic: stretch.topic,
            table: &stretch.table.schema.table,
            records_from: stretch.records_from,
            newest: BTreeMap::new(),
            known: Vec::new(),
            bytes: 0,
            tally: Tally { in_force: stretch.start.epoch, ..Tally::default() },
            error: None,
        }
    }

    fn is_full(&self) -> bool {
        self.newest.len().max(self.known.len()) >= MAX_KEYS || self.bytes >= MAX_BYTES
    }

    /// Takes a record in; `false` breaks off the reading.
    fn take(&mut self, record: LogRecord) -> bool {
        let (offset, bytes) = (record.offset, record.payload.len());
        match Event::decode(record.payload) {
            Ok(event) => self.take_event(event, offset, bytes),
            // A replica of the later release can open the shard.
            Err(error @ (CodecError::TooNew { .. } | CodecError::UnknownKind { .. })) => {
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

    fn take_event(&mut self, event: Event, offset: i64, bytes: usize) {
        let mutations = match event.body {
            EventBody::Fence(_) => {
                self.tally.in_force = self.tally.in_force.max(event.epoch);
                return;
            }
            EventBody::Requests(notes) => return self.take_notes(event.epoch, offset, notes),
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
            if let Some(request) = &mutation.image.request {
                self.take_request(Known { request: request.clone(), version: mutation.version, noted: None });
            }
            if offset < self.records_from {
                continue;
            }
            match self.newest.entry(mutation.key.to_bytes()) {
                Entry::Vacant(place) => {
                    self.bytes += bytes;
                    place.insert(Newest { lowest: mutation.version, mutation });
                }
                Entry::Occupied(mut held) => {
                    let held = held.get_mut();
                    held.lowest = held.lowest.min(mutation.version);
                    if held.mutation.version < mutation.version {
                        self.bytes += bytes;
                        held.mutation = mutation;
                    }
                }
            }
        }
    }

    /// Takes in what was noted of requests whose own events may be missing.
    ///
    /// Below the first record that counts, a note is about one that the database has.
    fn take_notes(&mut self, epoch: Epoch, offset: i64, notes: Vec<RequestNote>) {
        for RequestNote { table, key, request, version } in notes {
            self.tally.seen = self.tally.seen.max(version);
            if epoch.is_void_under(self.tally.in_force) {
                self.tally.void += 1;
            } else if table == *self.table {
                let noted = key.filter(|_| offset >= self.records_from).map(|key| key.to_bytes());
                self.take_request(Known { request, version, noted });
            } else {
                self.tally.strange += 1;
            }
        }
    }

    fn take_request(&mut self, known: Known) {
        if !planted::is(Bug::RequestsForgotten) {
            self.tally.requests += 1;
            self.known.push(known);
        }
    }
}

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// In the log.
    Log,
    /// Among what the hot store had for the database ([`super::aside`]); whether the log has it is not known.
    Aside,
}

impl Source {
    fn found(self, restore: Restore) -> Restore {
        match (self, restore) {
            (Self::Aside, Restore::Dirty { record, version, behind, image }) => {
                Restore::Unqueued { record, version, behind, image }
            }
            (_, restore) => restore,
        }
    }
}

/// Puts records back, and says of how many the database has no such version.
pub(super) async fn put_back<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    token: &OpeningToken,
    stretch: &Stretch<'_>,
    source: Source,
    newest: Vec<Newest>,
) -> Result<u64, OpeningError>
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
    let may_be_written = |newest: &Newest| {
        newest.mutation.version <= stretch.row.high_water && !planted::is(Bug::RestoreWithoutComparing)
    };
    let mut dirty_ones = 0;
    let mut newest = newest.into_iter().peekable();
    while newest.peek().is_some() {
        let (written, fresh): (Vec<Newest>, Vec<Newest>) = newest.by_ref().take(MAX_CALL).partition(may_be_written);
        let keys: Vec<Key> = written.iter().map(|newest| newest.mutation.key.clone()).collect();
        let held = compare::look(&**database, schema, &keys).await?;
        let horizon = compare::purge_horizon(&**database, shard, stretch, &held).await?;
        let compared =
            written.into_iter().zip(held).map(|(newest, held)| compare::compare(stretch, horizon, newest, held));
        let dirty = fresh.into_iter().map(|newest| dirty(stretch, newest));
        let records: Vec<Restore> = compared.chain(dirty).map(|restore| source.found(restore)).collect();
        let is_dirty = |restore: &&Restore| matches!(restore, Restore::Dirty { .. } | Restore::Unqueued { .. });
        dirty_ones += records.iter().filter(is_dirty).count() as u64;
        core.hot.restore(shard, token, records, ttl).await?;
    }
    Ok(dirty_ones)
}

/// The database may lack every version of the record that was read, since events of one key may lie in any order.
pub(super) fn dirty(stretch: &Stretch<'_>, Newest { mutation, lowest }: Newest) -> Restore {
    let record = record_of(stretch, &mutation);
    let Mutation { version, image, .. } = mutation;
    Restore::Dirty { record, version, behind: lowest, image }
}

async fn put_known_back<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    token: &OpeningToken,
    stretch: &Stretch<'_>,
    known: Vec<Known>,
) -> Result<(), OpeningError>
where
    H: HotStore,
{
    let ttl = core.options.hot_ttl.of(&stretch.table.schema.table);
    let namespace = &stretch.table.settings.namespace;
    let mut restores = known.into_iter().flat_map(|Known { request, version, noted }| {
        let behind = noted.map(|key| {
            let record = RecordId { namespace: namespace.clone(), key };
            Restore::Behind { record, version }
        });
        behind.into_iter().chain([Restore::Request { namespace: namespace.clone(), request, version }])
    });
    loop {
        let some: Vec<Restore> = restores.by_ref().take(MAX_CALL).collect();
        if some.is_empty() {
            return Ok(());
        }
        core.hot.restore(shard, token, some, ttl).await?;
    }
}

pub(super) fn record_of(stretch: &Stretch<'_>, mutation: &Mutation) -> RecordId {
    RecordId { namespace: stretch.table.settings.namespace.clone(), key: mutation.key.to_bytes() }
}
