//! Backlogs: what the database does not have, and up to where it has everything.

use std::collections::BTreeMap;

use hot_store::{Backlog, Clean, CleanOutcome, Dirty, HotStore, Precondition, Restore, Slot, Write, WriteOutcome};
use model::{Epoch, Image, Namespace, Value, Version};
use tokio::time::Instant;

use super::{Backend, kit::*, requests::request};

fn tables() -> Vec<Namespace> {
    ["main.payments", "main.orders"].map(|name| Namespace::new(name).unwrap()).to_vec()
}

async fn backlogs(b: &impl Backend) -> Vec<Backlog> {
    let (_, backlogs) = b.store().backlog(b.shard(), tables()).await.unwrap();
    assert_eq!(backlogs.len(), 2);
    backlogs
}

async fn backlog(b: &impl Backend) -> Backlog {
    backlogs(b).await[0]
}

/// The bytes that an image counts for.
fn bytes(image: &Image) -> u64 {
    Image { since: None, ..image.clone() }.encode().len() as u64
}

/// So many records, the images of these, behind since then.
fn expected(images: &[Image], oldest: Version) -> Backlog {
    Backlog {
        records: images.len() as u64,
        bytes: images.iter().map(bytes).sum(),
        oldest: Some(oldest),
        horizon: oldest.before(),
        parked: 0,
        lowest_parked: None,
    }
}

fn above(at: Version) -> Version {
    version(at.get() + 1)
}

async fn assert_nothing(b: &impl Backend) {
    let found = backlog(b).await;
    assert_eq!((found.records, found.bytes, found.oldest), (0, 0, None));
    assert_eq!(found.horizon, b.store().header(b.shard()).await.unwrap().clock);
}

pub async fn without_a_backlog_the_horizon_is_the_clock_and_later_writes_are_above_it(b: &impl Backend) {
    let epoch = open(b).await;
    let (in_epoch, found) = b.store().backlog(b.shard(), tables()).await.unwrap();
    assert_eq!(in_epoch, epoch);
    assert_nothing(b).await;
    // It follows the store's own time: nothing else moves the clock here.
    assert!(found[0].horizon > Version::ZERO);
    let mut last = found[0].horizon;
    for number in 0..3 {
        let written = put(b, record(number), row(1)).await;
        assert!(written > last, "{written} after the horizon {last}");
        assert_eq!(mark_clean(b, record(number), written, LONG).await, CleanOutcome::Cleaned);
        let horizon = backlog(b).await.horizon;
        assert!(horizon >= written);
        assert_nothing(b).await;
        last = horizon;
    }
    let (_, none) = b.store().backlog(b.shard(), Vec::new()).await.unwrap();
    assert_eq!(none, []);
}

pub async fn a_horizon_is_never_above_a_clock_that_is_ahead_nor_steps_back(b: &impl Backend) {
    let far = version(8_000_000_000_000_000);
    open_with(b, false, Vec::new(), far).await;
    assert_eq!((backlog(b).await.horizon, backlog(b).await.horizon), (far, far));
    assert_eq!(put(b, record(1), row(1)).await, above(far));
    assert_eq!(backlog(b).await, expected(&[row(1)], above(far)));
}

pub async fn a_record_that_is_written_again_stays_as_far_behind(b: &impl Backend) {
    let epoch = open(b).await;
    let (short, long) = (row(1), row(i64::MAX));
    let first = put(b, record(1), long.clone()).await;
    assert_eq!(backlog(b).await, expected(&[long], first));
    let second = put(b, record(2), row(2)).await;
    for image in [tombstone(), short.clone()] {
        put(b, record(1), image).await;
    }
    assert_eq!(backlog(b).await, expected(&[short.clone(), row(2)], first));
    // The oldest dirty version is another one.
    assert_eq!(b.store().header(b.shard()).await.unwrap().oldest_dirty, Some(second));
    assert!(mark_queued(b, epoch, record(2), second).await);
    assert_eq!(backlog(b).await, expected(&[short, row(2)], first));

    // Twice in one call, among others, over nothing and over a dirty record.
    let writes = [1, 3, 3, 1].map(|n| Write {
        record: record(n),
        precondition: Precondition::None,
        image: row(i64::from(n) + 1000),
        index: None,
    });
    b.store().write(b.shard(), Instant::now(), writes.to_vec()).await.unwrap();
    assert_eq!(backlog(b).await, expected(&[row(1001), row(2), row(1003)], first));
}

