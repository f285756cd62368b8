//! The database fails, in each of its ways.

use std::sync::atomic::Ordering;

use database::{Database as _, DatabaseRow, ErrorClass};
use model::{ColumnName, Content, Epoch, Event, EventBody, Image, Mutation, Row, Value, Version};

use crate::{
    db::id,
    world::{World, options, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_waited_for_and_loses_nothing() {
    let world = World::new().await;
    world.db.away.store(true, Ordering::SeqCst);
    let drain = world.start(options());
    for n in 0..50 {
        world.write(n, Some(n)).await;
    }
    world.db.away.store(false, Ordering::SeqCst);
    world.until_clean().await;
    world.db.away.store(true, Ordering::SeqCst);
    for n in 0..50 {
        world.write(n, Some(-n)).await;
    }
    let before = world.db.probes.load(Ordering::SeqCst);
    until("the second outage is met", || async { world.db.probes.load(Ordering::SeqCst) > before + 3 }).await;
    world.db.away.store(false, Ordering::SeqCst);
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_leaves_the_row_as_it_should_be() {
    let world = World::new().await;
    world.db.lose_next_answer.store(true, Ordering::SeqCst);
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    assert_eq!(world.db.attempts().len(), 2);
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_depends_on_another_is_tried_until_that_one_is_there() {
    let world = World::new().await;
    let bad = 7;
    world.db.poison.lock().unwrap().replace((id(bad), ErrorClass::Dependent));
    let mut offset_of_bad = 0;
    for n in 0..64 {
        let (_, offset) = world.write(n, Some(n)).await;
        if n == bad {
            offset_of_bad = offset;
        }
    }
    let drain = world.start(options());
    until("all others are there", || async {
        world.rows((0..64).filter(|n| *n != bad)).await.values().all(|row| *row != DatabaseRow::Absent)
    })
    .await;
    let tried_alone = || {
        let attempts = world.db.attempts();
        attempts.iter().filter(|a| a.changes.len() == 1 && a.changes[0].0 == id(bad)).count()
    };
    until("the bad one is tried again and again", || async { tried_alone() > 2 }).await;
    drain.stop().await;
    let shard = world.shard(&id(bad));
    let (committed, ends) = (world.committed().await, world.ends().await);
    for (at, committed) in committed.iter().enumerate() {
        let expected = if at == usize::from(shard.0) { offset_of_bad } else { ends[at] };
        assert_eq!(committed.map_or(0, |p| p.offset), expected, "partition {at}");
    }

    // Once what was in its way is gone it lands.
    let drain = world.start(options());
    let before = tried_alone();
    until("the bad one is met again", || async { tried_alone() > before }).await;
    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_version_takes_the_place_of_a_row_that_is_held() {
    let world = World::new().await;
    world.db.poison.lock().unwrap().replace((id(1), ErrorClass::Dependent));
    let (refused, _) = world.write(1, Some(1)).await;
    let drain = world.start(options());
    until("it is held", || async { world.db.attempts().len() > 1 }).await;
    let (version, _) = world.write(1, Some(2)).await;
    until("the newer one is tried", || async { world.db.was_tried(&id(1), version) }).await;
    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    let written: Vec<_> = world.db.attempts().into_iter().filter(|a| a.applied).flat_map(|a| a.changes).collect();
    assert!(written.iter().all(|(_, v)| *v != refused), "{written:?}");
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_altered_is_looked_at_again() {
    let world = World::new().await;
    world.write(1, Some(1)).await;
    let drain = world.start(options());
    world.until_clean().await;
    world.db.straight().run_script("ALTER TABLE payments RENAME TO elsewhere").await.unwrap();
    world.write(2, Some(2)).await;
    until("it fails", || async { world.db.attempts().iter().any(|a| !a.applied) }).await;
    world.db.straight().run_script("ALTER TABLE elsewhere RENAME TO payments").await.unwrap();
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_with_a_column_that_was_dropped_holds_no_other_and_lands_once_the_column_is_back() {
    let world = World::new().await;
    let (odd, version) = (7, Version::new(1_000).unwrap());
    let columns = world.row(odd, 1).iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>();
    let note = (ColumnName::new("note").unwrap(), Value::Int64(5));
    let row = Row::from_iter(columns.into_iter().chain([note]));
    let image = Image { content: Content::Row(row.clone()), ..world.image(odd, Some(1)) };
    let table = world.schema.table.clone();
    let mutation = Mutation { table: table.clone(), key: id(odd), version, image };
    let shard = world.shard(&id(odd));
    let event = Event { shard, epoch: Epoch(1), body: EventBody::Mutations(vec![mutation]) };
    let offset = world.append(shard, event.encode()).await;
    for n in (0..64).filter(|n| *n != odd) {
        world.write(n, Some(n)).await;
    }
    let drain = world.start(options());
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    until("the odd one is tried alone, again and again", || async {
        world.db.attempts().iter().filter(|a| a.changes.len() == 1 && a.changes[0].0 == id(odd)).count() > 2
    })
    .await;
    assert!(drain.told.lock().unwrap().noted.get(&shard.0).is_none_or(|progress| progress.offset <= offset));

    world.db.straight().run_script("ALTER TABLE payments ADD COLUMN note BIGINT").await.unwrap();
    let schema = world.db.straight().introspect(&table.database, &table.table).await.unwrap();
    until("it is there", || async {
        let rows = world.db.straight().read(&schema, &[id(odd)]).await.unwrap();
        rows == [DatabaseRow::Present { version, row: row.clone() }]
    })
    .await;
    drain.stop().await;
    world.assert_all_committed().await;
}
