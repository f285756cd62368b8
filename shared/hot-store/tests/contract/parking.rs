//! Records that the database refused for good.

use std::time::Duration;

use hot_store::{
    Backlog, CleanOutcome, Dirty, Fill, HotStore, HotStoreError, ParkOutcome, Precondition, Restore, Slot, Stage,
    Stamp, WriteOutcome,
};
use model::{Epoch, Image, Namespace, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

fn table() -> Namespace {
    record(0).namespace
}

fn parked_slot(version: Version, image: Image) -> Slot {
    Slot::Image { version, image, stage: Stage::Parked }
}

async fn park(b: &impl Backend, number: u32, version: Version) -> ParkOutcome {
    b.store().park(b.shard(), vec![Stamp { record: record(number), version }]).await.unwrap()[0]
}

async fn parked(b: &impl Backend) -> Vec<Version> {
    let (_, found) = b.store().parked(b.shard(), table(), Version::ZERO, 1000).await.unwrap();
    found.into_iter().map(|record| record.version).collect()
}

async fn backlog(b: &impl Backend) -> Backlog {
    b.store().backlog(b.shard(), vec![table()]).await.unwrap().1[0]
}

/// How many are dirty, their bytes, how many are parked, the lowest of these.
async fn counts(b: &impl Backend) -> (u64, u64, u64, Option<Version>) {
    let Backlog { records, bytes, parked, lowest_parked, .. } = backlog(b).await;
    (records, bytes, parked, lowest_parked)
}

fn bytes(image: &Image) -> u64 {
    image.encode().len() as u64
}

fn above(at: Version) -> Version {
    version(at.get() + 1)
}

pub async fn a_parked_record_is_read_and_is_neither_dirty_nor_behind(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let other = put(b, record(2), row(2)).await;
    assert_eq!(backlog(b).await.horizon, first.before());
    assert_eq!(park(b, 1, first).await, ParkOutcome::Parked);
    assert_eq!(read(b, record(1)).await, parked_slot(first, row(1)));
    assert_eq!(dirty(b, Dirty::All).await, [other]);
    assert_eq!(dirty(b, Dirty::Unqueued).await, [other]);
    assert_eq!(counts(b).await, (1, bytes(&row(2)), 1, Some(first)));
    assert_eq!(backlog(b).await.horizon, other.before(), "the horizon passes what is parked");
    assert_eq!(park(b, 1, first).await, ParkOutcome::Parked, "it may come again");
    assert_eq!(counts(b).await, (1, bytes(&row(2)), 1, Some(first)));

    let deleted = put(b, record(3), tombstone()).await;
    assert_eq!(park(b, 3, deleted).await, ParkOutcome::Parked);
    assert_eq!(read(b, record(3)).await, parked_slot(deleted, tombstone()));
    assert_eq!(parked(b).await, [first, deleted]);
}

pub async fn only_a_dirty_image_of_that_version_is_parked(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(1), row(2)).await;
    assert_eq!(park(b, 1, first).await, ParkOutcome::Superseded);
    assert_eq!(park(b, 1, above(second)).await, ParkOutcome::Gone, "what is there is older");
    assert_eq!(read(b, record(1)).await, image_slot(second, row(2), true));
    assert_eq!(park(b, 9, first).await, ParkOutcome::Gone);
    lease(b, record(8), LONG).await;
    assert_eq!(park(b, 8, first).await, ParkOutcome::Gone);
    // The database has taken it after all.
    assert_eq!(mark_clean(b, record(1), second, LONG).await, CleanOutcome::Cleaned);
    assert_eq!(park(b, 1, second).await, ParkOutcome::Superseded);
    assert_eq!(read(b, record(1)).await, image_slot(second, row(2), false));
    assert_eq!(counts(b).await, (0, 0, 0, None));
}

pub async fn many_are_parked_in_one_call_each_for_itself(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(2), row(2)).await;
    let third = put(b, record(3), row(3)).await;
    let newer = put(b, record(2), row(22)).await;
    let stamp = |number, version| Stamp { record: record(number), version };
    let stamps = vec![stamp(3, third), stamp(2, second), stamp(7, second), stamp(1, first)];
    let outcomes = b.store().park(b.shard(), stamps).await.unwrap();
    assert_eq!(outcomes, [ParkOutcome::Parked, ParkOutcome::Superseded, ParkOutcome::Gone, ParkOutcome::Parked]);
    assert_eq!(parked(b).await, [first, third]);
    assert_eq!(dirty(b, Dirty::All).await, [newer]);
}

