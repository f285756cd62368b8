//! What operators see of dead letters, and what replays and purges do.

use std::{collections::BTreeSet, time::Duration};

use event_log::{Outgoing, TopicPartition};
use futures::FutureExt as _;
use hot_store::{HotStore as _, Precondition, Slot, Stage, Stamp, Write};
use ingest_svc::{
    accept::{Change, WriteError},
    dead_letters::{
        DeadLetterError, DeadLetters, Letter, LetterFilter, LetterId, LetterName, LetterState, Outcome, Problem,
    },
};
use jiff::Timestamp;
use model::{
    ColumnDefault, ColumnType, Content, DeadLetter, DeadLetterBody, DeadLetterCause, DeadLetterRecord, Event,
    EventBody, Image, KeyBytes, Operation, Shard, Value, Version,
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    db::{BentDatabase, column, payment_columns},
    log::{BentLog, Fate},
    store::BentStore,
    world::*,
};

/// What the drain does with the newest logged write of a record that the database refuses for good.
pub async fn refuse(world: &World, id: &str) -> Version {
    let version = write_letter(world, id, DeadLetterCause::Permanent, 1);
    let stamp = Stamp { record: world.record(id), version };
    world.store.park(world.shard(id), vec![stamp]).await.unwrap();
    version
}

/// Writes a letter about the newest logged write of a record, in that second.
pub fn write_letter(world: &World, id: &str, cause: DeadLetterCause, second: i64) -> Version {
    let partition = world.partition(id);
    let newest = world.log.events(&partition).into_iter().filter_map(|(offset, event)| {
        let EventBody::Mutations(mutations) = &event.body else { return None };
        let mutation = mutations.iter().find(|mutation| mutation.key == key(id))?;
        Some((mutation.version, offset, event))
    });
    let (version, offset, event) = newest.max_by_key(|(version, ..)| *version).unwrap();
    let letter = DeadLetter {
        offset,
        key: key(id).to_bytes(),
        payload: event.encode(),
        version: Some(version),
        ..letter(&partition, cause, second)
    };
    append(world, &partition, letter);
    version
}

/// Writes a letter about bytes that are no event.
fn write_unreadable(world: &World, id: &str, offset: i64) {
    let partition = world.partition(id);
    let letter = DeadLetter { offset, ..letter(&partition, DeadLetterCause::Undecodable, 1) };
    append(world, &partition, letter);
}

fn letter(partition: &TopicPartition, cause: DeadLetterCause, second: i64) -> DeadLetter {
    DeadLetter {
        topic: partition.topic.clone(),
        offset: 0,
        key: KeyBytes::from_stored(b"key".to_vec().into()),
        payload: b"no event".to_vec().into(),
        version: None,
        cause,
        code: "22001".into(),
        message: "column note is too long".into(),
        attempts: 3,
        first_refused_at: Timestamp::UNIX_EPOCH,
        dead_lettered_at: Timestamp::from_second(second).unwrap(),
        replica: "drain".into(),
        is_cut: false,
    }
}

fn append(world: &World, events: &TopicPartition, letter: DeadLetter) {
    let to = TopicPartition { topic: events.topic.dead_letters().unwrap(), ..events.clone() };
    let key = letter.key.as_bytes().clone();
    let shard = Shard(events.partition);
    let record = DeadLetterRecord { table: table("payments"), shard, body: DeadLetterBody::Letter(letter) };
    world.log.append(Outgoing { to, key, payload: record.encode() });
}

fn letters(world: &World) -> DeadLetters<BentStore, BentLog, BentDatabase> {
    DeadLetters::new(world.core.clone())
}

async fn try_list(world: &World, filter: LetterFilter) -> Result<Vec<Letter>, DeadLetterError> {
    let (pages, mut taken) = mpsc::channel(1024);
    letters(world).list(&filter, &pages).await?;
    drop(pages);
    let mut all = Vec::new();
    while let Some(page) = taken.recv().await {
        assert!((1..=ingest_svc::dead_letters::MAX_PAGE).contains(&page.len()));
        all.extend(page);
    }
    Ok(all)
}

async fn list(world: &World, filter: LetterFilter) -> Vec<Letter> {
    try_list(world, filter).await.unwrap()
}

/// States of all letters.
async fn states(world: &World) -> Vec<LetterState> {
    let all = LetterFilter { all_states: true, ..LetterFilter::default() };
    list(world, all).await.into_iter().map(|letter| letter.state).collect()
}

