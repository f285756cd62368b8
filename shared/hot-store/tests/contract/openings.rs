//! Openings: who may, from where, and what remains.

use hot_store::{
    Checkpoint, Claim, Dirty, Fill, HotStore, HotStoreError, OpeningToken, Precondition, Restore, Slot, WriteOutcome,
};
use model::{Epoch, Version};

use super::{Backend, kit::*};

fn superseded<T>(b: &impl Backend) -> Result<T, HotStoreError> {
    Err(HotStoreError::Superseded { shard: b.shard() })
}

async fn claim(b: &impl Backend, token: &OpeningToken) -> Claim {
    b.store().claim(b.shard(), token).await.unwrap().expect("the shard is closed")
}

async fn begin(b: &impl Backend, token: &OpeningToken, epoch: u32, discard: bool) -> Result<(), HotStoreError> {
    b.store().begin_opening(b.shard(), token, Epoch(epoch), start(discard)).await
}

async fn restore(b: &impl Backend, token: &OpeningToken, records: Vec<Restore>) -> Result<(), HotStoreError> {
    b.store().restore(b.shard(), token, records, LONG).await
}

async fn finish(b: &impl Backend, token: &OpeningToken) -> Result<(), HotStoreError> {
    b.store().finish_opening(b.shard(), token, Version::ZERO, Checkpoint(points(100))).await
}

fn event(number: u32, at: u64) -> Restore {
    Restore::Dirty { record: record(number), version: version(at), behind: version(at), image: row(at as i64) }
}

pub async fn the_first_claim_finds_nothing(b: &impl Backend) {
    let found = claim(b, &token("a")).await;
    assert_eq!(found, Claim { epoch: Epoch::ZERO, checkpoint: None, resumed: None });
}

pub async fn an_open_shard_is_not_claimed(b: &impl Backend) {
    open(b).await;
    assert_eq!(b.store().claim(b.shard(), &token("a")).await, Ok(None));
    // The attempt has changed nothing.
    put(b, record(1), row(1)).await;
    let late = token("opener");
    assert_eq!(begin(b, &late, 9, true).await, superseded(b));
    assert_eq!(restore(b, &late, vec![event(2, 9)]).await, superseded(b));
    assert_eq!(finish(b, &late).await, superseded(b));
}

pub async fn a_takeover_voids_every_other_token(b: &impl Backend) {
    let (a, z) = (token("a"), token("z"));
    claim(b, &a).await;
    begin(b, &a, 1, false).await.unwrap();
    claim(b, &z).await;
    assert_eq!(begin(b, &a, 2, true).await, superseded(b));
    assert_eq!(restore(b, &a, vec![event(1, 5)]).await, superseded(b));
    assert_eq!(finish(b, &a).await, superseded(b));
    begin(b, &z, 2, false).await.unwrap();
    restore(b, &z, vec![event(2, 6)]).await.unwrap();
    assert_eq!(restore(b, &a, vec![event(1, 5)]).await, superseded(b));
    finish(b, &z).await.unwrap();
    assert_eq!(finish(b, &a).await, superseded(b));
    let answer = b.store().read(b.shard(), vec![record(1), record(2)]).await.unwrap();
    assert_eq!(answer.epoch, Epoch(2));
    assert_eq!(answer.slots, [Slot::Empty, image_slot(version(6), row(6), true)]);
}

pub async fn nobody_restores_or_finishes_who_has_not_begun(b: &impl Backend) {
    let (a, z) = (token("a"), token("z"));
    claim(b, &a).await;
    assert_eq!(restore(b, &a, vec![event(1, 5)]).await, superseded(b));
    assert_eq!(finish(b, &a).await, superseded(b));
    begin(b, &a, 1, false).await.unwrap();
    // What the former opener began is not the new one's beginning.
    claim(b, &z).await;
    assert_eq!(restore(b, &z, vec![event(1, 5)]).await, superseded(b));
    assert_eq!(finish(b, &z).await, superseded(b));
    assert!(!b.store().header(b.shard()).await.unwrap().open);
}

pub async fn a_token_is_bound_to_the_incarnation(b: &impl Backend) {
    let a = token("a");
    claim(b, &a).await;
    b.restart().await;
    assert_eq!(begin(b, &a, 1, false).await, superseded(b));
    claim(b, &a).await;
    begin(b, &a, 1, false).await.unwrap();
    b.restart().await;
    assert_eq!(restore(b, &a, vec![event(1, 5)]).await, superseded(b));
    assert_eq!(finish(b, &a).await, superseded(b));
    assert!(!b.store().header(b.shard()).await.unwrap().open);
}