pub async fn a_write_ends_the_parking_and_is_dirty_as_ever(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    park(b, 1, first).await;
    let second = put(b, record(1), row(2)).await;
    assert_eq!(read(b, record(1)).await, image_slot(second, row(2), true));
    assert_eq!(counts(b).await, (1, bytes(&row(2)), 0, None));
    assert_eq!(backlog(b).await.oldest, Some(second));
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![second], vec![second]));
    assert_eq!(park(b, 1, first).await, ParkOutcome::Superseded);
    // And once more within one call, over what that call itself writes.
    park(b, 1, second).await;
    let write = |image| hot_store::Write { record: record(1), precondition: Precondition::Present, image, index: None };
    let outcomes = b.store().write(b.shard(), Instant::now(), vec![write(row(3)), write(row(4))]).await.unwrap();
    assert_eq!(read(b, record(1)).await, image_slot(stored(outcomes[1]), row(4), true));
    assert_eq!(counts(b).await, (1, bytes(&row(4)), 0, None));
}

pub async fn preconditions_see_what_is_parked(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    let deleted = put(b, record(2), tombstone()).await;
    park(b, 1, first).await;
    park(b, 2, deleted).await;
    for precondition in [Precondition::Absent, Precondition::AbsentFromStore] {
        assert_eq!(write(b, record(1), precondition, row(2)).await, WriteOutcome::Exists);
    }
    assert_eq!(write(b, record(2), Precondition::Present, row(2)).await, WriteOutcome::Missing);
    let changed = Precondition::At { version: above(first), epoch };
    assert_eq!(write(b, record(1), changed, row(2)).await, WriteOutcome::Changed);
    assert_eq!(counts(b).await, (0, 0, 2, Some(first)), "what is refused leaves it parked");
    let second = stored(write(b, record(1), Precondition::At { version: first, epoch }, row(2)).await);
    assert_eq!(read(b, record(1)).await, image_slot(second, row(2), true));
    assert!(matches!(write(b, record(2), Precondition::Absent, row(2)).await, WriteOutcome::Stored { .. }));
    assert_eq!(parked(b).await, []);
}

pub async fn a_replay_asks_for_what_is_parked_be_it_a_row_or_a_tombstone(b: &impl Backend) {
    let epoch = open(b).await;
    for (number, image) in [(1, row(1)), (2, tombstone())] {
        let at = put(b, record(number), image.clone()).await;
        let replay = Precondition::Parked { version: at, epoch };
        assert_eq!(write(b, record(number), replay, image.clone()).await, WriteOutcome::Changed, "it is dirty");
        park(b, number, at).await;
        for (version, epoch) in [(above(at), epoch), (at, Epoch(epoch.0 + 1))] {
            let other = Precondition::Parked { version, epoch };
            assert_eq!(write(b, record(number), other, image.clone()).await, WriteOutcome::Changed);
        }
        let written = stored(write(b, record(number), replay, image.clone()).await);
        assert!(written > at);
        assert_eq!(read(b, record(number)).await, image_slot(written, image.clone(), true));
        assert_eq!(write(b, record(number), replay, image.clone()).await, WriteOutcome::Changed, "only once");
        mark_clean(b, record(number), written, LONG).await;
        let clean = Precondition::Parked { version: written, epoch };
        assert_eq!(write(b, record(number), clean, image).await, WriteOutcome::Changed);
    }
    let at = Precondition::Parked { version: version(5), epoch };
    assert_eq!(write(b, record(3), at, row(1)).await, WriteOutcome::Cold);
    assert_eq!(parked(b).await, []);
}

