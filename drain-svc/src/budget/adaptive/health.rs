//! How a database fares, by what this replica's own transactions tell.
//!
//! Each transaction is compared with what such a one usually takes: of the same table and about as many rows. What is usual
//! is a low quantile of what was seen: it follows what gets quicker, and what gets slower only as slowly as a database
//! does that grows, so that a load of hours is not taken for usual.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use database::{DatabaseError, ErrorClass};
use model::TableRef;
use tokio::time::Instant;

use super::law::Health;

/// What is judged: the transactions that ended so lately.
const WINDOW: Duration = Duration::from_secs(1);
/// Where they are few, so many, ...
const FEW: usize = 5;
/// ... as far as they are not older than this.
const WINDOW_OF_FEW: Duration = Duration::from_secs(3);
/// Transactions that are remembered, at most.
const REMEMBERED: usize = 512;
/// How many times as long as usual half of them take when the database counts as slow, and when it counts as well.
const SLOW: f64 = 2.0;
const WELL: f64 = 1.5;
/// Durations below it are all the same.
const NOISE: f64 = 0.003;
/// What has taken longer than this and ten times as long as usual is a stall, be it the only one.
const STALL: f64 = 1.0;
/// A replica none of whose attempts gets through for so long is cut off by itself: it has no say for the others.
const CUT_OFF: Duration = Duration::from_secs(10);
/// Transactions of one kind from which the usual duration learns at once.
const LESSON: usize = 8;
/// What is usual doubles in so long if everything takes longer.
const DOUBLES: f64 = 8.0 * 3600.0;
/// How much of the way it follows what gets quicker, at each lesson.
const QUICKER: f64 = 0.03;
/// The longest time between two lessons for which it rises.
const LONGEST_GAP: f64 = 10.0;
/// Kinds per octave of rows.
const KINDS_PER_OCTAVE: f64 = 4.0;

/// What one database's transactions tell, in this replica. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By table and size.
    usual: BTreeMap<(Arc<TableRef>, u32), Usual>,
    ended: VecDeque<Ended>,
    /// What is under way, and when it began.
    flights: BTreeMap<u64, (Kind, Instant)>,
    next_flight: u64,
    /// The last attempt that failed, and the last one that got through.
    failed: Option<Instant>,
    succeeded: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Kind {
    table: Arc<TableRef>,
    rows: f64,
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    kind: Kind,
    took: f64,
}

/// What a kind of transactions usually takes, in seconds.
#[derive(Debug)]
struct Usual {
    seconds: Option<f64>,
    lesson: Vec<f64>,
    learned: Instant,
}

/// A transaction under way. One that is dropped says nothing.
#[derive(Debug)]
pub(crate) struct Flight {
    pulse: Pulse,
    number: u64,
}

impl Pulse {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction of so many rows begins.
    pub(crate) fn begin(&self, table: &Arc<TableRef>, rows: usize) -> Flight {
        let mut state = self.state();
        let number = state.next_flight;
        state.next_flight += 1;
        let kind = Kind { table: table.clone(), rows: rows.max(1) as f64 };
        state.flights.insert(number, (kind, Instant::now()));
        Flight { pulse: self.clone(), number }
    }

    /// How the database fares now.
    pub(super) fn health(&self, now: Instant) -> Health {
        self.state().health(now)
    }
}

impl Flight {
    /// It has ended.
    pub(crate) fn end<T>(self, outcome: &Result<T, DatabaseError>) {
        let now = Instant::now();
        let mut state = self.pulse.state();
        let Some((kind, begun)) = state.flights.remove(&self.number) else { return };
        match outcome {
            Ok(_) => state.ended(kind, begun, now),
            Err(error) if is_trouble(error) => state.failed = Some(now),
            // What is wrong with the row or the table, or who owns the shard, says nothing of the database.
            Err(_) => {}
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.pulse.state().flights.remove(&self.number);
    }
}

/// Deadlocks, timeouts, lost connections.
pub(crate) fn is_trouble(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Statement { class: ErrorClass::Transient | ErrorClass::Contended, .. }
        | DatabaseError::Unknown(_) => true,
        DatabaseError::Statement { class: ErrorClass::Unclassified, code, .. } => code == database::CONNECTION_LOST,
        _ => false,
    }
}

