//! What came last into the log, read once for all who watch a table.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use event_log::{Following, LogError, LogRecord};
use futures::StreamExt as _;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::logged::Logged;

/// Records that are kept, and their bytes.
const KEPT_RECORDS: usize = 4096;
const KEPT_BYTES: usize = 1 << 20;
/// Records that are given to one watch at once.
const GIVEN: usize = 256;

/// The end of the log of one table, as long as somebody watches it.
#[derive(Debug)]
pub(super) struct Head {
    recent: Mutex<Recent>,
    /// Counts what came, so that watches can wait for more.
    changes: AtomicU64,
    news: Notify,
    ends: CancellationToken,
    _ends_with_it: DropGuard,
}

#[derive(Debug)]
struct Recent {
    partitions: Vec<Kept>,
    /// Of which partition each record is, in the order in which they came.
    arrivals: VecDeque<u16>,
    bytes: usize,
    ended: Option<LogError>,
}

/// What is kept of a partition.
#[derive(Debug)]
struct Kept {
    /// The offset of the first.
    first: i64,
    records: VecDeque<Arc<Logged>>,
}

/// What follows a place.
#[derive(Debug)]
pub(super) enum After {
    /// These records.
    Records(Vec<Arc<Logged>>),
    /// What is not kept: the records up to this offset, that one excluded, are in the log.
    InTheLog(i64),
    /// Nothing yet.
    Nothing,
}

impl Head {
    /// One that begins at these offsets, by partition.
    pub(super) fn new(from: impl Iterator<Item = i64>) -> Arc<Self> {
        let partitions = from.map(|first| Kept { first, records: VecDeque::new() }).collect();
        let ends = CancellationToken::new();
        let recent = Recent { partitions, arrivals: VecDeque::new(), bytes: 0, ended: None };
        Arc::new(Self {
            recent: Mutex::new(recent),
            changes: AtomicU64::new(0),
            news: Notify::new(),
            _ends_with_it: ends.clone().drop_guard(),
            ends,
        })
    }

    /// Cancelled when nobody has it any more.
    pub(super) fn ends(&self) -> CancellationToken {
        self.ends.clone()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.recent().ended.is_some()
    }

    /// What follows a place.
    ///
    /// # Errors
    /// If the log could not be followed any more: what follows is not known then.
    pub(super) fn after(&self, partition: u16, offset: i64) -> Result<After, LogError> {
        let recent = self.recent();
        if let Some(error) = &recent.ended {
            return Err(error.clone());
        }
        let Some(kept) = recent.partitions.get(usize::from(partition)) else { return Ok(After::Nothing) };
        if offset < kept.first {
            return Ok(After::InTheLog(kept.first));
        }
        let skip = usize::try_from(offset - kept.first).unwrap_or(usize::MAX);
        let records: Vec<_> = kept.records.iter().skip(skip).take(GIVEN).cloned().collect();
        Ok(if records.is_empty() { After::Nothing } else { After::Records(records) })
    }

    /// How much has come.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits until more has come than that. Cancel-safe; those who wait go on in the order in which they came.
    pub(super) async fn changed_since(&self, seen: u64) {
        loop {
            // Made before the look, so that it misses nothing.
            let news = self.news.notified();
            if self.changes() != seen {
                return;
            }
            news.await;
        }
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.news.notify_waiters();
    }

    fn take(&self, records: Vec<LogRecord>) {
        let records: Vec<_> = records.into_iter().map(|record| (record.from.partition, Logged::of(record))).collect();
        {
            let recent = &mut *self.recent();
            for (partition, logged) in records {
                let Some(kept) = recent.partitions.get_mut(usize::from(partition)) else { continue };
                recent.bytes += logged.bytes;
                recent.arrivals.push_back(partition);
                kept.records.push_back(Arc::new(logged));
            }
            recent.forget();
        }
        self.changed();
    }

    fn end(&self, error: LogError) {
        self.recent().ended = Some(error);
        self.changed();
    }
}

impl Recent {
    /// Forgets what came first, as far as there is too much.
    fn forget(&mut self) {
        while self.arrivals.len() > KEPT_RECORDS || self.bytes > KEPT_BYTES {
            let Some(partition) = self.arrivals.pop_front() else { return };
            let Some(kept) = self.partitions.get_mut(usize::from(partition)) else { continue };
            if let Some(logged) = kept.records.pop_front() {
                kept.first = logged.offset + 1;
                self.bytes -= logged.bytes;
            }
        }
    }
}

/// Keeps a head up, until nobody has it any more or the log can't be followed.
pub(super) async fn follow(head: Weak<Head>, ends: CancellationToken, mut following: Following) {
    loop {
        let Some(met) = ends.run_until_cancelled(following.next()).await else { return };
        let Some(head) = head.upgrade() else { return };
        match met {
            Some(Ok(records)) => head.take(records),
            Some(Err(error)) => {
                tracing::warn!(%error, "the event log can't be followed any more; its watches end, to be resumed");
                return head.end(error);
            }
            None => return head.end(LogError::Unavailable("following it has ended".to_owned())),
        }
    }
}