pub async fn since_goes_on_over_what_is_parked(b: &impl Backend) {
    let epoch = open(b).await;
    let created = stored(write(b, record(1), Precondition::AbsentFromStore, row(1)).await);
    park(b, 1, created).await;
    let with_since = Image { since: Some(created), ..row(1) };
    assert_eq!(read(b, record(1)).await, parked_slot(created, with_since.clone()));
    let (_, listed) = b.store().parked(b.shard(), table(), Version::ZERO, 10).await.unwrap();
    assert_eq!(listed[0].image, with_since);
    let replay = Precondition::Parked { version: created, epoch };
    let WriteOutcome::Stored { since, .. } = write(b, record(1), replay, row(1)).await else { panic!("not stored") };
    assert_eq!(since, Some(created));
}

/// Or every later write of the key would be refused as the create was.
pub async fn a_write_that_asks_for_nothing_leaves_the_since_of_what_is_parked_behind(b: &impl Backend) {
    open(b).await;
    for (n, image) in [(1, row(2)), (2, tombstone())] {
        let created = stored(write(b, record(n), Precondition::AbsentFromStore, row(1)).await);
        // Not before it is parked: until then nobody knows that it is refused.
        let outcome = write(b, record(n), Precondition::None, row(1)).await;
        assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");
        let refused = stored(outcome);
        park(b, n, refused).await;
        let outcome = write(b, record(n), Precondition::None, image.clone()).await;
        assert!(matches!(outcome, WriteOutcome::Stored { since: None, .. }), "{outcome:?}");
        assert_eq!(read(b, record(n)).await, image_slot(stored(outcome), image, true));
        // Nor does it come back with the next one.
        let outcome = write(b, record(n), Precondition::None, row(3)).await;
        assert!(matches!(outcome, WriteOutcome::Stored { since: None, .. }), "{outcome:?}");
    }
    // What asks for the parked record builds on its create.
    let created = stored(write(b, record(3), Precondition::AbsentFromStore, row(1)).await);
    park(b, 3, created).await;
    let outcome = write(b, record(3), Precondition::Present, row(2)).await;
    assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");
    // A create over a parked delete is one over what the database has still.
    let created = stored(write(b, record(4), Precondition::AbsentFromStore, row(1)).await);
    let deleted = stored(write(b, record(4), Precondition::None, tombstone()).await);
    park(b, 4, deleted).await;
    let outcome = write(b, record(4), Precondition::AbsentFromStore, row(2)).await;
    assert!(matches!(outcome, WriteOutcome::Stored { since, .. } if since == Some(created)), "{outcome:?}");
}

pub async fn marks_of_the_drain_find_what_is_parked(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(1), row(2)).await;
    park(b, 1, second).await;
    assert!(mark_queued(b, epoch, record(1), second).await);
    // The next older one has landed.
    assert_eq!(mark_clean(b, record(1), first, LONG).await, CleanOutcome::Newer);
    assert_eq!(read(b, record(1)).await, parked_slot(second, row(2)));
    assert_eq!(counts(b).await, (0, 0, 1, Some(second)));
    // It was redelivered, and now the database took it.
    assert_eq!(mark_clean(b, record(1), second, Duration::from_millis(80)).await, CleanOutcome::Cleaned);
    assert_eq!(counts(b).await, (0, 0, 0, None));
    eventually("the record expires once it is clean", async || read(b, record(1)).await == Slot::Empty).await;

    for (newer, becomes) in [(Some(row(9)), CleanOutcome::Cleaned), (None, CleanOutcome::Gone)] {
        let at = put(b, record(2), row(2)).await;
        park(b, 2, at).await;
        assert_eq!(clean_with(b, record(2), above(at), newer.clone(), LONG).await, becomes);
        let expected = newer.map_or(Slot::Empty, |image| image_slot(above(at), image, false));
        assert_eq!(read(b, record(2)).await, expected);
        assert_eq!(counts(b).await, (0, 0, 0, None));
    }
}

