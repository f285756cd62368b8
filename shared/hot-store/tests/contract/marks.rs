//! Marks: queued, clean; and the dirty sets.

use std::time::Duration;

use hot_store::{Clean, CleanOutcome, Dirty, Fill, HotStore, HotStoreError, Restore, Slot, Stamp};
use model::{Epoch, Version};

use super::{Backend, kit::*};

pub async fn a_mark_takes_a_record_out_of_the_unqueued_set(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(2), row(2)).await;
    assert!(mark_queued(b, epoch, record(1), first).await);
    assert_eq!(dirty(b, Dirty::Unqueued).await, [second]);
    assert_eq!(dirty(b, Dirty::All).await, [first, second]);
    assert!(mark_queued(b, epoch, record(1), first).await, "a mark may come again");
}

pub async fn a_stale_mark_leaves_the_newer_version_unqueued(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(1), row(2)).await;
    assert!(mark_queued(b, epoch, record(1), first).await, "what was superseded counts as marked");
    assert_eq!(dirty(b, Dirty::Unqueued).await, [second]);
}

pub async fn a_mark_of_what_the_store_does_not_know_is_false(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    lease(b, record(3), LONG).await;
    let later = version(first.get() + 1);
    let stamp = |number, version| Stamp { record: record(number), version };
    let stamps = vec![stamp(1, later), stamp(2, first), stamp(3, first), stamp(1, first)];
    let marked = b.store().mark_queued(b.shard(), epoch, stamps).await.unwrap();
    assert_eq!(marked, [false, false, false, true]);
}

pub async fn a_mark_under_another_epoch_is_refused(b: &impl Backend) {
    let epoch = open(b).await;
    let first = put(b, record(1), row(1)).await;
    for other in [Epoch(epoch.0 - 1), Epoch(epoch.0 + 1)] {
        let stamps = vec![Stamp { record: record(1), version: first }];
        let refused = b.store().mark_queued(b.shard(), other, stamps).await;
        assert_eq!(refused, Err(HotStoreError::Closed { shard: b.shard() }));
    }
    assert_eq!(dirty(b, Dirty::Unqueued).await, [first]);
}

pub async fn a_mark_of_nothing_tells_whether_the_epoch_is_still_that_one(b: &impl Backend) {
    let epoch = open(b).await;
    assert_eq!(b.store().mark_queued(b.shard(), epoch, vec![]).await, Ok(vec![]));
    for other in [Epoch(epoch.0 - 1), Epoch(epoch.0 + 1)] {
        let refused = b.store().mark_queued(b.shard(), other, vec![]).await;
        assert_eq!(refused, Err(HotStoreError::Closed { shard: b.shard() }));
    }
}

pub async fn clean_at_its_version_starts_the_ttl(b: &impl Backend) {
    open(b).await;
    let version = put(b, record(1), row(1)).await;
    assert_eq!(mark_clean(b, record(1), version, Duration::from_millis(80)).await, CleanOutcome::Cleaned);
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![], vec![]));
    eventually("the clean record expires", async || read(b, record(1)).await == Slot::Empty).await;
    assert_eq!(mark_clean(b, record(1), version, LONG).await, CleanOutcome::Gone);
}

pub async fn a_clean_of_an_older_version_leaves_the_record_dirty(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(1), row(2)).await;
    // Also with a row of that older version.
    for newer in [None, Some(row(1))] {
        assert_eq!(clean_with(b, record(1), first, newer, LONG).await, CleanOutcome::Newer);
    }
    assert_eq!(read(b, record(1)).await, image_slot(second, row(2), true));
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![second], vec![second]));
}

pub async fn a_newer_row_replaces_the_image_as_clean(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let second = put(b, record(2), row(2)).await;
    let newer = version(first.get() + 1_000_000);
    assert_eq!(clean_with(b, record(1), newer, Some(row(9)), LONG).await, CleanOutcome::Cleaned);
    assert_eq!(clean_with(b, record(2), newer, Some(tombstone()), LONG).await, CleanOutcome::Cleaned);
    assert_eq!(read(b, record(1)).await, image_slot(newer, row(9), false));
    assert_eq!(read(b, record(2)).await, image_slot(newer, tombstone(), false));
    assert!(second > first);
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![], vec![]));
}

