//! The same events in other batches, orders and repetitions come to the same outcome, also where a create looked at the
//! hot store only.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use database::{
    AnyDatabase, Applied, Batch, Change, Database, DatabaseOptions, DatabaseRow, Owner, ShardClaim,
    memory::{MemoryDatabase, MemoryTable},
};
use model::{
    ColumnName, ColumnType, Content, DatabaseName, Image, Key, Operation, Row, Shard, TableName, TableSchema, Value,
    Version,
};
use proptest::{prelude::*, sample::Index, strategy::ValueTree as _, test_runner::TestRunner};
use tokio::time::Instant;

use crate::gather::{Coalescer, Gathered, Generation, Limits, Verdict};

const SHARD: Shard = Shard(0);
const GENERATION: Generation = Generation(1);
const LIMITS: Limits = Limits { rows: 10, bytes: 1 << 20, age: Duration::ZERO };

/// What the database holds before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A row that nobody wrote through us.
    Foreign,
    /// A row of version 3.
    Ours,
    /// A tombstone of version 3.
    Deleted,
}

const BEFORE: [Before; 4] = [Before::Nothing, Before::Foreign, Before::Ours, Before::Deleted];

/// An event of the one key: version, `since`, amount or delete.
type Event = (u64, Option<u64>, Option<i64>);

/// What a key may go through while its create is not clean: `since` goes on. And what goes on where there was a dirty
/// delete: no `since` at all.
const HISTORIES: [&[Event]; 3] = [
    &[(5, Some(5), Some(50)), (6, Some(5), Some(60)), (7, Some(5), Some(70))],
    &[(5, Some(5), Some(50)), (6, Some(5), None), (7, Some(5), Some(70)), (8, Some(5), None)],
    &[(4, None, None), (5, None, Some(50)), (6, None, Some(60))],
];

struct Table<D> {
    database: D,
    schema: TableSchema,
    owner: Owner,
}

/// A database in which somebody else writes, too.
trait Shared: Database {
    async fn write_foreign(&self, key: i64);
}

impl Shared for AnyDatabase {
    async fn write_foreign(&self, key: i64) {
        let insert = format!("INSERT INTO payments (id, amount) VALUES ({key}, 1)");
        self.run_script(&insert).await.unwrap();
    }
}

impl Shared for MemoryDatabase {
    async fn write_foreign(&self, key: i64) {
        self.write_row(&TableName::new("payments").unwrap(), row(key, 1)).unwrap();
    }
}

fn row(key: i64, amount: i64) -> Row {
    let column = |name: &str, value| (ColumnName::new(name).unwrap(), Value::Int64(value));
    Row::from_iter([column("id", key), column("amount", amount)])
}

fn version(n: u64) -> Version {
    Version::new(n).unwrap()
}

impl<D: Shared> Table<D> {
    async fn of(database: D) -> Self {
        let (name, table) = (DatabaseName::new("main").unwrap(), TableName::new("payments").unwrap());
        database.prepare().await.unwrap();
        database.add_version_column(&table).await.unwrap();
        let schema = database.introspect(&name, &table).await.unwrap();
        let owner = Owner("test".into());
        database.take_ownership(&[ShardClaim { table, shard: SHARD }], &owner).await.unwrap();
        Self { database, schema, owner }
    }

    fn change(&self, key: i64, (at, since, amount): Event) -> Change {
        let (content, operation) = match amount {
            Some(amount) => (Content::Row(row(key, amount)), Operation::Put),
            None => (Content::Tombstone, Operation::Delete),
        };
        let image = Image {
            content,
            operation,
            fingerprint: self.schema.fingerprint(),
            request: None,
            since: since.map(version),
        };
        Change { shard: SHARD, key: Key(vec![Value::Int64(key)]), version: version(at), image }
    }

    async fn apply(&self, changes: &[Change]) -> Vec<Applied> {
        let owners = vec![(SHARD, self.owner.clone())];
        self.database.apply(Batch { schema: &self.schema, owners, changes }).await.unwrap()
    }

    async fn set_up(&self, key: i64, before: Before) {
        match before {
            Before::Nothing => {}
            Before::Foreign => self.database.write_foreign(key).await,
            Before::Ours => drop(self.apply(&[self.change(key, (3, None, Some(30)))]).await),
            Before::Deleted => drop(self.apply(&[self.change(key, (3, None, None))]).await),
        }
    }

