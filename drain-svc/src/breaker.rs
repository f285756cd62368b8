//! A breaker per database: while it can't write, nobody tries.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use database::{Database, DatabaseError, TableDirectory};
use model::DatabaseName;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{DrainOptions, apply::without_values, backoff::Backoff, parts::Parts, status};

/// The breakers of all configured databases.
pub(crate) struct Breakers(BTreeMap<DatabaseName, Arc<Breaker>>);

impl Breakers {
    pub(crate) fn new<D: Database>(directory: &TableDirectory<D>, options: &DrainOptions) -> Self {
        let breaker = |name: &DatabaseName| {
            let backoff = Backoff::new(options.retry_initial, options.retry_max, options.chance.clone());
            (name.clone(), Arc::new(Breaker::new(name.clone(), backoff)))
        };
        Self(directory.databases().iter().map(|(name, _)| breaker(name)).collect())
    }

    /// That of a database; `None` if no such database is configured.
    pub(crate) fn of(&self, database: &DatabaseName) -> Option<&Arc<Breaker>> {
        self.0.get(database)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Breaker>> {
        self.0.values()
    }
}

/// How often the breaker has been closed. What an attempt met that began before tells nothing of the database as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closing(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed(Closing),
    /// Nobody tries until then.
    OpenUntil(Instant),
    /// One probe is under way.
    HalfOpen,
}

/// Open while the database can write nothing: no attempt is made, no leave is held. After a while that grows with each
/// failure one probe, which writes nothing, finds out whether it can; then all may try again, and the first that fails, and
/// finds the database failing too, opens it for longer.
pub(crate) struct Breaker {
    database: DatabaseName,
    state: watch::Sender<State>,
    course: Mutex<Course>,
}

/// What belongs to one outage. It is over when something was written, or refused for what was in it.
struct Course {
    backoff: Backoff,
    closings: u64,
    began: Option<Instant>,
}

