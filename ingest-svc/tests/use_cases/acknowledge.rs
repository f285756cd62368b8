//! Levels: what is promised, what is waited for, and what is answered when the log or the hot store fails between.

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use hot_store::memory::Survives;
use ingest_svc::{
    IngestOptions, StoreError, TableRules, WriteRules,
    accept::{Acknowledge, WriteError, WriteRequest},
};

use crate::{dead_letters::refuse, log::Fate, world::*};

fn unknown(result: &WriteResult) -> bool {
    matches!(result, Err(WriteError::OutcomeUnknown(_)))
}

fn prefer(required: ingest_svc::accept::AckLevel, preferred: ingest_svc::accept::AckLevel, millis: u64) -> Acknowledge {
    Acknowledge { required: Some(required), preferred: Some(preferred), wait: Duration::from_millis(millis) }
}

#[tokio::test]
async fn queued_means_that_the_event_is_in_the_log_and_marked() {
    let world = World::new().await;
    let accepted = world.write(put("a", 1)).await.unwrap();
    assert_eq!(accepted.reached, QUEUED);
    let (version, epoch, _) = world.logged("a").pop().unwrap();
    assert_eq!((accepted.etag.version, accepted.etag.epoch), (version, epoch));
    assert_eq!((world.unqueued().await, world.dirty().await), (0, 1));
}

#[tokio::test]
async fn while_the_log_is_known_to_be_down_queued_is_refused_before_anything_is_touched() {
    let world = World::new().await;
    world.log.set_available(false);
    for level in [QUEUED, APPLIED] {
        assert_eq!(world.write_at(put("a", 1), level).await, Err(WriteError::LogDown));
    }
    assert_eq!(world.dirty().await, 0);
    // LOGGED promises nothing about the log.
    assert_eq!(world.write_at(put("a", 1), LOGGED).await.unwrap().reached, LOGGED);
    assert_eq!((world.amount("a").await, world.unqueued().await), (Some(1), 1));
}

