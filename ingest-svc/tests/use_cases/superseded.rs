//! Requests whose record was written again before their own events were in the log: only a note names them there.

use std::time::Duration;

use event_log::{Outgoing, Progress};
use hot_store::{Backlog, HotStore as _, Slot, memory::Survives};
use ingest_svc::{IngestOptions, accept::Acknowledge, applied::Waiter, opening::checkpoint};
use model::{Content, Epoch, Event, EventBody, Image, Mutation, RequestNote, Value, Version};

use crate::{
    log::Fate,
    requests::{begin_windows, reused, unknown},
    world::*,
};

/// What becomes of a write that took a request's place, before the request comes again.
#[derive(Debug, Clone, Copy)]
enum Newer {
    IsDirty,
    IsClean,
    HasExpired,
}

/// A request that never reached the log, and a newer write of its record that did.
async fn superseded(newer: Newer) -> World {
    superseded_in(World::new().await, newer).await
}

async fn superseded_in(world: World, newer: Newer) -> World {
    world.drain().await;
    begin_windows(&world);
    world.log.set_fate(Fate::Refuse);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    world.log.set_fate(Fate::Append);
    world.write(put("a", 2)).await.unwrap();
    if !matches!(newer, Newer::IsDirty) {
        world.drain().await;
    }
    if matches!(newer, Newer::HasExpired) {
        world.store.expire(&world.record("a"));
        assert_eq!(world.slot("a").await, Slot::Empty);
    }
    world
}

#[tokio::test]
async fn a_request_that_was_superseded_and_answered_is_known_after_a_store_that_lost_everything() {
    for newer in [Newer::IsDirty, Newer::IsClean, Newer::HasExpired] {
        for drained in [false, true] {
            let world = superseded(newer).await;
            let again = world.write_as("r", put("a", 1)).await.unwrap();
            assert_eq!(again.reached, if matches!(newer, Newer::IsDirty) { QUEUED } else { APPLIED }, "{newer:?}");
            if drained {
                world.drain().await;
            }
            world.restart(Survives::Nothing).await;
            // The client did not see that answer.
            let once_more = world.write_as("r", put("a", 1)).await.unwrap();
            assert_eq!(once_more.etag.version, again.etag.version, "{newer:?}, drained: {drained}");
            assert_eq!(world.write_as("r", put("a", 3)).await, reused("r"));
            assert_eq!(world.amount("a").await, Some(2), "{newer:?}, drained: {drained}");
        }
    }
}

#[tokio::test]
async fn a_superseded_request_is_not_answered_before_it_is_noted() {
    for newer in [Newer::IsDirty, Newer::IsClean, Newer::HasExpired] {
        let world = superseded(newer).await;
        let level = |required| world.writer.write(named("r", put("a", 1)), Acknowledge::required(required));
        world.log.set_fate(Fate::Refuse);
        for required in [QUEUED, APPLIED] {
            assert!(unknown(&level(required).await), "{newer:?}");
        }
        // LOGGED promises nothing of the log: so it is no more than that, whether the log is known to be away or not.
        assert_eq!(level(LOGGED).await.unwrap().reached, LOGGED, "{newer:?}");
        world.log.set_available(false);
        assert_eq!(level(LOGGED).await.unwrap().reached, LOGGED, "{newer:?}");
    }
}

#[tokio::test]
async fn a_note_that_is_alone_is_in_the_log_before_applied_is_answered_whatever_was_required() {
    for newer in [Newer::IsClean, Newer::HasExpired] {
        // Nothing is produced behind clients' backs.
        let options = IngestOptions { max_background_batches: 0, ..quick_options() };
        let world = superseded_in(World::with(options, u64::MAX / 1000).await, newer).await;
        let again = world.writer.write(named("r", put("a", 1)), Acknowledge::required(LOGGED)).await.unwrap();
        assert_eq!(again.reached, APPLIED, "{newer:?}");
        let (_, note) = event_and_note(&world);
        assert_eq!(note.version, again.etag.version);
        world.restart(Survives::Nothing).await;
        assert_eq!(world.write_as("r", put("a", 1)).await.unwrap().etag.version, again.etag.version, "{newer:?}");
        assert_eq!(world.amount("a").await, Some(2), "{newer:?}");
    }
}

