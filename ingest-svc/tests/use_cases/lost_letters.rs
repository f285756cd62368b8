//! What becomes of parked records when the hot store is lost.

use event_log::Progress;
use hot_store::{HotStore as _, Slot, Stage, Stamp, memory::Survives};
use ingest_svc::dead_letters::{DeadLetters, LetterFilter, LetterName, LetterState, Outcome};
use model::{DeadLetterCause, Epoch, Version};
use tokio::sync::mpsc;

use crate::{
    dead_letters::{refuse, write_letter},
    world::*,
};

/// The drain is done with all that is in the log; the hot store knows as much as it did.
async fn pass(world: &World) {
    for id in (0..64).map(|n| format!("k{n}")) {
        let partition = world.partition(&id);
        let events = world.log.events(&partition);
        let epoch = events.iter().map(|(_, event)| event.epoch).max().unwrap_or(Epoch::ZERO);
        let progress = Progress { offset: events.len() as i64, epoch };
        world.log.committed.lock().unwrap().insert(partition, progress);
    }
}

/// The record is parked, and the drain is done with it.
async fn park(world: &World, id: &str, amount: i64) -> Version {
    world.write(put(id, amount)).await.unwrap();
    let version = refuse(world, id).await;
    pass(world).await;
    version
}

async fn letters(world: &World) -> Vec<(LetterName, LetterState)> {
    let (pages, mut taken) = mpsc::channel(64);
    let filter = LetterFilter { all_states: true, ..LetterFilter::default() };
    DeadLetters::new(world.core.clone()).list(&filter, &pages).await.unwrap();
    drop(pages);
    let mut all = Vec::new();
    while let Some(page) = taken.recv().await {
        all.extend(page.into_iter().map(|letter| (letter.name, letter.state)));
    }
    all
}

async fn parked_at(world: &World, id: &str) -> Option<Version> {
    match world.slot(id).await {
        Slot::Image { version, stage: Stage::Parked, .. } => Some(version),
        _ => None,
    }
}

#[tokio::test]
async fn what_was_parked_is_parked_again_after_a_total_loss() {
    let world = World::new().await;
    let version = park(&world, "k", 1).await;
    // A duplicate of its letter, and a deleted record.
    refuse(&world, "k").await;
    world.plant("gone", 7);
    world.write(delete("gone")).await.unwrap();
    let deleted = refuse(&world, "gone").await;
    pass(&world).await;
    for _ in 0..2 {
        world.restart(Survives::Nothing).await;
        assert_eq!((parked_at(&world, "k").await, parked_at(&world, "gone").await), (Some(version), Some(deleted)));
        assert_eq!((world.amount("k").await, world.amount("gone").await, world.dirty().await), (Some(1), None, 0));
    }
    // And it is replayed as ever, above it.
    let name = letters(&world).await.into_iter().find(|(name, _)| name.id.shard == world.shard("k")).unwrap().0;
    let outcomes = DeadLetters::new(world.core.clone()).replay(&[name]).await;
    assert!(matches!(outcomes[..], [Outcome::Replayed(replayed)] if replayed > version), "{outcomes:?}");
}

/// As while a fleet is upgraded: some of its drains have causes that we don't know.
#[tokio::test]
async fn what_a_later_release_gave_up_is_listed_parked_again_and_replayed() {
    let world = World::new().await;
    world.plant("k", 7);
    world.write(put("k", 1)).await.unwrap();
    let version = write_letter(&world, "k", DeadLetterCause::Later(99), 1);
    world.store.park(world.shard("k"), vec![Stamp { record: world.record("k"), version }]).await.unwrap();
    pass(&world).await;
    world.restart(Survives::Nothing).await;
    assert_eq!((parked_at(&world, "k").await, world.amount("k").await), (Some(version), Some(1)));
    let found = letters(&world).await;
    let [(name, LetterState::Unresolved)] = &found[..] else { panic!("{found:?}") };
    let outcomes = DeadLetters::new(world.core.clone()).replay(std::slice::from_ref(name)).await;
    assert!(matches!(outcomes[..], [Outcome::Replayed(replayed)] if replayed > version), "{outcomes:?}");
    assert_eq!(world.amount("k").await, Some(1));
}

