//! What could be written in the order in which it was accepted is written, however its events are batched and over however
//! many lanes they lie: rows that swap a unique value, or hand it on, are in each other's way for a while and not for ever.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use database::{
    Batch, Change, Database, DatabaseError, DatabaseRow, ErrorClass, Owner, ShardClaim,
    memory::{MemoryDatabase, MemoryTable},
};
use model::{
    ColumnName, ColumnType, Content, DatabaseName, DeadLetterCause, Image, Key, Operation, Row, Shard, TableName,
    TableSchema, Value, Version,
};
use proptest::{prelude::*, sample::Index};
use tokio::time::Instant;

use crate::gather::{Coalescer, Entry, Gathered, Generation, GivenUp, Limits, Reason, Verdict};

const GENERATION: Generation = Generation(1);
const LANES: u16 = 3;
/// Rows that are there before anything else, each with its own number as its unique value.
const ROWS: i64 = 5;

/// What a key is written as; a delete without a value.
type Write = (i64, Option<i64>);

/// Writes each of which the table takes if it has taken those before it. A value that a row had at the beginning is taken by
/// one row at most; where it passes through more hands, who drains it last may find it in the hands of the next.
fn accepted(wishes: &[(Index, Index, u8)]) -> Vec<Write> {
    let mut rows: BTreeMap<i64, Option<i64>> = (0..ROWS).map(|row| (row, Some(row))).collect();
    let (mut taken, mut fresh, mut writes) = (BTreeSet::new(), 100, Vec::new());
    for (row, value, what) in wishes {
        let row = row.index(ROWS as usize) as i64;
        let free: Vec<i64> =
            (0..ROWS).filter(|value| !taken.contains(value) && !rows.values().any(|it| *it == Some(*value))).collect();
        let value = match what % 8 {
            0 => None,
            // On to a value that another row has left, if there is one.
            1..6 if !free.is_empty() => Some(free[value.index(free.len())]),
            _ => {
                fresh += 1;
                Some(fresh)
            }
        };
        taken.extend(value);
        rows.insert(row, value);
        writes.push((row, value));
    }
    writes
}

struct Table {
    database: MemoryDatabase,
    schema: TableSchema,
}

impl Table {
    async fn new() -> Self {
        let (name, table) = (DatabaseName::new("main").unwrap(), TableName::new("seats").unwrap());
        let database = MemoryDatabase::default();
        let column = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
        let columns = vec![column("id"), column("seat")];
        database.define_table(table.clone(), MemoryTable { unique: vec![vec![1]], ..MemoryTable::new(columns) });
        database.prepare().await.unwrap();
        let schema = database.introspect(&name, &table).await.unwrap();
        let claims: Vec<_> = (0..LANES).map(|lane| ShardClaim { table: table.clone(), shard: Shard(lane) }).collect();
        database.take_ownership(&claims, &Owner("test".into())).await.unwrap();
        let this = Self { database, schema };
        for row in 0..ROWS {
            let change = this.change(0, 1, (row, Some(row)));
            this.apply(std::slice::from_ref(&change)).await.unwrap();
        }
        this
    }

    fn change(&self, lane: u16, version: u64, (row, seat): Write) -> Change {
        let column = |name: &str, value| (ColumnName::new(name).unwrap(), Value::Int64(value));
        let (content, operation) = match seat {
            Some(seat) => (Content::Row(Row::from_iter([column("id", row), column("seat", seat)])), Operation::Put),
            None => (Content::Tombstone, Operation::Delete),
        };
        let image = Image { content, operation, fingerprint: self.schema.fingerprint(), request: None, since: None };
        let version = Version::new(version).unwrap();
        Change { shard: Shard(lane), key: Key(vec![Value::Int64(row)]), version, image }
    }

    async fn apply(&self, changes: &[Change]) -> Result<(), DatabaseError> {
        let owners = (0..LANES).map(|lane| (Shard(lane), Owner("test".into()))).collect();
        self.database.apply(Batch { schema: &self.schema, owners, changes }).await.map(|_| ())
    }

    async fn seats(&self) -> BTreeMap<i64, Option<i64>> {
        let keys: Vec<Key> = (0..ROWS).map(|row| Key(vec![Value::Int64(row)])).collect();
        let found = self.database.read(&self.schema, &keys).await.unwrap();
        let seat = |row: DatabaseRow| match row {
            DatabaseRow::Present { row, .. } => match row.get("seat") {
                Some(Value::Int64(seat)) => Some(*seat),
                other => panic!("{other:?}"),
            },
            DatabaseRow::Deleted { .. } | DatabaseRow::Absent => None,
        };
        (0..ROWS).zip(found.into_iter().map(seat)).collect()
    }

