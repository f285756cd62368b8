//! Bytes of what lies in a dead-letter topic.

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;

use super::{
    CODEC_VERSION, CodecError, check_layout, load_table, load_version, malformed,
    stored::{StoredDeadLetter, StoredDeadLetterCause, StoredDeadLetterRecord, StoredPurge},
};
use crate::{
    DeadLetter, DeadLetterBody, DeadLetterCause, DeadLetterPurge, DeadLetterRecord, KeyBytes, Shard, Topic, Version,
};

const WHAT: &str = "dead letter";

impl DeadLetterRecord {
    /// The bytes of the log record.
    pub fn encode(&self) -> Bytes {
        let (letter, purge) = match &self.body {
            DeadLetterBody::Letter(letter) => (Some(store_letter(letter)), None),
            DeadLetterBody::Purge(purge) => (None, Some(store_purge(purge))),
        };
        let stored = StoredDeadLetterRecord {
            codec_version: CODEC_VERSION,
            database: self.table.database.to_string(),
            table: self.table.table.to_string(),
            shard: self.shard.0.into(),
            letter,
            purge,
        };
        Bytes::from(stored.encode_to_vec())
    }

    /// The record again.
    ///
    /// # Errors
    /// Bytes that are no such record, or one of a later release.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let stored = StoredDeadLetterRecord::decode(bytes).map_err(|e| malformed(WHAT, e))?;
        check_layout(WHAT, stored.codec_version)?;
        let body = match (stored.letter, stored.purge) {
            (Some(letter), None) => DeadLetterBody::Letter(load_letter(letter)?),
            (None, Some(purge)) => DeadLetterBody::Purge(load_purge(purge)?),
            _ => return Err(malformed(WHAT, "it is not one of a letter and a purge")),
        };
        let shard = Shard(u16::try_from(stored.shard).map_err(|e| malformed(WHAT, e))?);
        Ok(Self { table: load_table(WHAT, stored.database, stored.table)?, shard, body })
    }
}

fn store_letter(letter: &DeadLetter) -> StoredDeadLetter {
    let cause = match letter.cause {
        DeadLetterCause::Undecodable => StoredDeadLetterCause::Undecodable.into(),
        DeadLetterCause::Misplaced => StoredDeadLetterCause::Misplaced.into(),
        DeadLetterCause::Permanent => StoredDeadLetterCause::Permanent.into(),
        DeadLetterCause::Dependent => StoredDeadLetterCause::Dependent.into(),
        DeadLetterCause::Since => StoredDeadLetterCause::Since.into(),
        DeadLetterCause::Later(number) => number,
    };
    StoredDeadLetter {
        topic: letter.topic.to_string(),
        offset: letter.offset,
        key: letter.key.as_bytes().clone(),
        payload: letter.payload.clone(),
        version: letter.version.map_or(0, Version::get),
        cause,
        code: letter.code.clone(),
        message: letter.message.clone(),
        attempts: letter.attempts,
        first_refused_micros: letter.first_refused_at.as_microsecond(),
        dead_lettered_micros: letter.dead_lettered_at.as_microsecond(),
        replica: letter.replica.clone(),
        is_cut: letter.is_cut,
    }
}

fn load_letter(stored: StoredDeadLetter) -> Result<DeadLetter, CodecError> {
    let cause = match StoredDeadLetterCause::try_from(stored.cause) {
        Ok(StoredDeadLetterCause::Undecodable) => DeadLetterCause::Undecodable,
        Ok(StoredDeadLetterCause::Misplaced) => DeadLetterCause::Misplaced,
        Ok(StoredDeadLetterCause::Permanent) => DeadLetterCause::Permanent,
        Ok(StoredDeadLetterCause::Dependent) => DeadLetterCause::Dependent,
        Ok(StoredDeadLetterCause::Since) => DeadLetterCause::Since,
        Ok(StoredDeadLetterCause::Unspecified) => return Err(malformed(WHAT, "it names no cause")),
        // Its record waits for somebody all the same.
        Err(_) => DeadLetterCause::Later(stored.cause),
    };
    Ok(DeadLetter {
        topic: Topic::new(stored.topic).map_err(|e| malformed(WHAT, e))?,
        offset: stored.offset,
        key: KeyBytes::from_stored(stored.key),
        payload: stored.payload,
        version: load_version_or_none(stored.version)?,
        cause,
        code: stored.code,
        message: stored.message,
        attempts: stored.attempts,
        first_refused_at: load_time(stored.first_refused_micros)?,
        dead_lettered_at: load_time(stored.dead_lettered_micros)?,
        replica: stored.replica,
        is_cut: stored.is_cut,
    })
}

fn store_purge(purge: &DeadLetterPurge) -> StoredPurge {
    StoredPurge {
        key: purge.key.as_bytes().clone(),
        version: purge.version.map_or(0, Version::get),
        offset: purge.offset,
        purged_micros: purge.purged_at.as_microsecond(),
    }
}

fn load_purge(stored: StoredPurge) -> Result<DeadLetterPurge, CodecError> {
    Ok(DeadLetterPurge {
        key: KeyBytes::from_stored(stored.key),
        version: load_version_or_none(stored.version)?,
        offset: stored.offset,
        purged_at: load_time(stored.purged_micros)?,
    })
}

fn load_version_or_none(number: u64) -> Result<Option<Version>, CodecError> {
    if number == 0 { Ok(None) } else { load_version(number).map(Some) }
}

fn load_time(micros: i64) -> Result<Timestamp, CodecError> {
    Timestamp::from_microsecond(micros).map_err(|e| malformed(WHAT, e))
}