pub async fn the_tables_of_a_shard_have_backlogs_of_their_own(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let [payments, orders] = backlogs(b).await[..] else { panic!("two tables") };
    assert_eq!(payments, expected(&[row(1)], first));
    assert_eq!((orders.records, orders.bytes, orders.oldest), (0, 0, None));
    assert!(orders.horizon >= first, "another table's backlog does not hold it back");
    let mixed = [("main.orders", 1), ("main.payments", 2), ("main.orders", 2)];
    let writes = mixed.map(|(table, number)| Write {
        record: record_in(table, number),
        precondition: Precondition::None,
        image: row(i64::from(number)),
        index: None,
    });
    let outcomes = b.store().write(b.shard(), Instant::now(), writes.to_vec()).await.unwrap();
    let order = stored(outcomes[0]);
    assert!(order > orders.horizon);
    assert_eq!(backlogs(b).await, [expected(&[row(1), row(2)], first), expected(&[row(1), row(2)], order)]);
    let clean = |record, version| Clean { record, version, newer: None };
    let cleans = vec![clean(record_in("main.orders", 1), order), clean(record(1), first)];
    b.store().mark_clean(b.shard(), cleans, LONG).await.unwrap();
    let [payments, orders] = [stored(outcomes[1]), stored(outcomes[2])];
    assert_eq!(backlogs(b).await, [expected(&[row(2)], payments), expected(&[row(2)], orders)]);
}

pub async fn a_clean_of_an_older_version_moves_the_backlog_on(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(1), row(2)).await;
    let third = put(b, record(1), row(3)).await;
    for (at, behind) in
        [(first.before(), first), (first, above(first)), (second, above(second)), (first, above(second))]
    {
        assert_eq!(mark_clean(b, record(1), at, LONG).await, CleanOutcome::Newer);
        assert_eq!(backlog(b).await, expected(&[row(3)], behind));
    }
    // Written again, it stays where it is; clean, it is gone; and then it begins anew.
    put(b, record(1), row(4)).await;
    assert_eq!(backlog(b).await, expected(&[row(4)], above(second)));
    assert_eq!(mark_clean(b, record(1), third, LONG).await, CleanOutcome::Newer);
    let fifth = put(b, record(1), row(5)).await;
    assert_eq!(mark_clean(b, record(1), fifth, LONG).await, CleanOutcome::Cleaned);
    assert_nothing(b).await;
    assert_eq!(mark_clean(b, record(1), third, LONG).await, CleanOutcome::Newer, "it is clean, and stays so");
    assert_nothing(b).await;
    let sixth = put(b, record(1), row(6)).await;
    assert_eq!(backlog(b).await, expected(&[row(6)], sixth));
}

pub async fn whatever_ends_a_records_dirtiness_ends_its_backlog(b: &impl Backend) {
    open(b).await;
    let mut versions = Vec::new();
    for number in 1..=4 {
        versions.push(put(b, record(number), row(i64::from(number))).await);
    }
    let newer = above(*versions.last().unwrap());
    let cleans =
        [(2, newer, Some(row(77))), (3, newer, None), (2, newer, None), (3, newer, None), (1, versions[0], None)];
    let cleans = cleans.map(|(number, version, newer)| Clean { record: record(number), version, newer });
    b.store().mark_clean(b.shard(), cleans.to_vec(), LONG).await.unwrap();
    assert_eq!(backlog(b).await, expected(&[row(4)], versions[3]));
    assert_eq!(dirty(b, Dirty::All).await, [versions[3]]);
}

