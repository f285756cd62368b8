//! What must hold for every history and every way in which it is delivered: any order, any cut into batches, any
//! repetition, creates that looked into the hot store only (`since`), tombstones purged in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use database::{Change, Database, DatabaseRow};
use model::{Key, TableSchema};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Handle;

use crate::{harness::*, tested::Tested};

on_every_database!(any_delivery_of_a_history_has_the_same_end, a_replay_after_a_purge_leaves_every_byte);

const KEYS: usize = 4;

/// What happens to a table.
#[derive(Debug, Clone, Copy)]
enum Step {
    Put(usize),
    Delete(usize),
    /// Checked in the hot store only: it may meet a row there.
    Create(usize),
    /// All that was accepted has been delivered; what was not refused is clean, and goes cold.
    Drain {
        purge: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..KEYS).prop_map(Step::Put),
        3 => (0..KEYS).prop_map(Step::Delete),
        3 => (0..KEYS).prop_map(Step::Create),
        2 => any::<bool>().prop_map(|purge| Step::Drain { purge }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A write as it stands in the log.
#[derive(Debug, Clone, Copy)]
struct Event {
    key: usize,
    version: u64,
    delete: bool,
    since: Option<u64>,
}

impl Event {
    fn change(self, schema: &TableSchema) -> Change {
        let key = format!("k{}", self.key);
        let change = if self.delete { delete(schema, &key, self.version) } else { put(schema, &key, self.version) };
        match self.since {
            Some(number) => since(change, number),
            None => change,
        }
    }
}

/// What the hot store knows of a record that the database may not have yet.
#[derive(Debug, Clone, Copy)]
struct Dirty {
    since: Option<u64>,
    newest: Event,
}

/// The history as it should be, and what the hot store makes of it.
#[derive(Default)]
struct Expected {
    clock: u64,
    events: Vec<Event>,
    dirty: BTreeMap<usize, Dirty>,
    table: BTreeMap<usize, DatabaseRow>,
}

impl Expected {
    fn write(&mut self, key: usize, delete: bool, create: bool) {
        let dirty = self.dirty.get(&key).copied();
        if create && dirty.is_some_and(|dirty| !dirty.newest.delete) {
            // The hot store has the row: refused there.
            return;
        }
        self.clock += 1;
        let since = match dirty {
            Some(dirty) => dirty.since,
            None => create.then_some(self.clock),
        };
        let event = Event { key, version: self.clock, delete, since };
        self.events.push(event);
        self.dirty.insert(key, Dirty { since, newest: event });
    }

    fn is_refused(&self, key: usize, dirty: Dirty) -> bool {
        let older = |since: u64| matches!(self.table.get(&key), Some(DatabaseRow::Present { version, .. }) if version.get() < since);
        dirty.since.is_some_and(older)
    }

    /// What is not refused is in the table, and clean.
    fn drain(&mut self) {
        for (key, dirty) in self.dirty.clone() {
            if !self.is_refused(key, dirty) {
                let Event { version, delete, .. } = dirty.newest;
                let row =
                    if delete { deleted(version) } else { present(version, item(&format!("k{key}"), version as i64)) };
                self.table.insert(key, row);
                self.dirty.remove(&key);
            }
        }
    }

    /// Up to where a shard's tombstones may be purged.
    fn horizon(&self, is_of_shard: impl Fn(usize) -> bool) -> u64 {
        let mut horizon = self.clock;
        for key in self.dirty.keys().filter(|key| is_of_shard(**key)) {
            let behind = self.events.iter().filter(|event| event.key == *key && event.since == self.dirty[key].since);
            // Nobody knows from which of its events on the database lacks it; the lowest is safe.
            horizon = behind.map(|event| event.version - 1).min().unwrap_or(horizon).min(horizon);
        }
        horizon
    }
}

/// A number from the seed, below `below`.
fn draw(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize % below
}

/// `must` at least once, and something of `may`, in any order and in batches.
fn schedule(seed: &mut u64, must: &[Event], may: &[Event]) -> Vec<Vec<Event>> {
    let mut all = must.to_vec();
    for _ in 0..draw(seed, may.len() + 2) {
        if !may.is_empty() {
            all.push(may[draw(seed, may.len())]);
        }
    }
    for at in (1..all.len()).rev() {
        all.swap(at, draw(seed, at + 1));
    }
    let mut batches: Vec<Vec<Event>> = Vec::new();
    let mut keys = BTreeSet::new();
    for event in all {
        // At most one change per key and batch.
        if batches.is_empty() || draw(seed, 3) == 0 || keys.contains(&event.key) {
            keys.clear();
            batches.push(Vec::new());
        }
        keys.insert(event.key);
        batches.last_mut().unwrap().push(event);
    }
    batches
}

async fn deliver(h: &Harness, schema: &TableSchema, batches: &[Vec<Event>]) -> Result<(), TestCaseError> {
    for batch in batches {
        let changes: Vec<Change> = batch.iter().map(|event| event.change(schema)).collect();
        h.apply(schema, &changes).await.map_err(|error| TestCaseError::fail(error.to_string()))?;
    }
    Ok(())
}

async fn held(h: &Harness, schema: &TableSchema) -> BTreeMap<usize, DatabaseRow> {
    let keys: Vec<Key> = (0..KEYS).map(|key| id(&format!("k{key}"))).collect();
    let rows = h.database.read(schema, &keys).await.unwrap();
    rows.into_iter().enumerate().filter(|(_, row)| *row != DatabaseRow::Absent).collect()
}

/// Lets a history happen under this seed; gives all its events.
async fn happen(h: &Harness, schema: &TableSchema, steps: &[Step], mut seed: u64) -> Result<Vec<Event>, TestCaseError> {
    h.forget_all(&schema.table.table).await;
    let mut expected = Expected::default();
    let mut delivered = 0;
    for step in steps.iter().copied().chain([Step::Drain { purge: false }]) {
        match step {
            Step::Put(key) => expected.write(key, false, false),
            Step::Delete(key) => expected.write(key, true, false),
            Step::Create(key) => expected.write(key, false, true),
            Step::Drain { purge } => {
                let batches = schedule(&mut seed, &expected.events[delivered..], &expected.events);
                deliver(h, schema, &batches).await?;
                delivered = expected.events.len();
                expected.drain();
                if purge {
                    purge_all(h, schema, &mut expected).await;
                }
                prop_assert_eq!(held(h, schema).await, expected.table.clone(), "after {:?}", expected.events);
            }
        }
    }
    Ok(expected.events)
}

async fn purge_all(h: &Harness, schema: &TableSchema, expected: &mut Expected) {
    for shard in shards().all() {
        let is_of_shard = |key: usize| schema.shard_of(&id(&format!("k{key}")), shards()) == shard;
        let up_to = expected.horizon(is_of_shard);
        h.database.purge_tombstones(schema, &horizon(shard, up_to), 100).await.unwrap();
        let is_purged = |key: usize, row: &DatabaseRow| {
            is_of_shard(key) && matches!(row, DatabaseRow::Deleted { version } if version.get() <= up_to)
        };
        expected.table.retain(|key, row| !is_purged(*key, row));
    }
}

/// Runs the law on both kinds of tables, with as many cases as the database is fast.
async fn law<F>(h: Arc<Harness>, holds: impl Fn(Vec<Step>, u64, TableSchema) -> F)
where
    F: Future<Output = Result<(), TestCaseError>>,
{
    let cases = match &*h.database {
        Tested::Memory(_) => 300,
        Tested::Sql(_) => 20,
    };
    for guard in GUARDS {
        let schema = h.items(guard).await;
        let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
        let handle = Handle::current();
        let outcome = tokio::task::block_in_place(|| {
            runner.run(&(steps(), any::<u64>()), |(steps, seed)| handle.block_on(holds(steps, seed, schema.clone())))
        });
        outcome.unwrap_or_else(|error| panic!("{guard:?}: {error}"));
    }
}

async fn any_delivery_of_a_history_has_the_same_end(h: Harness) {
    let h = Arc::new(h);
    let shared = h.clone();
    law(shared, |steps, seed, schema| {
        let h = h.clone();
        async move {
            // What is expected does not depend on the seed, so two seeds have one end.
            happen(&h, &schema, &steps, seed).await?;
            happen(&h, &schema, &steps, !seed).await.map(drop)
        }
    })
    .await;
}

async fn a_replay_after_a_purge_leaves_every_byte(h: Harness) {
    let h = Arc::new(h);
    let shared = h.clone();
    law(shared, |steps, mut seed, schema| {
        let h = h.clone();
        async move {
            let events = happen(&h, &schema, &steps, seed).await?;
            for purge in [false, true] {
                if purge {
                    // Nothing is under way any more, but for what was refused: that is delivered again, too.
                    for shard in shards().all() {
                        let refused = refused_in(&h, &schema, shard, &events).await;
                        let up_to = refused.map_or(events.len() as u64, |lowest| lowest - 1);
                        h.database.purge_tombstones(&schema, &horizon(shard, up_to), 100).await.unwrap();
                    }
                }
                let before = h.bytes(&schema.table.table).await;
                for in_order in [true, false] {
                    let one_by_one: Vec<_> = events.iter().map(|event| vec![*event]).collect();
                    let batches = if in_order { one_by_one } else { schedule(&mut seed, &events, &events) };
                    deliver(&h, &schema, &batches).await?;
                    prop_assert_eq!(&before, &h.bytes(&schema.table.table).await, "purged: {}", purge);
                }
            }
            Ok(())
        }
    })
    .await;
}

/// The lowest version of a shard that the table refuses.
async fn refused_in(h: &Harness, schema: &TableSchema, shard: model::Shard, events: &[Event]) -> Option<u64> {
    let mut lowest = None;
    for event in events {
        let change = event.change(schema);
        if change.shard == shard && h.apply_one(schema, change).await == database::Applied::SinceRefused {
            lowest = lowest.or(Some(event.version));
        }
    }
    lowest
}