impl State {
    fn ended(&mut self, kind: Kind, begun: Instant, now: Instant) {
        let took = now.saturating_duration_since(begun).as_secs_f64();
        self.succeeded = Some(now);
        self.learn(&kind, took, now);
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { at: now, kind, took });
    }

    fn health(&self, now: Instant) -> Health {
        let within = |at: Instant, time: Duration| now.saturating_duration_since(at) <= time;
        let gets_through = self.succeeded.is_some_and(|at| within(at, CUT_OFF));
        if !gets_through {
            return Health::Unclear;
        }
        if self.failed.is_some_and(|at| within(at, WINDOW)) {
            return Health::Bad;
        }
        let lately = self.ended.iter().rev().enumerate();
        let judged = lately.take_while(|(n, e)| within(e.at, WINDOW) || *n < FEW && within(e.at, WINDOW_OF_FEW));
        let mut ratios: Vec<f64> = judged.filter_map(|(_, e)| self.ratio(&e.kind, e.took)).collect();
        for (kind, begun) in self.flights.values() {
            let age = now.saturating_duration_since(*begun).as_secs_f64();
            match self.ratio(kind, age) {
                Some(ratio) if age > STALL && ratio > 10.0 => return Health::Bad,
                // How long it takes is not known yet; that it is slow is.
                Some(ratio) if ratio > SLOW => ratios.push(ratio),
                _ => {}
            }
        }
        match median(&mut ratios) {
            None => Health::Unclear,
            Some(ratio) if ratio > SLOW && ratios.len() > 1 => Health::Bad,
            Some(ratio) if ratio > WELL => Health::Fair,
            Some(_) => Health::Good,
        }
    }

    /// How many times as long as usual it takes.
    fn ratio(&self, kind: &Kind, took: f64) -> Option<f64> {
        let usual = self.usual(kind)?;
        Some(took.max(NOISE) / usual.max(NOISE))
    }

    /// What such a transaction usually takes. Where none of its size was seen, as long as a smaller one of the table by
    /// the row, or as a larger one.
    fn usual(&self, kind: &Kind) -> Option<f64> {
        let key = kind.key();
        if let Some(known) = self.usual.get(&key).and_then(|usual| usual.seconds) {
            return Some(known);
        }
        let of_table = |(at, usual): (&(Arc<TableRef>, u32), &Usual)| Some((at.1, usual.seconds?));
        let lowest = (key.0.clone(), 0);
        let smaller = self.usual.range(lowest..key.clone()).rev().find_map(of_table);
        let larger = || self.usual.range(key.clone()..=(key.0.clone(), u32::MAX)).find_map(of_table);
        match smaller {
            Some((size, seconds)) => Some(seconds * (f64::from(key.1 - size) / KINDS_PER_OCTAVE).exp2()),
            None => larger().map(|(_, seconds)| seconds),
        }
    }

    fn learn(&mut self, kind: &Kind, took: f64, now: Instant) {
        let expected = self.usual(kind);
        let fresh = || Usual { seconds: None, lesson: Vec::with_capacity(LESSON), learned: now };
        let usual = self.usual.entry(kind.key()).or_insert_with(fresh);
        usual.lesson.push(took);
        if usual.lesson.len() < LESSON {
            return;
        }
        let Some(middle) = median(&mut usual.lesson) else { return };
        let passed = now.saturating_duration_since(usual.learned).as_secs_f64().min(LONGEST_GAP);
        usual.lesson.clear();
        usual.learned = now;
        usual.seconds = Some(match usual.seconds {
            None => expected.map_or(middle, |expected| middle.min(expected)),
            Some(seconds) if middle < seconds => seconds + (middle - seconds) * QUICKER,
            Some(seconds) => middle.min(seconds * (passed / DOUBLES).exp2()),
        });
    }
}

