//! What an opening puts back.

use hot_store::{Checkpoint, CleanOutcome, Dirty, Fill, HotStore, Restore, Slot};
use model::{Epoch, Image, Version};

use super::{Backend, kit::*};

fn dirty_event(number: u32, at: Version) -> Restore {
    Restore::Dirty { record: record(number), version: at, behind: at, image: row(77) }
}

fn database_row(number: u32, at: Version) -> Restore {
    Restore::Clean { record: record(number), version: at, image: row(88) }
}

fn gone(number: u32, horizon: Version) -> Restore {
    Restore::Gone { record: record(number), horizon }
}

fn below(at: Version) -> Version {
    version(at.get() - 1)
}

fn above(at: Version) -> Version {
    version(at.get() + 1)
}

/// Six records: dirty 1 to 3, clean 4, leased 5, absent 6.
async fn before_the_restart(b: &impl Backend) -> [Version; 4] {
    open(b).await;
    let mut versions = [Version::ZERO; 4];
    for (number, at) in (1..).zip(&mut versions) {
        *at = put(b, record(number), row(i64::from(number))).await;
    }
    mark_clean(b, record(4), versions[3], LONG).await;
    lease(b, record(5), LONG).await;
    let token = lease(b, record(6), LONG).await;
    assert!(fill(b, record(6), token, Fill::Absent, LONG).await);
    b.restart().await;
    versions
}

pub async fn events_are_put_back_over_nothing_and_over_lower_versions(b: &impl Backend) {
    let [v1, v2, v3, v4] = before_the_restart(b).await;
    let low = version(5);
    let restores = vec![
        dirty_event(1, below(v1)),
        dirty_event(2, v2),
        dirty_event(3, above(v3)),
        dirty_event(4, above(v4)),
        dirty_event(5, low),
        dirty_event(6, low),
        dirty_event(7, low),
        // The log is not in the order of versions.
        dirty_event(8, version(20)),
        dirty_event(8, version(10)),
    ];
    open_with(b, false, restores, Version::ZERO).await;
    let answer = b.store().read(b.shard(), (1..=8).map(record).collect()).await.unwrap();
    assert_eq!(
        answer.slots,
        [
            image_slot(v1, row(1), true),
            image_slot(v2, row(2), true),
            image_slot(above(v3), row(77), true),
            image_slot(above(v4), row(77), true),
            image_slot(low, row(77), true),
            image_slot(low, row(77), true),
            image_slot(low, row(77), true),
            image_slot(version(20), row(77), true),
        ]
    );
    // What came from the log is queued; what the store held above it is relayed again.
    assert_eq!(dirty(b, Dirty::Unqueued).await, [v1, v2]);
    assert_eq!(b.store().header(b.shard()).await.unwrap().dirty, 8);
}

pub async fn rows_stand_as_clean_over_lower_versions(b: &impl Backend) {
    let [v1, v2, v3, v4] = before_the_restart(b).await;
    let low = version(5);
    let restores = vec![
        database_row(1, below(v1)),
        database_row(2, v2),
        database_row(3, above(v3)),
        database_row(4, above(v4)),
        database_row(5, low),
        Restore::Clean { record: record(7), version: low, image: tombstone() },
    ];
    open_with(b, false, restores, Version::ZERO).await;
    let answer = b.store().read(b.shard(), (1..=7).map(record).collect()).await.unwrap();
    assert_eq!(
        answer.slots,
        [
            image_slot(v1, row(1), true),
            // The mark that it is clean was lost with the store's tail.
            image_slot(v2, row(2), false),
            image_slot(above(v3), row(88), false),
            image_slot(above(v4), row(88), false),
            image_slot(low, row(88), false),
            Slot::Empty,
            image_slot(low, tombstone(), false),
        ]
    );
    assert_eq!(dirty(b, Dirty::All).await, [v1]);
    assert_eq!(dirty(b, Dirty::Unqueued).await, [v1]);
}

pub async fn at_or_below_the_purge_horizon_an_image_goes(b: &impl Backend) {
    let [v1, v2, v3, v4] = before_the_restart(b).await;
    let restores = vec![gone(1, below(v1)), gone(2, v2), gone(3, above(v3)), gone(4, v4), gone(5, v4), gone(9, v4)];
    open_with(b, false, restores, Version::ZERO).await;
    let answer = b.store().read(b.shard(), (1..=5).map(record).collect()).await.unwrap();
    let nothing = Slot::Empty;
    assert_eq!(
        answer.slots,
        [image_slot(v1, row(1), true), nothing.clone(), nothing.clone(), nothing.clone(), nothing]
    );
    assert_eq!((dirty(b, Dirty::All).await, dirty(b, Dirty::Unqueued).await), (vec![v1], vec![v1]));
}

pub async fn since_comes_back_with_the_event(b: &impl Backend) {
    let image = Image { since: Some(version(4)), ..row(1) };
    let event = Restore::Dirty { record: record(1), version: version(5), behind: version(5), image: image.clone() };
    open_with(b, true, vec![event], version(5)).await;
    assert_eq!(read(b, record(1)).await, image_slot(version(5), image, true));
    let deleted = put(b, record(1), tombstone()).await;
    let image = Image { since: Some(version(4)), ..tombstone() };
    assert_eq!(read(b, record(1)).await, image_slot(deleted, image, true));
}

pub async fn what_was_put_back_can_be_drained(b: &impl Backend) {
    let (opener, store, shard) = (token("a"), b.store(), b.shard());
    store.claim(shard, &opener).await.unwrap();
    store.begin_opening(shard, &opener, Epoch(1), start(true)).await.unwrap();
    for part in [vec![dirty_event(1, version(5))], vec![dirty_event(1, version(6)), dirty_event(2, version(7))]] {
        store.restore(shard, &opener, part, LONG).await.unwrap();
    }
    store.finish_opening(shard, &opener, version(7), Checkpoint(points(3))).await.unwrap();
    assert_eq!(mark_clean(b, record(1), version(5), LONG).await, CleanOutcome::Newer);
    assert_eq!(mark_clean(b, record(1), version(6), LONG).await, CleanOutcome::Cleaned);
    assert_eq!(dirty(b, Dirty::All).await, [version(7)]);
    assert_eq!(read(b, record(1)).await, image_slot(version(6), row(77), false));
}