#[tokio::test]
async fn no_version_of_a_letter_is_given_again() {
    let world = World::new().await;
    let version = park(&world, "k", 1).await;
    let shard = world.shard("k");
    world.restart(Survives::Nothing).await;
    assert!(world.store.header(shard).await.unwrap().clock >= version);
}

#[tokio::test]
async fn what_the_database_has_newer_is_not_parked_again() {
    let world = World::new().await;
    let version = park(&world, "k", 1).await;
    world.write(put("k", 2)).await.unwrap();
    world.drain().await;
    world.restart(Survives::Nothing).await;
    assert_eq!((parked_at(&world, "k").await, world.amount("k").await), (None, Some(2)));
    // Nor what the database has taken after all.
    let same = World::new().await;
    let parked = park(&same, "k", 1).await;
    same.plant_at("k", 1, parked);
    same.restart(Survives::Nothing).await;
    assert_eq!((parked_at(&same, "k").await, same.amount("k").await), (None, Some(1)));
    // What it has older is what the letter is about.
    let older = World::new().await;
    older.plant_at("k", 9, version.before());
    let parked = park(&older, "k", 1).await;
    older.restart(Survives::Nothing).await;
    assert_eq!((parked_at(&older, "k").await, older.amount("k").await), (Some(parked), Some(1)));
}

#[tokio::test]
async fn what_is_newer_in_the_log_stays() {
    let world = World::new().await;
    park(&world, "k", 1).await;
    world.write(put("k", 2)).await.unwrap();
    world.restart(Survives::Nothing).await;
    assert_eq!((world.amount("k").await, world.dirty().await), (Some(2), 1));
    assert!(letters(&world).await.iter().all(|(_, state)| *state == LetterState::Superseded));
    world.drain().await;
    assert_eq!(world.amount("k").await, Some(2));
}

#[tokio::test]
async fn what_was_given_up_stays_so_with_all_that_it_superseded() {
    let world = World::new().await;
    world.plant("k", 7);
    park(&world, "k", 1).await;
    park(&world, "k", 2).await;
    let open = letters(&world).await.into_iter().find(|(_, state)| *state == LetterState::Unresolved).unwrap().0;
    assert_eq!(DeadLetters::new(world.core.clone()).purge(&[open]).await, [Outcome::Purged]);
    world.restart(Survives::Nothing).await;
    assert_eq!((parked_at(&world, "k").await, world.amount("k").await), (None, Some(7)));
    assert_eq!(letters(&world).await.into_iter().map(|(_, state)| state).collect::<Vec<_>>(), [LetterState::Purged; 2]);
    // What is refused after that is parked again.
    let version = park(&world, "k", 3).await;
    world.restart(Survives::Nothing).await;
    assert_eq!(parked_at(&world, "k").await, Some(version));
}

#[tokio::test]
async fn what_lies_at_or_below_the_purge_horizon_was_superseded_by_a_delete() {
    for (above, parked) in [(0, false), (1, false), (-1, true)] {
        let world = World::new().await;
        let version = park(&world, "k", 1).await;
        let purged = Version::new(version.get().checked_add_signed(above).unwrap()).unwrap();
        let row = database::ShardRow { purge_horizon: purged, ..Default::default() };
        world.db.set_shard_row("payments", world.shard("k"), row);
        world.restart(Survives::Nothing).await;
        assert_eq!(parked_at(&world, "k").await, parked.then_some(version), "{above}");
    }
}

#[tokio::test]
async fn a_table_without_a_topic_for_dead_letters_gets_one() {
    let world = World::new().await;
    let topic = world.partition("k").topic.dead_letters().unwrap();
    world.log.delete_topic(&topic);
    world.restart(Survives::Nothing).await;
    assert_eq!(letters(&world).await, []);
}
