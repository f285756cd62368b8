//! What a refused batch comes to, down to the row that was refused.

use super::*;

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
