//! A record of the log, read once for all.

use event_log::LogRecord;
use model::{CodecError, Event};
use xxhash_rust::xxh3::Xxh3;

/// A record of the log.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) offset: i64,
    pub(super) bytes: usize,
    /// By which the same log is known again.
    pub(super) digest: u64,
    pub(super) said: Result<Event, CodecError>,
}

impl Logged {
    pub(super) fn of(record: LogRecord) -> Self {
        let LogRecord { offset, key, payload, .. } = record;
        let (bytes, digest) = (key.len() + payload.len(), digest(&key, &payload));
        Self { offset, bytes, digest, said: Event::decode(payload) }
    }
}

fn digest(key: &[u8], payload: &[u8]) -> u64 {
    let mut digest = Xxh3::new();
    digest.update(&(key.len() as u64).to_le_bytes());
    digest.update(key);
    digest.update(payload);
    digest.digest()
}
