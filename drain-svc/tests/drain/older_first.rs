//! A row that waits for another one is not given up while anything that was accepted before it is not written.

use std::time::Duration;

use bytes::Bytes;
use database::{Database as _, DatabaseRow, ErrorClass, Hold, HoldKind, HoldScope};
use drain_svc::DrainOptions;
use event_log::{EventPublisher as _, Outgoing, TopicPartition};
use hot_store::{HotStore as _, Precondition, RecordId, Stamp, Write, WriteOutcome};
use jiff::Timestamp;
use model::{
    ColumnName, Content, Event, EventBody, Image, Mutation, Namespace, Operation, Row, Shard, TableName, TableRef,
    Topic, Value,
};
use tokio::time::{Instant, sleep};

use crate::{
    db::id,
    dead_letters::BAD,
    world::{Still, options, until, until_within},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn patient() -> DrainOptions {
    let retry_max = Duration::from_secs(5);
    DrainOptions { dependent_patience: PATIENCE, retry_max, ..options() }
}

fn orders(world: &Still) -> TableRef {
    TableRef { table: TableName::new("orders").unwrap(), ..world.schema.table.clone() }
}

/// Writes to the other table, as the write path does.
async fn write_order(world: &Still, n: i64) {
    let shard = Shard(0);
    let row = Row::from_iter([(ColumnName::new("id").unwrap(), Value::Int64(n))]);
    let image = Image { content: Content::Row(row), operation: Operation::Put, ..world.image(n, None) };
    let record = RecordId { namespace: Namespace::new("main.orders").unwrap(), key: id(n).to_bytes() };
    let write = Write { record: record.clone(), precondition: Precondition::None, image: image.clone(), index: None };
    let outcome = world.hot.write(shard, Instant::now(), vec![write]).await.unwrap().remove(0);
    let WriteOutcome::Stored { version, epoch, .. } = outcome else { panic!("{outcome:?}") };
    let mutation = Mutation { table: orders(world), key: id(n), version, image };
    let payload = Event { shard, epoch, body: EventBody::Mutations(vec![mutation]) }.encode();
    let to = TopicPartition { topic: Topic::new("orders").unwrap(), partition: shard.0 };
    world.log.publish(vec![Outgoing { to, key: Bytes::new(), payload }]).await.remove(0).unwrap();
    world.hot.mark_queued(shard, epoch, vec![Stamp { record, version }]).await.unwrap();
}

async fn pause(world: &Still, scope: HoldScope) {
    let since = Timestamp::from_microsecond(1_700_000_000_000_000).unwrap();
    let hold = Hold { scope, kind: HoldKind::Pause, reason: "upgrade".into(), by: "ann".into(), since };
    world.db.straight().set_hold(&hold).await.unwrap();
}

async fn resume(world: &Still, scope: &HoldScope) {
    let now = Timestamp::from_microsecond(1_700_000_000_000_000).unwrap();
    assert!(world.db.straight().lift_hold(scope, HoldKind::Pause, now).await.unwrap().0);
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_as_long_as_what_was_accepted_before_it_in_another_table_that_is_paused() {
    for comes in [true, false] {
        let world = Still::still().await;
        world.enable_orders().await;
        let scope = HoldScope::Table(orders(&world));
        pause(&world, scope.clone()).await;
        write_order(&world, 1).await;
        sleep(Duration::from_millis(1)).await;
        world.refuse_bad_amounts(ErrorClass::Dependent);
        let (version, _) = world.write(5, Some(BAD)).await;
        let drain = world.start(patient());
        sleep(PATIENCE * 5).await;
        assert!(world.letters().await.is_empty(), "its parent may be what is paused");
        assert!(world.db.was_tried(&id(5), version));

        if comes {
            world.db.bad_amount.lock().unwrap().take();
        }
        resume(&world, &scope).await;
        // What is accepted meanwhile does not matter.
        let begun = Instant::now();
        for n in 10..60 {
            world.write(n, Some(n)).await;
            sleep(Duration::from_millis(200)).await;
        }
        if comes {
            world.until_clean().await;
            world.assert_rows_are_as_written().await;
            assert!(world.letters().await.is_empty());
        } else {
            until("it is given up", || world.is_parked(5, version, Some(BAD))).await;
            assert!(begun.elapsed() < PATIENCE, "it had been waited for: {:?}", begun.elapsed());
            until("the rest is written", || world.is_clean()).await;
        }
        drain.stop().await;
        world.assert_all_committed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_for_a_long_backlog_of_another_lane_under_a_low_limit() {
    let world = Still::still().await;
    let lane = |n: i64| world.shard(&id(n)).0 % 2;
    let child = (10_000..).find(|n| lane(*n) == 1).unwrap();
    let before: Vec<i64> = (0..10_000).filter(|n| lane(*n) == 0).take(300).collect();
    for n in &before {
        world.write(*n, Some(*n)).await;
    }
    sleep(Duration::from_millis(1)).await;
    world.refuse_bad_amounts(ErrorClass::Dependent);
    let (version, _) = world.write(child, Some(BAD)).await;
    let mut slow = patient();
    slow.default_table.rows_per_second = Some(1.0);
    let drain = world.start(slow);
    until_within(PATIENCE, "it is tried", || async { world.db.was_tried(&id(child), version) }).await;
    let lacks = || async { world.rows(before.iter().copied()).await.values().any(|row| *row == DatabaseRow::Absent) };
    let begun = Instant::now();
    while lacks().await {
        assert!(world.letters().await.is_empty(), "after {:?}", begun.elapsed());
        sleep(Duration::from_secs(5)).await;
    }
    assert!(begun.elapsed() > PATIENCE * 3, "{:?}", begun.elapsed());
    until_within(PATIENCE * 3, "it is given up", || world.is_parked(child, version, Some(BAD))).await;
    drain.stop().await;
}

/// None of them waits for another one that is not written either.
#[tokio::test(start_paused = true)]
async fn rows_of_several_replicas_that_wait_in_vain_are_given_up_one_after_the_other() {
    let world = Still::still().await;
    world.refuse_bad_amounts(ErrorClass::Dependent);
    let mut versions = Vec::new();
    for n in 0..40 {
        versions.push((n, world.write(n, Some(BAD)).await.0));
        sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    let drains: Vec<_> = (0..2).map(|_| world.start(patient())).collect();
    for (n, version) in &versions {
        until_within(PATIENCE * 3, "each is given up", || world.is_parked(*n, *version, Some(BAD))).await;
    }
    assert!(begun.elapsed() >= PATIENCE);
    assert!(begun.elapsed() < PATIENCE + Duration::from_secs(40), "{:?}", begun.elapsed());
    for drain in drains {
        drain.stop().await;
    }
    assert_eq!(world.letters().await.len(), versions.len());
}

/// What is full of rows that wait takes in nothing that they could wait for, and if it is the versions of one row.
#[tokio::test(start_paused = true)]
async fn a_lane_that_is_full_of_what_waits_gives_it_up_when_its_time_is_over() {
    for keys in [20, 1] {
        let world = Still::still().await;
        world.enable_orders().await;
        pause(&world, HoldScope::Table(orders(&world))).await;
        write_order(&world, 1).await;
        sleep(Duration::from_millis(1)).await;
        world.refuse_bad_amounts(ErrorClass::Dependent);
        let shard = world.shard(&id(0));
        let rows: Vec<i64> = (0..).filter(|n| world.shard(&id(*n)) == shard).take(keys).collect();
        for n in rows.iter().cycle().take(20) {
            world.write(*n, Some(BAD)).await;
        }
        let drain = world.start(DrainOptions { lane_capacity: 10, ..patient() });
        until_within(PATIENCE * 5, "there is room again", || async { world.letters().await.len() >= 5 }).await;
        drain.stop().await;
    }
}
