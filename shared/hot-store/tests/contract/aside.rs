//! What was dirty when an opening discarded it.

use std::collections::BTreeMap;

use hot_store::{Checkpoint, Dirty, HotStore, HotStoreError, Precondition, RecordId, Restore, SetAside, Slot, Stamp};
use model::{Epoch, Image, Version};

use super::{Backend, kit::*, requests::request};

async fn begin(b: &impl Backend, name: &str, discard: bool) {
    let epoch = b.store().claim(b.shard(), &token(name)).await.unwrap().expect("the shard is closed").epoch;
    // Any epoch above those of the attempts before.
    let attempt = name.bytes().next().map_or(1, |letter| u32::from(letter - b'a') + 1);
    b.store().begin_opening(b.shard(), &token(name), Epoch(epoch.0 + attempt), start(discard)).await.unwrap();
}

async fn restore(b: &impl Backend, name: &str, records: Vec<Restore>) {
    b.store().restore(b.shard(), &token(name), records, LONG).await.unwrap();
}

async fn finish(b: &impl Backend, name: &str) {
    let checkpoint = Checkpoint(points(100));
    b.store().finish_opening(b.shard(), &token(name), Version::ZERO, checkpoint).await.unwrap();
}

/// All that is aside, by record.
async fn aside(b: &impl Backend, name: &str) -> BTreeMap<RecordId, SetAside> {
    let page = b.store().set_aside(b.shard(), &token(name), 0, 1000).await.unwrap();
    assert_eq!((page.unreadable, page.is_last), (0, true));
    let count = page.records.len();
    let found: BTreeMap<_, _> = page.records.into_iter().map(|it| (it.record.clone(), it)).collect();
    assert_eq!(found.len(), count, "each once");
    found
}

async fn numbers_aside(b: &impl Backend, name: &str) -> Vec<RecordId> {
    aside(b, name).await.into_keys().collect()
}

fn as_it_was(number: u32, version: Version, behind: Version, image: Image) -> (RecordId, SetAside) {
    (record(number), SetAside { record: record(number), version, behind, image })
}

fn unqueued(SetAside { record, version, behind, image }: SetAside) -> Restore {
    Restore::Unqueued { record, version, behind, image }
}

pub async fn a_discard_sets_aside_what_the_database_did_not_have(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    let queued = put(b, record(1), row(2)).await;
    assert!(mark_queued(b, epoch, record(1), queued).await);
    let named = Image { request: Some(request("r", "a")), ..tombstone() };
    let deleted = put(b, record(2), named.clone()).await;
    let created = stored(write(b, record(3), Precondition::AbsentFromStore, row(3)).await);
    let clean = put(b, record(4), row(4)).await;
    mark_clean(b, record(4), clean, LONG).await;
    lease(b, record(5), LONG).await;
    b.restart().await;
    begin(b, "a", true).await;
    let expected = [
        as_it_was(1, queued, first, row(2)),
        as_it_was(2, deleted, deleted, named),
        as_it_was(3, created, created, Image { since: Some(created), ..row(3) }),
    ];
    assert_eq!(aside(b, "a").await, BTreeMap::from(expected));
    finish(b, "a").await;
    let answer = b.store().read(b.shard(), (1..=5).map(record).collect()).await.unwrap();
    assert_eq!(answer.slots, [const { Slot::Empty }; 5], "what is aside counts as nothing");
    assert_eq!(dirty(b, Dirty::All).await, []);
}

pub async fn what_was_parked_is_set_aside_too(b: &impl Backend) {
    open(b).await;
    let parked = put(b, record(1), row(1)).await;
    b.store().park(b.shard(), vec![Stamp { record: record(1), version: parked }]).await.unwrap();
    b.restart().await;
    begin(b, "a", true).await;
    assert_eq!(aside(b, "a").await, BTreeMap::from([as_it_was(1, parked, parked, row(1))]));
    // Its letter may be found yet: it is parked again when the database has refused it again.
    let found = aside(b, "a").await.into_values().map(unqueued).collect();
    restore(b, "a", found).await;
    restore(b, "a", vec![Restore::Parked { record: record(1), version: parked, image: row(1) }]).await;
    finish(b, "a").await;
    assert_eq!(read(b, record(1)).await, image_slot(parked, row(1), true));
    assert_eq!(dirty(b, Dirty::Unqueued).await, [parked]);
}

pub async fn an_opening_that_discards_nothing_finds_nothing_aside(b: &impl Backend) {
    open(b).await;
    put(b, record(1), row(1)).await;
    b.restart().await;
    begin(b, "a", false).await;
    assert_eq!(aside(b, "a").await, BTreeMap::new());
}