pub async fn a_backlog_survives_a_restart_and_a_discard_ends_it(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    put(b, record(1), row(2)).await;
    put(b, record_in("main.orders", 1), row(2)).await;
    b.restart().await;
    open(b).await;
    assert_eq!(backlog(b).await, expected(&[row(2)], first));
    b.restart().await;
    open_with(b, true, Vec::new(), Version::ZERO).await;
    assert_nothing(b).await;
    assert_eq!(backlogs(b).await[1].oldest, None);
    let again = put(b, record(1), row(3)).await;
    assert_eq!(backlog(b).await, expected(&[row(3)], again));
}

pub async fn what_an_opening_puts_back_is_as_far_behind_as_the_log_shows(b: &impl Backend) {
    open(b).await;
    let mut versions = Vec::new();
    for number in 1..=6 {
        versions.push(put(b, record(number), row(i64::from(number))).await);
    }
    let [v1, v2, v3, v4, v5, v6] = versions[..] else { panic!("six") };
    assert_eq!(mark_clean(b, record(6), v6, LONG).await, CleanOutcome::Cleaned);
    b.restart().await;
    let event = |number, at, behind| Restore::Dirty { record: record(number), version: at, behind, image: row(77) };
    let far = |at: Version| version(at.get() + 1_000_000);
    let low = version(9);
    let alone = |b| async move { backlog(b).await.oldest.unwrap() };
    let (store, shard, opener) = (b.store(), b.shard(), token("a"));
    store.claim(shard, &opener).await.unwrap();
    store.begin_opening(shard, &opener, Epoch(2), start(false)).await.unwrap();
    let restores = vec![
        // Over a lower version, behind as the store knows; and as the log shows, where that is lower.
        event(1, far(v1), far(v1)),
        event(2, far(v2), low),
        // Under a higher version.
        event(3, version(12), version(11)),
        Restore::Clean { record: record(4), version: v4.before(), image: row(88) },
        Restore::Clean { record: record(5), version: v5, image: row(88) },
        // Over what was clean.
        event(6, far(v6), far(v6)),
        event(7, version(20), version(10)),
        Restore::Gone { record: record(7), horizon: version(20) },
        event(8, version(20), version(13)),
        Restore::Clean { record: record(8), version: version(21), image: row(88) },
        event(9, version(40), version(40)),
        event(9, version(30), version(30)),
    ];
    store.restore(shard, &opener, restores, LONG).await.unwrap();
    store.finish_opening(shard, &opener, far(v6), hot_store::Checkpoint::default()).await.unwrap();

    // One after the other becomes clean, and shows how far behind the next one was.
    let images = [row(77), row(77), row(3), row(4), row(77), row(77)];
    assert_eq!(backlog(b).await, expected(&images, low));
    for (number, at, next) in [(2, far(v2), version(11)), (3, v3, version(30)), (9, version(40), v1)] {
        assert_eq!(mark_clean(b, record(number), at, LONG).await, CleanOutcome::Cleaned);
        assert_eq!(alone(b).await, next);
    }
    for (number, at, next) in [(1, far(v1), v4), (4, v4, far(v6))] {
        assert_eq!(mark_clean(b, record(number), at, LONG).await, CleanOutcome::Cleaned);
        assert_eq!(alone(b).await, next);
    }
    assert_eq!(backlog(b).await, expected(&[row(77)], far(v6)));
}

