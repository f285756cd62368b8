//! How a database fares, by what this replica's own transactions tell.
//!
//! Each transaction is compared with what such a one takes at best (`usual`), and that with how the database is of late
//! when others burden it and we don't: its `strain`. Nobody's quickest hour, then, is asked of it for ever. The strain is
//! learned where it can't be ours: after some minutes at the lowest limit whatever is found there is it. Else it rises only
//! as slowly as a database grows, and only while all is well, so that what we cause ourselves is never taken for usual.

mod usual;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use database::{DatabaseError, ErrorClass};
use model::TableRef;
use tokio::time::Instant;

use super::law::Health;
use usual::{Kind, Usual, median};

/// What is judged: the transactions that ended so lately.
const WINDOW: Duration = Duration::from_secs(2);
/// Where they are few, so many, ...
const FEW: usize = 8;
/// ... as far as they are not older than this.
const WINDOW_OF_FEW: Duration = Duration::from_secs(4);
/// For so long one that failed is trouble.
const FAILED: Duration = Duration::from_secs(1);
/// Transactions that are remembered, at most.
const REMEMBERED: usize = 512;
/// How many times as long as usual half of them take at most when the database counts as well, and clearly more than half
/// of them at least when it counts as slow.
const WELL: f64 = 1.25;
const SLOW: f64 = 1.5;
/// What is clearly more than half: by so many standard deviations of a fair coin, so that the ordinary scatter of a few
/// transactions is no trouble.
const CLEARLY: f64 = 1.5;
/// What has taken longer than this and ten times as long as usual is a stall, be it the only one.
const STALL: f64 = 1.0;
/// A replica none of whose attempts gets through for so long is cut off by itself: it has no say for the others.
const CUT_OFF: Duration = Duration::from_secs(10);
/// After so long at the lowest limit the database is taken as it is found there, by so many transactions at least.
const ACCEPTED: Duration = Duration::from_secs(300);
const ENOUGH: usize = 8;
/// So many transactions tell the strain at other times: few enough to be of late, too many for chance to have a say.
const LESSON: usize = 64;
/// The strain falls nearly two thirds of the way in so long.
const RELIEF: f64 = 60.0;
/// It doubles in so long at most.
const DOUBLES: f64 = 2.0 * 3600.0;
/// The longest time between two looks for which it moves.
const LONGEST_GAP: f64 = 2.0;

/// What one database's transactions tell, in this replica. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    usual: Usual,
    strain: Strain,
    /// As was found the last time.
    is_well: bool,
    ended: VecDeque<Ended>,
    /// What is under way, and when it began.
    flights: BTreeMap<u64, (Kind, Instant)>,
    next_flight: u64,
    /// The last attempt that failed, and the last one that got through.
    failed: Option<Instant>,
    succeeded: Option<Instant>,
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    kind: Kind,
    took: f64,
}

/// How many times as long as at best transactions take of late without our doing.
#[derive(Debug)]
struct Strain {
    times: f64,
    looked: Option<Instant>,
    /// Since when the limit is the lowest.
    lowest: Option<Instant>,
}

