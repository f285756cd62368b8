//! Request ids: a retry takes effect once, and is acknowledged only as far as what it asked for has come.

use std::time::Duration;

use hot_store::{HotStoreError, Slot, memory::Survives};
use ingest_svc::{
    Core, StoreError,
    accept::{Acknowledge, Change, Require, WriteError, Writer},
    opening::checkpoint,
    relay::Relay,
};
use model::{Epoch, RequestId, Value};

use crate::{log::Fate, world::*};

pub fn unknown(result: &WriteResult) -> bool {
    matches!(result, Err(WriteError::OutcomeUnknown(_)))
}

pub fn reused(id: &str) -> WriteResult {
    Err(WriteError::RequestIdReused(RequestId::new(id).unwrap()))
}

fn note(id: &str, text: &str) -> Change {
    update(id, &[("note", Value::Text(text.into()))])
}

#[tokio::test]
async fn a_retry_takes_effect_once_and_gets_the_first_answer_s_etag() {
    let world = World::new().await;
    let first = world.write_as("r", create("a", 1)).await.unwrap();
    let again = world.write_as("r", create("a", 1)).await.unwrap();
    assert_eq!((again.etag, again.reached), (first.etag, QUEUED));
    assert_eq!(world.amount("a").await, Some(1));
    // Without the id it is another write.
    assert_eq!(world.write(create("a", 1)).await, Err(WriteError::AlreadyExists(table("payments"))));
}

#[tokio::test]
async fn the_same_id_with_another_payload_is_refused_and_changes_nothing() {
    let world = World::new().await;
    world.write_as("r", put("a", 1)).await.unwrap();
    for other in [put("a", 2), create("a", 1), delete("a"), put_if("a", 1, Require::Exists(true)), note("a", "x")] {
        assert_eq!(world.write_as("r", other.clone()).await, reused("r"), "{other:?}");
    }
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn a_refused_write_leaves_its_id_free() {
    let world = World::new().await;
    let refused = world.write_as("r", note("a", "x")).await;
    assert_eq!(refused, Err(WriteError::NotFound(table("payments"))));
    world.write(put("a", 1)).await.unwrap();
    world.write_as("r", note("a", "x")).await.unwrap();
    assert_eq!(world.get("a").await.unwrap().row.get("note"), Some(&Value::Text("x".into())));
}

#[tokio::test]
async fn a_retry_of_what_never_reached_the_log_is_produced_before_it_is_acknowledged() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    // It is stored, and no answer says QUEUED as long as the log has not got it.
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    world.log.set_fate(Fate::Append);
    let again = world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!(again.reached, QUEUED);
    let logged = world.logged("a");
    assert_eq!((logged.len(), logged[0].0), (1, again.etag.version));
    assert_eq!((world.unqueued().await, world.dirty().await), (0, 1));
}

#[tokio::test]
async fn a_produce_of_unknown_outcome_is_answered_by_the_retry() {
    let world = World::new().await;
    for fate in [Fate::Delay, Fate::Hold] {
        let id = format!("{fate:?}");
        world.log.set_fate(fate);
        assert!(unknown(&world.write_as(&id, put(&id, 1)).await));
        world.log.set_fate(Fate::Append);
        let again = world.write_as(&id, put(&id, 1)).await.unwrap();
        let later = world.write(put(&id, 2)).await.unwrap();
        // The first attempt comes through after all, behind what was written later.
        if fate == Fate::Delay {
            world.log.land();
        }
        world.drain().await;
        assert_eq!(world.amount(&id).await, Some(2));
        assert!(later.etag.version > again.etag.version);
    }
}

#[tokio::test]
async fn a_retry_of_what_was_superseded_is_as_safe_as_what_superseded_it() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    assert!(unknown(&world.write(put("a", 2)).await));
    assert!(unknown(&world.write_as("r", put("a", 1)).await), "neither of them is in the log");
    world.log.set_fate(Fate::Append);
    let again = world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!((again.reached, world.amount("a").await), (QUEUED, Some(2)));
    let logged = world.logged("a");
    assert!(logged[0].0 > again.etag.version, "the newer one was produced");
    // Updates and conditions, too: what they found then is not there any more.
    let first = world.write(put("b", 1)).await.unwrap();
    let conditional = update_if("b", &[("note", Value::Text("x".into()))], Require::Etag(first.etag));
    let updated = world.write_as("u", conditional.clone()).await.unwrap();
    world.write(delete("b")).await.unwrap();
    let again = world.write_as("u", conditional).await.unwrap();
    assert_eq!((again.etag, again.reached), (updated.etag, QUEUED));
    assert_eq!(world.amount("b").await, None);
}

