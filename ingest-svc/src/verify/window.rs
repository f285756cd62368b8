//! What of one partition is looked at: from where to where, and which of its events count.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use event_log::{LogReader, LogRecord, TopicPartition};
use model::{CodecError, Epoch, Event, EventBody, Key, KeyBytes, Shard, ShardCount, TableSchema, Version};

use super::{VerifyError, law::Logged};

/// Records of the log, and their bytes, in memory at once.
const MAX_RECORDS: u64 = 4096;
const MAX_BYTES: usize = 4 << 20;
/// What precedes the first offset that is read is gone: which epoch was in force there, and which deletes. For so long
/// behind the first events, by the clock of their versions, that may matter, unless the log is read from its very beginning.
pub(super) const LEAD: Duration = Duration::from_secs(600);
/// Events that count as the first ones.
const FIRST_EVENTS: u32 = 256;

/// The newest write of a record in a stretch of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Met {
    pub(super) key: Key,
    pub(super) offset: i64,
    pub(super) logged: Logged,
    /// The log tells all that came before it, as far as it matters.
    pub(super) reaches_back: bool,
}

/// Some records of the log.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// The newest writes, by key.
    pub(super) newest: BTreeMap<KeyBytes, Met>,
    /// How many records were read.
    pub(super) records: u64,
    /// Writes that are void: they were never accepted.
    pub(super) void: u64,
    /// Records that are none of this table's writes: what can't be read, or lies in another partition than its own.
    pub(super) strange: u64,
    bytes: usize,
}

/// One partition, from the first offset that is read up to the end that it had then.
#[derive(Debug)]
pub(super) struct Window<'a> {
    schema: &'a TableSchema,
    shards: ShardCount,
    at: TopicPartition,
    /// What is read next.
    next: i64,
    end: i64,
    /// Older writes are not looked at.
    since: Version,
    in_force: Epoch,
    is_from_beginning: bool,
    first: (u32, Version),
}

impl<'a> Window<'a> {
    pub(super) fn new(
        schema: &'a TableSchema,
        shards: ShardCount,
        at: TopicPartition,
        offsets: std::ops::Range<i64>,
        since: Version,
    ) -> Self {
        let is_from_beginning = offsets.start == 0;
        Self {
            schema,
            shards,
            at,
            next: offsets.start,
            end: offsets.end,
            since,
            in_force: Epoch::ZERO,
            is_from_beginning,
            first: (0, Version::ZERO),
        }
    }

    pub(super) fn shard(&self) -> Shard {
        Shard(self.at.partition)
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.at
    }

    /// The offset up to which nothing is left to read.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    pub(super) fn is_read(&self) -> bool {
        self.next >= self.end
    }

    /// The log has deleted what was to be read next. How many records were passed over.
    pub(super) fn begins_at(&mut self, low: i64) -> u64 {
        let passed = (low.min(self.end) - self.next).max(0);
        if passed > 0 {
            self.next += passed;
            self.is_from_beginning = false;
            self.first = (0, Version::ZERO);
        }
        passed.unsigned_abs()
    }

    /// The log goes on to there by now.
    pub(super) fn reaches(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Reads on: as many records as there is room for.
    ///
    /// # Errors
    /// If the log can't be read, or holds what a later release wrote. Then nothing was read, and it can be tried again.
    pub(super) async fn read<L: LogReader>(&mut self, log: &L) -> Result<Stretch, VerifyError> {
        let (at, from, end) = (self.at.clone(), self.next, self.end);
        let mut stretch = Stretch::default();
        let mut reading = Reading { next: from, in_force: self.in_force, first: self.first, error: None };
        let mut each = |record: LogRecord| {
            reading.take(self, &mut stretch, record);
            reading.error.is_none() && stretch.records < MAX_RECORDS && stretch.bytes < MAX_BYTES
        };
        log.read(&at, from, end, &mut each).await?;
        let Reading { next, in_force, first, error } = reading;
        if let Some(error) = error {
            return Err(error);
        }
        (self.next, self.in_force, self.first) = (next, in_force, first);
        Ok(stretch)
    }
}

/// Takes out those of which the log has something newer.
pub(super) fn forget_superseded(known: &mut BTreeMap<KeyBytes, Met>, by: &Stretch) {
    if known.is_empty() {
        return;
    }
    for (key, newer) in &by.newest {
        if known.get(key).is_some_and(|older| older.logged.version < newer.logged.version) {
            known.remove(key);
        }
    }
}

/// How far a reading is.
struct Reading {
    next: i64,
    in_force: Epoch,
    first: (u32, Version),
    error: Option<VerifyError>,
}

impl Reading {
    fn take(&mut self, window: &Window<'_>, stretch: &mut Stretch, record: LogRecord) {
        let (offset, bytes) = (record.offset, record.payload.len());
        let event = match Event::decode(record.payload) {
            Ok(event) => event,
            Err(error @ (CodecError::TooNew { .. } | CodecError::UnknownKind { .. })) => {
                let TopicPartition { topic, partition } = &window.at;
                self.error = Some(VerifyError::LogUnfit(format!("{topic}/{partition}, offset {offset}: {error}")));
                return;
            }
            Err(CodecError::Malformed { .. }) => {
                stretch.strange += 1;
                return self.pass(stretch, offset);
            }
        };
        self.pass(stretch, offset);
        match event.body {
            EventBody::Fence(_) => self.in_force = self.in_force.max(event.epoch),
            EventBody::Requests(_) => {}
            EventBody::Mutations(_) if event.epoch.is_void_under(self.in_force) => stretch.void += 1,
            EventBody::Mutations(mutations) => {
                // An epoch's fence lies before all of its events, also where it lies before what is read here.
                self.in_force = self.in_force.max(event.epoch);
                for mutation in mutations {
                    let is_ours = mutation.table == window.schema.table
                        && window.schema.shard_of(&mutation.key, window.shards) == window.shard();
                    if !is_ours {
                        stretch.strange += 1;
                        continue;
                    }
                    if self.first.0 < FIRST_EVENTS {
                        self.first = (self.first.0 + 1, self.first.1.max(mutation.version));
                    }
                    let lead = u64::try_from(LEAD.as_micros()).unwrap_or(u64::MAX);
                    let reaches_back =
                        window.is_from_beginning || mutation.version.get() > self.first.1.get().saturating_add(lead);
                    if mutation.version < window.since {
                        continue;
                    }
                    let logged = Logged {
                        version: mutation.version,
                        image: mutation.image,
                        epoch: event.epoch,
                        is_in_force: reaches_back,
                    };
                    let met = Met { key: mutation.key, offset, logged, reaches_back };
                    match stretch.newest.entry(met.key.to_bytes()) {
                        Entry::Vacant(place) => {
                            stretch.bytes += bytes;
                            place.insert(met);
                        }
                        Entry::Occupied(mut held) if held.get().logged.version < met.logged.version => {
                            stretch.bytes += bytes;
                            held.insert(met);
                        }
                        Entry::Occupied(_) => {}
                    }
                }
            }
        }
    }

    fn pass(&mut self, stretch: &mut Stretch, offset: i64) {
        stretch.records += 1;
        self.next = offset + 1;
    }
}
