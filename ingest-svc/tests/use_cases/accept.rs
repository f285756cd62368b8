//! Preconditions on hot and cold records, validation before anything is touched, updates.

use std::{collections::HashMap, time::Duration};

use database::{CreateCheck, DatabaseRow};
use hot_store::{HotStore as _, Precondition, Write};
use ingest_svc::{
    IngestOptions, Part, StoreError,
    accept::{Acknowledge, Change, Require, WriteError, WriteRequest},
    tables::{TableOptions, TableOverride},
};
use model::{Content, Fingerprint, Image, Operation, RequestId, Value, Version, ViolationReason};

use crate::world::*;

const EXISTS: Require = Require::Exists(true);
const ABSENT: Require = Require::Exists(false);

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn not_found() -> WriteResult {
    Err(WriteError::NotFound(table("payments")))
}

fn exists() -> WriteResult {
    Err(WriteError::AlreadyExists(table("payments")))
}

fn aborted() -> WriteResult {
    Err(WriteError::Aborted(table("payments")))
}

#[tokio::test]
async fn a_create_wants_no_such_record_hot_or_cold() {
    let world = World::new().await;
    assert_eq!(world.write(create("new", 1)).await.unwrap().reached, QUEUED);
    assert_eq!(world.write(create("new", 2)).await, exists());
    world.plant("cold", 1);
    assert_eq!(world.write(create("cold", 2)).await, exists());
    world.write(delete("new")).await.unwrap();
    world.write(create("new", 3)).await.unwrap();
    assert_eq!((world.amount("new").await, world.amount("cold").await), (Some(3), Some(1)));
    let operations: Vec<_> = world.logged("new").into_iter().map(|(_, _, m)| m.image.operation).collect();
    assert_eq!(operations, [Operation::Create, Operation::Delete, Operation::Create]);
}

#[tokio::test]
async fn a_put_can_want_that_the_record_is_there_or_is_not() {
    let world = World::new().await;
    world.plant("cold", 1);
    assert_eq!(world.write(put_if("none", 1, EXISTS)).await, not_found());
    assert_eq!(world.write(put_if("cold", 2, ABSENT)).await, exists());
    world.write(put_if("cold", 2, EXISTS)).await.unwrap();
    world.write(put_if("none", 3, ABSENT)).await.unwrap();
    assert_eq!(world.write(put_if("none", 4, ABSENT)).await, exists());
    assert_eq!((world.amount("none").await, world.amount("cold").await), (Some(3), Some(2)));
}

#[tokio::test]
async fn a_delete_leaves_a_tombstone_and_can_want_that_the_record_is_there() {
    let world = World::new().await;
    world.plant("cold", 1);
    world.plant("blind", 1);
    assert_eq!(world.write(delete_if("none", EXISTS)).await, not_found());
    world.write(delete_if("cold", EXISTS)).await.unwrap();
    assert_eq!(world.write(delete_if("cold", EXISTS)).await, not_found());
    world.db.set_away(true);
    // Blind: nobody needs to know whether it is there.
    world.write(delete("blind")).await.unwrap();
    world.write(put("other", 1)).await.unwrap();
    world.db.set_away(false);
    assert_eq!((world.amount("cold").await, world.amount("blind").await), (None, None));
}

#[tokio::test]
async fn an_etag_names_one_version_of_a_record() {
    let world = World::new().await;
    let first = etag(world.write(put("a", 1)).await);
    let second = etag(world.write(put_if("a", 2, Require::Etag(first))).await);
    assert_ne!(first, second);
    assert_eq!(world.write(put_if("a", 3, Require::Etag(first))).await, aborted());
    assert_eq!(world.write(update_if("a", &[("amount", Value::Int64(3))], Require::Etag(first))).await, aborted());
    assert_eq!(world.write(delete_if("a", Require::Etag(first))).await, aborted());
    assert_eq!(world.get("a").await.unwrap().etag, Some(second));
    world.write(update_if("a", &[("amount", Value::Int64(4))], Require::Etag(second))).await.unwrap();
    let last = world.get("a").await.unwrap();
    assert_eq!(last.row, full_payment("a", 4));
    world.write(delete_if("a", Require::Etag(last.etag.unwrap()))).await.unwrap();
    assert_eq!(world.write(put_if("a", 5, Require::Etag(last.etag.unwrap()))).await, aborted());
    assert_eq!(
        world.write(update_if("a", &[("note", Value::Null)], Require::Etag(last.etag.unwrap()))).await,
        not_found()
    );
}

#[tokio::test]
async fn the_etag_of_a_row_that_never_came_through_us_works_too() {
    let world = World::new().await;
    world.plant("cold", 1);
    let found = world.get("cold").await.unwrap();
    assert_eq!((found.row, found.etag.unwrap().version), (full_payment("cold", 1), Version::ZERO));
    world.write(put_if("cold", 2, Require::Etag(found.etag.unwrap()))).await.unwrap();
    assert_eq!(world.write(put_if("cold", 3, Require::Etag(found.etag.unwrap()))).await, aborted());
}

