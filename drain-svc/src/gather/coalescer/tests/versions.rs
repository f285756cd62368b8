//! Which version of a key is tried, and when it is given up.

use super::*;

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
