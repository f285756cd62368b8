//! What happens on ordinary days.

use std::sync::atomic::Ordering;

use database::{Batch, Database as _, DatabaseRow, Owner, ShardClaim};
use hot_store::{HotStore as _, Slot, Stage, memory::Survives};
use model::{Content, Epoch, Event, EventBody, Request, RequestDigest, RequestId, RequestNote, Version};

use crate::{
    db::id,
    world::{World, options, partition, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_reaches_the_database_and_is_committed_once_it_is_clean() {
    let world = World::new().await;
    let drain = world.start(options());
    for n in 0..100 {
        world.write(n, Some(n)).await;
    }
    for n in 0..100 {
        match n % 3 {
            0 => world.write(n, Some(-n)).await,
            1 => world.write(n, None).await,
            _ => continue,
        };
    }
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_waits_only_the_newest_version_of_each_key_is_written() {
    let world = World::new().await;
    world.db.away.store(true, Ordering::SeqCst);
    for round in 0..40 {
        for n in 0..5 {
            world.write(n, Some(round)).await;
        }
    }
    // The assignment needs the database once.
    world.db.away.store(false, Ordering::SeqCst);
    world.db.poison.lock().unwrap().replace((id(0), database::ErrorClass::Transient));
    let mut one_lane = options();
    one_lane.lanes = 1;
    let drain = world.start(one_lane);
    let newest = world.written.lock().unwrap().clone();
    until("all of it is gathered", || async {
        newest.iter().all(|(n, (version, _))| world.db.was_tried(&id(*n), *version))
    })
    .await;
    world.db.poison.lock().unwrap().take();
    world.until_clean().await;
    assert_eq!(world.db.rows_applied(), 5, "of 200");
    world.assert_rows_are_as_written().await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_changes_nothing_and_the_hot_store_learns_the_newer_row() {
    let world = World::new().await;
    let (row, gone) = (1, 2);
    let (version, epoch) = world.store(row, Some(10)).await;
    let newer = Version::new(version.get() + 1_000_000_000).unwrap();
    let changes = [world.change(row, newer, Some(99)), world.change(gone, newer, None)];
    let owner = Owner("somebody".into());
    for change in &changes {
        let claim = ShardClaim { table: world.schema.table.table.clone(), shard: change.shard };
        world.db.straight().take_ownership(&[claim], &owner).await.unwrap();
        let owners = vec![(change.shard, owner.clone())];
        let batch = Batch { schema: &world.schema, owners, changes: std::slice::from_ref(change) };
        world.db.straight().apply(batch).await.unwrap();
    }
    world.publish(row, version, epoch, Some(10)).await;
    world.write(gone, Some(20)).await;

    let drain = world.start(options());
    world.until_clean().await;
    let rows = world.rows([row, gone]).await;
    assert_eq!(rows[&row], DatabaseRow::Present { version: newer, row: world.row(row, 99) });
    assert_eq!(rows[&gone], DatabaseRow::Deleted { version: newer });
    let Slot::Image { version, image, stage } = world.slot(row).await else { panic!("it is still hot") };
    assert_eq!((version, image.content, stage), (newer, Content::Row(world.row(row, 99)), Stage::Clean));
    let Slot::Image { version, image, stage } = world.slot(gone).await else { panic!("it is still hot") };
    assert_eq!((version, image.content, stage), (newer, Content::Tombstone, Stage::Clean));
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_noted_are_passed_and_committed() {
    let world = World::new().await;
    let shard = world.shard(&id(1));
    let request = Request { id: RequestId::new("r").unwrap(), digest: RequestDigest::of(b"asked for") };
    let note =
        RequestNote { table: world.schema.table.clone(), key: Some(id(1)), request, version: Version::new(5).unwrap() };
    let noted = |epoch| Event { shard, epoch, body: EventBody::Requests(vec![note.clone()]) }.encode();
    let drain = world.start(options());
    world.append(shard, noted(Epoch(0))).await;
    world.append(shard, noted(Epoch(1))).await;
    let (_, offset) = world.write(1, Some(1)).await;
    world.append(shard, noted(Epoch(1))).await;
    world.until_clean().await;
    world.assert_rows_are_as_written().await;
    until("the last one is done", || async {
        drain.told.lock().unwrap().noted.get(&shard.0).is_some_and(|progress| progress.offset == offset + 2)
    })
    .await;
    drain.stop().await;
    world.assert_all_committed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_an_epoch_that_is_over_are_void_and_the_epoch_is_committed_with_the_offset() {
    let world = World::new().await;
    let version = |n: u64| Version::new(n).unwrap();
    let shard = world.shard(&id(1));
    let others: Vec<i64> = (2..100).filter(|n| world.shard(&id(*n)) == shard).take(3).collect();
    let [before, void, after] = others[..] else { panic!() };
    world.publish(before, version(5), Epoch(1), Some(1)).await;
    world.fence(shard, Epoch(2)).await;
    world.publish(void, version(6), Epoch(1), Some(1)).await;
    world.fence(shard, Epoch(1)).await;
    world.publish(after, version(7), Epoch(2), Some(1)).await;

    let drain = world.start(options());
    until("the last one is there", || async { world.rows([after]).await[&after] != DatabaseRow::Absent }).await;
    drain.stop().await;
    let rows = world.rows([before, void, after]).await;
    assert_eq!(rows[&before], DatabaseRow::Present { version: version(5), row: world.row(before, 1) });
    assert_eq!(rows[&void], DatabaseRow::Absent);
    world.assert_all_committed().await;
    assert_eq!(world.committed().await[usize::from(shard.0)].unwrap().epoch, Epoch(2));

    // The next owner begins behind the fence, and knows what is void by what was committed.
    world.publish(void, version(8), Epoch(1), Some(1)).await;
    world.publish(after, version(9), Epoch(2), Some(2)).await;
    let drain = world.start(options());
    until("the newer one is there", || async {
        world.rows([after]).await[&after] == DatabaseRow::Present { version: version(9), row: world.row(after, 2) }
    })
    .await;
    drain.stop().await;
    assert_eq!(world.rows([void]).await[&void], DatabaseRow::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_committed_that_the_hot_store_has_not_accepted_as_clean() {
    let world = World::new().await;
    for n in 0..20 {
        world.write(n, Some(n)).await;
    }
    // Every shard is closed until it is opened again.
    world.hot.restart(Survives::Everything);
    let drain = world.start(options());
    until("all rows are written", || async { world.db.rows_applied() >= 20 }).await;
    drain.stop().await;
    assert!(world.committed().await.iter().all(Option::is_none), "{:?}", world.committed().await);

    let drain = world.start(options());
    until("all rows were found written", || async { world.db.rows_applied() >= 40 }).await;
    world.open(Epoch(2)).await;
    world.until_clean().await;
    drain.stop().await;
    world.assert_all_committed().await;
    world.assert_rows_are_as_written().await;
    assert!(world.hot.header(world.shard(&id(1))).await.unwrap().open);
}

/// Of a log that has lost a record: the rest goes on, the record stays dirty, and is written once it is produced again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_lost_holds_nobody_up_and_stays_dirty_until_it_comes_again() {
    let world = World::new().await;
    for n in 0..20 {
        world.write(n, Some(n)).await;
    }
    let drain = world.start(options());
    let (shard, (lost, epoch)) = (world.shard(&id(7)), world.store(7, Some(70)).await);
    let offset = world.ends().await[usize::from(shard.0)];
    drain.told.lock().unwrap().lost = Some((partition(shard), offset));
    assert_eq!(world.publish(7, lost, epoch, Some(70)).await, offset);
    for n in 20..60 {
        world.write(n, Some(n)).await;
    }
    until("all others are written", || async { world.dirty().await == 1 }).await;
    until("all that is there is done", || async {
        let ends = world.ends().await;
        let told = drain.told.lock().unwrap();
        ends.iter().zip(0..).all(|(end, partition)| {
            *end == 0 || told.noted.get(&partition).is_some_and(|progress| progress.offset == *end)
        })
    })
    .await;
    assert!(drain.told.lock().unwrap().lost.is_none(), "nothing was lost");
    assert_eq!(world.dirty().await, 1, "nobody takes it for written");
    // As the relay does.
    world.publish(7, lost, epoch, Some(70)).await;
    world.until_clean().await;
    drain.stop().await;
    world.assert_rows_are_as_written().await;
    world.assert_all_committed().await;
}
