#![allow(clippy::unwrap_used)]

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
fn a_refused_batch_is_halved_until_the_bad_row_stands_alone_and_then_only_that_one_waits() {
    let (mut now, mut lane) = (Instant::now(), lane());
    for key in 0..8 {
        lane.gather(record(key, 1, key), now);
    }
    now += LIMITS.age;
    let (mut written, mut attempts) = (BTreeSet::new(), 0);
    loop {
        let batch = take(&mut lane, 9, now);
        if batch.is_empty() {
            break;
        }
        attempts += 1;
        if !keys(&batch).contains(&(5, 1)) {
            for entry in batch {
                written.extend(keys(std::slice::from_ref(&entry)));
                lane.release(entry.change.shard, &entry.ticket);
            }
        } else if batch.len() > 1 {
            lane.put_back(batch, Verdict::Suspect, now);
        } else {
            lane.put_back(batch, Verdict::HeldUntil(now + Duration::from_secs(1)), now);
        }
    }
    assert_eq!(written.len(), 7);
    assert!(attempts <= 8, "{attempts} attempts");
    assert_eq!(lane.due(LIMITS, now), Due::At(now + Duration::from_secs(1)));

    lane.gather(record(9, 1, 9), now);
    let later = now + Duration::from_secs(2);
    assert_eq!(keys(&take(&mut lane, 9, later)), [(5, 1)], "alone");
    assert_eq!(keys(&take(&mut lane, 9, later)), [(9, 1)]);
}

/// Writes all but the bad keys, in batches of at most `rows`; how many batches were tried.
fn tries(all: i64, rows: usize, bad: &BTreeSet<i64>) -> usize {
    let (mut now, mut lane) = (Instant::now(), lane());
    let limits = Limits { rows, bytes: 1 << 30, ..LIMITS };
    for key in 0..all {
        lane.gather(record(key, 1, key), now);
    }
    now += LIMITS.age;
    let (mut written, mut given_up, mut tries) = (BTreeSet::new(), BTreeSet::new(), 0);
    loop {
        let mut batch = lane.take(usize::MAX, limits, now);
        if batch.is_empty() {
            break;
        }
        tries += 1;
        assert!(batch.len() <= rows);
        let held: BTreeSet<i64> = keys(&batch).into_iter().map(|(key, _)| key).collect();
        if held.is_disjoint(bad) {
            written.extend(held);
        } else if batch.len() > 1 {
            lane.put_back(std::mem::take(&mut batch), Verdict::Suspect, now);
        } else {
            given_up.extend(held);
            lane.found_among(&batch[0].ticket);
        }
        for entry in batch {
            lane.release(entry.change.shard, &entry.ticket);
        }
    }
    assert_eq!((&given_up, written.len()), (bad, all as usize - bad.len()));
    tries
}

#[test]
fn one_bad_row_in_a_batch_costs_one_try_for_each_halving_wherever_it_is() {
    for bad in 0..64 {
        let tries = tries(64, 64, &BTreeSet::from([bad]));
        // The whole, six halvings, it alone, and what was never tried.
        assert!(tries <= 1 + 6 + 1 + 1, "{tries} tries for {bad}");
    }
}

proptest! {
    #[test]
    fn no_bad_row_costs_more_than_the_halvings_of_a_batch_and_two(
        all in 1i64..600, rows in 2usize..130, bad in prop::collection::btree_set(0i64..600, 0..40),
    ) {
        let bad: BTreeSet<i64> = bad.into_iter().filter(|key| *key < all).collect();
        let halvings = (rows as f64).log2().ceil() as usize;
        let without = (all as usize).div_ceil(rows);
        let tries = tries(all, rows, &bad);
        prop_assert!(tries <= without + bad.len() * (halvings + 2), "{} tries, {} without", tries, without);
    }
}

