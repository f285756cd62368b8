//! What leave this process holds, and what the store has to be told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hot_store::{Ended, PERMIT_LEASE, Permit, PermitId};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::Instant,
};

/// How long before its end a permit is renewed: three renewals may fail.
const RENEWED_AFTER: Duration = Duration::from_millis(PERMIT_LEASE.as_millis() as u64 / 4);
/// For how long after its grant a batch may seem unfinished, though it has ended, if its end can be told with a question
/// that is asked by then: one call a batch. One that took longer is told of at once, for others may wait for its place.
const KEPT_BACK: Duration = Duration::from_millis(60);
/// Of the durations of batches, how much the newest counts, and which is the longest that counts.
const NEWEST: f64 = 0.125;
const LONGEST: Duration = Duration::from_millis(100);
/// How late such a question may be.
const ASKED_LATE: Duration = Duration::from_millis(10);

/// The permits of one table in this process.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// There is something to tell.
    changed: Notify,
    /// A batch has ended here.
    pub(super) freed: Notify,
}

#[derive(Debug)]
struct Held {
    permit: Permit,
    /// When the store was last asked to let it stand.
    renewed: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// What is held.
    held: BTreeMap<PermitId, Held>,
    /// What has ended, when, and until when that may be kept back; not told yet.
    ended: BTreeMap<PermitId, (Permit, Instant, Instant)>,
    /// How long batches take, from their grant to their end.
    takes: Duration,
    /// When the store is asked next.
    asked_at: Option<Instant>,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit that the store is about to be asked for. Unless it turns out that it was not granted, the store is told
    /// that it has ended once this is dropped.
    pub(super) fn begin(self: &Arc<Self>, permit: Permit, place: Option<OwnedSemaphorePermit>) -> Leave {
        let now = Instant::now();
        self.state().held.insert(permit.id, Held { permit, renewed: now });
        self.changed.notify_one();
        Leave { ledger: self.clone(), permit, begun: now, refused: false, _place: place }
    }

    /// When the store is asked next: what has ended by then can be told with it.
    pub(super) fn asks_at(&self, at: Option<Instant>) {
        self.state().asked_at = at;
    }

    /// What has ended, to be told now. What can't be is given back.
    pub(super) fn take_ended(&self) -> Vec<(Permit, Instant)> {
        std::mem::take(&mut self.state().ended).into_values().map(|(permit, at, _)| (permit, at)).collect()
    }

    pub(super) fn put_back(&self, ended: Vec<(Permit, Instant)>) {
        let mut state = self.state();
        for (permit, at) in ended {
            state.ended.entry(permit.id).or_insert((permit, at, at));
        }
    }

    /// How long batches take of late, from their grant to their end.
    pub(super) fn takes(&self) -> Duration {
        self.state().takes
    }

    /// What has to be renewed by now.
    pub(super) fn take_renewals(&self) -> Vec<Permit> {
        let now = Instant::now();
        let mut state = self.state();
        let due = state.held.values_mut().filter(|held| now >= held.renewed + RENEWED_AFTER);
        due.map(|held| {
            held.renewed = now;
            held.permit
        })
        .collect()
    }

    /// Whether nothing is held and nothing has to be told.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        state.held.is_empty() && state.ended.is_empty()
    }

    /// Waits until something has to be told by a call of its own (`true`), or there is another state of things.
    pub(super) async fn is_due(&self) -> bool {
        let at = self.state().due_at();
        let due = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.changed.notified() => false,
            () = due => true,
        }
    }
}

impl State {
    fn due_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let end = self.ended.values().map(|(_, _, until)| *until).min().map(|until| match self.asked_at {
            Some(asked) if asked <= until && now <= asked + ASKED_LATE => asked + ASKED_LATE,
            _ => now,
        });
        let renewal = self.held.values().map(|held| held.renewed + RENEWED_AFTER).min();
        [end, renewal].into_iter().flatten().min()
    }
}

/// How long ago what has ended did so.
pub(super) fn ago(ended: &[(Permit, Instant)]) -> Vec<Ended> {
    ended.iter().map(|(permit, at)| Ended { permit: *permit, ago: at.elapsed() }).collect()
}

/// Leave for one batch, until it is dropped: when the transaction has ended, one way or the other.
#[derive(Debug)]
pub(crate) struct Leave {
    ledger: Arc<Ledger>,
    permit: Permit,
    begun: Instant,
    refused: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Leave {
    /// It was not granted after all, for sure. Gives back the place in this process.
    pub(super) fn refused(mut self) -> Option<OwnedSemaphorePermit> {
        self.refused = true;
        self._place.take()
    }

    /// Nobody knows whether it was granted: it counts as ended. Gives back the place in this process.
    pub(super) fn unknown(mut self) -> Option<OwnedSemaphorePermit> {
        self._place.take()
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.held.remove(&self.permit.id);
        if !self.refused {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.begun).min(LONGEST);
            state.takes = state.takes.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST);
            state.ended.insert(self.permit.id, (self.permit, now, self.begun + KEPT_BACK));
            self.ledger.freed.notify_one();
        }
        self.ledger.changed.notify_one();
    }
}