pub async fn what_a_note_names_holds_back_what_is_dirty_and_nothing_else(b: &impl Backend) {
    open(b).await;
    let mut versions = Vec::new();
    for number in 1..=4 {
        versions.push(put(b, record(number), row(i64::from(number))).await);
    }
    let [v1, v2, v3, v4] = versions[..] else { panic!("four") };
    assert_eq!(mark_clean(b, record(4), v4, LONG).await, CleanOutcome::Cleaned);
    b.restart().await;
    let (low, lower) = (version(9), version(8));
    let (store, shard, opener) = (b.store(), b.shard(), token("a"));
    store.claim(shard, &opener).await.unwrap();
    store.begin_opening(shard, &opener, Epoch(2), start(false)).await.unwrap();
    let noted = |number, version| Restore::Behind { record: record(number), version };
    let restores = vec![
        Restore::Dirty { record: record(5), version: version(30), behind: version(30), image: row(5) },
        noted(5, version(20)),
        // Whatever comes first, the lowest counts.
        noted(1, low),
        noted(1, above(v1)),
        noted(2, above(v2)),
        noted(3, lower),
        // What is clean, what is not there, and what becomes clean has no place in a backlog.
        noted(4, lower),
        noted(6, lower),
        Restore::Dirty { record: record(7), version: version(40), behind: version(40), image: row(7) },
        noted(7, lower),
        Restore::Clean { record: record(7), version: version(40), image: row(7) },
        // Another table has a record of the same key.
        Restore::Behind { record: record_in("main.orders", 2), version: lower },
    ];
    store.restore(shard, &opener, restores, LONG).await.unwrap();
    store.finish_opening(shard, &opener, above(v4), hot_store::Checkpoint::default()).await.unwrap();
    assert_eq!((backlogs(b).await[1].records, backlogs(b).await[1].oldest), (0, None));
    assert_eq!(backlog(b).await, expected(&[row(1), row(2), row(3), row(5)], lower));
    for (number, at, next) in [(3, v3, low), (1, v1, version(20)), (5, version(30), v2)] {
        assert_eq!(mark_clean(b, record(number), at, LONG).await, CleanOutcome::Cleaned);
        assert_eq!(backlog(b).await.oldest, Some(next));
    }
    assert_eq!(backlog(b).await, expected(&[row(2)], v2));
}

pub async fn what_a_call_puts_into_an_empty_store_counts_for_the_rest_of_it(b: &impl Backend) {
    let event =
        |record, at, value| Restore::Dirty { record, version: version(at), behind: version(at), image: row(value) };
    let orders = |number| record_in("main.orders", number);
    let restores = vec![
        event(record(1), 20, 1),
        event(orders(1), 60, 2),
        event(record(2), 40, 3),
        event(record(3), 50, 4),
        Restore::Gone { record: record(3), horizon: version(50) },
        event(record(1), 30, 555),
        event(record(4), 45, 5),
        event(record(2), 10, 6),
        Restore::Behind { record: record(4), version: version(7) },
        event(orders(2), 70, 7),
        Restore::Clean { record: orders(2), version: version(70), image: row(7) },
    ];
    open_with(b, true, restores, version(100)).await;
    assert_eq!(backlog(b).await, expected(&[row(555), row(3), row(5)], version(7)));
    assert_eq!(backlogs(b).await[1], expected(&[row(2)], version(60)));
    assert_eq!(read(b, record(1)).await, image_slot(version(30), row(555), true));
    assert_eq!(read(b, record(2)).await, image_slot(version(40), row(3), true));
    assert_eq!(read(b, record(3)).await, Slot::Empty);
    assert_eq!(read(b, orders(2)).await, image_slot(version(70), row(7), false));
    for (number, at, next) in [(4, 45, 10), (2, 40, 20)] {
        assert_eq!(mark_clean(b, record(number), version(at), LONG).await, CleanOutcome::Cleaned);
        assert_eq!(backlog(b).await.oldest, Some(version(next)));
    }
}

/// What a record is to be behind with, by the words of the trait.
struct Held {
    version: Version,
    behind: Version,
    image: Image,
}

/// A long random history, held against a table of what is dirty.
pub async fn a_backlog_is_what_the_dirty_records_come_to(b: &impl Backend) {
    open(b).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut held: BTreeMap<u32, Held> = BTreeMap::new();
    let mut written: BTreeMap<u32, Vec<Version>> = BTreeMap::new();
    for step in 0..400 {
        let number = random(6) as u32;
        if random(10) < 6 {
            let note = Value::Text("x".repeat(random(300) as usize));
            let mut image = row(step);
            if let model::Content::Row(row) = &mut image.content {
                row.insert(model::ColumnName::new("note").unwrap(), note);
            }
            let at = put(b, record(number), image.clone()).await;
            let behind = held.get(&number).map_or(at, |held| held.behind);
            held.insert(number, Held { version: at, behind, image });
            written.entry(number).or_default().push(at);
        } else if let Some(versions) = written.get(&number) {
            let at = versions[random(versions.len() as u64) as usize];
            mark_clean(b, record(number), at, LONG).await;
            match held.get_mut(&number) {
                Some(dirty) if dirty.version == at => drop(held.remove(&number)),
                Some(dirty) => dirty.behind = dirty.behind.max(above(at)),
                None => {}
            }
        }
        let found = backlog(b).await;
        assert_eq!(found.records, held.len() as u64, "step {step}");
        assert_eq!(found.bytes, held.values().map(|held| bytes(&held.image)).sum::<u64>(), "step {step}");
        assert_eq!(found.oldest, held.values().map(|held| held.behind).min(), "step {step}");
    }
    assert!(written.len() == 6);
}

