//! Who brings a cold record, and who waits for it: of all that miss a record in this replica at the same time, one asks
//! for the lease and the database, and the others wait for its answer in memory.
//!
//! An answer is good for who came before it was sought: what was accepted, evicted or drained before that is in it. Who
//! came later is told to look again. So each step of the one who leads has a number, and each answer says up to which
//! step it is good.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use hot_store::RecordId;
use tokio::sync::watch;

use crate::StoreError;

use super::cold::Loaded;

/// How many steps the leader has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step(u32);

impl Step {
    /// Everybody has joined before it.
    const LAST: Self = Self(u32::MAX);
}

#[derive(Debug, Clone)]
struct Progress {
    step: Step,
    /// What it came to, and up to which step that is good.
    end: Option<(Step, Result<Loaded, StoreError>)>,
}

/// The records that are being brought.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<RecordId, watch::Receiver<Progress>>>);

/// The part of one who misses a record.
pub(super) enum Role<'a> {
    /// Bring it.
    Lead(Lead<'a>),
    /// Wait for the one who does.
    Follow(Follow),
}

/// The right to bring a record; the others wait until it has ended, or was dropped.
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    record: RecordId,
    progress: watch::Sender<Progress>,
}

/// A place among those who wait.
pub(super) struct Follow {
    joined: Step,
    progress: watch::Receiver<Progress>,
}

impl Flights {
    /// Leads, if nobody does.
    pub(super) fn join(&self, record: &RecordId) -> Role<'_> {
        match self.lock().entry(record.clone()) {
            Entry::Occupied(there) => {
                let progress = there.get().clone();
                let joined = progress.borrow().step;
                Role::Follow(Follow { joined, progress })
            }
            Entry::Vacant(place) => {
                let (progress, seen) = watch::channel(Progress { step: Step(0), end: None });
                place.insert(seen);
                Role::Lead(Lead { flights: self, record: record.clone(), progress })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordId, watch::Receiver<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Says that a store is being asked from here on. What it answers is good for those who joined up to the step that is
    /// returned.
    pub(super) fn step(&self) -> Step {
        let mut before = Step(0);
        self.progress.send_modify(|progress| {
            before = progress.step;
            progress.step = Step(before.0 + 1);
        });
        before
    }

    /// Tells the others what it came to.
    pub(super) fn end(self, good_for: Step, loaded: Loaded) {
        self.tell(good_for, Ok(loaded));
    }

    /// Tells the others why it came to nothing, whenever they came.
    pub(super) fn fail(self, error: StoreError) {
        self.tell(Step::LAST, Err(error));
    }

    fn tell(self, good_for: Step, result: Result<Loaded, StoreError>) {
        // Nobody may join what has ended.
        self.flights.lock().remove(&self.record);
        self.progress.send_modify(|progress| progress.end = Some((good_for, result)));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Whoever is there by now is another one, unless this one has ended without a word.
        if self.progress.borrow().end.is_none() {
            self.flights.lock().remove(&self.record);
        }
    }
}

impl Follow {
    /// What it came to; nothing if that says nothing of the moment at which this one joined, or the leader is gone.
    pub(super) async fn outcome(mut self) -> Option<Result<Loaded, StoreError>> {
        let ended = self.progress.wait_for(|progress| progress.end.is_some()).await.ok()?;
        let (good_for, result) = ended.end.as_ref()?;
        (self.joined <= *good_for).then(|| result.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use hot_store::Slot;
    use model::{KeyBytes, Namespace};

    use super::*;

    fn record(key: &'static str) -> RecordId {
        RecordId { namespace: Namespace::new("t").unwrap(), key: KeyBytes::from_stored(Bytes::from(key)) }
    }

    fn lead<'a>(flights: &'a Flights, key: &'static str) -> Lead<'a> {
        match flights.join(&record(key)) {
            Role::Lead(lead) => lead,
            Role::Follow(_) => panic!("somebody leads"),
        }
    }

    fn follow(flights: &Flights, key: &'static str) -> Follow {
        match flights.join(&record(key)) {
            Role::Follow(follow) => follow,
            Role::Lead(_) => panic!("nobody leads"),
        }
    }

    #[tokio::test]
    async fn an_answer_is_for_those_who_came_before_it_was_sought() {
        let flights = Flights::default();
        let leading = lead(&flights, "a");
        let early = follow(&flights, "a");
        let before_lease = leading.step();
        let later = follow(&flights, "a");
        let before_fill = leading.step();
        let late = follow(&flights, "a");
        assert!(before_lease < before_fill);
        leading.end(before_fill, Loaded::Held(Slot::Absent));
        assert_eq!(early.outcome().await, Some(Ok(Loaded::Held(Slot::Absent))));
        assert_eq!(later.outcome().await, Some(Ok(Loaded::Held(Slot::Absent))));
        assert_eq!(late.outcome().await, None);
        // It has ended: the next one leads.
        let leading = lead(&flights, "a");
        let before_lease = leading.step();
        let later = follow(&flights, "a");
        leading.end(before_lease, Loaded::NoRoom(Slot::Absent));
        assert_eq!(later.outcome().await, None);
    }

    #[tokio::test]
    async fn an_error_is_for_all_and_who_goes_without_a_word_leaves_the_place_to_another() {
        let flights = Flights::default();
        let leading = lead(&flights, "a");
        let other = lead(&flights, "b");
        leading.step();
        let late = follow(&flights, "a");
        leading.fail(StoreError::ColdReadsBusy);
        assert_eq!(late.outcome().await, Some(Err(StoreError::ColdReadsBusy)));
        let left = follow(&flights, "b");
        drop(other);
        assert_eq!(left.outcome().await, None);
        drop(lead(&flights, "b"));
        assert!(flights.lock().is_empty());
    }
}