pub async fn a_lower_image_does_not_survive_a_clean_without_a_row(b: &impl Backend) {
    open(b).await;
    let first = put(b, record(1), row(1)).await;
    let newer = version(first.get() + 1);
    assert_eq!(mark_clean(b, record(1), newer, LONG).await, CleanOutcome::Gone);
    assert_eq!(read(b, record(1)).await, Slot::Empty);
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![], vec![]));
}

pub async fn a_clean_breaks_a_lease_and_a_remembered_absence(b: &impl Backend) {
    open(b).await;
    let late = lease(b, record(1), LONG).await;
    let token = lease(b, record(2), LONG).await;
    assert!(fill(b, record(2), token, Fill::Absent, LONG).await);
    for number in [1, 2] {
        assert_eq!(mark_clean(b, record(number), version(5), LONG).await, CleanOutcome::Gone);
        assert_eq!(read(b, record(number)).await, Slot::Empty);
    }
    assert!(!fill(b, record(1), late, Fill::Absent, LONG).await, "what was read before is not filled in after");
}

pub async fn a_clean_may_come_again(b: &impl Backend) {
    open(b).await;
    let version = put(b, record(1), row(1)).await;
    let clean = |record| Clean { record, version, newer: None };
    let twice = vec![clean(record(1)), clean(record(1))];
    let outcomes = b.store().mark_clean(b.shard(), twice, LONG).await.unwrap();
    assert_eq!(outcomes, [CleanOutcome::Cleaned, CleanOutcome::Cleaned]);
    assert_eq!(mark_clean(b, record(1), version, LONG).await, CleanOutcome::Cleaned);
    assert_eq!(read(b, record(1)).await, image_slot(version, row(1), false));
}

pub async fn dirty_records_are_listed_by_version_and_in_pages(b: &impl Backend) {
    let epoch = open(b).await;
    let mut versions = Vec::new();
    for number in [5, 3, 9, 1, 7] {
        versions.push(put(b, record(number), row(i64::from(number))).await);
    }
    // The oldest is written again, and so becomes the newest.
    versions.remove(0);
    versions.push(put(b, record(5), row(55)).await);

    let mut listed = Vec::new();
    let mut after = Version::ZERO;
    loop {
        let (listed_in, page) = b.store().dirty(b.shard(), Dirty::All, after, 2).await.unwrap();
        assert_eq!(listed_in, epoch);
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = last.version;
        listed.extend(page);
        assert!(listed.len() <= 5, "a page begins before the end of the last one");
    }
    assert_eq!(listed.iter().map(|found| found.version).collect::<Vec<_>>(), versions);
    let expected = [3, 9, 1, 7, 5].map(record);
    assert_eq!(listed.iter().map(|found| found.record.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(listed[4].image, row(55));
    let header = b.store().header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued, header.oldest_dirty), (5, 5, Some(versions[0])));
    assert!(mark_queued(b, epoch, record(3), versions[0]).await);
    mark_clean(b, record(9), versions[1], LONG).await;
    let header = b.store().header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued, header.oldest_dirty), (4, 3, Some(versions[0])));
}

/// After a loss a version can come again, for another record. A page that began above it would leave one out for good.
pub async fn records_of_one_version_are_not_parted(b: &impl Backend) {
    let event = |number, at| Restore::Dirty {
        record: record(number),
        version: version(at),
        behind: version(at),
        image: row(1),
    };
    let events = vec![event(1, 5), event(2, 6), event(3, 6), event(4, 6), event(5, 7)];
    open_with(b, false, events, version(7)).await;
    let mut pages = Vec::new();
    let mut after = Version::ZERO;
    loop {
        let (_, page) = b.store().dirty(b.shard(), Dirty::All, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.version;
        pages.push(page.iter().map(|found| found.version.get()).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![5, 6, 6, 6], vec![7]]);
}