    /// What a writer does with one batch of its lane.
    async fn write(&self, lane: &mut Coalescer, limits: Limits, patient: bool) {
        // What waits does so in the order of its time.
        tokio::time::advance(Duration::from_millis(1)).await;
        let now = Instant::now();
        let later = now + Duration::from_millis(5);
        let mut batch = lane.take(limits.rows, limits, now);
        let changes: Vec<Change> = batch.iter().map(|entry| entry.change.clone()).collect();
        match self.apply(&changes).await {
            Ok(()) => {
                for entry in batch {
                    if entry.goes_on() {
                        lane.landed(entry, later);
                    } else {
                        assert!(entry.ticket.refused.is_empty(), "{entry:?} would be a dead letter");
                        lane.release(entry.change.shard, &entry.ticket);
                    }
                }
            }
            Err(error) => {
                assert_eq!(error.class(), ErrorClass::Dependent, "{error}");
                match batch.len() {
                    1 if batch[0].is_step() => lane.put_back(batch, Verdict::NoStep, now),
                    1 if patient => lane.put_back(batch, Verdict::DependentUntil(later), now),
                    1 => give_up(lane, batch.remove(0), now),
                    _ => lane.put_back(batch, Verdict::Suspect, now),
                }
            }
        }
    }
}

/// The patience with it is over.
fn give_up(lane: &mut Coalescer, entry: Entry, now: Instant) {
    let reason = Reason { cause: DeadLetterCause::Dependent, code: String::new(), message: String::new() };
    match entry.give_up(reason, now) {
        GivenUp::UpTo(next) => lane.put_back(vec![next], Verdict::Innocent, now),
        GivenUp::Wholly(entry) => panic!("{entry:?} would be a dead letter"),
    }
}

/// Gathers the writes lane by lane in their order, the lanes in any, and writes batches in between.
async fn drain(writes: &[Write], lane_of: &[u16], rows: usize, schedule: &[u8], is_last_moment: bool) {
    let table = Table::new().await;
    let limits = Limits { rows, bytes: 1 << 20, age: Duration::ZERO };
    let mut lanes: Vec<Coalescer> = (0..LANES).map(|_| Coalescer::default()).collect();
    let mut left: Vec<Vec<Gathered>> = (0..LANES).map(|_| Vec::new()).collect();
    for (at, write) in writes.iter().enumerate() {
        let lane = lane_of[write.0 as usize % lane_of.len()] % LANES;
        let change = table.change(lane, at as u64 + 2, *write);
        left[lane as usize].push(Gathered {
            generation: GENERATION,
            offset: at as i64,
            bytes: 10,
            change,
            payload: Bytes::from_static(b"12345"),
        });
    }
    for (shard, lane) in lanes.iter_mut().enumerate() {
        lane.assign(Shard(shard as u16), GENERATION, Owner("test".into()));
        left[shard].reverse();
    }
    for step in schedule {
        let at = usize::from(step / 4) % lanes.len();
        match left[at].pop() {
            Some(gathered) if step % 4 != 0 => drop(lanes[at].gather(gathered, Instant::now())),
            Some(gathered) => {
                left[at].push(gathered);
                table.write(&mut lanes[at], limits, true).await;
            }
            None => table.write(&mut lanes[at], limits, true).await,
        }
    }
    for (lane, left) in lanes.iter_mut().zip(left) {
        for gathered in left.into_iter().rev() {
            lane.gather(gathered, Instant::now());
        }
    }
    // Each lane has its turn, and each key in it: more often than there are versions to be stepped over.
    for round in 0..writes.len() * 60 {
        if lanes.iter().all(|lane| lane.records() == 0) {
            break;
        }
        for lane in &mut lanes {
            table.write(lane, limits, !(is_last_moment && round > writes.len() * 30)).await;
        }
    }
    let mut expected: BTreeMap<i64, Option<i64>> = (0..ROWS).map(|row| (row, Some(row))).collect();
    expected.extend(writes.iter().copied());
    let stuck: usize = lanes.iter().map(Coalescer::records).sum();
    assert_eq!((table.seats().await, stuck), (expected, 0), "{writes:?}");
    assert!(lanes.iter().all(|lane| lane.bytes() == 0), "what is done is counted no more");
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_was_accepted_one_after_the_other_is_written_however_it_is_drained(
        wishes in prop::collection::vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..24),
        lane_of in prop::collection::vec(any::<u16>(), ROWS as usize),
        rows in 1usize..6,
        schedule in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        on_a_runtime(drain(&accepted(&wishes), &lane_of, rows, &schedule, false));
    }
}

/// More older versions than are tried at a time, of which only the first gives way; and who is given up finds it, too.
#[test]
fn rows_that_swap_a_value_do_so_however_many_versions_were_coalesced() {
    for (others, is_last_moment) in [(0, false), (3, false), (30, false), (30, true)] {
        let writes = (0..others).fold(vec![(0, Some(100)), (1, Some(0))], |mut writes, _| {
            writes.extend([(0, Some(1))]);
            writes
        });
        let writes = [writes, vec![(0, Some(1))]].concat();
        for lane_of in [[0; 5], [0, 1, 2, 0, 1]] {
            on_a_runtime(drain(&writes, &lane_of, 4, &[1; 40], is_last_moment));
        }
    }
}
