//! What the tests are built from.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hot_store::{
    Checkpoint, Clean, CleanOutcome, Dirty, Fill, HotStore, LeaseOutcome, LeaseToken, LogPoint, OpeningStart,
    OpeningToken, Precondition, RecordId, Restore, Slot, Stage, Stamp, Write, WriteOutcome,
};
use model::{
    ColumnName, Content, Epoch, Fingerprint, Image, KeyBytes, Namespace, Operation, Row, Topic, Value, Version,
};
use tokio::time::Instant;

use super::Backend;

/// Long enough to outlive any test.
pub const LONG: Duration = Duration::from_secs(600);

pub fn record(number: u32) -> RecordId {
    record_in("main.payments", number)
}

pub fn record_in(namespace: &str, number: u32) -> RecordId {
    // Zero bytes, colons and braces: a key is any bytes.
    let key = KeyBytes::from_stored(Bytes::from(format!("\0:{{}}{number}").into_bytes()));
    RecordId { namespace: Namespace::new(namespace).unwrap(), key }
}

pub fn row(value: i64) -> Image {
    let columns = [("id", Value::Int64(value)), ("note", Value::Text("żółć\0".to_owned()))];
    let row: Row = columns.into_iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value)).collect();
    Image {
        content: Content::Row(row),
        operation: Operation::Put,
        fingerprint: Fingerprint(7),
        request: None,
        since: None,
    }
}

pub fn tombstone() -> Image {
    Image { content: Content::Tombstone, operation: Operation::Delete, ..row(0) }
}

pub fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

pub fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub fn points(offset: i64) -> BTreeMap<Topic, LogPoint> {
    let point = |offset, epoch| LogPoint { offset, epoch: Epoch(epoch) };
    BTreeMap::from([(topic("shock-absorber.a"), point(offset, 3)), (topic("shock-absorber.b"), point(offset + 1, 0))])
}

pub fn start(discard: bool) -> OpeningStart {
    OpeningStart { points: points(7), discard }
}

pub fn token(name: &str) -> OpeningToken {
    OpeningToken(name.to_owned())
}

/// Opens the shard under the next epoch, without dropping anything.
pub async fn open(b: &impl Backend) -> Epoch {
    open_with(b, false, Vec::new(), Version::ZERO).await
}

pub async fn open_with(b: &impl Backend, discard: bool, restores: Vec<Restore>, clock: Version) -> Epoch {
    open_shard_with(b, b.shard(), discard, restores, clock).await
}

/// Opens another shard than the test's own.
pub async fn open_shard(b: &impl Backend, shard: model::Shard) -> Epoch {
    open_shard_with(b, shard, false, Vec::new(), Version::ZERO).await
}

async fn open_shard_with(
    b: &impl Backend,
    shard: model::Shard,
    discard: bool,
    restores: Vec<Restore>,
    clock: Version,
) -> Epoch {
    let (store, token) = (b.store(), token("opener"));
    let claim = store.claim(shard, &token).await.unwrap().expect("the shard is closed");
    let epoch = Epoch(claim.epoch.0 + 1);
    store.begin_opening(shard, &token, epoch, start(discard)).await.unwrap();
    store.restore(shard, &token, restores, LONG).await.unwrap();
    store.finish_opening(shard, &token, clock, Checkpoint(points(100))).await.unwrap();
    epoch
}

pub async fn write(b: &impl Backend, record: RecordId, precondition: Precondition, image: Image) -> WriteOutcome {
    let outcomes = b
        .store()
        .write(b.shard(), Instant::now(), vec![Write { record, precondition, image, index: None }])
        .await
        .unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

/// Writes without a precondition.
pub async fn put(b: &impl Backend, record: RecordId, image: Image) -> Version {
    stored(write(b, record, Precondition::None, image).await)
}

pub fn stored(outcome: WriteOutcome) -> Version {
    match outcome {
        WriteOutcome::Stored { version, .. } => version,
        other => panic!("not stored: {other:?}"),
    }
}

pub async fn read(b: &impl Backend, record: RecordId) -> Slot {
    b.store().read(b.shard(), vec![record]).await.unwrap().slots.remove(0)
}

pub fn image_slot(version: Version, image: Image, dirty: bool) -> Slot {
    Slot::Image { version, image, stage: if dirty { Stage::Dirty } else { Stage::Clean } }
}

pub async fn mark_clean(b: &impl Backend, record: RecordId, version: Version, ttl: Duration) -> CleanOutcome {
    clean_with(b, record, version, None, ttl).await
}

pub async fn clean_with(
    b: &impl Backend,
    record: RecordId,
    version: Version,
    newer: Option<Image>,
    ttl: Duration,
) -> CleanOutcome {
    b.store().mark_clean(b.shard(), vec![Clean { record, version, newer }], ttl).await.unwrap()[0]
}

pub async fn mark_queued(b: &impl Backend, epoch: Epoch, record: RecordId, version: Version) -> bool {
    b.store().mark_queued(b.shard(), epoch, vec![Stamp { record, version }]).await.unwrap()[0]
}

pub async fn lease(b: &impl Backend, record: RecordId, ttl: Duration) -> LeaseToken {
    match b.store().lease(b.shard(), record, ttl).await.unwrap() {
        LeaseOutcome::Granted(token) => token,
        LeaseOutcome::Taken(slot) => panic!("taken: {slot:?}"),
    }
}

pub async fn fill(b: &impl Backend, record: RecordId, token: LeaseToken, fill: Fill, ttl: Duration) -> bool {
    b.store().fill(b.shard(), record, token, fill, ttl).await.unwrap()
}

/// The versions in a dirty set.
pub async fn dirty(b: &impl Backend, which: Dirty) -> Vec<Version> {
    let (_, found) = b.store().dirty(b.shard(), which, Version::ZERO, 1000).await.unwrap();
    found.into_iter().map(|record| record.version).collect()
}

/// Waits for what only the passing of time brings about. On a paused clock it costs no time.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