pub async fn what_is_put_back_is_set_aside_no_longer(b: &impl Backend) {
    open(b).await;
    let mut versions = Vec::new();
    for number in 1..=5 {
        versions.push(put(b, record(number), row(i64::from(number))).await);
    }
    let again = put(b, record(1), row(11)).await;
    b.restart().await;
    begin(b, "a", true).await;
    let kept = aside(b, "a").await.remove(&record(1)).unwrap();
    assert_eq!((kept.version, kept.behind), (again, versions[0]));
    let newer = version(again.get() + 10);
    restore(
        b,
        "a",
        vec![
            unqueued(kept),
            Restore::Clean { record: record(2), version: newer, image: row(22) },
            Restore::Gone { record: record(3), horizon: versions[2] },
            Restore::Dirty { record: record(4), version: newer, behind: newer, image: row(44) },
        ],
    )
    .await;
    assert_eq!(numbers_aside(b, "a").await, [record(5)]);
    finish(b, "a").await;
    let answer = b.store().read(b.shard(), (1..=5).map(record).collect()).await.unwrap();
    assert_eq!(
        answer.slots,
        [
            image_slot(again, row(11), true),
            image_slot(newer, row(22), false),
            Slot::Empty,
            image_slot(newer, row(44), true),
            Slot::Empty,
        ]
    );
    assert_eq!(dirty(b, Dirty::All).await, [again, newer]);
    assert_eq!(dirty(b, Dirty::Unqueued).await, [again]);
    let (_, backlogs) = b.store().backlog(b.shard(), vec![record(1).namespace]).await.unwrap();
    let bytes = (row(11).encode().len() + row(44).encode().len()) as u64;
    assert_eq!((backlogs[0].records, backlogs[0].bytes, backlogs[0].oldest), (2, bytes, Some(versions[0])));
    // It drains like any other.
    mark_clean(b, record(1), again, LONG).await;
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![newer], vec![]));
}

pub async fn an_event_of_the_log_goes_over_a_lower_version_that_was_put_back(b: &impl Backend) {
    open(b).await;
    let versions = [put(b, record(1), row(1)).await, put(b, record(2), row(2)).await];
    b.restart().await;
    begin(b, "a", true).await;
    let found = aside(b, "a").await;
    restore(b, "a", found.into_values().map(unqueued).collect()).await;
    let event = |number, at: u64| Restore::Dirty {
        record: record(number),
        version: version(at),
        behind: version(at),
        image: row(9),
    };
    restore(b, "a", vec![event(1, versions[0].get() + 5), event(2, versions[1].get() - 1)]).await;
    finish(b, "a").await;
    let above = version(versions[0].get() + 5);
    assert_eq!(read(b, record(1)).await, image_slot(above, row(9), true));
    assert_eq!(read(b, record(2)).await, image_slot(versions[1], row(2), true));
    assert_eq!(dirty(b, Dirty::Unqueued).await, [versions[1]]);
}

pub async fn what_is_aside_outlives_the_opener_and_another_restart(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let newest = put(b, record(1), row(11)).await;
    let other = put(b, record(2), row(2)).await;
    b.restart().await;
    begin(b, "a", true).await;
    let kept = aside(b, "a").await.remove(&record(1)).unwrap();
    restore(b, "a", vec![unqueued(kept)]).await;
    // Who takes over finds what is left.
    begin(b, "b", true).await;
    assert_eq!(numbers_aside(b, "b").await, [record(2)]);
    // After another restart also what was put back: that is discarded once more.
    b.restart().await;
    begin(b, "c", true).await;
    let expected = BTreeMap::from([as_it_was(1, newest, first, row(11)), as_it_was(2, other, other, row(2))]);
    assert_eq!(aside(b, "c").await, expected);
    restore(b, "c", expected.into_values().map(unqueued).collect()).await;
    finish(b, "c").await;
    assert_eq!(dirty(b, Dirty::Unqueued).await, [newest, other]);
    b.restart().await;
    begin(b, "d", false).await;
    assert_eq!(aside(b, "d").await, BTreeMap::new());
}

pub async fn what_is_aside_is_shown_to_the_opener_only(b: &impl Backend) {
    open(b).await;
    put(b, record(1), row(1)).await;
    b.restart().await;
    let superseded = Err(HotStoreError::Superseded { shard: b.shard() });
    b.store().claim(b.shard(), &token("a")).await.unwrap();
    assert_eq!(b.store().set_aside(b.shard(), &token("a"), 0, 10).await, superseded, "it has not begun");
    begin(b, "a", true).await;
    begin(b, "b", true).await;
    assert_eq!(b.store().set_aside(b.shard(), &token("a"), 0, 10).await, superseded);
    assert_eq!(numbers_aside(b, "b").await, [record(1)]);
    b.restart().await;
    assert_eq!(b.store().set_aside(b.shard(), &token("b"), 0, 10).await, superseded);
}

pub async fn what_is_aside_comes_in_pages(b: &impl Backend) {
    open(b).await;
    for number in 1..=5 {
        put(b, record(number), row(1)).await;
    }
    b.restart().await;
    begin(b, "a", true).await;
    let page = async |skip, limit| b.store().set_aside(b.shard(), &token("a"), skip, limit).await.unwrap();
    let mut found = Vec::new();
    for (skip, count, is_last) in [(0, 2, false), (2, 2, false), (4, 1, true)] {
        let page = page(skip, 2).await;
        assert_eq!((page.records.len(), page.is_last), (count, is_last));
        found.extend(page.records.into_iter().map(|it| it.record));
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 5);
    // What is put back makes room; what is left there is passed over.
    let first = page(0, 2).await.records;
    restore(b, "a", vec![unqueued(first[0].clone())]).await;
    let rest = page(1, 5).await;
    assert_eq!((rest.records.len(), rest.is_last), (3, true));
    assert!(!rest.records.contains(&first[0]) && !rest.records.contains(&first[1]));
}