impl Default for Strain {
    fn default() -> Self {
        Self { times: 1.0, looked: None, lowest: None }
    }
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
        state.flights.insert(number, (Kind::new(table, rows), Instant::now()));
        Flight { pulse: self.clone(), number }
    }

    /// How the database fares now, at its lowest limit or above it.
    pub(super) fn health(&self, now: Instant, at_lowest: bool) -> Health {
        self.state().health(now, at_lowest)
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
        self.usual.learn(&kind, took, self.strain.times, self.is_well, now);
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended { at: now, kind, took });
    }

    fn health(&mut self, now: Instant, at_lowest: bool) -> Health {
        let at_lowest_since = self.strain.at_lowest_since(now, at_lowest);
        if at_lowest_since.is_some_and(|since| now.saturating_duration_since(since) >= ACCEPTED) {
            let ours = self.ended.iter().filter(|e| at_lowest_since.is_some_and(|since| e.at > since));
            let mut ratios: Vec<f64> = ours.filter_map(|e| self.usual.ratio(&e.kind, e.took)).collect();
            if ratios.len() >= ENOUGH {
                self.strain.is_at_least(median(&mut ratios).unwrap_or_default());
            }
        }
        let within = |at: Instant, time: Duration| now.saturating_duration_since(at) <= time;
        let gets_through = self.succeeded.is_some_and(|at| within(at, CUT_OFF));
        if !gets_through {
            return Health::Unclear;
        }
        if self.failed.is_some_and(|at| within(at, FAILED)) {
            return Health::Bad;
        }
        let lately = self.ended.iter().rev().enumerate();
        let judged = lately.take_while(|(n, e)| within(e.at, WINDOW) || *n < FEW && within(e.at, WINDOW_OF_FEW));
        let mut ratios: Vec<f64> = judged.filter_map(|(_, e)| self.usual.ratio(&e.kind, e.took)).collect();
        let strain = self.strain.times;
        for (kind, begun) in self.flights.values() {
            let age = now.saturating_duration_since(*begun).as_secs_f64();
            match self.usual.ratio(kind, age) {
                Some(ratio) if age > STALL && ratio > 10.0 * strain => return Health::Bad,
                // How long it takes is not known yet; that it is slow is.
                Some(ratio) if ratio > SLOW * strain => ratios.push(ratio),
                _ => {}
            }
        }
        let Some(middle) = median(&mut ratios) else { return Health::Unclear };
        let health = match nearly_half(&ratios) {
            Some(ratio) if ratio > SLOW * strain => Health::Bad,
            _ if middle > WELL * strain => Health::Fair,
            _ => Health::Good,
        };
        tracing::trace!(?health, middle, strain, transactions = ratios.len(), at_lowest, "how the database fares");
        self.is_well = health == Health::Good;
        if self.ended.len() >= LESSON {
            let lately = self.ended.iter().rev().take(LESSON);
            let mut ratios: Vec<f64> = lately.filter_map(|e| self.usual.ratio(&e.kind, e.took)).collect();
            self.strain.follow(median(&mut ratios).unwrap_or(strain), self.is_well, now);
        }
        health
    }
}

impl Strain {
    fn at_lowest_since(&mut self, now: Instant, at_lowest: bool) -> Option<Instant> {
        self.lowest = at_lowest.then(|| self.lowest.unwrap_or(now));
        self.lowest
    }

    fn is_at_least(&mut self, ratio: f64) {
        self.times = self.times.max(ratio);
    }

    /// Follows what is found: down soon, up hardly, and only where nothing is wrong.
    fn follow(&mut self, ratio: f64, is_well: bool, now: Instant) {
        let passed = self.looked.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64().min(LONGEST_GAP));
        self.looked = Some(now);
        if ratio < self.times {
            self.times += (ratio - self.times) * (1.0 - (-passed / RELIEF).exp());
        } else if is_well {
            self.times = ratio.min(self.times * (passed / DOUBLES).exp2());
        }
    }
}