async fn open(world: &World) -> Vec<LetterName> {
    list(world, LetterFilter::default()).await.into_iter().map(|letter| letter.name).collect()
}

async fn replay(world: &World) -> Vec<Outcome> {
    letters(world).replay(&open(world).await).await
}

#[tokio::test]
async fn a_letter_is_listed_once_until_its_record_is_written_again() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    let version = refuse(&world, "k").await;
    // Nobody knew whether it was written, so it was written again.
    refuse(&world, "k").await;
    let found = list(&world, LetterFilter::default()).await;
    let [letter] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        letter.name,
        LetterName { table: table("payments"), id: LetterId { shard: world.shard("k"), offset: 0 } }
    );
    assert_eq!((letter.version, letter.cause), (Some(version), DeadLetterCause::Permanent));
    assert_eq!((letter.code.as_str(), letter.attempts, letter.state), ("22001", 3, LetterState::Unresolved));
    world.write(put("k", 2)).await.unwrap();
    assert_eq!(
        (list(&world, LetterFilter::default()).await, states(&world).await),
        (vec![], vec![LetterState::Superseded])
    );
    world.drain().await;
    assert_eq!(states(&world).await, [LetterState::Superseded]);
    world.store.expire(&world.record("k"));
    assert_eq!(states(&world).await, [LetterState::Resolved]);
}

#[tokio::test]
async fn letters_are_listed_by_table_cause_and_time_in_pages() {
    let world = World::new().await;
    world.db.make_table("others", Some(payment_columns()));
    world.tables.enable(&table("others")).await.unwrap();
    for (n, cause) in (0..600).zip([DeadLetterCause::Permanent, DeadLetterCause::Dependent].into_iter().cycle()) {
        let id = format!("k{n}");
        world.write(put(&id, n)).await.unwrap();
        let version = write_letter(&world, &id, cause, n);
        let stamp = Stamp { record: world.record(&id), version };
        world.store.park(world.shard(&id), vec![stamp]).await.unwrap();
    }
    let all = list(&world, LetterFilter::default()).await;
    assert_eq!(all.len(), 600);
    assert!(all.is_sorted_by_key(|letter| letter.name.clone()));
    let second = |second| Some(Timestamp::from_second(second).unwrap());
    let filter = LetterFilter {
        table: Some(table("payments")),
        causes: BTreeSet::from([DeadLetterCause::Dependent]),
        since: second(101),
        until: second(105),
        all_states: false,
    };
    let mut found: Vec<i64> =
        list(&world, filter.clone()).await.iter().map(|letter| letter.dead_lettered_at.as_second()).collect();
    found.sort();
    assert_eq!(found, [101, 103]);
    assert_eq!(list(&world, LetterFilter { table: Some(table("others")), ..filter.clone() }).await, []);
    let strange = try_list(&world, LetterFilter { table: Some(table("strange")), ..filter }).await;
    assert_eq!(strange, Err(DeadLetterError::NoSuchTable(table("strange"))));
}

#[tokio::test]
async fn a_list_that_nobody_takes_ends() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    let (pages, taken) = mpsc::channel(1);
    drop(taken);
    assert_eq!(letters(&world).list(&LetterFilter::default(), &pages).await, Err(DeadLetterError::NobodyListens));
}

#[tokio::test]
async fn a_replay_is_a_write_of_its_own_with_a_new_version() {
    let world = World::new().await;
    world.write_as("request", put("k", 1)).await.unwrap();
    let refused = refuse(&world, "k").await;
    let names = open(&world).await;
    let outcomes = letters(&world).replay(&names).await;
    let [Outcome::Replayed(version)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert!(*version > refused);
    assert_eq!((world.amount("k").await, world.unqueued().await, world.dirty().await), (Some(1), 0, 1));
    let (logged, _, mutation) = world.logged("k").pop().unwrap();
    assert_eq!((logged, mutation.image.request), (*version, None));
    assert_eq!(states(&world).await, [LetterState::Superseded]);
    // Once more it does nothing.
    assert_eq!(letters(&world).replay(&names).await, [Outcome::Settled(LetterState::Superseded)]);
    assert_eq!(world.logged("k").len(), 2);
    world.drain().await;
    assert!(matches!(world.slot("k").await, Slot::Image { stage: Stage::Clean, .. }));
}

#[tokio::test]
async fn a_replay_never_takes_the_place_of_what_is_newer() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    let names = open(&world).await;
    // Somebody writes the record just before the replay does.
    let (shard, record) = (world.shard("k"), world.record("k"));
    let Slot::Image { image, .. } = world.slot("k").await else { panic!() };
    world.store.set_rival(move || {
        let image = Image { content: model::Content::Row(full_payment("k", 2)), ..image.clone() };
        (shard, Write { record: record.clone(), precondition: Precondition::None, image, index: None })
    });
    assert_eq!(letters(&world).replay(&names).await, [Outcome::Settled(LetterState::Superseded)]);
    assert_eq!(world.amount("k").await, Some(2));
}