#[tokio::test]
async fn a_retry_of_what_was_drained_is_applied_also_when_it_has_expired() {
    let world = World::new().await;
    let changes = [("c", create("c", 1)), ("d", delete("d")), ("u", note("u", "x")), ("p", put("p", 3))];
    world.write(put("u", 1)).await.unwrap();
    for (id, change) in changes.clone() {
        world.write_as(id, change).await.unwrap();
    }
    world.drain().await;
    for (id, change) in changes.clone() {
        assert_eq!(world.write_as(id, change).await.unwrap().reached, APPLIED, "{id}");
    }
    // As after their TTL; and the database is away, so nobody asks it.
    for id in ["c", "d", "u", "p"] {
        world.store.expire(&world.record(id));
        assert_eq!(world.slot(id).await, Slot::Empty);
    }
    world.db.set_away(true);
    for (id, change) in changes {
        assert_eq!(world.write_as(id, change).await.unwrap().reached, APPLIED, "{id}");
    }
}

#[tokio::test]
async fn a_retry_through_another_replica_is_known() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    world.log.set_fate(Fate::Append);
    let Core { hot, log, directory, shards, .. } = &*world.core;
    let other = Core::new(hot.clone(), log.clone(), directory.clone(), *shards, quick_options());
    let other = Writer::new(std::sync::Arc::new(other));
    assert_eq!(other.write(named("r", put("a", 1)), Acknowledge::default()).await.unwrap().reached, QUEUED);
    assert_eq!(world.logged("a").len(), 1);
}

#[tokio::test]
async fn a_retry_within_a_batch_is_known_and_each_item_fares_by_itself() {
    let world = World::new().await;
    let batch = vec![
        named("1", put("a", 1)),
        named("1", put("a", 1)),
        named("2", note("a", "x")),
        named("2", note("a", "x")),
        named("1", put("a", 9)),
        named("3", delete("a")),
        named("2", note("a", "x")),
    ];
    let results = world.writer.write_batch(batch, Acknowledge::default()).await;
    let etags: Vec<_> = results.iter().map(|result| result.as_ref().map(|accepted| accepted.etag).ok()).collect();
    assert!(etags[0].is_some() && etags[0] == etags[1], "{results:?}");
    assert!(etags[2].is_some() && etags[2] == etags[3] && etags[2] == etags[6], "{results:?}");
    assert_eq!(results[4], reused("1"));
    assert_eq!(world.amount("a").await, None);
}

#[tokio::test]
async fn a_retry_is_known_after_a_store_that_lost_nothing_was_restarted() {
    let world = World::new().await;
    let first = world.write_as("r", put("a", 1)).await.unwrap();
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("q", put("b", 1)).await));
    world.log.set_fate(Fate::Append);
    world.restart(Survives::Everything).await;
    assert_eq!(world.write_as("r", put("a", 1)).await.unwrap().etag.version, first.etag.version);
    assert_eq!(world.write_as("q", put("b", 1)).await.unwrap().reached, QUEUED);
    let (_, epoch, _) = world.logged("b").pop().unwrap();
    assert!(epoch > first.etag.epoch, "what was never queued is produced in the epoch of now");
}

/// Where a partition of the log stood, for the request window.
pub fn begin_windows(world: &World) {
    let committed = world.log.committed.lock().unwrap().clone();
    world.log.windows.lock().unwrap().extend(committed);
}

#[tokio::test]
async fn a_retry_is_known_after_a_store_that_lost_everything() {
    let world = World::new().await;
    world.drain().await;
    begin_windows(&world);
    let drained = world.write_as("drained", put("a", 1)).await.unwrap();
    let superseded = world.write_as("superseded", put("b", 1)).await.unwrap();
    world.write(put("b", 2)).await.unwrap();
    world.drain().await;
    let waiting = world.write_as("waiting", put("c", 1)).await.unwrap();
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("lost", put("d", 1)).await));
    world.log.set_fate(Fate::Append);
    world.restart(Survives::Nothing).await;
    // Only the requests of what was drained, not its records.
    assert_eq!((world.slot("a").await, world.dirty().await), (Slot::Empty, 1));

    let retry = async |id, change| world.write_as(id, change).await.unwrap();
    let again = retry("drained", put("a", 1)).await;
    assert_eq!((again.etag.version, again.reached), (drained.etag.version, APPLIED));
    let again = retry("superseded", put("b", 1)).await;
    assert_eq!((again.etag.version, again.reached), (superseded.etag.version, APPLIED));
    let again = retry("waiting", put("c", 1)).await;
    assert_eq!((again.etag.version, again.reached), (waiting.etag.version, QUEUED));
    assert_eq!(world.write_as("waiting", put("c", 2)).await, reused("waiting"));
    // What was lost takes effect now.
    assert_eq!(retry("lost", put("d", 1)).await.reached, QUEUED);
    for (id, amount) in [("a", 1), ("b", 2), ("c", 1), ("d", 1)] {
        assert_eq!(world.amount(id).await, Some(amount), "{id}");
    }
}

