//! A shard that is not open for the live incarnation.

use hot_store::{Checkpoint, Clean, Dirty, Fill, HotStore, HotStoreError, LeaseToken, Precondition, Stamp, Write};
use model::{Epoch, Shard, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

async fn refuses_everything(b: &impl Backend, epoch: Epoch) {
    let (store, shard) = (b.store(), b.shard());
    let closed = HotStoreError::Closed { shard };
    let writes = vec![Write { record: record(1), precondition: Precondition::None, image: row(9), index: None }];
    assert_eq!(store.write(shard, Instant::now(), writes).await, Err(closed.clone()));
    assert_eq!(store.read(shard, vec![record(1)]).await, Err(closed.clone()));
    assert_eq!(store.read(shard, Vec::new()).await, Err(closed.clone()));
    assert_eq!(store.evict(shard, vec![record(1)]).await, Err(closed.clone()));
    assert_eq!(store.evict(shard, Vec::new()).await, Err(closed.clone()));
    assert_eq!(store.read_many(vec![(shard, Vec::new())], 10).await, [Err(closed.clone())]);
    let stamps = vec![Stamp { record: record(1), version: version(1) }];
    assert_eq!(store.mark_queued(shard, epoch, stamps).await, Err(closed.clone()));
    assert_eq!(store.lease(shard, record(2), LONG).await, Err(closed.clone()));
    let token = LeaseToken("t".to_owned());
    assert_eq!(store.fill(shard, record(2), token, Fill::Absent, LONG).await, Err(closed.clone()));
    let cleans = vec![Clean { record: record(1), version: version(1), newer: None }];
    assert_eq!(store.mark_clean(shard, cleans, LONG).await, Err(closed.clone()));
    for which in [Dirty::All, Dirty::Unqueued] {
        assert_eq!(store.dirty(shard, which, Version::ZERO, 10).await, Err(closed.clone()));
    }
    assert_eq!(store.backlog(shard, vec![record(1).namespace]).await, Err(closed.clone()));
    assert_eq!(store.checkpoint(shard, epoch, Checkpoint(points(5))).await, Err(closed));
}

pub async fn a_shard_that_was_never_opened_refuses_everything(b: &impl Backend) {
    refuses_everything(b, Epoch::ZERO).await;
    let header = b.store().header(b.shard()).await.unwrap();
    assert!(!header.open);
    assert_eq!((header.epoch, header.clock, header.dirty, header.oldest_dirty), (Epoch::ZERO, Version::ZERO, 0, None));
}

pub async fn a_shard_is_closed_after_a_restart(b: &impl Backend) {
    let epoch = open(b).await;
    let written = put(b, record(1), row(1)).await;
    b.restart().await;
    refuses_everything(b, epoch).await;
    let header = b.store().header(b.shard()).await.unwrap();
    assert!(!header.open);
    // Nor has the clock been moved.
    assert_eq!((header.epoch, header.clock, header.unqueued, header.oldest_dirty), (epoch, written, 1, Some(written)));
    open(b).await;
    assert_eq!(read(b, record(1)).await, image_slot(written, row(1), true));
}

pub async fn a_shard_that_does_not_exist_is_an_error(b: &impl Backend) {
    let beyond = Shard(2000);
    let refused = b.store().header(beyond).await;
    assert!(matches!(refused, Err(HotStoreError::Corrupt { shard, .. }) if shard == beyond), "{refused:?}");
}