#[tokio::test]
async fn a_note_that_an_opening_may_have_made_void_is_no_answer() {
    for newer in [Newer::IsDirty, Newer::IsClean, Newer::HasExpired] {
        let world = superseded(newer).await;
        let (store, core, shard) = (world.store.clone(), world.core.clone(), world.shard("a"));
        world.log.after_publish(move || {
            use futures::FutureExt as _;
            store.memory.restart(Survives::Everything);
            let opening = ingest_svc::opening::open_shard(&core, shard, Epoch::ZERO);
            opening.now_or_never().unwrap().unwrap().unwrap();
        });
        let again = world.write_as("r", put("a", 1)).await;
        assert!(unknown(&again), "{newer:?}: {again:?}");
        world.write_as("r", put("a", 1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_void_note_puts_no_request_back() {
    let world = superseded(Newer::IsClean).await;
    world.log.set_fate(Fate::Delay);
    assert!(unknown(&world.write_as("r", put("a", 1)).await));
    world.log.set_fate(Fate::Append);
    world.restart(Survives::Nothing).await;
    world.log.land();
    world.restart(Survives::Nothing).await;
    // Nobody was told that it took effect, so it may do so now.
    assert_eq!(world.write_as("r", put("a", 1)).await.unwrap().reached, QUEUED);
    assert_eq!(world.amount("a").await, Some(1));
}

/// What waits for the database in the shard of record `a`, up to where SQL readers see everything included.
async fn backlog(world: &World) -> Backlog {
    let namespace = world.record("a").namespace;
    world.store.backlog(world.shard("a"), vec![namespace]).await.unwrap().1.remove(0)
}

/// The versions of a superseded request that was acknowledged as QUEUED, and of what took its place.
async fn acknowledged(world: &World) -> (Version, Version) {
    let again = world.write_as("r", put("a", 1)).await.unwrap();
    assert_eq!(again.reached, QUEUED);
    let (newer, ..) = world.logged("a").pop().unwrap();
    assert!(newer > again.etag.version);
    (again.etag.version, newer)
}

fn append(world: &World, epoch: Epoch, body: EventBody) {
    let payload = Event { shard: world.shard("a"), epoch, body }.encode();
    world.log.append(Outgoing { to: world.partition("a"), key: Default::default(), payload });
}

/// The newest event of record `a` and the note, as they lie in the log.
fn event_and_note(world: &World) -> (Mutation, RequestNote) {
    let (.., mutation) = world.logged("a").pop().unwrap();
    let note = world.log.events(&world.partition("a")).into_iter().rev().find_map(|(_, event)| match event.body {
        EventBody::Requests(mut notes) => notes.pop(),
        EventBody::Mutations(_) | EventBody::Fence(_) => None,
    });
    (mutation, note.unwrap())
}

/// All that lies in the log so far is as good as drained. Answers the epoch in force behind it.
async fn pass_all(world: &World) -> Epoch {
    let partition = world.partition("a");
    let epoch = world.store.header(world.shard("a")).await.unwrap().epoch;
    let offset = world.log.events(&partition).last().unwrap().0 + 1;
    world.log.committed.lock().unwrap().insert(partition, Progress { offset, epoch });
    epoch
}

/// It was acknowledged, so readers of the database who are told that they see everything up to it must see it, or newer.
#[tokio::test]
async fn the_horizon_stays_below_what_only_a_note_names_until_the_database_has_what_took_its_place() {
    for survives in ["nothing", "what was before"] {
        let world = World::new().await;
        checkpoint::write(&world.core).await;
        let snapshot = Survives::Snapshot(world.store.memory.snapshot());
        world.log.set_fate(Fate::Refuse);
        assert!(unknown(&world.write_as("r", put("a", 1)).await));
        world.log.set_fate(Fate::Append);
        world.write(put("a", 2)).await.unwrap();
        let (own, _) = acknowledged(&world).await;
        assert_eq!(backlog(&world).await.oldest, Some(own));
        world.restart(if survives == "nothing" { Survives::Nothing } else { snapshot }).await;
        let found = backlog(&world).await;
        assert_eq!((found.records, found.oldest), (1, Some(own)), "{survives}");
        assert!(found.horizon < own, "{survives}");
        world.drain().await;
        let found = backlog(&world).await;
        assert_eq!((found.records, found.oldest), (0, None), "{survives}");
        assert!(found.horizon > own, "{survives}");
    }
}

#[tokio::test]
async fn a_note_holds_the_horizon_back_wherever_it_lies_beside_the_events_of_its_record() {
    let world = superseded(Newer::IsDirty).await;
    let (own, newer) = acknowledged(&world).await;
    let (event, note) = event_and_note(&world);
    let event = |version| EventBody::Mutations(vec![Mutation { version, ..event.clone() }]);
    let note = |version| EventBody::Requests(vec![RequestNote { version, ..note.clone() }]);
    let newest = Version::new(newer.get() + 5).unwrap();
    let orders = [
        vec![event(newer), note(own)],
        vec![note(own), event(newer)],
        vec![note(own), event(newest), event(newer)],
        vec![event(newest), note(own), note(newer), event(newer)],
        vec![event(newest), note(newer), note(own)],
    ];
    for (nth, order) in orders.into_iter().enumerate() {
        let epoch = pass_all(&world).await;
        order.into_iter().for_each(|body| append(&world, epoch, body));
        world.restart(Survives::Nothing).await;
        assert_eq!(backlog(&world).await.oldest, Some(own), "order {nth}");
    }
}

/// An opening puts back what it has gathered when that is too much, and goes on.
#[tokio::test]
async fn a_note_far_behind_its_record_s_event_holds_the_horizon_back() {
    let world = superseded(Newer::IsDirty).await;
    let (own, _) = acknowledged(&world).await;
    let (event, note) = event_and_note(&world);
    let epoch = pass_all(&world).await;
    append(&world, epoch, EventBody::Mutations(vec![event.clone()]));
    for n in 1..=3 {
        let mut columns = full_payment(&format!("k{n}"), 1);
        columns = columns.merged_with(row(&[("note", Value::Text("x".repeat(3_000_000)))]));
        let image = Image { content: Content::Row(columns), ..event.image.clone() };
        let other = Mutation { key: key(&format!("k{n}")), image, ..event.clone() };
        append(&world, epoch, EventBody::Mutations(vec![other]));
    }
    append(&world, epoch, EventBody::Requests(vec![note]));
    world.restart(Survives::Nothing).await;
    let found = backlog(&world).await;
    assert_eq!((found.records, found.oldest), (4, Some(own)));
}

#[tokio::test]
async fn a_note_holds_nothing_back_that_it_is_not_about() {
    let world = superseded(Newer::IsDirty).await;
    let (_, newer) = acknowledged(&world).await;
    let (event, note) = event_and_note(&world);
    let notes = [
        // Of an earlier release.
        (false, RequestNote { key: None, ..note.clone() }),
        (false, RequestNote { key: Some(key("b")), ..note.clone() }),
        (false, RequestNote { table: table("others"), ..note.clone() }),
        (true, note),
    ];
    for (is_void, note) in notes {
        let epoch = pass_all(&world).await;
        append(&world, epoch, EventBody::Mutations(vec![event.clone()]));
        append(&world, if is_void { Epoch::ZERO } else { epoch }, EventBody::Requests(vec![note.clone()]));
        world.restart(Survives::Nothing).await;
        let found = backlog(&world).await;
        assert_eq!((found.records, found.oldest), (1, Some(newer)), "{note:?}");
    }
}

#[tokio::test]
async fn a_note_holds_nothing_back_once_the_database_has_what_took_its_place() {
    // It was drained before the note was made: that alone is read again.
    for newer in [Newer::IsClean, Newer::HasExpired] {
        let world = superseded(newer).await;
        let again = world.write_as("r", put("a", 1)).await.unwrap();
        world.restart(Survives::Nothing).await;
        let found = backlog(&world).await;
        assert_eq!((found.records, found.oldest), (0, None), "{newer:?}");
        assert!(found.horizon > again.etag.version, "{newer:?}");
    }
    // It is read with the note, and it is in its row already.
    let world = superseded(Newer::IsDirty).await;
    let committed = world.log.committed.lock().unwrap().clone();
    acknowledged(&world).await;
    world.drain().await;
    world.log.committed.lock().unwrap().extend(committed);
    world.restart(Survives::Nothing).await;
    assert_eq!(backlog(&world).await.oldest, None);
    // The note is read for its request only, and the record was written again.
    let world = superseded(Newer::IsDirty).await;
    acknowledged(&world).await;
    world.drain().await;
    let later = world.write(put("a", 3)).await.unwrap().etag.version;
    world.restart(Survives::Nothing).await;
    assert_eq!(backlog(&world).await.oldest, Some(later));
}

#[tokio::test]
async fn the_token_of_a_superseded_request_waits_for_what_took_its_place() {
    for lost in [false, true] {
        let world = superseded(Newer::IsDirty).await;
        let again = world.write_as("r", put("a", 1)).await.unwrap();
        let (newer, ..) = world.logged("a").pop().unwrap();
        assert!(again.token.version == newer && again.etag.version < newer);
        if lost {
            world.restart(Survives::Nothing).await;
        }
        let waiter = Waiter::new(world.core.clone());
        let wait = async || waiter.wait(std::slice::from_ref(&again.token), Duration::from_millis(20)).await;
        assert_eq!(wait().await, Ok(false), "lost: {lost}");
        world.drain().await;
        assert_eq!(wait().await, Ok(true), "lost: {lost}");
    }
    // What took its place is in the database, and nothing waits.
    for newer in [Newer::IsClean, Newer::HasExpired] {
        let world = superseded(newer).await;
        let token = world.write_as("r", put("a", 1)).await.unwrap().token;
        assert_eq!(Waiter::new(world.core.clone()).wait(&[token], Duration::from_millis(20)).await, Ok(true));
    }
}