pub async fn a_start_is_resumed_under_the_same_incarnation_only(b: &impl Backend) {
    for discard in [true, false] {
        let epoch = b.store().header(b.shard()).await.unwrap().epoch.0;
        assert_eq!(claim(b, &token("a")).await.resumed, None);
        begin(b, &token("a"), epoch + 1, discard).await.unwrap();
        assert_eq!(claim(b, &token("b")).await.resumed, Some(start(discard)));
        // Nor does the second opener's death lose it.
        assert_eq!(claim(b, &token("c")).await.resumed, Some(start(discard)));
        b.restart().await;
        assert_eq!(claim(b, &token("d")).await.resumed, None);
        begin(b, &token("d"), epoch + 2, discard).await.unwrap();
        finish(b, &token("d")).await.unwrap();
        b.restart().await;
        assert_eq!(claim(b, &token("e")).await.resumed, None, "an opening that has ended is not resumed");
        b.restart().await;
    }
}

pub async fn a_checkpoint_survives_a_restart(b: &impl Backend) {
    let epoch = open(b).await;
    b.restart().await;
    let found = claim(b, &token("a")).await;
    assert_eq!((found.epoch, found.checkpoint), (epoch, Some(Checkpoint(points(100)))));
    // Also one that names no topic: it is another thing than none.
    for (number, checkpoint) in (epoch.0 + 1..).zip([Checkpoint(points(200)), Checkpoint::default()]) {
        claim(b, &token("a")).await;
        begin(b, &token("a"), number, false).await.unwrap();
        finish(b, &token("a")).await.unwrap();
        b.store().checkpoint(b.shard(), Epoch(number), checkpoint.clone()).await.unwrap();
        b.restart().await;
        let found = claim(b, &token("b")).await;
        assert_eq!((found.epoch, found.checkpoint), (Epoch(number), Some(checkpoint)));
    }
}

pub async fn a_checkpoint_of_another_epoch_is_refused(b: &impl Backend) {
    let epoch = open(b).await;
    for other in [epoch.0 - 1, epoch.0 + 1] {
        let refused = b.store().checkpoint(b.shard(), Epoch(other), Checkpoint(points(7))).await;
        assert_eq!(refused, Err(HotStoreError::Closed { shard: b.shard() }));
    }
    b.restart().await;
    assert_eq!(claim(b, &token("a")).await.checkpoint, Some(Checkpoint(points(100))));
}

pub async fn images_survive_leases_and_absences_do_not(b: &impl Backend) {
    let epoch = open(b).await;
    let queued = put(b, record(1), row(1)).await;
    assert!(mark_queued(b, epoch, record(1), queued).await);
    let unqueued = put(b, record(2), row(2)).await;
    let clean = put(b, record(3), row(3)).await;
    mark_clean(b, record(3), clean, LONG).await;
    let late = lease(b, record(4), LONG).await;
    let absence = lease(b, record(5), LONG).await;
    assert!(fill(b, record(5), absence, Fill::Absent, LONG).await);
    b.restart().await;
    open(b).await;
    let answer = b.store().read(b.shard(), (1..=5).map(record).collect()).await.unwrap();
    assert_eq!(
        answer.slots,
        [
            image_slot(queued, row(1), true),
            image_slot(unqueued, row(2), true),
            image_slot(clean, row(3), false),
            Slot::Empty,
            Slot::Empty,
        ]
    );
    assert_eq!(dirty(b, Dirty::All).await, [queued, unqueued]);
    assert_eq!(dirty(b, Dirty::Unqueued).await, [unqueued]);
    assert!(!fill(b, record(4), late, Fill::Absent, LONG).await);
    assert_eq!(write(b, record(5), Precondition::Absent, row(5)).await, WriteOutcome::Cold);
    lease(b, record(4), LONG).await;
}

pub async fn discarding_drops_everything(b: &impl Backend) {
    let first = open(b).await;
    let written = put(b, record(1), row(1)).await;
    let clean = put(b, record(2), row(2)).await;
    mark_clean(b, record(2), clean, LONG).await;
    b.restart().await;
    let epoch = open_with(b, true, vec![event(3, 7)], Version::ZERO).await;
    let header = b.store().header(b.shard()).await.unwrap();
    assert_eq!((header.dirty, header.unqueued, header.oldest_dirty), (1, 0, Some(version(7))));
    let answer = b.store().read(b.shard(), (1..=3).map(record).collect()).await.unwrap();
    assert_eq!(answer.slots, [Slot::Empty, Slot::Empty, image_slot(version(7), row(7), true)]);
    // What was dropped counts as nothing for every call.
    assert_eq!(write(b, record(1), Precondition::Present, row(9)).await, WriteOutcome::Cold);
    assert!(!mark_queued(b, epoch, record(1), written).await);
    lease(b, record(1), LONG).await;
    let again = put(b, record(2), row(4)).await;
    assert_eq!(read(b, record(2)).await, image_slot(again, row(4), true));
    assert!(epoch > first && again > clean);
}