/// Whether the store has anything of it must make no difference to what a call puts back.
pub async fn an_empty_store_is_filled_at_once_and_offered_the_same_again_with_more_it_takes_the_rest(b: &impl Backend) {
    let (store, shard, opener) = (b.store(), b.shard(), token("a"));
    let event = |number, at, behind, image| Restore::Dirty {
        record: record(number),
        version: version(at),
        behind: version(behind),
        image,
    };
    let noted = |id: &str, at| Restore::Request {
        namespace: record(1).namespace,
        request: request(id, "a"),
        version: version(at),
    };
    let since = Image { since: Some(version(4)), ..row(2) };
    store.claim(shard, &opener).await.unwrap();
    store.begin_opening(shard, &opener, Epoch(1), start(true)).await.unwrap();
    let first = vec![
        event(1, 21, 21, row(1)),
        noted("one", 21),
        event(2, 22, 12, since.clone()),
        event(3, 23, 23, tombstone()),
        noted("three", 23),
    ];
    store.restore(shard, &opener, first.clone(), LONG).await.unwrap();
    store.restore(shard, &opener, first.clone(), LONG).await.unwrap();
    // A record that is new beside one that is not, a request likewise; another table in the same call.
    let other = Restore::Dirty {
        record: record_in("main.orders", 1),
        version: version(26),
        behind: version(16),
        image: row(6),
    };
    store.restore(shard, &opener, vec![event(4, 24, 24, row(4)), event(1, 25, 21, row(5))], LONG).await.unwrap();
    store.restore(shard, &opener, vec![noted("four", 24), noted("one", 20)], LONG).await.unwrap();
    store.restore(shard, &opener, vec![event(5, 27, 27, row(7)), noted("three", 28)], LONG).await.unwrap();
    store.restore(shard, &opener, vec![event(6, 29, 29, row(8)), other], LONG).await.unwrap();
    store.restore(shard, &opener, first, LONG).await.unwrap();
    store.finish_opening(shard, &opener, version(30), hot_store::Checkpoint::default()).await.unwrap();

    let held = [(25, row(5)), (22, since), (23, tombstone()), (24, row(4)), (27, row(7)), (29, row(8))];
    for (number, (at, image)) in (1..).zip(&held) {
        assert_eq!(read(b, record(number)).await, image_slot(version(*at), image.clone(), true), "{number}");
    }
    let images = held.map(|(_, image)| image);
    assert_eq!(backlog(b).await, expected(&images, version(12)));
    assert_eq!(dirty(b, Dirty::All).await, [22, 23, 24, 25, 26, 27, 29].map(version));
    assert!(dirty(b, Dirty::Unqueued).await.is_empty());
    for (number, next) in [(2, 21), (1, 23), (3, 24), (4, 27)] {
        let at = version([25, 22, 23, 24][number as usize - 1]);
        assert_eq!(mark_clean(b, record(number), at, LONG).await, CleanOutcome::Cleaned);
        assert_eq!(backlog(b).await.oldest, Some(version(next)), "{number}");
    }
    assert_eq!(backlogs(b).await[1].oldest, Some(version(16)));
    for (id, at) in [("one", 21), ("three", 28), ("four", 24)] {
        let image = Image { request: Some(request(id, "a")), ..row(9) };
        let outcome = write(b, record(9), Precondition::None, image).await;
        assert_eq!(
            outcome,
            WriteOutcome::Repeated { version: version(at), epoch: Epoch(1), current: Epoch(1) },
            "{id}"
        );
    }
}