#[tokio::test]
async fn a_retry_is_known_after_a_store_that_lost_its_tail() {
    let world = World::new().await;
    let before = world.write_as("before", put("a", 1)).await.unwrap();
    checkpoint::write(&world.core).await;
    let survives = Survives::Snapshot(world.store.memory.snapshot());
    let behind = world.write_as("behind", put("b", 1)).await.unwrap();
    world.restart(survives).await;
    assert_eq!(world.write_as("before", put("a", 1)).await.unwrap().etag.version, before.etag.version);
    assert_eq!(world.write_as("behind", put("b", 1)).await.unwrap().etag.version, behind.etag.version);
    assert_eq!((world.logged("a").len(), world.logged("b").len()), (2, 2), "dirty still, so they were produced again");
}

#[tokio::test]
async fn a_request_of_a_void_event_is_forgotten_with_it() {
    let world = World::new().await;
    world.log.set_fate(Fate::Delay);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    world.log.set_fate(Fate::Append);
    world.restart(Survives::Nothing).await;
    world.log.land();
    // Another loss: the event lies behind the fence of the first opening, and is read by the second.
    world.restart(Survives::Nothing).await;
    assert_eq!(world.amount("a").await, None);
    assert_eq!(world.write_as("r", put("a", 1)).await.unwrap().reached, QUEUED);
    assert_eq!(world.amount("a").await, Some(1));
}

/// The process stood still, or the machine, or the network; its retry took effect meanwhile and is forgotten again.
#[tokio::test]
async fn a_first_attempt_that_arrives_too_late_takes_no_effect() {
    let world = World::new().await;
    for late in [named("r", put("a", 1)), request(put("a", 1)), named("r", note("a", "late"))] {
        world.write(put("a", 1)).await.unwrap();
        let (sent, arrive) = world.store.hold_next_write();
        let writer = world.writer.clone();
        let first = tokio::spawn(async move { writer.write(late, Acknowledge::default()).await });
        sent.await.unwrap();
        world.write(put("a", 2)).await.unwrap();
        world.drain().await;
        arrive.send(hot_store::REQUEST_WINDOW).unwrap();
        let late = first.await.unwrap();
        assert_eq!(late, Err(WriteError::Store(StoreError::Late(HotStoreError::Late))));
        assert_eq!((world.amount("a").await, world.dirty().await), (Some(2), 0));
    }
    // Asked for anew, it is another write.
    world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn what_the_store_knew_before_it_was_opened_again_is_no_answer() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    world.log.set_fate(Fate::Append);
    // Lost, and opened again, between the answer that the request is known and the look at its record.
    let (store, core, shard) = (world.store.clone(), world.core.clone(), world.shard("a"));
    world.store.before_read(move || {
        use futures::FutureExt as _;
        store.memory.restart(Survives::Nothing);
        let opening = ingest_svc::opening::open_shard(&core, shard, Epoch::ZERO);
        opening.now_or_never().unwrap().unwrap().unwrap();
    });
    let again = world.write_as("r", put("a", 1)).await;
    assert!(unknown(&again), "{again:?}");
    assert_eq!(world.write_as("r", put("a", 1)).await.unwrap().reached, QUEUED);
    assert_eq!((world.amount("a").await, world.logged("a").len()), (Some(1), 1));
}

#[tokio::test]
async fn the_relay_and_a_retry_may_meet() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    let mut relay = Relay::new(world.core.clone());
    relay.sweep().await;
    world.log.set_fate(Fate::Append);
    assert_eq!(relay.sweep().await.relayed, 1);
    let again = world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!((again.reached, world.logged("a").len()), (QUEUED, 2));
    world.drain().await;
    assert_eq!((world.amount("a").await, world.dirty().await), (Some(1), 0));
}

#[tokio::test]
async fn a_retry_may_ask_for_more() {
    let world = World::new().await;
    world.log.set_available(false);
    let level = |required| Acknowledge::required(required);
    let write = async |ack| world.writer.write(named("r", put("a", 1)), ack).await;
    assert_eq!(write(level(LOGGED)).await.unwrap().reached, LOGGED);
    assert_eq!(write(level(QUEUED)).await, Err(WriteError::LogDown));
    world.log.set_available(true);
    assert_eq!(write(level(QUEUED)).await.unwrap().reached, QUEUED);
    let soon = Acknowledge { wait: Duration::from_millis(5), ..level(APPLIED) };
    assert_eq!(write(soon).await, Err(WriteError::LevelNotReached { required: APPLIED, reached: QUEUED }));
    world.drain().await;
    assert_eq!(write(soon).await.unwrap().reached, APPLIED);
}