#[test]
fn a_newer_version_frees_a_held_key_and_a_duplicate_does_not() {
    let (now, mut lane) = (Instant::now(), lane());
    let later = now + Duration::from_secs(9);
    lane.gather(record(1, 5, 0), now);
    let batch = take(&mut lane, 9, now + LIMITS.age);
    lane.gather(record(1, 5, 1), now);
    lane.put_back(batch, Verdict::HeldUntil(later), now);
    lane.gather(record(1, 5, 2), now);
    assert_eq!(lane.due(LIMITS, now), Due::At(later));
    lane.gather(record(1, 6, 3), now);
    let batch = take(&mut lane, 9, now + LIMITS.age);
    assert_eq!(keys(&batch), [(1, 6)]);
    assert_eq!((batch[0].ticket.records.len(), batch[0].ticket.failures), (4, 0));
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

fn never() -> Reason {
    Reason { cause: DeadLetterCause::Permanent, code: "1".into(), message: "no".into() }
}

proptest! {
    /// However many versions of a key came, in whatever order and how often: each is given up once, from the newest to the
    /// oldest, until one is good; the room they take is given back as a whole, and not before.
    #[test]
    fn versions_that_are_given_up_go_from_the_newest_down_to_the_first_good_one(
        versions in prop::collection::vec(1u64..9, 1..20),
        good in 0u64..9,
        before in 0usize..20,
    ) {
        let (now, mut lane) = (Instant::now(), lane());
        let (at_first, later) = versions.split_at(before.min(versions.len()));
        for (offset, version) in at_first.iter().enumerate() {
            lane.gather(record(1, *version, offset as i64), now);
        }
        // Some come only when a batch is under way.
        let mut batch = take(&mut lane, 9, now + LIMITS.age);
        for (offset, version) in later.iter().enumerate() {
            lane.gather(record(1, *version, (at_first.len() + offset) as i64), now);
        }
        lane.put_back(std::mem::take(&mut batch), Verdict::Innocent, now);
        let distinct: BTreeSet<u64> = versions.iter().copied().collect();
        let bytes = lane.bytes();
        prop_assert_eq!(bytes, distinct.len() * 15);
        let mut entry = take(&mut lane, 9, now + LIMITS.age).remove(0);
        let mut expected = distinct.iter().rev().copied();
        loop {
            prop_assert_eq!(Some(entry.change.version.get()), expected.next());
            prop_assert_eq!(lane.bytes(), bytes);
            if entry.change.version.get() <= good {
                break;
            }
            match entry.give_up(never(), now) {
                GivenUp::UpTo(next) => {
                    lane.put_back(vec![next], Verdict::Innocent, now);
                    let mut again = take(&mut lane, 9, now + LIMITS.age);
                    prop_assert_eq!(again.len(), 1);
                    entry = again.remove(0);
                }
                GivenUp::Wholly(last) => {
                    entry = last;
                    break;
                }
            }
        }
        let refused: Vec<u64> = entry.ticket.refused.iter().map(|refused| refused.version.get()).collect();
        prop_assert_eq!(refused, distinct.iter().rev().copied().filter(|version| *version > good).collect::<Vec<_>>());
        prop_assert_eq!(entry.ticket.records.len(), versions.len());
        prop_assert_eq!(lane.records(), versions.len());
        lane.release(entry.change.shard, &entry.ticket);
        prop_assert_eq!((lane.records(), lane.bytes(), lane.queued_bytes), (0, 0, 0));
    }
}

#[test]
fn an_older_version_that_takes_a_refused_ones_place_is_tried_alone_and_makes_a_fresh_start() {
    let (now, mut lane) = (Instant::now(), lane());
    lane.gather(record(1, 5, 0), now);
    lane.gather(record(1, 6, 1), now);
    let batch = take(&mut lane, 9, now + LIMITS.age);
    lane.put_back(batch, Verdict::HeldUntil(now), now);
    let refused = take(&mut lane, 9, now + LIMITS.age).remove(0);
    let GivenUp::UpTo(next) = refused.give_up(never(), now) else { panic!("there is an older one") };
    assert_eq!((next.ticket.refused[0].attempts, next.ticket.failures), (2, 0));
    assert_eq!(next.dependent_for(now + Duration::from_secs(3)), Duration::ZERO);
    lane.gather(record(2, 7, 2), now);
    lane.put_back(vec![next], Verdict::Innocent, now);
    assert_eq!(keys(&take(&mut lane, 9, now + LIMITS.age)), [(2, 7)]);
    assert_eq!(keys(&take(&mut lane, 9, now + LIMITS.age)), [(1, 5)]);
}

#[test]
fn many_refused_versions_of_one_key_take_turns_with_the_other_keys() {
    let (now, mut lane) = (Instant::now(), lane());
    let later = now + LIMITS.age;
    for version in 1..=4 {
        lane.gather(record(1, version, version as i64), now);
    }
    let mut refused = take(&mut lane, 9, later).remove(0);
    for key in 2..14 {
        lane.gather(record(key, 9, 10 + key), now);
    }
    let mut order = Vec::new();
    while let GivenUp::UpTo(next) = refused.give_up(never(), later) {
        lane.put_back(vec![next], Verdict::Innocent, later);
        let held = loop {
            let mut batch = take(&mut lane, 9, later);
            order.push(batch.len());
            if keys(&batch)[0].0 == 1 {
                break batch.remove(0);
            }
            for entry in batch {
                lane.release(entry.change.shard, &entry.ticket);
            }
        };
        refused = held;
    }
    assert_eq!(order, [1, 4, 1, 4, 1], "one of them between two full batches, and never in a larger one's way");
}

proptest! {
    /// However its versions come, and whichever of them is tried: what a key is waited for is measured from the first
    /// refusal on, and a version that is new is tried without delay.
    #[test]
    fn the_patience_with_a_key_does_not_begin_anew_with_each_of_its_versions(
        arrivals in prop::collection::vec(0u64..12_000, 1..12),
        retry in 1u64..500,
        batch_was_under_way in any::<bool>(),
    ) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let (begun, mut lane) = (Instant::now(), lane());
        let mut arrivals: Vec<Duration> = arrivals.into_iter().map(Duration::from_millis).collect();
        arrivals.sort_unstable();
        arrivals[0] = Duration::ZERO;
        let (mut coming, mut version, mut now) = (arrivals.iter().peekable(), 0, begun);
        let (mut tried, mut refusals) = (BTreeMap::<u64, Instant>::new(), 0);
        let end = loop {
            let mut came = 0;
            while let Some(at) = coming.next_if(|at| begun + **at <= now) {
                version += 1;
                came = version;
                lane.gather(record(1, version, version as i64), begun + *at);
            }
            // Whatever it waits for, what has just come is due within the age of a batch.
            if came > 0 {
                let due = lane.due(LIMITS, now + LIMITS.age);
                prop_assert_eq!(due, Due::Rows(1));
            }
            now += LIMITS.age;
            if let Some(entry) = take(&mut lane, 9, now).pop() {
                tried.entry(entry.change.version.get()).or_insert(now);
                refusals += 1;
                // Another one may come while this one is refused.
                if batch_was_under_way && coming.next_if(|at| begun + **at <= now).is_some() {
                    version += 1;
                    lane.gather(record(1, version, version as i64), now);
                }
                if entry.dependent_for(now) >= PATIENCE {
                    match entry.give_up(never(), now) {
                        GivenUp::UpTo(next) => lane.put_back(vec![next], Verdict::Innocent, now),
                        GivenUp::Wholly(last) => {
                            let left = lane.waiting.len();
                            lane.release(last.change.shard, &last.ticket);
                            // A version that came with the last refusal is one of a new key, as it were.
                            break (left == 0).then_some(now);
                        }
                    }
                } else {
                    lane.put_back(vec![entry], Verdict::DependentUntil(now + Duration::from_millis(retry)), now);
                }
            }
            prop_assert!(refusals < 100_000);
        };
        // The first refusal, the patience, the last delay; then one try for each version.
        let tries = (version as u32 + 1) * LIMITS.age;
        let bound = begun + LIMITS.age + PATIENCE + Duration::from_millis(retry) + tries;
        prop_assert!(end.is_none_or(|end| end <= bound + LIMITS.age), "{:?} after {bound:?}", end);
        prop_assert!(end.is_none() || tried.len() as u64 == version, "each had its try");
    }
}

