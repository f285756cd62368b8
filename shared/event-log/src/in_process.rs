//! What a log within one process consists of, apart from where it is kept: its records, the drain group, and the
//! members of the group. Shared by the embedded and the memory log.
//!
//! Nothing here depends on threads, chance or the iteration order of a hash map: on one thread with tokio's paused
//! clock the same calls have the same outcome.

mod assignor;
mod group;
mod member;
mod records;

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

pub(crate) use assignor::MemberId;
pub(crate) use group::Group;
pub(crate) use member::{Commit, Commits, GroupMember, Membership, Parting};
pub(crate) use records::{Limits, Records, Room};
#[cfg(feature = "embedded")]
pub(crate) use records::{cost_of, deleted};

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
    /// Counts changes of the state, so that members can wait for one.
    changes: watch::Sender<u64>,
    ended: AtomicBool,
}

impl Shared {
    pub(crate) fn new(records: Records) -> Self {
        let state = State { records, group: Group::default() };
        Self { state: Mutex::new(state), changes: watch::Sender::new(0), ended: AtomicBool::new(false) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait for a change.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
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