pub async fn a_purge_removes_what_is_parked_at_that_version_only(b: &impl Backend) {
    open(b).await;
    let purge = async |number, version| {
        b.store().purge_parked(b.shard(), Stamp { record: record(number), version }).await.unwrap()
    };
    let first = put(b, record(1), row(1)).await;
    assert!(!purge(1, first).await, "it is dirty");
    park(b, 1, first).await;
    assert!(!purge(1, above(first)).await);
    assert!(!purge(1, first.before()).await);
    assert_eq!(read(b, record(1)).await, parked_slot(first, row(1)));
    assert!(purge(1, first).await);
    assert!(!purge(1, first).await);
    assert!(!purge(2, first).await);
    assert_eq!((read(b, record(1)).await, counts(b).await), (Slot::Empty, (0, 0, 0, None)));
    let token = lease(b, record(1), LONG).await;
    assert!(fill(b, record(1), token, Fill::Absent, LONG).await, "the next read asks the database");
    let clean = put(b, record(3), row(3)).await;
    mark_clean(b, record(3), clean, LONG).await;
    assert!(!purge(3, clean).await, "it is clean");
    assert_eq!(read(b, record(3)).await, image_slot(clean, row(3), false));
}

pub async fn parked_records_are_listed_by_table_and_version_in_pages(b: &impl Backend) {
    let epoch = open(b).await;
    let mut versions = Vec::new();
    for number in 0..5 {
        let at = put(b, record(number), row(i64::from(number))).await;
        park(b, number, at).await;
        versions.push(at);
    }
    let elsewhere = put(b, record_in("main.orders", 1), row(1)).await;
    let stamp = Stamp { record: record_in("main.orders", 1), version: elsewhere };
    b.store().park(b.shard(), vec![stamp]).await.unwrap();
    let (mut after, mut seen) = (Version::ZERO, Vec::new());
    loop {
        let (in_epoch, page) = b.store().parked(b.shard(), table(), after, 2).await.unwrap();
        assert_eq!(in_epoch, epoch);
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = last.version;
        seen.extend(page);
    }
    let expected: Vec<_> = (0..5).map(|number| (record(number), row(i64::from(number)))).collect();
    assert_eq!(seen.iter().map(|found| found.version).collect::<Vec<_>>(), versions);
    assert_eq!(seen.into_iter().map(|found| (found.record, found.image)).collect::<Vec<_>>(), expected);
    let (_, orders) = b.store().parked(b.shard(), elsewhere_table(), Version::ZERO, 10).await.unwrap();
    assert_eq!(orders.len(), 1);
}

fn elsewhere_table() -> Namespace {
    record_in("main.orders", 1).namespace
}

pub async fn what_is_parked_never_expires(b: &impl Backend) {
    open(b).await;
    let short = Duration::from_millis(50);
    let first = put(b, record(1), row(1)).await;
    mark_clean(b, record(1), first, short).await;
    // It was clean, with a TTL, when it was written again.
    let second = put(b, record(1), row(2)).await;
    park(b, 1, second).await;
    let other = put(b, record(2), row(3)).await;
    mark_clean(b, record(2), other, short).await;
    eventually("a clean record expires", async || read(b, record(2)).await == Slot::Empty).await;
    tokio::time::sleep(short * 2).await;
    assert_eq!(read(b, record(1)).await, parked_slot(second, row(2)));
}

pub async fn a_closed_shard_parks_lists_and_purges_nothing(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    park(b, 1, first).await;
    b.restart().await;
    let closed = HotStoreError::Closed { shard: b.shard() };
    let stamp = Stamp { record: record(1), version: first };
    assert_eq!(b.store().park(b.shard(), vec![stamp.clone()]).await, Err(closed.clone()));
    assert_eq!(b.store().parked(b.shard(), table(), Version::ZERO, 10).await, Err(closed.clone()));
    assert_eq!(b.store().purge_parked(b.shard(), stamp).await, Err(closed));
    open(b).await;
    assert_eq!(read(b, record(1)).await, parked_slot(first, row(1)), "it survives a restart");
    assert_eq!(counts(b).await, (0, 0, 1, Some(first)));
}

pub async fn a_discard_ends_what_was_parked(b: &impl Backend) {
    open(b).await;
    for (number, image) in [(1, row(1)), (2, tombstone())] {
        let at = put(b, record(number), image).await;
        park(b, number, at).await;
    }
    b.restart().await;
    open_with(b, true, Vec::new(), Version::ZERO).await;
    for number in [1, 2] {
        assert_eq!(read(b, record(number)).await, Slot::Empty);
    }
    assert_eq!((parked(b).await, counts(b).await), (vec![], (0, 0, 0, None)));
}