impl Breaker {
    fn new(database: DatabaseName, backoff: Backoff) -> Self {
        let course = Mutex::new(Course { backoff, closings: 0, began: None });
        Self { database, state: watch::Sender::new(State::Closed(Closing(0))), course }
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        // Each change of it is made in one step.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until attempts are let through. Cancel-safe.
    pub(crate) async fn closed(&self) -> Closing {
        let mut states = self.state.subscribe();
        loop {
            if let State::Closed(closing) = *states.borrow_and_update() {
                return closing;
            }
            // The sender is this breaker's own.
            let _ = states.changed().await;
        }
    }

    /// Waits until attempts are let through no more. Cancel-safe.
    pub(crate) async fn opened(&self) {
        let mut states = self.state.subscribe();
        while matches!(*states.borrow_and_update(), State::Closed(_)) {
            let _ = states.changed().await;
        }
    }

    /// An attempt that was let through at `closing` has shown that the database can't write.
    pub(crate) fn failed(&self, closing: Closing, error: &DatabaseError) {
        let mut course = self.course();
        if *self.state.borrow() != State::Closed(closing) {
            return;
        }
        self.open(&mut course, error);
    }

    /// The database has written something, or refused it for what it was.
    pub(crate) fn answered(&self) {
        let mut course = self.course();
        if matches!(*self.state.borrow(), State::Closed(_)) {
            course.backoff.reset();
            if let Some(began) = course.began.take() {
                let took = began.elapsed();
                tracing::info!(database = %self.database, ?took, "the database takes writes again");
            }
        }
    }

    fn open(&self, course: &mut Course, error: &DatabaseError) {
        if course.began.is_none() {
            course.began = Some(Instant::now());
            let error = without_values(error);
            tracing::warn!(database = %self.database, error, "the database can't write; nothing is tried until it can");
        }
        self.state.send_replace(State::OpenUntil(Instant::now() + course.backoff.next_delay()));
    }

    fn half_open(&self) {
        self.state.send_replace(State::HalfOpen);
    }

    /// What the probe has found.
    fn probed(&self, outcome: Result<(), DatabaseError>) {
        let mut course = self.course();
        match outcome {
            Err(error) if error.class().may_pass() => self.open(&mut course, &error),
            // Whatever else it says, it answers: the attempts find out what it means for them.
            Ok(()) | Err(_) => {
                course.closings += 1;
                self.state.send_replace(State::Closed(Closing(course.closings)));
            }
        }
    }

    fn shown(&self) -> status::Breaker {
        match *self.state.borrow() {
            State::Closed(_) => status::Breaker::Closed,
            State::OpenUntil(until) => status::Breaker::Open { until },
            State::HalfOpen => status::Breaker::HalfOpen,
        }
    }
}

/// Probes a database whenever its breaker is open, until the drain stops.
pub(crate) async fn probe_when_open<H, D: Database>(parts: Arc<Parts<H, D>>, breaker: Arc<Breaker>) {
    let mut states = breaker.state.subscribe();
    loop {
        let state = *states.borrow_and_update();
        let shown = breaker.shown();
        parts.board.breaker(&breaker.database, shown);
        parts.metrics.breaker(&breaker.database, shown);
        match state {
            State::Closed(_) => tokio::select! {
                biased;
                () = parts.stop.cancelled() => return,
                _ = states.changed() => {}
            },
            State::OpenUntil(until) => tokio::select! {
                biased;
                () = parts.stop.cancelled() => return,
                () = time::sleep_until(until) => breaker.half_open(),
            },
            State::HalfOpen => {
                let probe = async {
                    match parts.directory.database(&breaker.database) {
                        Some(database) => database.probe().await,
                        None => Ok(()),
                    }
                };
                tokio::select! {
                    biased;
                    () = parts.stop.cancelled() => return,
                    outcome = probe => breaker.probed(outcome),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use model::Chance;

    use super::*;

    const MAX: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        let backoff = Backoff::new(Duration::from_millis(100), MAX, Chance::seeded(7));
        Breaker::new(DatabaseName::new("main").unwrap(), backoff)
    }

    fn away() -> DatabaseError {
        DatabaseError::Statement {
            table: String::new(),
            class: database::ErrorClass::Transient,
            code: String::new(),
            message: String::new(),
        }
    }

    fn open_for(breaker: &Breaker) -> Duration {
        match *breaker.state.borrow() {
            State::OpenUntil(until) => until.saturating_duration_since(Instant::now()),
            state => panic!("{state:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_succeeds_closes_it_and_the_first_that_fails_then_opens_it_for_longer() {
        let breaker = breaker();
        let mut longest = Duration::ZERO;
        for attempt in 0..20 {
            let closing = breaker.closed().await;
            breaker.failed(closing, &away());
            let open = open_for(&breaker);
            assert!(open <= MAX && (attempt == 0 || open >= longest / 2), "{open:?} after {longest:?}");
            longest = longest.max(open);
            breaker.half_open();
            breaker.probed(Ok(()));
        }
        assert!(longest > MAX / 2, "it grows: {longest:?}");
        breaker.answered();
        breaker.failed(breaker.closed().await, &away());
        assert!(open_for(&breaker) <= Duration::from_millis(100), "another outage");
    }

    #[tokio::test(start_paused = true)]
    async fn what_began_before_it_was_closed_does_not_open_it() {
        let breaker = breaker();
        let (one, other) = (breaker.closed().await, breaker.closed().await);
        breaker.failed(one, &away());
        let open = open_for(&breaker);
        breaker.failed(other, &away());
        assert_eq!(open_for(&breaker), open, "one outage is one");
        breaker.answered();
        assert_eq!(open_for(&breaker), open, "what was written before it opened says nothing");
        breaker.half_open();
        breaker.probed(Ok(()));
        breaker.failed(other, &away());
        assert_ne!(breaker.closed().await, one, "it is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_opens_it_again() {
        let breaker = breaker();
        breaker.failed(breaker.closed().await, &away());
        breaker.half_open();
        breaker.probed(Err(DatabaseError::Unknown(String::new())));
        assert!(open_for(&breaker) >= Duration::from_millis(100));
        breaker.opened().await;
    }
}
