#![allow(clippy::unwrap_used)]

mod refused;
mod versions;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use database::Change;
use model::{Content, DeadLetterCause, Fingerprint, Image, Key, Operation, Value};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::gather::{GivenUp, Reason};

const LIMITS: Limits = Limits { rows: 4, bytes: 1000, age: Duration::from_millis(20) };
const GENERATION: Generation = Generation(1);

fn change(key: i64, version: u64) -> Change {
    Change {
        shard: Shard((key % 2) as u16),
        key: Key(vec![Value::Int64(key)]),
        version: Version::new(version).unwrap(),
        image: Image {
            content: Content::Tombstone,
            operation: Operation::Delete,
            fingerprint: Fingerprint(version),
            request: None,
            since: None,
        },
    }
}

fn record(key: i64, version: u64, offset: i64) -> Gathered {
    Gathered {
        generation: GENERATION,
        offset,
        bytes: 10,
        change: change(key, version),
        payload: Bytes::from_static(b"12345"),
    }
}

fn lane() -> Coalescer {
    let mut lane = Coalescer::default();
    for shard in 0..2 {
        lane.assign(Shard(shard), GENERATION, Owner("a".into()));
    }
    lane
}

fn take(lane: &mut Coalescer, rows: usize, now: Instant) -> Vec<Entry> {
    lane.take(rows, LIMITS, now)
}

fn keys(entries: &[Entry]) -> Vec<(i64, u64)> {
    let key = |entry: &Entry| match entry.change.key.0[0] {
        Value::Int64(key) => key,
        _ => unreachable!(),
    };
    entries.iter().map(|e| (key(e), e.change.version.get())).collect()
}

/// Keys with versions; an offset is the position.
fn records() -> impl Strategy<Value = Vec<(i64, u64)>> {
    prop::collection::vec((0i64..6, 1u64..30), 1..60)
}

proptest! {
    #[test]
    fn any_order_and_any_duplicate_leave_the_same_newest_version_of_each_key(
        records in records(),
        order in Just(()).prop_perturb(|(), mut rng| rng.random::<u64>()),
    ) {
        let newest = |records: &[(i64, u64)]| {
            let (now, mut lane) = (Instant::now(), lane());
            for (offset, (key, version)) in records.iter().enumerate() {
                lane.gather(record(*key, *version, offset as i64), now);
            }
            let mut found = BTreeSet::new();
            loop {
                let batch = take(&mut lane, usize::MAX, now + LIMITS.age);
                if batch.is_empty() {
                    break found;
                }
                found.extend(keys(&batch));
            }
        };
        let mut shuffled: Vec<_> = records.iter().chain(records.iter()).copied().collect();
        let mut seed = order;
        for at in (1..shuffled.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(at, (seed >> 33) as usize % (at + 1));
        }
        let expected: BTreeSet<(i64, u64)> = records
            .iter()
            .map(|(key, _)| (*key, records.iter().filter(|(k, _)| k == key).map(|(_, v)| *v).max().unwrap()))
            .collect();
        prop_assert_eq!(newest(&records), expected.clone());
        prop_assert_eq!(newest(&shuffled), expected);
    }

    /// Whatever happens to batches, every record ends exactly once, by a version at least as new as its own that was
    /// the newest of its key when it was taken; and nothing is left over.
    #[test]
    fn every_gathered_record_is_released_exactly_once(
        records in records(),
        steps in prop::collection::vec((0u8..6, any::<Index>()), 0..120),
        last in any::<Index>(),
    ) {
        let mut lane = lane();
        let mut now = Instant::now();
        let mut incoming = records.iter().enumerate();
        let mut waiting: HashMap<i64, Vec<u64>> = HashMap::new();
        let mut taken: Vec<Vec<Entry>> = Vec::new();
        let mut released: HashSet<i64> = HashSet::new();
        let mut gathered = 0;
        // After the random steps everything is gathered, and everything succeeds.
        let end = std::iter::repeat_n(0u8, records.len()).chain(std::iter::repeat(6));
        for (step, pick) in steps.into_iter().chain(end.map(|step| (step, last))) {
            now += Duration::from_millis(5);
            match step {
                0 | 1 => {
                    if let Some((offset, (key, version))) = incoming.next() {
                        lane.gather(record(*key, *version, offset as i64), now);
                        waiting.entry(*key).or_default().push(*version);
                        gathered += 1;
                    }
                }
                2 => {
                    let batch = take(&mut lane, 1 + pick.index(6), now);
                    prop_assert!(batch.len() <= LIMITS.rows);
                    for (key, version) in keys(&batch) {
                        let newest = waiting.remove(&key).and_then(|v| v.into_iter().max());
                        prop_assert_eq!(newest, Some(version));
                    }
                    taken.extend((!batch.is_empty()).then_some(batch));
                }
                3..6 if !taken.is_empty() => {
                    let batch = taken.swap_remove(pick.index(taken.len()));
                    if step == 3 {
                        for entry in batch {
                            lane.release(entry.change.shard, &entry.ticket);
                            for (version, offset) in &entry.ticket.records {
                                prop_assert!(*version <= entry.change.version);
                                prop_assert!(released.insert(*offset), "offset {} released twice", offset);
                            }
                        }
                        continue;
                    }
                    for (key, version) in keys(&batch) {
                        waiting.entry(key).or_default().push(version);
                    }
                    let until = now + Duration::from_millis(pick.index(50) as u64);
                    let alone = batch.len() == 1;
                    lane.put_back(batch, match step {
                        4 => Verdict::Innocent,
                        _ if alone => Verdict::HeldUntil(until),
                        _ => Verdict::Suspect,
                    }, now);
                }
                3..6 => {}
                _ => {
                    taken.extend(Some(take(&mut lane, usize::MAX, now + Duration::from_secs(1))));
                    let done: Vec<Entry> = taken.drain(..).flatten().collect();
                    if done.is_empty() {
                        break;
                    }
                    for entry in done {
                        lane.release(entry.change.shard, &entry.ticket);
                        for (_, offset) in entry.ticket.records {
                            prop_assert!(released.insert(offset), "offset {} released twice", offset);
                        }
                    }
                }
            }
            prop_assert_eq!(lane.records(), gathered - released.len());
        }
        prop_assert_eq!(released.len(), records.len());
        prop_assert_eq!((lane.records(), lane.bytes(), lane.queued_bytes, lane.oldest()), (0, 0, 0, None));
    }
}