impl Kind {
    fn key(&self) -> (Arc<TableRef>, u32) {
        (self.table.clone(), (self.rows.log2() * KINDS_PER_OCTAVE) as u32)
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use database::ErrorClass;
    use model::{Chance, DatabaseName, TableName};
    use tokio::time::{advance, sleep};

    use super::*;

    fn table(name: &str) -> Arc<TableRef> {
        let (database, table) = (DatabaseName::new("main").unwrap(), TableName::new(name).unwrap());
        Arc::new(TableRef { database, table })
    }

    fn failure(class: ErrorClass) -> DatabaseError {
        coded(class, "40001/1213")
    }

    fn coded(class: ErrorClass, code: &str) -> DatabaseError {
        let (table, code) = ("payments".to_owned(), code.to_owned());
        DatabaseError::Statement { table, class, code, message: String::new() }
    }

    /// A database whose transactions take a fixed time and so much for each row, give or take.
    struct Database {
        pulse: Pulse,
        chance: Chance,
        slower: f64,
    }

    impl Database {
        fn new() -> Self {
            Self { pulse: Pulse::default(), chance: Chance::seeded(7), slower: 1.0 }
        }

        async fn write(&self, table: &Arc<TableRef>, rows: usize) {
            let flight = self.pulse.begin(table, rows);
            // Now and then one takes much longer.
            let hiccup = if self.chance.jitter(0.0..1.0) < 0.03 { 10.0 } else { 1.0 };
            let took = (0.008 + rows as f64 * 0.0001) * self.chance.jitter(0.7..1.3) * self.slower * hiccup;
            sleep(Duration::from_secs_f64(took)).await;
            flight.end(&Ok(()));
        }

        /// What is found every half second while batches are written, 20 a second.
        async fn live(&self, table: &Arc<TableRef>, seconds: u32, rows: impl Fn(f64) -> usize) -> Vec<Health> {
            let mut found = Vec::new();
            for half in 0..seconds * 2 {
                for _ in 0..10 {
                    self.write(table, rows(f64::from(half) / f64::from(seconds * 2))).await;
                    advance(Duration::from_millis(30)).await;
                }
                found.push(self.pulse.health(Instant::now()));
            }
            found
        }
    }

    fn share(found: &[Health], of: Health) -> f64 {
        found.iter().filter(|health| **health == of).count() as f64 / found.len() as f64
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_as_it_always_is_fares_well_also_while_batches_grow_and_now_and_then_one_is_slow() {
        let (database, table) = (Database::new(), table("payments"));
        let found = database.live(&table, 60, |part| (5.0 * 100_f64.powf(part)) as usize).await;
        assert!(share(&found, Health::Good) > 0.95, "{found:?}");
        assert_eq!(share(&found, Health::Bad), 0.0, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_becomes_slow_is_found_so_within_two_seconds_and_for_hours_and_well_again_as_soon() {
        let (mut database, table) = (Database::new(), table("payments"));
        database.live(&table, 30, |_| 50).await;
        database.slower = 3.0;
        let found = database.live(&table, 3600, |_| 50).await;
        assert_eq!(share(&found[4..1800], Health::Bad), 1.0);
        assert_eq!(share(&found, Health::Good), 0.0);
        database.slower = 1.0;
        let found = database.live(&table, 30, |_| 50).await;
        assert!(share(&found[4..], Health::Good) > 0.95, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_slow_for_good_is_taken_as_it_is_in_the_end() {
        let (mut database, table) = (Database::new(), table("payments"));
        database.live(&table, 30, |_| 50).await;
        database.slower = 2.0;
        for _ in 0..10 * 3600 {
            database.write(&table, 50).await;
            advance(Duration::from_secs(1)).await;
        }
        let found = database.live(&table, 60, |_| 50).await;
        assert!(share(&found, Health::Good) > 0.9, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_from_the_first_batch_of_a_size_on_is_found_by_smaller_ones() {
        let (mut database, table) = (Database::new(), table("payments"));
        database.live(&table, 30, |_| 10).await;
        database.slower = 8.0;
        // By the row 40 may take four times as long as 10; these take ten times as long.
        let found = database.live(&table, 30, |_| 40).await;
        assert!(share(&found[4..], Health::Bad) > 0.95, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn deadlocks_and_lost_connections_are_trouble_and_what_is_wrong_with_a_row_or_an_owner_is_none() {
        let (database, table) = (Database::new(), table("payments"));
        let name = table.table.clone();
        let none = [failure(ErrorClass::Permanent), failure(ErrorClass::Dependent), DatabaseError::NotOwner(name)];
        let trouble = [
            failure(ErrorClass::Transient),
            failure(ErrorClass::Contended),
            coded(ErrorClass::Unclassified, database::CONNECTION_LOST),
            DatabaseError::Unknown("lost".into()),
        ];
        for (errors, expected) in [(&none[..], Health::Good), (&trouble[..], Health::Bad)] {
            for error in errors {
                database.live(&table, 5, |_| 10).await;
                assert_eq!(database.pulse.health(Instant::now()), Health::Good);
                database.pulse.begin(&table, 10).end::<()>(&Err(error.clone()));
                assert_eq!(database.pulse.health(Instant::now()), expected, "{error}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_trouble_before_anything_ends_and_who_gets_nothing_through_has_no_say() {
        let (database, table) = (Database::new(), table("payments"));
        assert_eq!(database.pulse.health(Instant::now()), Health::Unclear);
        database.live(&table, 5, |_| 10).await;
        let flight = database.pulse.begin(&table, 10);
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(database.pulse.health(Instant::now()), Health::Bad);
        sleep(CUT_OFF).await;
        assert_eq!(database.pulse.health(Instant::now()), Health::Unclear);
        drop(flight);
        database.live(&table, 5, |_| 10).await;
        assert_eq!(database.pulse.health(Instant::now()), Health::Good);
        sleep(2 * WINDOW_OF_FEW).await;
        assert_eq!(database.pulse.health(Instant::now()), Health::Unclear, "nothing was tried of late");
    }
}