#[tokio::test]
async fn a_delete_that_was_refused_is_replayed_as_a_delete() {
    let world = World::new().await;
    world.plant("k", 1);
    world.write(delete("k")).await.unwrap();
    refuse(&world, "k").await;
    assert!(matches!(replay(&world).await.as_slice(), [Outcome::Replayed(_)]));
    assert_eq!(world.logged("k").pop().unwrap().2.image.operation, Operation::Delete);
    world.drain().await;
    assert_eq!(world.amount("k").await, None);
}

#[tokio::test]
async fn a_replay_that_is_refused_says_why_and_leaves_the_record_parked() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    world.log.set_available(false);
    assert_eq!(replay(&world).await, [Outcome::Failed(Problem::Write(WriteError::LogDown))]);
    world.log.set_available(true);
    world.tables.disable(&table("payments")).await.unwrap();
    let disabled = Problem::Write(WriteError::TableNotEnabled(table("payments")));
    assert_eq!(replay(&world).await, [Outcome::Failed(disabled)]);
    world.tables.enable(&table("payments")).await.unwrap();
    assert_eq!(states(&world).await, [LetterState::Unresolved]);
    let nobody = LetterName { table: table("payments"), id: LetterId { shard: world.shard("k"), offset: 9 } };
    let elsewhere = LetterName { table: table("strange"), ..nobody.clone() };
    let name = open(&world).await.remove(0);
    let outcomes = letters(&world).replay(&[nobody.clone(), name.clone(), elsewhere, name]).await;
    assert_eq!(outcomes[0], Outcome::Failed(Problem::NotFound));
    assert!(matches!(outcomes[1], Outcome::Replayed(_)), "{outcomes:?}");
    let strange = DeadLetterError::NoSuchTable(table("strange"));
    assert_eq!(outcomes[2], Outcome::Failed(Problem::Letters(strange)));
    assert_eq!(letters(&world).get(&nobody).await, Err(DeadLetterError::NotFound(nobody)));
}

#[tokio::test]
async fn what_the_drain_tries_again_is_neither_replayed_nor_purged() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    write_letter(&world, "k", DeadLetterCause::Dependent, 1);
    assert_eq!(states(&world).await, [LetterState::Retrying]);
    let names = open(&world).await;
    assert_eq!(letters(&world).replay(&names).await, [Outcome::Failed(Problem::Retrying)]);
    assert_eq!(letters(&world).purge(&names).await, [Outcome::Failed(Problem::Retrying)]);
    assert_eq!(world.dirty().await, 1);
}

#[tokio::test]
async fn a_row_that_was_parked_before_its_table_was_altered_is_replayed_as_the_table_is_now() {
    let world = World::new().await;
    for (id, note) in [("fits", "abcd"), ("wide", "abcde")] {
        let row = payment(id, 1).merged_with(row(&[("note", Value::Text(note.into()))]));
        let change = Change::Put { row, precondition: None };
        world.write(change).await.unwrap();
        refuse(&world, id).await;
    }
    let text = ColumnType::Text { max_chars: Some(4), max_bytes: None };
    let mut columns = payment_columns();
    columns.retain(|column| column.name.as_str() != "note");
    columns.push(column("note", text, true, ColumnDefault::None));
    columns.push(column("added", ColumnType::Int { bits: 64 }, false, ColumnDefault::Constant(Value::Int64(7))));
    world.db.make_table("payments", Some(columns));
    world.core.directory.refresh(true).await.unwrap();
    let mut outcomes = replay(&world).await;
    outcomes.sort_by_key(|outcome| matches!(outcome, Outcome::Failed(_)));
    assert!(
        matches!(&outcomes[..], [Outcome::Replayed(_), Outcome::Failed(Problem::Write(WriteError::Invalid { .. }))]),
        "{outcomes:?}"
    );
    let added = async |id| match world.slot(id).await {
        Slot::Image { image: Image { content: Content::Row(row), .. }, .. } => row.get("added").cloned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((added("fits").await, added("wide").await), (Some(Value::Int64(7)), None), "as they are stored");
}

#[tokio::test]
async fn a_letter_is_shown_with_its_row_and_one_that_can_t_be_read_with_its_bytes() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    write_unreadable(&world, "k", 7);
    let names = open(&world).await;
    let shown = letters(&world).get(&names[0]).await.unwrap();
    let decoded = shown.decoded.unwrap();
    assert_eq!(
        (decoded.operation, decoded.key, decoded.row),
        (Operation::Put, key_row("k"), Some(full_payment("k", 1)))
    );
    assert!(Event::decode(shown.payload).is_ok());
    let shown = letters(&world).get(&names[1]).await.unwrap();
    assert_eq!((shown.decoded, &shown.key.as_bytes()[..], &shown.payload[..]), (None, &b"key"[..], &b"no event"[..]));
    assert_eq!((shown.letter.version, shown.letter.offset), (None, 7));
}