/// What a test knows to wait: version, generation and offset of the records of each key.
type Waiting = BTreeMap<i64, Vec<(u64, Generation, i64)>>;

proptest! {
    /// Shards come and go meanwhile. Nothing of a former assignment is ever handed out again, everything of the present
    /// one is, and what is counted is what there is.
    #[test]
    fn assignments_come_and_go_and_nothing_is_mixed_up(
        steps in prop::collection::vec((0u8..8, 0i64..6, 1u64..30, any::<Index>()), 1..200),
    ) {
        let mut lane = lane();
        let mut now = Instant::now();
        let mut generations = [Some(GENERATION), Some(GENERATION)];
        let mut next_generation = GENERATION.0;
        let mut waiting = Waiting::new();
        let mut taken: Vec<Vec<Entry>> = Vec::new();
        let current = |generations: &[Option<Generation>; 2], key: i64| generations[(key % 2) as usize];
        for (offset, (step, key, version, pick)) in (0i64..).zip(steps) {
            now += Duration::from_millis(5);
            match step {
                0..=2 => {
                    let mut record = record(key, version, offset);
                    record.generation = current(&generations, key).unwrap_or(GENERATION);
                    // Sometimes of an assignment that is over.
                    if pick.index(5) == 0 {
                        record.generation = Generation(0);
                    }
                    let generation = record.generation;
                    lane.gather(record, now);
                    if current(&generations, key) == Some(generation) {
                        waiting.entry(key).or_default().push((version, generation, offset));
                    }
                }
                3 => {
                    let batch = take(&mut lane, 1 + pick.index(4), now);
                    for entry in &batch {
                        let Value::Int64(key) = entry.change.key.0[0] else { unreachable!() };
                        let mut expected = waiting.remove(&key).unwrap();
                        expected.sort_unstable();
                        let generation = entry.ticket.generation;
                        prop_assert_eq!(Some(generation), current(&generations, key));
                        let mut found: Vec<_> =
                            entry.ticket.records.iter().map(|(v, offset)| (v.get(), generation, *offset)).collect();
                        found.sort_unstable();
                        prop_assert_eq!(entry.change.version.get(), expected.iter().map(|(v, ..)| *v).max().unwrap());
                        prop_assert_eq!(found, expected);
                    }
                    taken.extend((!batch.is_empty()).then_some(batch));
                }
                4 if !taken.is_empty() => {
                    for entry in taken.swap_remove(pick.index(taken.len())) {
                        lane.release(entry.change.shard, &entry.ticket);
                    }
                }
                5 if !taken.is_empty() => {
                    let batch = taken.swap_remove(pick.index(taken.len()));
                    for entry in &batch {
                        let Value::Int64(key) = entry.change.key.0[0] else { unreachable!() };
                        if current(&generations, key) == Some(entry.ticket.generation) {
                            let records = entry.ticket.records.iter();
                            let records = records.map(|(v, offset)| (v.get(), entry.ticket.generation, *offset));
                            waiting.entry(key).or_default().extend(records);
                        }
                    }
                    let verdict = if batch.len() > 1 { Verdict::Suspect } else { Verdict::HeldUntil(now) };
                    lane.put_back(batch, verdict, now);
                }
                6 => {
                    lane.revoke(Shard((key % 2) as u16));
                    generations[(key % 2) as usize] = None;
                    waiting.retain(|waits, _| waits % 2 != key % 2);
                }
                7 => {
                    next_generation += 1;
                    let shard = Shard((key % 2) as u16);
                    lane.assign(shard, Generation(next_generation), Owner(next_generation.to_string()));
                    generations[(key % 2) as usize] = Some(Generation(next_generation));
                    waiting.retain(|waits, _| waits % 2 != key % 2);
                }
                _ => {}
            }
            let shard_of = |key: i64| Shard((key % 2) as u16);
            let wait = waiting.iter().flat_map(|(key, all)| all.iter().map(|(v, ..)| (shard_of(*key), *v)));
            let work = taken.iter().flatten().flat_map(|entry| {
                entry.ticket.records.iter().map(|(version, _)| (entry.change.shard, version.get()))
            });
            let open: Vec<(Shard, u64)> = wait.chain(work).collect();
            prop_assert_eq!(lane.records(), open.len());
            for shard in [Shard(0), Shard(1)] {
                let oldest = open.iter().filter(|(of, _)| *of == shard).map(|(_, version)| *version).min();
                prop_assert_eq!(lane.oldest_of(shard).map(Version::get), oldest);
            }
        }
    }
}