#[test]
fn what_another_fault_holds_up_is_waited_for_anew_when_a_row_is_in_its_way() {
    let (now, mut lane) = (Instant::now(), lane());
    let second = Duration::from_secs(1);
    lane.gather(record(1, 5, 0), now);
    let mut waited = Vec::new();
    let verdicts: [fn(Instant) -> Verdict; 4] =
        [Verdict::DependentUntil, Verdict::DependentUntil, Verdict::HeldUntil, Verdict::DependentUntil];
    for (verdict, at) in verdicts.into_iter().zip(1..) {
        let now = now + at * second;
        let batch = take(&mut lane, 9, now);
        lane.put_back(batch, verdict(now), now);
        waited.push(lane.waiting.values().next().unwrap().dependent_for(now + second));
    }
    assert_eq!(waited, [second, 2 * second, Duration::ZERO, second]);
}

#[test]
fn a_key_is_not_waited_for_while_it_can_not_be_tried() {
    let (begun, mut lane) = (Instant::now(), lane());
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    lane.gather(record(1, 5, 0), begun);
    let refused = |lane: &mut Coalescer, at: Duration| {
        let now = begun + LIMITS.age + at;
        let entry = take(lane, 9, now).remove(0);
        let waited = entry.dependent_for(now);
        lane.put_back(vec![entry], Verdict::DependentUntil(now + second), now);
        waited
    };
    assert_eq!(refused(&mut lane, Duration::ZERO), Duration::ZERO);
    assert_eq!(refused(&mut lane, 3 * second), 3 * second, "a little late");
    // The database is away: tries fail for that, and tell nothing of the other row.
    let now = begun + LIMITS.age + 4 * second;
    let entries = take(&mut lane, 9, now);
    lane.put_back(entries, Verdict::Innocent, now);
    let waited = refused(&mut lane, hour);
    assert!((3 * second..20 * second).contains(&waited), "{waited:?}");
    assert_eq!(refused(&mut lane, hour + 2 * second), waited + 2 * second);
}