#[tokio::test]
async fn an_update_changes_what_it_names_hot_or_cold() {
    let world = World::new().await;
    world.plant("cold", 1);
    for id in ["none", "gone"] {
        if id == "gone" {
            world.write(put(id, 1)).await.unwrap();
            world.write(delete(id)).await.unwrap();
        }
        assert_eq!(world.write(update(id, &[("note", text("x"))])).await, not_found());
    }
    world.write(update("cold", &[("note", text("x"))])).await.unwrap();
    world.write(update("cold", &[("status", text("paid"))])).await.unwrap();
    let expected = full_payment("cold", 1).merged_with(row(&[("note", text("x")), ("status", text("paid"))]));
    assert_eq!(world.get("cold").await.unwrap().row, expected);
    // The event carries the whole row.
    let (_, _, mutation) = world.logged("cold").pop().unwrap();
    assert_eq!(mutation.image.content, Content::Row(expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_at_the_same_time_do_not_undo_each_other() {
    let world = World::with(IngestOptions { write_attempts: 100, ..quick_options() }, u64::MAX / 1000).await;
    world.plant("a", 1);
    let columns = [("amount", Value::Int64(7)), ("status", text("paid")), ("note", text("x"))];
    let updates = columns.iter().map(|column| world.write(update("a", std::slice::from_ref(column))));
    for result in futures::future::join_all(updates).await {
        result.unwrap();
    }
    assert_eq!(world.get("a").await.unwrap().row, row(&columns).merged_with(key_row("a")));
}

/// Somebody who writes `id` before each write of others.
fn rival(world: &World, id: &str) {
    let (shard, record) = (world.shard(id), world.record(id));
    world.store.set_rival(move || {
        let content = Content::Row(full_payment("a", 99));
        let image =
            Image { content, operation: Operation::Put, fingerprint: Fingerprint(0), request: None, since: None };
        (shard, Write { record: record.clone(), precondition: Precondition::None, image, index: None })
    });
}

#[tokio::test]
async fn an_update_that_always_loses_its_race_gives_up() {
    let world = World::with(IngestOptions { write_attempts: 3, ..quick_options() }, u64::MAX / 1000).await;
    let first = etag(world.write(put("a", 1)).await);
    rival(&world, "a");
    let note = [("note", text("x"))];
    let conflict = WriteError::Conflict { table: table("payments"), attempts: 3 };
    assert_eq!(world.write(update("a", &note)).await, Err(conflict));
    assert_eq!(world.write(update_if("a", &note, Require::Etag(first))).await, aborted());
    assert_eq!(world.get("a").await.unwrap().row, full_payment("a", 99));
}

#[tokio::test]
async fn a_write_that_the_hot_store_did_not_answer_has_an_unknown_outcome_and_none_after_it_is_attempted() {
    let world = World::new().await;
    world.store.lose_answers(true);
    let changes = vec![request(put("a", 1)), request(update("a", &[("amount", Value::Int64(2))]))];
    let results = world.writer.write_batch(changes, Acknowledge::default()).await;
    assert!(matches!(results[0], Err(WriteError::OutcomeUnknown(_))), "{results:?}");
    assert!(matches!(results[1], Err(WriteError::Store(StoreError::HotStoreDown(_)))), "{results:?}");
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn a_create_that_is_checked_in_the_hot_store_reads_no_database_and_says_so_in_its_event() {
    let own = TableOverride { create_check: CreateCheck::HotStore, ..TableOverride::default() };
    let tables = TableOptions { per_table: HashMap::from([(table("payments"), own)]), ..TableOptions::default() };
    let world = World::with(IngestOptions { tables, ..quick_options() }, u64::MAX / 1000).await;
    world.db.set_away(true);
    let created = etag(world.write(create("a", 1)).await);
    assert_eq!(world.write(create("a", 2)).await, exists());
    world.write(put("a", 3)).await.unwrap();
    let since: Vec<_> = world.logged("a").into_iter().map(|(_, _, m)| m.image.since).collect();
    assert_eq!(since, [Some(created.version), Some(created.version)]);
}

#[tokio::test]
async fn what_the_table_would_refuse_touches_nothing() {
    let world = World::new().await;
    let unknown = payment("a", 1).merged_with(row(&[("x", Value::Null)]));
    let refused = [
        (Change::Create { row: unknown.clone() }, Part::Row, "x", ViolationReason::UnknownColumn),
        (Change::Put { row: key_row("a"), precondition: None }, Part::Row, "amount", ViolationReason::MissingColumn),
        (update("a", &[("amount", text("much"))]), Part::Changes, "amount", ViolationReason::WrongType),
        (update("a", &[("id", text("b"))]), Part::Changes, "id", ViolationReason::KeyChanged),
        (Change::Delete { key: row(&[]), precondition: None }, Part::Key, "id", ViolationReason::MissingKey),
        (put(&"k".repeat(1500), 1), Part::Row, "id", ViolationReason::OutOfRange),
    ];
    for (change, expected_part, column, reason) in refused {
        match world.write(change.clone()).await {
            Err(WriteError::Invalid { part, violations }) => {
                assert_eq!(part, expected_part, "{change:?}");
                let found: Vec<_> = violations.iter().map(|v| (v.column.as_str(), v.reason)).collect();
                assert_eq!(found, [(column, reason)], "{change:?}");
            }
            other => panic!("{change:?} gave {other:?}"),
        }
    }
    for contradiction in [delete_if("a", ABSENT), update_if("a", &[("amount", Value::Int64(1))], ABSENT)] {
        assert!(matches!(world.write(contradiction).await, Err(WriteError::Unsupported(_))));
    }
    let unknown = WriteRequest { table: table("orders"), change: put("a", 1), request_id: None };
    let refused = world.writer.write(unknown, Acknowledge::default()).await;
    assert_eq!(refused, Err(WriteError::TableNotEnabled(table("orders"))));
    assert_untouched(&world).await;
}

async fn assert_untouched(world: &World) {
    for shard in world.core.shards.all() {
        let header = world.store.header(shard).await.unwrap();
        assert_eq!((header.clock, header.dirty), (Version::ZERO, 0), "shard {shard} was touched");
    }
}

#[tokio::test]
async fn what_the_log_could_never_take_is_refused_before_it_is_stored() {
    let world = World::new().await;
    world.log.set_max_payload(600);
    let long = |n: usize| [("note", text(&"n".repeat(n)))];
    let large = Change::Put { row: payment("a", 1).merged_with(row(&long(600))), precondition: None };
    assert!(matches!(world.write(large).await, Err(WriteError::TooLarge { max: 600, .. })));
    assert_untouched(&world).await;
    world.write(put("a", 1)).await.unwrap();
    // An update is as large as the row that it makes.
    world.write(update("a", &long(200))).await.unwrap();
    let grown = world.write(update("a", &[("status", text(&"s".repeat(300)))])).await;
    assert!(matches!(grown, Err(WriteError::TooLarge { .. })), "{grown:?}");
    assert_eq!(world.logged("a").len(), 2);
}

#[tokio::test]
async fn a_cold_precondition_needs_the_database_a_hot_one_does_not() {
    let world = World::new().await;
    world.plant("cold", 1);
    world.write(put("hot", 1)).await.unwrap();
    world.db.set_away(true);
    for change in [create("cold", 2), update("cold", &[("note", Value::Null)]), delete_if("cold", EXISTS)] {
        let refused = world.write(change).await;
        assert!(matches!(refused, Err(WriteError::Store(StoreError::DatabaseDown(_)))), "{refused:?}");
    }
    world.write(update("hot", &[("note", text("x"))])).await.unwrap();
    assert_eq!(world.write(create("hot", 2)).await, exists());
}

#[tokio::test]
async fn a_request_id_travels_in_the_event() {
    let world = World::new().await;
    let id = RequestId::new("r-1").unwrap();
    let request = WriteRequest { request_id: Some(id.clone()), ..request(put("a", 1)) };
    world.writer.write(request, Acknowledge::default()).await.unwrap();
    assert_eq!(world.logged("a")[0].2.image.request.as_ref().map(|request| &request.id), Some(&id));
}

#[tokio::test]
async fn a_closed_shard_and_a_full_store_refuse() {
    let world = World::closed(quick_options(), 3000).await;
    world.tables.enable(&table("payments")).await.unwrap();
    let closed = world.write(put("a", 1)).await;
    assert_eq!(closed, Err(WriteError::Store(StoreError::Closed { shard: world.shard("a") })));
    world.open_all().await;
    let mut results = Vec::new();
    for n in 0..100 {
        results.push(world.write(put(&format!("k{n}"), n)).await);
    }
    assert!(results[0].is_ok());
    assert_eq!(*results.last().unwrap(), Err(WriteError::Store(StoreError::HotStoreFull)));
    let accepted = results.iter().filter(|r| r.is_ok()).count();
    assert_eq!(world.dirty().await, accepted as u64);
}

#[tokio::test]
async fn a_tombstone_of_the_database_counts_as_absent() {
    let world = World::new().await;
    world.db.set_row("payments", &key("a"), DatabaseRow::Deleted { version: Version::new(5).unwrap() });
    assert_eq!(world.write(update("a", &[("note", Value::Null)])).await, not_found());
    world.write(create("a", 1)).await.unwrap();
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn cold_reads_are_bounded_and_waited_for() {
    let options = IngestOptions { max_cold_reads: 1, lease_ttl: Duration::from_millis(50), ..quick_options() };
    let world = World::with(options, u64::MAX / 1000).await;
    world.plant("a", 1);
    world.plant("b", 1);
    world.db.hold_reads();
    let refused = tokio::select! {
        found = world.get("a") => panic!("the read was not held: {found:?}"),
        refused = async {
            world.db.held_read().await;
            world.write(create("b", 2)).await
        } => refused,
    };
    assert_eq!(refused, Err(WriteError::Store(StoreError::ColdReadsBusy)));
    // The reader has gone, and with it its place.
    world.db.release_reads();
    assert_eq!(world.write(create("b", 2)).await, exists());
}