#[test]
fn the_oldest_key_goes_first_however_often_others_are_written() {
    let (now, mut lane) = (Instant::now(), lane());
    lane.gather(record(1, 10, 0), now);
    lane.gather(record(2, 11, 1), now);
    lane.gather(record(1, 12, 2), now);
    lane.gather(record(3, 13, 3), now);
    assert_eq!(keys(&take(&mut lane, 2, now + LIMITS.age)), [(1, 12), (2, 11)]);
}

#[test]
fn a_batch_waits_for_more_until_it_is_full_or_old() {
    let (now, mut lane) = (Instant::now(), lane());
    assert_eq!(lane.due(LIMITS, now), Due::Nothing);
    for key in 0..3 {
        lane.gather(record(key, 1, key), now);
    }
    assert_eq!(lane.due(LIMITS, now), Due::At(now + LIMITS.age));
    assert!(take(&mut lane, 9, now).is_empty());
    assert!(take(&mut lane, 0, now + LIMITS.age).is_empty(), "no row without leave");
    lane.gather(record(3, 1, 3), now);
    assert_eq!(lane.due(LIMITS, now), Due::Rows(4));
    let mut big = record(0, 2, 4);
    big.bytes = 2000;
    lane.gather(big, now);
    assert_eq!(take(&mut lane, 9, now).len(), 1, "one row always fits, whatever its size");
}

#[test]
fn held_keys_and_others_take_turns() {
    let (now, mut lane) = (Instant::now(), lane());
    for key in [1, 2] {
        lane.gather(record(key, 1, key), now);
    }
    let (one, two) = (take(&mut lane, 1, now + LIMITS.age), take(&mut lane, 1, now + LIMITS.age));
    for refused in [one, two] {
        lane.put_back(refused, Verdict::HeldUntil(now), now);
    }
    for key in [3, 4] {
        lane.gather(record(key, 1, key), now);
    }
    let order: Vec<_> = (0..4).flat_map(|_| keys(&take(&mut lane, 1, now + LIMITS.age))).map(|(key, _)| key).collect();
    assert_eq!(order, [1, 3, 2, 4]);
}

#[test]
fn what_a_lost_assignment_left_is_dropped_and_counts_for_nothing() {
    let (now, mut lane) = (Instant::now(), lane());
    for key in 0..4 {
        lane.gather(record(key, 1, key), now);
    }
    let mut taken = take(&mut lane, 4, now);
    lane.gather(record(0, 2, 4), now);
    lane.gather(record(1, 2, 5), now);
    lane.revoke(Shard(0));
    assert_eq!(lane.records(), 5, "what is taken still counts");
    lane.assign(Shard(0), Generation(2), Owner("b".into()));
    assert!(!lane.gather(record(0, 3, 6), now), "of the old assignment");

    let zero = taken.remove(0);
    lane.release(zero.change.shard, &zero.ticket);
    lane.put_back(taken, Verdict::Innocent, now);
    let left = take(&mut lane, 9, now + LIMITS.age);
    assert_eq!(keys(&left), [(1, 2), (3, 1)]);
    for entry in left {
        lane.release(entry.change.shard, &entry.ticket);
    }
    assert_eq!((lane.records(), lane.bytes()), (0, 0));
}