#[tokio::test]
async fn what_can_t_be_read_can_only_be_purged() {
    let world = World::new().await;
    for offset in [7, 7, 8] {
        write_unreadable(&world, "k", offset);
    }
    let names = open(&world).await;
    assert_eq!(names.len(), 2);
    assert_eq!(letters(&world).replay(&names[..1]).await, [Outcome::Failed(Problem::Unreadable)]);
    assert_eq!(letters(&world).purge(&names[..1]).await, [Outcome::Purged]);
    assert_eq!(open(&world).await, names[1..]);
    assert_eq!(states(&world).await, [LetterState::Purged, LetterState::Unresolved]);
    assert_eq!(letters(&world).purge(&names).await, [Outcome::Settled(LetterState::Purged), Outcome::Purged]);
}

#[tokio::test]
async fn a_purge_is_noted_before_the_record_is_removed() {
    let world = World::new().await;
    world.plant("k", 7);
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    let names = open(&world).await;
    for fate in [Fate::Refuse, Fate::Delay] {
        world.log.set_fate(fate);
        let outcomes = letters(&world).purge(&names).await;
        assert!(matches!(outcomes.as_slice(), [Outcome::Failed(Problem::NotNoted(_))]), "{outcomes:?}");
        assert_eq!((world.amount("k").await, states(&world).await), (Some(1), vec![LetterState::Unresolved]));
    }
    // A note of which nobody knew lands: nothing is removed, and whoever purges again completes it.
    world.log.land();
    world.log.set_fate(Fate::Append);
    assert_eq!(open(&world).await, names);
    assert_eq!(letters(&world).purge(&names).await, [Outcome::Purged]);
    assert_eq!((world.amount("k").await, states(&world).await), (Some(7), vec![LetterState::Purged]));
    assert_eq!(letters(&world).purge(&names).await, [Outcome::Settled(LetterState::Purged)]);
}

#[tokio::test]
async fn who_purges_what_was_written_meanwhile_removes_nothing() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    let names = open(&world).await;
    let (store, shard, record) = (world.store.clone(), world.shard("k"), world.record("k"));
    let Slot::Image { image, .. } = world.slot("k").await else { panic!() };
    // After the note, before the removal.
    let write = Write { record, precondition: Precondition::None, image, index: None };
    world.log.after_publish(move || {
        let written = store.memory.write(shard, Instant::now(), vec![write]).now_or_never().unwrap();
        assert_eq!(written.unwrap().len(), 1);
    });
    assert_eq!(letters(&world).purge(&names).await, [Outcome::Settled(LetterState::Superseded)]);
    assert_eq!((world.amount("k").await, world.dirty().await), (Some(1), 1));
}

#[tokio::test]
async fn nothing_is_said_of_letters_in_a_closed_shard() {
    let world = World::new().await;
    world.write(put("k", 1)).await.unwrap();
    refuse(&world, "k").await;
    let names = open(&world).await;
    world.store.memory.restart(hot_store::memory::Survives::Everything);
    assert!(matches!(try_list(&world, LetterFilter::default()).await, Err(DeadLetterError::Store(_))));
    let outcomes = letters(&world).replay(&names).await;
    assert!(matches!(outcomes.as_slice(), [Outcome::Failed(Problem::Letters(DeadLetterError::Store(_)))]));
    world.open_all().await;
    // With a new epoch.
    let outcomes = tokio::time::timeout(Duration::from_secs(90), letters(&world).replay(&names)).await.unwrap();
    assert!(matches!(outcomes.as_slice(), [Outcome::Replayed(_)]), "{outcomes:?}");
}