pub async fn a_discard_after_a_start_that_did_not_drops_everything(b: &impl Backend) {
    let epoch = open(b).await.0;
    put(b, record(1), row(1)).await;
    b.restart().await;
    claim(b, &token("a")).await;
    begin(b, &token("a"), epoch + 1, false).await.unwrap();
    // The log no longer reaches the first opener's start.
    claim(b, &token("b")).await;
    begin(b, &token("b"), epoch + 2, true).await.unwrap();
    finish(b, &token("b")).await.unwrap();
    assert_eq!(read(b, record(1)).await, Slot::Empty);
    assert_eq!(dirty(b, Dirty::All).await, []);
}

pub async fn a_checkpoint_that_was_not_believed_is_forgotten(b: &impl Backend) {
    let epoch = open(b).await.0;
    b.restart().await;
    assert!(claim(b, &token("a")).await.checkpoint.is_some());
    begin(b, &token("a"), epoch + 1, true).await.unwrap();
    // The opener dies, and the store after it. The log may have grown past that checkpoint by now.
    b.restart().await;
    assert_eq!(claim(b, &token("b")).await, Claim { epoch: Epoch(epoch), checkpoint: None, resumed: None });
    begin(b, &token("b"), epoch + 2, true).await.unwrap();
    finish(b, &token("b")).await.unwrap();
    b.restart().await;
    assert_eq!(claim(b, &token("c")).await.checkpoint, Some(Checkpoint(points(100))), "the opening's own");
}

pub async fn who_resumes_a_discard_keeps_what_was_put_back(b: &impl Backend) {
    let epoch = open(b).await.0;
    put(b, record(1), row(1)).await;
    b.restart().await;
    claim(b, &token("a")).await;
    begin(b, &token("a"), epoch + 1, true).await.unwrap();
    restore(b, &token("a"), vec![event(2, 8)]).await.unwrap();
    claim(b, &token("b")).await;
    begin(b, &token("b"), epoch + 2, true).await.unwrap();
    restore(b, &token("b"), vec![event(2, 7)]).await.unwrap();
    finish(b, &token("b")).await.unwrap();
    assert_eq!(read(b, record(1)).await, Slot::Empty);
    assert_eq!(read(b, record(2)).await, image_slot(version(8), row(8), true));
    assert_eq!(dirty(b, Dirty::All).await, [version(8)]);
}

pub async fn an_epoch_that_is_not_higher_is_refused(b: &impl Backend) {
    let epoch = open(b).await.0;
    b.restart().await;
    claim(b, &token("a")).await;
    for low in [0, epoch] {
        let refused = begin(b, &token("a"), low, false).await;
        assert!(matches!(refused, Err(HotStoreError::Corrupt { .. })), "{refused:?}");
    }
    begin(b, &token("a"), epoch + 1, false).await.unwrap();
    begin(b, &token("a"), epoch + 1, false).await.expect("a call whose answer was lost may come again");
    begin(b, &token("a"), epoch + 5, false).await.expect("epochs may be skipped");
    finish(b, &token("a")).await.unwrap();
    assert_eq!(b.store().header(b.shard()).await.unwrap().epoch, Epoch(epoch + 5));
}

pub async fn the_clock_is_seeded_and_never_lowered(b: &impl Backend) {
    let far = version(8_000_000_000_000_000);
    open_with(b, false, Vec::new(), far).await;
    assert_eq!(b.store().header(b.shard()).await.unwrap().clock, far);
    b.restart().await;
    open_with(b, true, Vec::new(), version(5)).await;
    assert_eq!(b.store().header(b.shard()).await.unwrap().clock, far);
    assert!(put(b, record(1), row(1)).await > far);
}

pub async fn an_etag_of_before_an_opening_is_stale(b: &impl Backend) {
    let epoch = open(b).await;
    let written = put(b, record(1), row(1)).await;
    b.restart().await;
    let now = open(b).await;
    let at = |epoch| Precondition::At { version: written, epoch };
    assert_eq!(write(b, record(1), at(epoch), row(2)).await, WriteOutcome::Changed);
    assert!(stored(write(b, record(1), at(now), row(2)).await) > written);
}
