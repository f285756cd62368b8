//! The dead letters of a run.

use event_log::{LogReader as _, LogRecord, TopicPartition};
use futures::FutureExt as _;
use model::{
    Content, DeadLetterBody, DeadLetterRecord, Event, EventBody, KeyBytes, ShardCount, TableRef, Value, Version,
};

use crate::{backends::Log, world::Table};

/// What a letter is about.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) key: KeyBytes,
    pub(crate) version: Option<Version>,
    /// What the row was to hold.
    pub(crate) value: Option<u64>,
}

/// Those of all tables.
pub(crate) fn all(log: &Log, tables: &[Table], shards: ShardCount) -> Vec<Letter> {
    tables.iter().flat_map(|table| read(log, table, shards.get())).collect()
}

/// Those of one table.
pub(crate) fn of_table(log: &Log, tables: &[Table], table: &TableRef) -> Vec<Letter> {
    let found = tables.iter().find(|of| of.name == *table);
    found.map(|table| read(log, table, u16::MAX)).unwrap_or_default()
}

/// The log in memory answers at once, but for long partitions.
fn read(log: &Log, table: &Table, partitions: u16) -> Vec<Letter> {
    let Ok(topic) = table.settings.topic.dead_letters() else { return Vec::new() };
    let mut letters = Vec::new();
    for partition in 0..partitions {
        let at = TopicPartition { topic: topic.clone(), partition };
        let bounds = log.bounds(std::slice::from_ref(&at)).now_or_never();
        let Some(Ok([(first, end)])) = bounds.map(|bounds| bounds.map(|it| [it[0]])) else { break };
        let mut each = |record: LogRecord| {
            letters.extend(letter(record));
            true
        };
        let _ = log.read(&at, first, end, &mut each).now_or_never();
    }
    letters
}

fn letter(record: LogRecord) -> Option<Letter> {
    let DeadLetterBody::Letter(letter) = DeadLetterRecord::decode(record.payload).ok()?.body else { return None };
    let EventBody::Mutations(mutations) = Event::decode(letter.payload).ok()?.body else { return None };
    let value = mutations.first().and_then(|mutation| match &mutation.image.content {
        Content::Row(row) => match row.get("value") {
            Some(Value::Int64(value)) => u64::try_from(*value).ok(),
            _ => None,
        },
        Content::Tombstone => None,
    });
    Some(Letter { key: letter.key, version: letter.version, value })
}
