//! Requests: a retry is told from another write.

use std::time::Duration;

use hot_store::{HotStore, HotStoreError, Precondition, REQUEST_WINDOW, Restore, Slot, Write, WriteOutcome};
use model::{Epoch, Image, Request, RequestDigest, RequestId, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

pub fn request(id: &str, asked_for: &str) -> Request {
    Request { id: RequestId::new(id).unwrap(), digest: RequestDigest::of(asked_for.as_bytes()) }
}

/// Writes a row under a request.
async fn write_as(b: &impl Backend, number: u32, precondition: Precondition, request: Request) -> WriteOutcome {
    write(b, record(number), precondition, Image { request: Some(request), ..row(i64::from(number)) }).await
}

async fn put_as(b: &impl Backend, number: u32, request: Request) -> WriteOutcome {
    write_as(b, number, Precondition::None, request).await
}

fn put_back(request: Request, at: u64) -> Restore {
    Restore::Request { namespace: record(1).namespace, request, version: version(at) }
}

fn repeated(version: Version, epoch: Epoch) -> WriteOutcome {
    repeated_in(epoch, version, epoch)
}

/// Written under an epoch, and known still in a later one.
fn repeated_in(current: Epoch, version: Version, epoch: Epoch) -> WriteOutcome {
    WriteOutcome::Repeated { version, epoch, current }
}

pub async fn a_repeated_request_names_the_first_and_writes_nothing(b: &impl Backend) {
    let epoch = open(b).await;
    let first = stored(write_as(b, 1, Precondition::AbsentFromStore, request("r", "create")).await);
    let second = put(b, record(1), row(2)).await;
    let before = (read(b, record(1)).await, b.store().header(b.shard()).await.unwrap());
    // Its own precondition no longer holds, and is not looked at.
    for precondition in [Precondition::AbsentFromStore, Precondition::Absent, Precondition::None] {
        let outcome = write_as(b, 1, precondition, request("r", "create")).await;
        assert_eq!(outcome, repeated(first, epoch), "{precondition:?}");
    }
    assert_eq!((read(b, record(1)).await, b.store().header(b.shard()).await.unwrap()), before);
    assert!(second > first);
}

pub async fn another_payload_under_the_same_id_is_refused(b: &impl Backend) {
    let epoch = open(b).await;
    let first = stored(put_as(b, 1, request("r", "this")).await);
    let before = (read(b, record(1)).await, b.store().header(b.shard()).await.unwrap());
    assert_eq!(put_as(b, 1, request("r", "that")).await, WriteOutcome::Reused);
    assert_eq!(put_as(b, 2, request("r", "that")).await, WriteOutcome::Reused);
    assert_eq!((read(b, record(1)).await, b.store().header(b.shard()).await.unwrap()), before);
    assert_eq!(read(b, record(2)).await, Slot::Empty);
    assert_eq!(put_as(b, 1, request("r", "this")).await, repeated(first, epoch), "the first is remembered still");
    // Ids are the client's: one that holds another, or differs in case, is another.
    for id in ["rr", "R", "r\"{}:"] {
        stored(put_as(b, 1, request(id, "this")).await);
    }
}

pub async fn a_refused_write_stores_no_request(b: &impl Backend) {
    let epoch = open(b).await;
    put(b, record(1), row(1)).await;
    put(b, record(2), tombstone()).await;
    let stale = Precondition::At { version: version(1), epoch };
    let refusals = [
        (1, Precondition::Absent, WriteOutcome::Exists),
        (2, Precondition::Present, WriteOutcome::Missing),
        (1, stale, WriteOutcome::Changed),
        (3, Precondition::Present, WriteOutcome::Cold),
    ];
    for (number, precondition, refusal) in refusals {
        assert_eq!(write_as(b, number, precondition, request("r", "a")).await, refusal);
    }
    // It took no effect, so it may be anything else still.
    let first = stored(put_as(b, 1, request("r", "b")).await);
    assert_eq!(put_as(b, 1, request("r", "b")).await, repeated(first, epoch));
}

pub async fn a_request_may_come_again_within_one_call(b: &impl Backend) {
    let epoch = open(b).await;
    let write = |number, precondition, request| Write {
        record: record(number),
        precondition,
        image: Image { request: Some(request), ..row(i64::from(number)) },
        index: None,
    };
    let writes = vec![
        write(1, Precondition::Present, request("r", "a")),
        write(1, Precondition::None, request("r", "a")),
        write(1, Precondition::None, request("r", "a")),
        write(2, Precondition::None, request("r", "b")),
        write(2, Precondition::None, request("s", "b")),
        Write { record: record(1), precondition: Precondition::Present, image: row(5), index: None },
    ];
    let outcomes = b.store().write(b.shard(), Instant::now(), writes).await.unwrap();
    let (first, other, last) = (stored(outcomes[1]), stored(outcomes[4]), stored(outcomes[5]));
    assert_eq!(outcomes[0], WriteOutcome::Cold);
    assert_eq!(outcomes[2..4], [repeated(first, epoch), WriteOutcome::Reused]);
    assert_eq!(put_as(b, 1, request("r", "a")).await, repeated(first, epoch));
    assert_eq!(put_as(b, 2, request("s", "b")).await, repeated(other, epoch));
    assert_eq!(read(b, record(1)).await, image_slot(last, row(5), true));
    assert_eq!(b.store().header(b.shard()).await.unwrap().dirty, 2);
}

pub async fn a_write_that_was_asked_for_too_long_ago_takes_no_effect(b: &impl Backend) {
    open(b).await;
    let write = |id| {
        let image = Image { request: Some(request(id, "a")), ..row(1) };
        Write { record: record(1), precondition: Precondition::None, image, index: None }
    };
    let write_asked = async |id, ago| b.store().write(b.shard(), Instant::now() - ago, vec![write(id)]).await;
    let margin = Duration::from_secs(10);
    let before = b.store().header(b.shard()).await.unwrap();
    for ago in [REQUEST_WINDOW / 2 + margin, REQUEST_WINDOW, 2 * REQUEST_WINDOW] {
        assert_eq!(write_asked("r", ago).await, Err(HotStoreError::Late));
    }
    let without_request =
        vec![Write { record: record(1), precondition: Precondition::None, image: row(1), index: None }];
    let asked = Instant::now() - REQUEST_WINDOW;
    assert_eq!(b.store().write(b.shard(), asked, without_request).await, Err(HotStoreError::Late));
    assert_eq!((read(b, record(1)).await, b.store().header(b.shard()).await.unwrap()), (Slot::Empty, before));
    // Nothing is known of it: asked for anew, it is written.
    for (id, ago) in [("r", Duration::ZERO), ("s", REQUEST_WINDOW / 2 - margin)] {
        stored(write_asked(id, ago).await.unwrap()[0]);
    }
    // What took effect in time is not told from what did not by one who asks too late.
    assert_eq!(write_asked("r", REQUEST_WINDOW).await, Err(HotStoreError::Late));
}

pub async fn tables_have_requests_of_their_own(b: &impl Backend) {
    open(b).await;
    stored(put_as(b, 1, request("r", "a")).await);
    let image = Image { request: Some(request("r", "b")), ..row(1) };
    stored(write(b, record_in("main.orders", 1), Precondition::None, image).await);
}

pub async fn a_request_outlives_the_record_that_it_wrote(b: &impl Backend) {
    let epoch = open(b).await;
    let first = stored(put_as(b, 1, request("r", "a")).await);
    assert_eq!(mark_clean(b, record(1), version(first.get() + 1), LONG).await, hot_store::CleanOutcome::Gone);
    assert_eq!(read(b, record(1)).await, Slot::Empty);
    assert_eq!(put_as(b, 1, request("r", "a")).await, repeated(first, epoch));
    assert_eq!(read(b, record(1)).await, Slot::Empty);
}

pub async fn a_request_is_read_back_with_the_image(b: &impl Backend) {
    open(b).await;
    let image = Image { request: Some(request("r", "a")), ..row(1) };
    let first = put(b, record(1), image.clone()).await;
    assert_eq!(read(b, record(1)).await, image_slot(first, image, true));
}

pub async fn requests_survive_a_restart_with_what_they_wrote(b: &impl Backend) {
    let epoch = open(b).await;
    let first = stored(put_as(b, 1, request("r", "a")).await);
    b.restart().await;
    let current = open(b).await;
    assert!(current > epoch);
    assert_eq!(put_as(b, 1, request("r", "a")).await, repeated_in(current, first, epoch));
    assert_eq!(put_as(b, 1, request("r", "b")).await, WriteOutcome::Reused);
}

pub async fn a_discard_leaves_requests(b: &impl Backend) {
    let first = open(b).await;
    // What they wrote is set aside, superseded by what is, or in the database.
    let superseded = stored(put_as(b, 1, request("r", "a")).await);
    let newest = stored(put_as(b, 1, request("s", "a")).await);
    b.restart().await;
    let epoch = open_with(b, true, vec![put_back(request("s", "z"), 7)], Version::ZERO).await;
    assert_eq!(put_as(b, 1, request("r", "a")).await, repeated_in(epoch, superseded, first));
    assert_eq!(put_as(b, 1, request("s", "a")).await, repeated_in(epoch, newest, first));
}

pub async fn an_opening_puts_requests_back_the_newest_of_an_id(b: &impl Backend) {
    open(b).await;
    let survivor = stored(put_as(b, 1, request("kept", "a")).await);
    let low = stored(put_as(b, 1, request("replaced", "a")).await);
    b.restart().await;
    let above = low.get() + 10;
    let restores = vec![
        put_back(request("new", "a"), 20),
        put_back(request("new", "b"), 10),
        put_back(request("rising", "a"), 10),
        put_back(request("rising", "b"), 20),
        put_back(request("kept", "b"), survivor.get() - 1),
        put_back(request("replaced", "b"), above),
        // The same again, as when an opening is resumed.
        put_back(request("new", "a"), 20),
    ];
    let epoch = open_with(b, false, restores, version(above)).await;
    assert_eq!(put_as(b, 1, request("new", "a")).await, repeated(version(20), epoch));
    assert_eq!(put_as(b, 1, request("rising", "b")).await, repeated(version(20), epoch));
    assert_eq!(put_as(b, 1, request("rising", "a")).await, WriteOutcome::Reused);
    assert_eq!(put_as(b, 1, request("kept", "a")).await, repeated_in(epoch, survivor, Epoch(epoch.0 - 1)));
    assert_eq!(put_as(b, 1, request("replaced", "b")).await, repeated(version(above), epoch));
    // Only requests were put back: what the records are is another matter.
    assert_eq!(b.store().header(b.shard()).await.unwrap().dirty, 1);
}

pub async fn an_empty_store_gets_the_newest_of_an_id(b: &impl Backend) {
    let restores = vec![
        put_back(request("falling", "a"), 20),
        put_back(request("falling", "b"), 10),
        put_back(request("rising", "a"), 10),
        put_back(request("rising", "b"), 20),
    ];
    let epoch = open_with(b, true, restores, version(20)).await;
    assert_eq!(put_as(b, 1, request("falling", "a")).await, repeated(version(20), epoch));
    assert_eq!(put_as(b, 1, request("rising", "b")).await, repeated(version(20), epoch));
}

pub async fn who_resumes_a_discard_keeps_the_requests_that_were_put_back(b: &impl Backend) {
    let epoch = open(b).await.0;
    b.restart().await;
    for (name, epoch, restores) in [("a", epoch + 1, vec![put_back(request("r", "a"), 5)]), ("b", epoch + 2, vec![])] {
        let (store, shard, opener) = (b.store(), b.shard(), token(name));
        store.claim(shard, &opener).await.unwrap();
        store.begin_opening(shard, &opener, Epoch(epoch), start(true)).await.unwrap();
        store.restore(shard, &opener, restores, LONG).await.unwrap();
    }
    let checkpoint = hot_store::Checkpoint(points(9));
    b.store().finish_opening(b.shard(), &token("b"), version(5), checkpoint).await.unwrap();
    assert_eq!(put_as(b, 1, request("r", "a")).await, repeated_in(Epoch(epoch + 2), version(5), Epoch(epoch + 1)));
}