pub async fn an_opening_parks_a_letter_over_what_is_lower_and_clean(b: &impl Backend) {
    open(b).await;
    let clean = put(b, record(2), row(2)).await;
    mark_clean(b, record(2), clean, LONG).await;
    let newer = put(b, record(3), row(3)).await;
    let lower = put(b, record(4), row(4)).await;
    let same = put(b, record(5), row(5)).await;
    lease(b, record(6), LONG).await;
    b.restart().await;
    let letter = |number, version, image| Restore::Parked { record: record(number), version, image };
    let with_since = Image { since: Some(version(4)), ..row(81) };
    let restores = vec![
        letter(1, version(5), with_since.clone()),
        letter(2, above(clean), tombstone()),
        letter(3, newer.before(), row(83)),
        letter(4, above(lower), row(84)),
        letter(5, same, row(85)),
        letter(6, version(6), row(86)),
        // A duplicate, and an older letter of the same record.
        letter(1, version(5), with_since.clone()),
        letter(6, version(3), row(99)),
    ];
    open_with(b, false, restores, Version::ZERO).await;
    assert_eq!(read(b, record(1)).await, parked_slot(version(5), with_since));
    assert_eq!(read(b, record(2)).await, parked_slot(above(clean), tombstone()));
    assert_eq!(read(b, record(3)).await, image_slot(newer, row(3), true));
    // The database may lack the lower one as well: it is tried again with all that belongs to it.
    assert_eq!(read(b, record(4)).await, image_slot(above(lower), row(84), true));
    assert_eq!(read(b, record(5)).await, image_slot(same, row(5), true));
    assert_eq!(read(b, record(6)).await, parked_slot(version(6), row(86)));
    assert_eq!(parked(b).await, [version(5), version(6), above(clean)]);
    let found = backlog(b).await;
    assert_eq!((found.records, found.oldest), (3, Some(newer)));
    assert_eq!(found.bytes, bytes(&row(3)) + bytes(&row(84)) + bytes(&row(5)));
    // What was put back can be written, parked and discarded like anything.
    let written = put(b, record(1), row(1)).await;
    assert_eq!(park(b, 1, written).await, ParkOutcome::Parked);
    b.restart().await;
    open_with(b, true, vec![letter(1, version(5), row(1))], Version::ZERO).await;
    assert_eq!((parked(b).await, counts(b).await), (vec![version(5)], (0, 0, 1, Some(version(5)))));
    b.restart().await;
    open_with(b, true, Vec::new(), Version::ZERO).await;
    assert_eq!((parked(b).await, read(b, record(1)).await), (vec![], Slot::Empty));
}

pub async fn an_opening_leaves_what_is_parked_unless_it_brings_something_newer(b: &impl Backend) {
    open(b).await;
    let mut at = [Version::ZERO; 6];
    for (number, at) in (0..).zip(&mut at) {
        *at = put(b, record(number), row(i64::from(number))).await;
        park(b, number, *at).await;
    }
    b.restart().await;
    let event =
        |number: u32, version| Restore::Dirty { record: record(number), version, behind: version, image: row(77) };
    let database = |number: u32, version| Restore::Clean { record: record(number), version, image: row(88) };
    let restores = vec![
        event(0, at[0]),
        event(1, at[1].before()),
        event(2, above(at[2])),
        database(3, at[3]),
        database(4, at[4].before()),
        Restore::Gone { record: record(5), horizon: at[5] },
    ];
    open_with(b, false, restores, Version::ZERO).await;
    assert_eq!(read(b, record(0)).await, parked_slot(at[0], row(0)));
    assert_eq!(read(b, record(1)).await, parked_slot(at[1], row(1)));
    assert_eq!(read(b, record(2)).await, image_slot(above(at[2]), row(77), true));
    assert_eq!(read(b, record(3)).await, image_slot(at[3], row(3), false));
    assert_eq!(read(b, record(4)).await, parked_slot(at[4], row(4)));
    assert_eq!(read(b, record(5)).await, Slot::Empty);
    assert_eq!(parked(b).await, [at[0], at[1], at[4]]);
    assert_eq!(counts(b).await, (1, bytes(&row(77)), 3, Some(at[0])));
}
