//! One partition of dead letters, as it was when somebody began to read it.

use std::{collections::BTreeMap, ops::Range};

use database::CatalogTable;
use event_log::{LogError, LogReader, LogRecord, TopicPartition};
use model::{
    CodecError, DeadLetter, DeadLetterBody, DeadLetterPurge, DeadLetterRecord, KeyBytes, Shard, TableRef, Version,
};

use super::{DeadLetterError, LetterId, letter::copied};

/// Letters in memory at once, and their bytes.
const MAX_LETTERS: usize = 256;
const MAX_BYTES: usize = 4 << 20;

/// A partition of dead letters from its first record up to the end that it had when it was looked at: what is replayed and
/// refused again comes behind that.
pub(crate) struct LetterPartition {
    at: TopicPartition,
    table: TableRef,
    pub(crate) offsets: Range<i64>,
}

/// A letter and where it lies.
pub(crate) struct Met {
    pub(crate) id: LetterId,
    pub(crate) letter: DeadLetter,
}

/// Which letters were given up.
#[derive(Debug, Default)]
pub(crate) struct Purges {
    /// By key, up to which version: who gives up what a record holds does not want back what it held before.
    versions: BTreeMap<KeyBytes, Version>,
    /// By the offset of an event that nobody can read, up to which offset of a letter. Another letter behind that may be of
    /// another event, if the topic was made anew.
    events: BTreeMap<i64, i64>,
}

impl Purges {
    fn take(&mut self, offset: i64, purge: &DeadLetterPurge) {
        match purge.version {
            Some(version) => {
                let known = self.versions.entry(copied(&purge.key)).or_default();
                *known = version.max(*known);
            }
            None => drop(self.events.insert(purge.offset, offset)),
        }
    }

    /// Whether a letter, which lies at this offset, was given up.
    pub(crate) fn has(&self, at: LetterId, letter: &DeadLetter) -> bool {
        match letter.version {
            Some(version) => self.versions.get(&letter.key).is_some_and(|purged| *purged >= version),
            None => self.events.get(&letter.offset).is_some_and(|purged| *purged > at.offset),
        }
    }
}

impl LetterPartition {
    /// Looks at the dead letters of a table in some shards; none where there is no topic for them.
    pub(crate) async fn look<L: LogReader>(
        log: &L,
        table: &CatalogTable,
        shards: impl IntoIterator<Item = Shard>,
    ) -> Result<Vec<Self>, DeadLetterError> {
        let topic = table.settings.topic.dead_letters()?;
        let partitions: Vec<_> =
            shards.into_iter().map(|shard| TopicPartition { topic: topic.clone(), partition: shard.0 }).collect();
        let bounds = match log.bounds(&partitions).await {
            // It is made when the table is enabled, or else by the first drain that has something to put into it.
            Err(LogError::NoSuchTopic(_)) => return Ok(Vec::new()),
            bounds => bounds?,
        };
        let of = |(at, (low, high))| Self { at, table: table.schema.table.clone(), offsets: low..high };
        Ok(partitions.into_iter().zip(bounds).map(of).collect())
    }

    pub(crate) fn shard(&self) -> Shard {
        Shard(self.at.partition)
    }

    /// All purges that it tells of.
    pub(crate) async fn purges<L: LogReader>(&self, log: &L) -> Result<Purges, DeadLetterError> {
        let mut purges = Purges::default();
        let mut too_new = None;
        let mut each = |record: LogRecord| {
            let offset = record.offset;
            match self.decode(record) {
                Ok(Some(DeadLetterBody::Purge(purge))) => purges.take(offset, &purge),
                Ok(_) => {}
                Err(error) => too_new = Some(error),
            }
            too_new.is_none()
        };
        self.read(log, self.offsets.clone(), &mut each).await?;
        too_new.map_or(Ok(purges), Err)
    }

    /// The letters of some offsets that `wanted` takes, as many as there is room for, and the offset to go on from.
    pub(crate) async fn page<L: LogReader>(
        &self,
        log: &L,
        offsets: Range<i64>,
        mut wanted: impl FnMut(LetterId, &DeadLetter) -> bool + Send,
    ) -> Result<(Vec<Met>, i64), DeadLetterError> {
        let (mut met, mut bytes, mut next) = (Vec::new(), 0, offsets.end);
        let mut too_new = None;
        let mut each = |record: LogRecord| {
            let (id, size) = (LetterId { shard: self.shard(), offset: record.offset }, record.payload.len());
            match self.decode(record) {
                Ok(Some(DeadLetterBody::Letter(letter))) if wanted(id, &letter) => {
                    bytes += size;
                    met.push(Met { id, letter });
                }
                Ok(_) => {}
                Err(error) => {
                    too_new = Some(error);
                    return false;
                }
            }
            let has_room = met.len() < MAX_LETTERS && bytes < MAX_BYTES;
            if !has_room {
                next = id.offset + 1;
            }
            has_room
        };
        self.read(log, offsets, &mut each).await?;
        too_new.map_or(Ok((met, next)), Err)
    }

    async fn read<L: LogReader>(
        &self,
        log: &L,
        offsets: Range<i64>,
        each: &mut (dyn FnMut(LogRecord) -> bool + Send),
    ) -> Result<(), DeadLetterError> {
        if offsets.is_empty() {
            return Ok(());
        }
        Ok(log.read(&self.at, offsets.start, offsets.end, each).await?)
    }

    /// What a record says; `None` if it is none of ours. What a later release wrote must not be passed over.
    fn decode(&self, record: LogRecord) -> Result<Option<DeadLetterBody>, DeadLetterError> {
        let offset = record.offset;
        match DeadLetterRecord::decode(record.payload) {
            Ok(record) if record.table == self.table => Ok(Some(record.body)),
            Ok(record) => {
                tracing::warn!(at = ?self.at, offset, table = %record.table, "a dead letter of another table is passed over");
                Ok(None)
            }
            Err(error @ CodecError::TooNew { .. }) => Err(DeadLetterError::LogUnfit(format!(
                "{}/{}, offset {offset}: {error}",
                self.at.topic, self.at.partition
            ))),
            Err(error) => {
                tracing::warn!(at = ?self.at, offset, %error, "a dead letter can't be read and is passed over");
                Ok(None)
            }
        }
    }
}
