//! Reads of many shards at once, and what a read tells of what was removed.

use std::time::Duration;

use hot_store::{Answer, CleanOutcome, HotStore, HotStoreError, Precondition, RecordId, Slot, Write, WriteOutcome};
use model::{Image, Shard, Value, Version};
use tokio::time::Instant;

use super::{Backend, kit::*};

const PLENTY: usize = 1 << 20;

async fn put_into(b: &impl Backend, shard: Shard, record: RecordId, image: Image) -> Version {
    let write = Write { record, precondition: Precondition::None, image, index: None };
    match b.store().write(shard, Instant::now(), vec![write]).await.unwrap()[..] {
        [WriteOutcome::Stored { version, .. }] => version,
        ref other => panic!("not stored: {other:?}"),
    }
}

async fn read_many(
    b: &impl Backend,
    groups: Vec<(Shard, Vec<RecordId>)>,
    max_bytes: usize,
) -> Vec<Result<Answer, HotStoreError>> {
    b.store().read_many(groups, max_bytes).await
}

pub async fn many_shards_are_read_at_once_and_each_fails_for_itself(b: &impl Backend) {
    let (first, second, closed, beyond) = (b.shard(), Shard(b.shard().0 + 1), Shard(b.shard().0 + 2), Shard(2000));
    let epoch = open(b).await;
    open_shard(b, second).await;
    let one = put_into(b, first, record(1), row(1)).await;
    let two = put_into(b, second, record(2), tombstone()).await;
    mark_clean(b, record(1), one, LONG).await;
    let groups = vec![
        (second, vec![record(3), record(2), record(2)]),
        (closed, vec![record(1)]),
        (first, vec![record(1), record(2)]),
        (beyond, vec![record(1)]),
        (first, Vec::new()),
    ];
    let answers = read_many(b, groups, PLENTY).await;
    let dirty = image_slot(two, tombstone(), true);
    assert_eq!(answers[0].as_ref().unwrap().slots, [Slot::Empty, dirty.clone(), dirty]);
    assert_eq!(answers[1], Err(HotStoreError::Closed { shard: closed }));
    let slots = vec![image_slot(one, row(1), false), Slot::Empty];
    assert_eq!(answers[2], Ok(Answer { epoch, removed: 0, slots }));
    assert!(matches!(answers[3], Err(HotStoreError::Corrupt { .. })), "{:?}", answers[3]);
    assert_eq!(answers[4], Ok(Answer { epoch, removed: 0, slots: Vec::new() }));
    assert!(read_many(b, Vec::new(), PLENTY).await.is_empty());
}

/// A row whose image has somewhat more than so many bytes.
fn row_of(bytes: usize) -> Image {
    let mut image = row(1);
    if let model::Content::Row(row) = &mut image.content {
        let name = model::ColumnName::new("long").unwrap();
        *row = row.clone().into_iter().chain([(name, Value::Text("x".repeat(bytes)))]).collect();
    }
    image
}

pub async fn what_is_too_much_for_one_answer_is_read_by_and_by(b: &impl Backend) {
    const BYTES: usize = 1000;
    let (first, second) = (b.shard(), Shard(b.shard().0 + 1));
    open(b).await;
    open_shard(b, second).await;
    for number in 0..20 {
        put_into(b, first, record(number), row_of(BYTES)).await;
        put_into(b, second, record(number), row_of(BYTES)).await;
    }
    let all: Vec<RecordId> = (0..20).map(record).collect();
    let mut rest = vec![(second, all.clone()), (first, all)];
    let mut calls = 0;
    while rest.iter().any(|(_, records)| !records.is_empty()) {
        let answers = read_many(b, rest.clone(), 5 * BYTES).await;
        let slots: usize = answers.iter().map(|answer| answer.as_ref().unwrap().slots.len()).sum();
        assert!((1..=5).contains(&slots), "{slots} slots of {BYTES} bytes and more");
        for ((_, records), answer) in rest.iter_mut().zip(answers) {
            let slots = answer.unwrap().slots;
            assert!(slots.iter().all(|slot| matches!(slot, Slot::Image { .. })));
            records.drain(..slots.len());
        }
        calls += 1;
    }
    assert!(calls >= 8, "{calls} calls");
    // What alone is more than may be brought is brought alone.
    let alone = read_many(b, vec![(first, vec![record(50), record(1), record(2)])], 10).await.remove(0).unwrap();
    assert_eq!(alone.slots[0], Slot::Empty, "what is not there costs nothing");
    assert!(alone.slots.len() < 3);
    let alone = read_many(b, vec![(first, vec![record(1), record(2)]), (second, vec![record(1)])], 10).await;
    let slots: Vec<usize> = alone.iter().map(|answer| answer.as_ref().unwrap().slots.len()).collect();
    assert_eq!(slots, [1, 0]);
}

pub async fn an_even_share_of_the_bytes_is_no_limit_of_a_shard(b: &impl Backend) {
    const BYTES: usize = 1000;
    let shards: Vec<Shard> = (0..8).map(|more| Shard(b.shard().0 + more)).collect();
    for &shard in &shards {
        open_shard(b, shard).await;
    }
    for number in 0..30 {
        put_into(b, shards[3], record(number), row_of(BYTES)).await;
    }
    let groups = shards.iter().map(|&shard| (shard, (0..30).map(record).collect())).collect();
    for answer in read_many(b, groups, 50 * BYTES).await {
        assert_eq!(answer.unwrap().slots.len(), 30);
    }
}

pub async fn a_read_of_many_tells_more_than_a_call_can_carry(b: &impl Backend) {
    open(b).await;
    put(b, record(2400), row(1)).await;
    let answer = read_many(b, vec![(b.shard(), (0..2500).map(record).collect())], PLENTY).await.remove(0).unwrap();
    assert_eq!(answer.slots.len(), 2500);
    assert!(matches!(answer.slots[2400], Slot::Image { .. }));
    assert!(answer.slots.iter().enumerate().all(|(at, slot)| at == 2400 || *slot == Slot::Empty));
}

async fn removed(b: &impl Backend) -> u64 {
    let single = b.store().read(b.shard(), Vec::new()).await.unwrap().removed;
    let many = read_many(b, vec![(b.shard(), Vec::new())], PLENTY).await.remove(0).unwrap().removed;
    assert_eq!(single, many);
    single
}

pub async fn images_that_are_removed_are_counted_and_what_expires_or_is_replaced_is_not(b: &impl Backend) {
    open(b).await;
    let brief = Duration::from_millis(60);
    let first = put(b, record(1), row(1)).await;
    mark_clean(b, record(1), first, brief).await;
    eventually("it expires", async || read(b, record(1)).await == Slot::Empty).await;
    let second = put(b, record(1), row(1)).await;
    clean_with(b, record(1), version(second.get() + 5), Some(row(2)), LONG).await;
    assert_eq!(removed(b).await, 0);
    // Lower than what the database holds: nobody says what that is.
    let third = put(b, record(1), row(1)).await;
    assert_eq!(mark_clean(b, record(1), version(third.get() + 5), LONG).await, CleanOutcome::Gone);
    assert_eq!((read(b, record(1)).await, removed(b).await), (Slot::Empty, 1));
}
