//! Who brings a cold record, and who waits for it: of all that miss a record in this replica at the same time, one asks
//! for the lease and the database, and the others wait for its answer in memory.
//!
//! An answer is good for who came before it was sought: what was accepted, evicted or drained before that is in it. Who
//! came later is told to look again. So each step of the one who leads has a number, and each answer says up to which
//! step it is good.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hot_store::RecordId;
use tokio::sync::Notify;

use crate::StoreError;

use super::cold::Loaded;

/// How many steps the leader has made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step(u32);

impl Step {
    /// Everybody has joined before it.
    const LAST: Self = Self(u32::MAX);
}

/// How it ended.
#[derive(Debug)]
enum End {
    /// What it came to, and up to which step that is good.
    Told(Step, Result<Loaded, StoreError>),
    /// Without a word: its leader was dropped.
    Gone,
}

#[derive(Debug, Default)]
struct Progress {
    step: Step,
    end: Option<End>,
}

/// A record that is being brought.
#[derive(Debug, Default)]
struct Flight {
    progress: Mutex<Progress>,
    /// Wakes those who wait in the order in which they came. A watch channel does so in an order of its own, and no run
    /// of the simulation could be had again.
    ended: Notify,
}

impl Flight {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, if it has not ended.
    fn end(&self, end: End) {
        self.progress().end.get_or_insert(end);
        self.ended.notify_waiters();
    }
}

/// The records that are being brought.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<RecordId, Arc<Flight>>>);

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
    flight: Arc<Flight>,
}

/// A place among those who wait.
pub(super) struct Follow {
    joined: Step,
    flight: Arc<Flight>,
}

impl Flights {
    /// Leads, if nobody does.
    pub(super) fn join(&self, record: &RecordId) -> Role<'_> {
        match self.lock().entry(record.clone()) {
            Entry::Occupied(there) => {
                let flight = there.get().clone();
                let joined = flight.progress().step;
                Role::Follow(Follow { joined, flight })
            }
            Entry::Vacant(place) => {
                let flight = place.insert(Arc::default()).clone();
                Role::Lead(Lead { flights: self, record: record.clone(), flight })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RecordId, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Says that a store is being asked from here on. What it answers is good for those who joined up to the step that is
    /// returned.
    pub(super) fn step(&self) -> Step {
        let mut progress = self.flight.progress();
        let before = progress.step;
        progress.step = Step(before.0 + 1);
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
        self.flight.end(End::Told(good_for, result));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Whoever is there by now is another one, unless this one has ended without a word.
        if self.flight.progress().end.is_none() {
            self.flights.lock().remove(&self.record);
            self.flight.end(End::Gone);
        }
    }
}

impl Follow {
    /// What it came to; nothing if that says nothing of the moment at which this one joined, or the leader is gone.
    pub(super) async fn outcome(self) -> Option<Result<Loaded, StoreError>> {
        // It hears of an end from here on, also of one that comes before it is waited for.
        let ended = self.flight.ended.notified();
        let has_ended = self.flight.progress().end.is_some();
        if !has_ended {
            ended.await;
        }
        match &self.flight.progress().end {
            Some(End::Told(good_for, result)) if self.joined <= *good_for => Some(result.clone()),
            Some(End::Told(..) | End::Gone) | None => None,
        }
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
