//! What can be forgotten, and what stays.

use hot_store::{
    Eviction, Fill, HotStore, LeaseOutcome, ParkOutcome, Precondition, RecordId, Slot, Stage, Stamp, WriteOutcome,
};

use super::{Backend, kit::*};

async fn evict(b: &impl Backend, records: impl IntoIterator<Item = RecordId>) -> Vec<Eviction> {
    b.store().evict(b.shard(), records.into_iter().collect()).await.unwrap()
}

async fn removed(b: &impl Backend) -> u64 {
    b.store().read(b.shard(), Vec::new()).await.unwrap().removed
}

pub async fn what_the_database_has_is_forgotten_and_what_it_has_not_stays(b: &impl Backend) {
    open(b).await;
    let clean = put(b, record(1), row(1)).await;
    mark_clean(b, record(1), clean, LONG).await;
    let deleted = put(b, record(2), tombstone()).await;
    mark_clean(b, record(2), deleted, LONG).await;
    let token = lease(b, record(3), LONG).await;
    assert!(fill(b, record(3), token, Fill::Absent, LONG).await);
    let dirty = put(b, record(4), row(4)).await;
    let dirty_delete = put(b, record(5), tombstone()).await;
    let parked = put(b, record(6), row(6)).await;
    let stamp = Stamp { record: record(6), version: parked };
    assert_eq!(b.store().park(b.shard(), vec![stamp]).await.unwrap(), [ParkOutcome::Parked]);

    let outcomes = evict(b, (1..=7).map(record).chain([record(1)])).await;
    use Eviction::{Evicted, NotHeld, Parked, Undrained};
    assert_eq!(outcomes, [Evicted, Evicted, Evicted, Undrained, Undrained, Parked, NotHeld, NotHeld]);
    for number in [1, 2, 3, 7] {
        assert_eq!(read(b, record(number)).await, Slot::Empty, "{number}");
    }
    assert_eq!(read(b, record(4)).await, image_slot(dirty, row(4), true));
    assert_eq!(read(b, record(5)).await, image_slot(dirty_delete, tombstone(), true));
    assert_eq!(read(b, record(6)).await, Slot::Image { version: parked, image: row(6), stage: Stage::Parked });
    let header = b.store().header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued), (2, 2));
    assert_eq!(removed(b).await, 2, "two images, and nobody misses an absence");
    assert_eq!(evict(b, []).await, []);
}

pub async fn a_read_that_began_before_can_t_fill_in_what_it_saw(b: &impl Backend) {
    open(b).await;
    let slow = lease(b, record(1), LONG).await;
    assert_eq!(evict(b, [record(1)]).await, [Eviction::Evicted]);
    assert_eq!(removed(b).await, 0);
    assert!(!fill(b, record(1), slow.clone(), Fill::Image { version: version(1), image: row(1) }, LONG).await);
    let next = lease(b, record(1), LONG).await;
    assert!(!fill(b, record(1), slow, Fill::Image { version: version(1), image: row(1) }, LONG).await);
    assert!(fill(b, record(1), next, Fill::Image { version: version(1), image: row(2) }, LONG).await);
    assert_eq!(read(b, record(1)).await, image_slot(version(1), row(2), false));
}

pub async fn what_is_forgotten_is_cold_to_preconditions(b: &impl Backend) {
    let epoch = open(b).await;
    let clean = put(b, record(1), row(1)).await;
    mark_clean(b, record(1), clean, LONG).await;
    evict(b, [record(1)]).await;
    let etag = Precondition::At { version: clean, epoch };
    for precondition in [Precondition::Present, Precondition::Absent, etag] {
        assert_eq!(write(b, record(1), precondition, row(2)).await, WriteOutcome::Cold);
    }
    assert!(matches!(b.store().lease(b.shard(), record(1), LONG).await, Ok(LeaseOutcome::Granted(_))));
}

pub async fn many_are_forgotten_in_one_call(b: &impl Backend) {
    open(b).await;
    let clean = put(b, record(2000), row(1)).await;
    mark_clean(b, record(2000), clean, LONG).await;
    let outcomes = evict(b, (0..2500).map(record)).await;
    let forgotten: Vec<usize> = (0..2500).filter(|&at| outcomes[at] == Eviction::Evicted).collect();
    assert_eq!((outcomes.len(), forgotten), (2500, vec![2000]));
}