/// Of sorted values the one that clearly more than half are not below; none of too few.
fn nearly_half(sorted: &[f64]) -> Option<f64> {
    let count = sorted.len() as f64;
    let below = (count - CLEARLY * count.sqrt()) / 2.0;
    if below < 0.0 { None } else { sorted.get(below as usize).copied() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use database::ErrorClass;
    use model::{Chance, DatabaseName, TableName};
    use tokio::time::{sleep, sleep_until};

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
            self.live_at(false, table, seconds, rows).await
        }

        /// The same, at the lowest limit or above it.
        async fn live_at(
            &self,
            lowest: bool,
            table: &Arc<TableRef>,
            seconds: u32,
            rows: impl Fn(f64) -> usize,
        ) -> Vec<Health> {
            let mut found = Vec::new();
            let begun = Instant::now();
            for half in 0..seconds * 2 {
                for tenth in 0..10 {
                    sleep_until(begun + Duration::from_millis(50) * (half * 10 + tenth)).await;
                    self.write(table, rows(f64::from(half) / f64::from(seconds * 2))).await;
                }
                found.push(self.pulse.health(Instant::now(), lowest));
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
        assert_eq!(share(&found[2..], Health::Good), 0.0);
        database.slower = 1.0;
        let found = database.live(&table, 30, |_| 50).await;
        assert!(share(&found[4..], Health::Good) > 0.95, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_slow_is_taken_as_it_is_after_five_minutes_at_the_lowest_limit_and_not_before() {
        for slower in [1.7, 5.0] {
            let (mut database, table) = (Database::new(), table("payments"));
            database.live(&table, 30, |part| if part < 0.3 { 2 } else { 50 }).await;
            database.slower = slower;
            let found = database.live_at(true, &table, 280, |_| 2).await;
            assert_eq!(share(&found[4..], Health::Good), 0.0);
            database.live_at(true, &table, 60, |_| 2).await;
            // Also for sizes that were not seen meanwhile, and for hours.
            let found = database.live(&table, 3600, |_| 50).await;
            assert!(share(&found, Health::Good) > 0.95 && share(&found, Health::Bad) == 0.0, "{slower}: {found:?}");
            // And what makes it slower still is found as before.
            database.slower = 2.0 * slower;
            let found = database.live(&table, 60, |_| 50).await;
            assert!(share(&found[4..], Health::Bad) > 0.8, "{slower}: {found:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_load_is_found_again_minutes_after_one_that_was_taken_for_usual_has_ended() {
        let (mut database, table) = (Database::new(), table("payments"));
        database.live(&table, 30, |_| 50).await;
        database.slower = 3.0;
        database.live_at(true, &table, 400, |_| 2).await;
        database.slower = 1.0;
        database.live(&table, 180, |_| 50).await;
        database.slower = 3.0;
        let found = database.live(&table, 60, |_| 50).await;
        assert!(share(&found[4..], Health::Bad) > 0.95, "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_ours_may_have_caused_is_never_taken_for_usual() {
        let (mut database, table) = (Database::new(), table("payments"));
        database.live(&table, 30, |_| 50).await;
        database.slower = 1.6;
        let found = database.live(&table, 3 * 3600, |_| 50).await;
        assert!(share(&found[4..], Health::Good) < 0.05, "{}", share(&found, Health::Good));
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_they_scatter_a_database_that_is_as_always_is_never_in_trouble_for_hours() {
        let (database, table) = (Database::new(), table("payments"));
        let mut found = Vec::new();
        for turn in 0..4 * 3600 {
            // From half to twice as long, and few of them.
            for _ in 0..4 {
                let flight = database.pulse.begin(&table, 10);
                let scatter = database.chance.jitter(-1.0..1.0) + database.chance.jitter(-1.0..1.0);
                sleep(Duration::from_secs_f64(0.010 * (scatter * 0.7).exp2())).await;
                flight.end(&Ok(()));
            }
            sleep(Duration::from_millis(900)).await;
            if turn > 60 {
                found.push(database.pulse.health(Instant::now(), false));
            }
        }
        assert!(share(&found, Health::Bad) < 0.001, "{}", share(&found, Health::Bad));
        assert!(share(&found, Health::Good) > 0.6, "{}", share(&found, Health::Good));
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
                assert_eq!(database.pulse.health(Instant::now(), false), Health::Good);
                database.pulse.begin(&table, 10).end::<()>(&Err(error.clone()));
                assert_eq!(database.pulse.health(Instant::now(), false), expected, "{error}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_trouble_before_anything_ends_and_who_gets_nothing_through_has_no_say() {
        let (database, table) = (Database::new(), table("payments"));
        assert_eq!(database.pulse.health(Instant::now(), false), Health::Unclear);
        database.live(&table, 5, |_| 10).await;
        let flight = database.pulse.begin(&table, 10);
        sleep(Duration::from_millis(1100)).await;
        assert_eq!(database.pulse.health(Instant::now(), false), Health::Bad);
        sleep(CUT_OFF).await;
        assert_eq!(database.pulse.health(Instant::now(), false), Health::Unclear);
        drop(flight);
        database.live(&table, 5, |_| 10).await;
        assert_eq!(database.pulse.health(Instant::now(), false), Health::Good);
        sleep(2 * WINDOW_OF_FEW).await;
        assert_eq!(database.pulse.health(Instant::now(), false), Health::Unclear, "nothing was tried of late");
    }
}