    /// Carries out a schedule as a writer does, what is refused being tried again at the end of each batch; says what
    /// the database holds then, and which versions are held for ever.
    async fn carry_out(&self, key: i64, history: &[Event], batches: &[Vec<usize>]) -> (DatabaseRow, BTreeSet<u64>) {
        let mut lane = Coalescer::default();
        lane.assign(SHARD, GENERATION, self.owner.clone());
        let (mut offset, mut held) = (0, BTreeSet::new());
        for batch in batches {
            for at in batch {
                let change = self.change(key, history[*at]);
                offset += 1;
                lane.gather(
                    Gathered { generation: GENERATION, offset, bytes: 1, change, payload: Bytes::new() },
                    Instant::now(),
                );
            }
            // Once what is new, once what was held before.
            for _ in 0..2 {
                for entry in lane.take(LIMITS.rows, LIMITS, Instant::now()) {
                    let versions = entry.ticket.records.iter().map(|(version, _)| version.get());
                    if self.apply(std::slice::from_ref(&entry.change)).await == [Applied::SinceRefused] {
                        held.extend(versions);
                        lane.put_back(vec![entry], Verdict::HeldUntil(Instant::now()), Instant::now());
                    } else {
                        for version in versions {
                            held.remove(&version);
                        }
                        lane.release(SHARD, &entry.ticket);
                    }
                }
            }
        }
        let found = self.database.read(&self.schema, &[Key(vec![Value::Int64(key)])]).await.unwrap().remove(0);
        (found, held)
    }
}

/// Every event at least once, in any order, some again, cut into batches anywhere.
fn batches(events: usize, order: &[Index], cuts: &[bool]) -> Vec<Vec<usize>> {
    let mut left: Vec<usize> = (0..events).collect();
    let mut schedule: Vec<usize> = Vec::new();
    for pick in order {
        let at = pick.index(left.len() + schedule.len());
        let again = at.checked_sub(left.len()).map(|at| schedule[at]);
        schedule.push(again.unwrap_or_else(|| left.remove(at)));
    }
    schedule.extend(left);
    let mut batches = vec![Vec::new()];
    for (at, event) in schedule.into_iter().enumerate() {
        batches.last_mut().unwrap().push(event);
        if cuts[at % cuts.len()] {
            batches.push(Vec::new());
        }
    }
    batches
}

async fn one_outcome<D: Shared>(table: Table<D>, schedules: usize) {
    let mut key = 0;
    let mut runner = TestRunner::deterministic();
    for (before, history) in BEFORE.iter().flat_map(|before| HISTORIES.map(|history| (*before, history))) {
        let one_by_one: Vec<Vec<usize>> = (0..history.len()).map(|at| vec![at]).collect();
        key += 1;
        table.set_up(key, before).await;
        let expected = without_key(table.carry_out(key, history, &one_by_one).await);
        let is_refused = history[0].1.is_some() && matches!(before, Before::Foreign | Before::Ours);
        assert_eq!(expected.1.len(), if is_refused { history.len() } else { 0 }, "{before:?} {history:?}");
        let schedule = (prop::collection::vec(any::<Index>(), 0..9), prop::collection::vec(any::<bool>(), 1..9));
        for _ in 0..schedules {
            let (order, cuts) = schedule.new_tree(&mut runner).unwrap().current();
            let batches = batches(history.len(), &order, &cuts);
            key += 1;
            table.set_up(key, before).await;
            let outcome = without_key(table.carry_out(key, history, &batches).await);
            assert_eq!(outcome, expected, "{before:?} {history:?} in {batches:?}");
            // The whole of it once more changes nothing.
            let replayed = without_key(table.carry_out(key, history, &one_by_one).await);
            assert_eq!(replayed, expected, "{before:?} {history:?} after {batches:?}");
        }
    }
}

#[tokio::test]
async fn a_create_that_looked_at_the_hot_store_only_has_one_outcome_however_its_events_are_batched() {
    let database = MemoryDatabase::default();
    let column = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
    let table = MemoryTable::new(vec![column("id"), column("amount")]);
    database.define_table(TableName::new("payments").unwrap(), table);
    one_outcome(Table::of(database).await, 100).await;
}

#[tokio::test]
async fn so_it_has_in_a_relational_database() {
    let dir = tempfile::TempDir::new().unwrap();
    let url = format!("sqlite:{}", dir.path().join("data.sqlite").display());
    let options = DatabaseOptions::new(DatabaseName::new("main").unwrap(), url);
    let database = AnyDatabase::connect(DatabaseOptions { create_if_missing: true, ..options }).await.unwrap();
    let create = "CREATE TABLE payments (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL)";
    database.run_script(create).await.unwrap();
    one_outcome(Table::of(database).await, 2).await;
}

/// The same for all keys.
fn without_key((row, held): (DatabaseRow, BTreeSet<u64>)) -> (DatabaseRow, BTreeSet<u64>) {
    let amount = ColumnName::new("amount").unwrap();
    let row = match row {
        DatabaseRow::Present { version, row } => DatabaseRow::Present { version, row: row.select(&[amount]) },
        other => other,
    };
    (row, held)
}