#[test]
fn what_can_not_be_read_takes_room_until_it_is_lettered_or_its_partition_goes() {
    let mut lane = lane();
    lane.give_up_unreadable(Shard(0), GENERATION, 3, 100);
    lane.give_up_unreadable(Shard(0), GENERATION, 3, 100);
    lane.give_up_unreadable(Shard(1), GENERATION, 4, 10);
    lane.give_up_unreadable(Shard(1), Generation(9), 5, 1000);
    assert_eq!((lane.records(), lane.bytes(), lane.oldest()), (2, 110, None));
    lane.release_unreadable(Shard(0), GENERATION, 3);
    lane.release_unreadable(Shard(0), GENERATION, 3);
    assert_eq!((lane.records(), lane.bytes()), (1, 10));
    lane.revoke(Shard(1));
    assert_eq!((lane.records(), lane.bytes()), (0, 0));
}

#[test]
fn each_older_version_is_tried_at_last_though_more_come_all_the_time() {
    let (mut now, mut lane) = (Instant::now(), lane());
    let (mut version, mut tried) = (0, BTreeSet::new());
    for _ in 0..12 {
        for _ in 0..10 {
            version += 1;
            lane.gather(record(1, version, version as i64), now);
        }
        now += Duration::from_secs(1);
        let batch = take(&mut lane, 9, now);
        lane.put_back(batch, Verdict::DependentUntil(now + Duration::from_secs(60)), now);
        while let Some(step) = take(&mut lane, 9, now).pop() {
            assert!(step.is_step());
            tried.insert(step.change.version.get());
            lane.put_back(vec![step], Verdict::NoStep, now);
        }
    }
    assert!(tried.contains(&1), "{tried:?}");
}

/// Whoever writes a key in pairs, of which the older one lands, faster than the newer one is tried again.
#[test]
fn what_is_given_up_goes_on_once_when_an_older_version_lands_and_not_each_time() {
    let (mut now, mut lane) = (Instant::now(), lane());
    let mut went_on = Vec::new();
    for pair in 0..3 {
        for version in [2 * pair + 1, 2 * pair + 2] {
            lane.gather(record(1, version, version as i64), now);
        }
        now += LIMITS.age;
        let newer = take(&mut lane, 9, now).remove(0);
        let reason = Reason { cause: DeadLetterCause::Dependent, ..never() };
        let GivenUp::UpTo(older) = newer.give_up(reason, now) else { panic!("there is an older one") };
        lane.put_back(vec![older], Verdict::Innocent, now);
        let mut older = take(&mut lane, 9, now).remove(0);
        assert_eq!(older.change.version.get(), 2 * pair + 1);
        went_on.push(older.goes_on());
        if older.goes_on() {
            lane.landed(older, now + Duration::from_secs(60));
            continue;
        }
        older.ticket.forget_superseded(older.change.version);
        let letters: Vec<u64> = older.ticket.refused.iter().map(|refused| refused.version.get()).collect();
        assert_eq!(letters, [2 * pair + 2], "only what is newer than what has landed is a dead letter");
        lane.release(older.change.shard, &older.ticket);
        break;
    }
    assert_eq!(went_on, [true, false]);
    assert_eq!((lane.records(), lane.bytes()), (0, 0));
}
