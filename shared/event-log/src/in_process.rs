//! What a log within one process consists of, apart from where it is kept: its records, the drain group, and the
//! members of the group. Shared by the embedded and the memory log.
//!
//! Nothing here depends on threads, chance or the iteration order of a hash map: on one thread with tokio's paused
//! clock the same calls have the same outcome.

mod assignor;
mod following;
mod group;
mod member;
mod records;

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

pub(crate) use assignor::MemberId;
pub(crate) use following::{Drained, follow};
pub(crate) use group::Group;
pub(crate) use member::{Commit, Commits, GroupMember, Membership, Parting};
pub(crate) use records::{Limits, Records, Room, deleted};

use crate::log::LogError;

/// The records and the group: what is looked at and changed together.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) records: Records,
    pub(crate) group: Group,
}

/// What all faces of the log share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Counts changes of the state, so that members can wait for one. No `watch` channel: that wakes those who wait in
    /// an order which chance decides.
    changes: AtomicU64,
    news: Notify,
    ended: AtomicBool,
}

impl Shared {
    pub(crate) fn new(records: Records) -> Self {
        let state = State { records, group: Group::default() };
        Self {
            state: Mutex::new(state),
            changes: AtomicU64::new(0),
            news: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait for a change.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.news.notify_waiters();
    }

    /// How many changes there were.
    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits until there were others than these. Cancel-safe; those who wait go on in the order in which they came.
    async fn changed_since(&self, seen: u64) {
        loop {
            // Made before the look, so that it misses nothing.
            let news = self.news.notified();
            if self.changes() != seen {
                return;
            }
            news.await;
        }
    }

    /// Nothing is taken or delivered any more.
    #[cfg(feature = "embedded")]
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.changed();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// What everybody is told who comes after the end.
pub(crate) fn ended() -> LogError {
    LogError::Fatal("the event log of this process has ended".into())
}