#[tokio::test]
async fn what_the_log_did_not_take_is_stored_and_its_outcome_unknown() {
    let world = World::new().await;
    for fate in [Fate::Refuse, Fate::Delay, Fate::Hold] {
        world.log.set_fate(fate);
        let result = world.write(put("a", 1)).await;
        assert!(unknown(&result), "{fate:?}: {result:?}");
        assert_eq!(world.unqueued().await, 1, "{fate:?}");
    }
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn queued_is_not_answered_if_the_store_was_restarted_before_the_mark() {
    let world = World::new().await;
    let store = world.store.clone();
    world.log.after_publish(move || store.memory.restart(Survives::Everything));
    assert!(unknown(&world.write(put("a", 1)).await));
    // Nor if it is open again by then, in another epoch.
    world.open_all().await;
    let core = world.core.clone();
    let store = world.store.clone();
    let shard = world.shard("a");
    world.log.after_publish(move || {
        store.memory.restart(Survives::Everything);
        // The hook is not async, and nothing here ever waits: one poll is enough.
        let opening = ingest_svc::opening::open_shard(&core, shard, model::Epoch::ZERO);
        opening.now_or_never().unwrap().unwrap().unwrap();
    });
    assert!(unknown(&world.write(put("a", 2)).await));
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn queued_is_not_answered_for_what_the_store_no_longer_knows() {
    let world = World::new().await;
    world.store.forget();
    assert!(unknown(&world.write(put("a", 1)).await));
}

#[tokio::test]
async fn logged_is_answered_at_once_and_queued_behind_the_client_s_back() {
    let world = World::new().await;
    world.log.set_fate(Fate::Hold);
    assert_eq!(world.write_at(put("a", 1), LOGGED).await.unwrap().reached, LOGGED);
    assert_eq!(world.unqueued().await, 1);
    world.log.arrival().await;
    world.log.release();
    world.core.tasks.close();
    world.core.tasks.wait().await;
    assert_eq!((world.unqueued().await, world.logged("a").len()), (0, 1));
}

#[tokio::test]
async fn a_preferred_level_is_waited_for_but_not_insisted_on() {
    let world = World::new().await;
    let write = async |ack| world.writer.write(request(put("a", 1)), ack).await.unwrap().reached;
    assert_eq!(write(prefer(LOGGED, QUEUED, 1000)).await, QUEUED);
    assert_eq!(write(prefer(QUEUED, APPLIED, 5)).await, QUEUED);
    assert_eq!(write(prefer(QUEUED, LOGGED, 5)).await, QUEUED);
    world.log.set_fate(Fate::Refuse);
    assert_eq!(write(prefer(LOGGED, QUEUED, 1000)).await, LOGGED);
    world.log.set_fate(Fate::Hold);
    assert_eq!(write(prefer(LOGGED, APPLIED, 5)).await, LOGGED);
}

#[tokio::test]
async fn applied_is_answered_once_the_database_has_it() {
    let world = Arc::new(World::new().await);
    let writing = {
        let world = world.clone();
        tokio::spawn(async move { world.write_at(put("a", 1), APPLIED).await })
    };
    while !writing.is_finished() {
        world.drain().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(writing.await.unwrap().unwrap().reached, APPLIED);
    assert_ne!(world.db.row("payments", &key("a")), database::DatabaseRow::Absent);
}

#[tokio::test]
async fn applied_that_was_required_and_not_reached_says_what_was() {
    let world = World::new().await;
    let ack = Acknowledge { required: Some(APPLIED), preferred: None, wait: Duration::from_millis(5) };
    let refused = world.writer.write(request(put("a", 1)), ack).await;
    assert_eq!(refused, Err(WriteError::LevelNotReached { required: APPLIED, reached: QUEUED }));
    assert_eq!(world.amount("a").await, Some(1));
}

/// They are in flight, and while the database is away none of them comes to an end.
#[tokio::test]
async fn as_many_as_may_wait_for_the_database_and_the_others_learn_at_once_how_far_they_came() {
    let options = IngestOptions { max_applied_waits: 1, ..quick_options() };
    let world = Arc::new(World::with(options, u64::MAX / 1000).await);
    let insist =
        |seconds| Acknowledge { required: Some(APPLIED), preferred: None, wait: Duration::from_secs_f64(seconds) };
    let wait_for = |id: &'static str, seconds| {
        let world = world.clone();
        tokio::spawn(async move { world.writer.write(request(put(id, 1)), insist(seconds)).await })
    };
    // Nothing here waits for anything but time: when it had its turns, it does.
    let turns = async || {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    };
    let waiting = wait_for("a", 20.0);
    turns().await;
    let begun = std::time::Instant::now();
    let write = async |id, ack| world.writer.write(request(put(id, 1)), ack).await.map(|accepted| accepted.reached);
    assert_eq!(write("b", prefer(QUEUED, APPLIED, 20_000)).await, Ok(QUEUED));
    assert_eq!(write("c", prefer(LOGGED, APPLIED, 20_000)).await, Ok(QUEUED));
    let refused = Err(WriteError::LevelNotReached { required: APPLIED, reached: QUEUED });
    assert_eq!(write("d", insist(20.0)).await, refused);
    assert_eq!(world.amount("d").await, Some(1));
    assert_eq!(write("e", Acknowledge::default()).await, Ok(QUEUED));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!waiting.is_finished());

    // When the one has what it waited for, the next may wait.
    world.drain().await;
    assert_eq!(waiting.await.unwrap().unwrap().reached, APPLIED);
    let waiting = wait_for("f", 20.0);
    turns().await;
    world.drain().await;
    assert_eq!(waiting.await.unwrap().unwrap().reached, APPLIED);
    // So may one after a wait in vain.
    assert!(wait_for("g", 0.005).await.unwrap().is_err());
    let waiting = wait_for("h", 20.0);
    turns().await;
    assert!(!waiting.is_finished());
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_leave_its_write_between_the_stores() {
    let world = World::new().await;
    world.log.set_fate(Fate::Hold);
    {
        let write = world.write(put("a", 1));
        tokio::select! {
            biased;
            result = write => panic!("{result:?}"),
            () = world.log.arrival() => {}
        }
    }
    world.log.release();
    world.core.tasks.close();
    world.core.tasks.wait().await;
    assert_eq!((world.unqueued().await, world.logged("a").len()), (0, 1));
}

#[tokio::test]
async fn each_item_of_a_batch_gets_its_own_level() {
    let world = World::new().await;
    let shard = world.shard("a");
    let other = (0..).map(|n| format!("k{n}")).find(|id| world.shard(id) != shard).unwrap();
    world.store.memory.restart(Survives::Everything);
    world.open(world.shard(&other)).await.unwrap();
    let requests: Vec<WriteRequest> = [put("a", 1), put(&other, 2)].map(request).into();
    let results = world.writer.write_batch(requests, Acknowledge::default()).await;
    assert_eq!(results[0], Err(WriteError::Store(StoreError::Closed { shard })));
    assert_eq!(results[1].as_ref().unwrap().reached, QUEUED);
}

#[tokio::test]
async fn what_the_log_has_no_room_for_is_refused_before_anything_is_touched() {
    let world = World::new().await;
    world.log.set_room(false);
    assert_eq!(world.write(put("a", 1)).await, Err(WriteError::LogQueueFull));
    assert_eq!((world.dirty().await, world.amount("a").await), (0, None));
    assert_eq!(world.write_at(put("a", 1), LOGGED).await.unwrap().reached, LOGGED);
    world.log.set_room(true);
    assert_eq!(world.write(put("a", 2)).await.unwrap().reached, QUEUED);
}

#[tokio::test]
async fn a_write_that_does_not_say_gets_the_level_of_its_table() {
    let logged = TableRules { ack: LOGGED, ..TableRules::default() };
    let rules = WriteRules { per_table: [(table("fast"), logged)].into(), ..WriteRules::default() };
    let world = World::with(IngestOptions { rules, ..quick_options() }, u64::MAX / 1000).await;
    world.db.make_table("fast", Some(crate::db::payment_columns()));
    world.tables.enable(&table("fast")).await.unwrap();
    let batch = |ack| {
        let fast = WriteRequest { table: table("fast"), ..request(put("a", 1)) };
        world.writer.write_batch(vec![fast, request(put("a", 1))], ack)
    };
    let levels = |results: Vec<WriteResult>| results.into_iter().map(|r| r.map(|a| a.reached)).collect::<Vec<_>>();
    assert_eq!(levels(batch(Acknowledge::default()).await), [Ok(LOGGED), Ok(QUEUED)]);
    assert_eq!(levels(batch(Acknowledge::required(QUEUED)).await), [Ok(QUEUED), Ok(QUEUED)]);
    // Only what needs the log is refused without it.
    world.log.set_available(false);
    assert_eq!(levels(batch(Acknowledge::default()).await), [Ok(LOGGED), Err(WriteError::LogDown)]);
    world.log.set_available(true);
    world.log.set_fate(Fate::Hold);
    let prefers = Acknowledge { preferred: Some(APPLIED), wait: Duration::from_millis(5), ..Acknowledge::default() };
    let results = batch(prefers).await;
    assert!(unknown(&results[1]), "{results:?}");
    assert_eq!(results[0].as_ref().unwrap().reached, LOGGED);
}

#[tokio::test]
async fn applied_is_refused_for_what_the_database_refused() {
    let world = World::new().await;
    world.write_as("first", put("a", 1)).await.unwrap();
    refuse(&world, "a").await;
    // A retry finds out what became of the write. QUEUED it was, and no more is said where no more is required.
    let again = |ack| world.writer.write(named("first", put("a", 1)), ack);
    assert_eq!(again(Acknowledge::required(APPLIED)).await, Err(WriteError::DeadLettered));
    assert_eq!(again(Acknowledge::default()).await.unwrap().reached, QUEUED);
    let begun = std::time::Instant::now();
    assert_eq!(again(prefer(QUEUED, APPLIED, 20_000)).await.unwrap().reached, QUEUED);
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for what will not come");
    // Who waits for it meanwhile learns it, too.
    let world = Arc::new(world);
    let waiting = tokio::spawn({
        let world = world.clone();
        async move { world.write_at(put("b", 1), APPLIED).await }
    });
    while world.unqueued().await > 0 || world.logged("b").is_empty() {
        tokio::task::yield_now().await;
    }
    refuse(&world, "b").await;
    assert_eq!(waiting.await.unwrap(), Err(WriteError::DeadLettered));
}

#[tokio::test]
async fn what_lies_under_a_refused_version_is_not_applied_by_that() {
    let world = World::new().await;
    world.write_as("first", put("a", 1)).await.unwrap();
    world.write(put("a", 2)).await.unwrap();
    refuse(&world, "a").await;
    let again = |ack| world.writer.write(named("first", put("a", 1)), ack);
    assert_eq!(again(Acknowledge::default()).await.unwrap().reached, QUEUED);
    let applied = Acknowledge { wait: Duration::from_millis(20), ..Acknowledge::required(APPLIED) };
    let not_reached = WriteError::LevelNotReached { required: APPLIED, reached: QUEUED };
    assert_eq!(again(applied).await, Err(not_reached));
}
