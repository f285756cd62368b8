//! Many reads at once, reads of the database itself, what is forgotten, and misses that come together.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use database::DatabaseRow;
use hot_store::{Eviction, HotStore as _, LeaseOutcome, Slot, Stage, memory::Survives};
use ingest_svc::{
    IngestOptions, Part, StoreError,
    accept::WriteError,
    read::{Consistency, Found, Get, ReadError, Reader},
};
use model::{Value, Version};
use tokio::time::Instant;

use crate::world::*;

const PLENTY: usize = 4 << 20;

fn newest(id: &str) -> Get {
    Get { table: table("payments"), key: key_row(id), columns: Vec::new(), consistency: Consistency::Newest }
}

fn committed(id: &str) -> Get {
    Get { consistency: Consistency::Database, ..newest(id) }
}

fn amount_of(result: &Result<Found, ReadError>) -> Option<i64> {
    match result {
        Ok(found) => match found.row.get("amount") {
            Some(Value::Int64(amount)) => Some(*amount),
            other => panic!("{other:?} is no amount"),
        },
        Err(ReadError::NotFound(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

impl World {
    async fn amounts(&self, gets: Vec<Get>) -> Vec<Option<i64>> {
        self.reader.read_many(gets, PLENTY).await.iter().map(amount_of).collect()
    }

    async fn committed(&self, id: &str) -> Option<i64> {
        amount_of(&self.reader.read(committed(id)).await)
    }

    async fn evict(&self, id: &str) -> Eviction {
        self.reader.evict(&table("payments"), &[key_row(id)]).await.unwrap().remove(0).unwrap()
    }

    pub fn reads(&self) -> usize {
        self.db.reads.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_batch_answers_item_by_item_in_order_and_reads_each_record_once() {
    let world = World::new().await;
    world.tables.enable(&table("payments")).await.unwrap();
    let written = etag(world.write(put("hot", 1)).await);
    world.plant("cold", 2);
    let gets = vec![
        newest("cold"),
        newest("none"),
        newest("hot"),
        Get { columns: vec!["amount".into()], ..newest("cold") },
        Get { columns: vec!["nope".into()], ..newest("hot") },
        Get { table: table("orders"), ..newest("hot") },
        Get { key: payment("hot", 1), ..newest("hot") },
        newest("hot"),
    ];
    let results = world.reader.read_many(gets, PLENTY).await;
    assert_eq!(results[0].as_ref().unwrap().row, full_payment("cold", 2));
    assert_eq!(results[1], Err(ReadError::NotFound(table("payments"))));
    assert_eq!(results[2], Ok(Found { row: full_payment("hot", 1), etag: Some(written) }));
    assert_eq!(results[3].as_ref().unwrap().row, row(&[("amount", Value::Int64(2))]));
    assert!(matches!(results[4], Err(ReadError::Invalid { part: Part::Columns, .. })));
    assert_eq!(results[5], Err(ReadError::TableNotEnabled(table("orders"))));
    assert!(matches!(results[6], Err(ReadError::Invalid { part: Part::Key, .. })));
    assert_eq!(results[7], results[2]);
    assert_eq!(world.reads(), 1, "two cold records of one table are one statement");
    assert!(world.reader.read_many(Vec::new(), PLENTY).await.is_empty());
}

#[tokio::test]
async fn cold_records_are_read_by_the_chunk_and_remembered() {
    let world = World::new().await;
    let ids: Vec<String> = (0..300).map(|n| format!("k{n}")).collect();
    for (n, id) in (0..).zip(&ids) {
        if n % 3 > 0 {
            world.plant(id, n);
        }
    }
    let expected: Vec<Option<i64>> = (0..300).map(|n| (n % 3 > 0).then_some(n)).collect();
    for _ in 0..2 {
        assert_eq!(world.amounts(ids.iter().map(|id| newest(id)).collect()).await, expected);
        assert_eq!(world.reads(), 5, "300 records by 64, and none for the second time");
    }
}

#[tokio::test]
async fn one_row_that_can_t_be_read_fails_nobody_else() {
    let world = World::new().await;
    for (id, amount) in [("a", 1), ("b", 2), ("c", 3)] {
        world.plant(id, amount);
    }
    world.db.spoil(&key("b"), "note");
    let results = world.reader.read_many(vec![newest("a"), newest("b"), newest("c")], PLENTY).await;
    assert_eq!((amount_of(&results[0]), amount_of(&results[2])), (Some(1), Some(3)));
    assert!(matches!(results[1], Err(ReadError::Store(StoreError::DatabaseUnfit(_)))), "{:?}", results[1]);
}

#[tokio::test]
async fn one_value_of_the_hot_store_that_can_t_be_read_fails_nobody_else() {
    let world = World::new().await;
    let ids: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    for (n, id) in (0..).zip(&ids) {
        if n % 4 == 0 {
            world.plant(id, n);
        } else {
            world.write(put(id, n)).await.unwrap();
        }
    }
    world.store.spoil(&world.record("k5"));
    let results = world.reader.read_many(ids.iter().map(|id| newest(id)).collect(), PLENTY).await;
    for (n, result) in (0..).zip(results) {
        if n == 5 {
            assert!(matches!(result, Err(ReadError::Store(StoreError::Corrupt { .. }))), "{result:?}");
        } else {
            assert_eq!(amount_of(&result), Some(n));
        }
    }
}

#[tokio::test]
async fn a_record_that_is_asked_for_many_times_takes_its_room_each_time() {
    let world = World::new().await;
    let long = row(&[("note", Value::Text("x".repeat(1000)))]);
    let row = payment("a", 1).merged_with(long);
    world.write(ingest_svc::accept::Change::Put { row, precondition: None }).await.unwrap();
    world.write(put("b", 2)).await.unwrap();
    let amount = || Get { columns: vec!["amount".into()], ..newest("a") };
    let mut gets = vec![newest("a"); 100];
    gets.extend([newest("b"), amount(), amount()]);
    let results = world.reader.read_many(gets, 10_000).await;
    let answered = results[..100].iter().take_while(|result| result.is_ok()).count();
    assert!((5..=10).contains(&answered), "{answered}");
    assert!(results[answered..100].iter().all(|result| *result == Err(ReadError::NoRoom)));
    // What it takes is what is chosen of it, and what is small still fits.
    assert!(results[100..].iter().all(Result::is_ok), "{:?}", &results[100..]);
    // The first one comes in any case.
    let results = world.reader.read_many(vec![newest("a"), newest("a")], 10).await;
    assert_eq!((results[0].is_ok(), &results[1]), (true, &Err(ReadError::NoRoom)));
}

#[tokio::test]
async fn what_finds_no_room_is_told_so_and_comes_when_it_is_asked_for_again() {
    let world = World::new().await;
    let long = |id: &str| {
        row(&[("id", Value::Text(id.into())), ("amount", Value::Int64(1)), ("note", Value::Text("x".repeat(1000)))])
    };
    let ids: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        let row = full_payment(id, 1).merged_with(long(id));
        if n % 2 == 0 {
            world.db.set_row("payments", &key(id), DatabaseRow::Present { version: Version::ZERO, row });
        } else {
            world.write(ingest_svc::accept::Change::Put { row: long(id), precondition: None }).await.unwrap();
        }
    }
    let mut rest: Vec<Get> = ids.iter().map(|id| newest(id)).collect();
    let mut rounds = 0;
    while !rest.is_empty() {
        let results = world.reader.read_many(rest.clone(), 20_000).await;
        let answered = results.iter().filter(|result| result.is_ok()).count();
        assert!(answered > 0 && results.iter().all(|r| matches!(r, Ok(_) | Err(ReadError::NoRoom))), "{results:?}");
        assert!(answered < 200);
        let mut results = results.into_iter();
        rest.retain(|_| results.next().unwrap().is_err());
        rounds += 1;
    }
    assert!(rounds > 2, "{rounds}");
}

#[tokio::test]
async fn a_shard_that_is_closed_fails_its_own_items_only() {
    let world = World::new().await;
    let ids: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    for id in &ids {
        world.write(put(id, 1)).await.unwrap();
    }
    world.store.memory.restart(Survives::Everything);
    let open = world.shard("k0");
    world.open(open).await.unwrap();
    let results = world.reader.read_many(ids.iter().map(|id| newest(id)).collect(), PLENTY).await;
    for (id, result) in ids.iter().zip(results) {
        match world.shard(id) {
            shard if shard == open => assert_eq!(amount_of(&result), Some(1)),
            shard => assert_eq!(result, Err(ReadError::Store(StoreError::Closed { shard }))),
        }
    }
}

/// A thousand misses over two replicas, of a row that is there and of one that is not.
#[tokio::test]
async fn a_thousand_misses_over_two_replicas_make_one_read_of_the_database() {
    for (planted, expected) in [(true, Some(1)), (false, None)] {
        let world =
            World::with(IngestOptions { lease_ttl: Duration::from_secs(60), ..quick_options() }, PLENTY as u64).await;
        if planted {
            world.plant("a", 1);
        }
        let other = replica(&world, 4);
        other.directory.refresh(true).await.unwrap();
        let readers = [world.reader.clone(), Reader::new(other)];
        world.db.hold_reads();
        let reads: Vec<_> = (0..1000)
            .map(|n| {
                let reader = readers[n % 2].clone();
                tokio::spawn(async move {
                    let gets = if n % 5 == 0 { vec![newest("a"), newest("a")] } else { vec![newest("a")] };
                    reader.read_many(gets, PLENTY).await.pop().unwrap()
                })
            })
            .collect();
        world.db.held_read().await;
        world.db.release_reads();
        for read in reads {
            assert_eq!(amount_of(&read.await.unwrap()), expected);
        }
        assert_eq!(world.reads(), 1);
        // And once more, one after the other.
        for n in 0..1000 {
            assert_eq!(amount_of(&readers[n % 2].read(newest("a")).await), expected);
        }
        assert_eq!(world.reads(), 1);
    }
}

#[tokio::test]
async fn a_create_after_a_remembered_absence_is_seen_at_once() {
    let world = World::new().await;
    assert_eq!(world.amount("a").await, None);
    assert_eq!(world.slot("a").await, Slot::Absent);
    world.write(create("a", 1)).await.unwrap();
    assert_eq!(world.amounts(vec![newest("a")]).await, [Some(1)]);
    assert_eq!(world.reads(), 1, "the create knew from the absence that there is none");
}

#[tokio::test]
async fn a_row_of_somebody_else_appears_when_the_absence_is_forgotten_or_evicted() {
    let options = IngestOptions { absent_ttl: Duration::from_millis(50), ..quick_options() };
    let world = World::with(options, PLENTY as u64).await;
    // One that was never there, and one that was deleted through us, which the database's ledger remembers.
    world.write(put("deleted", 1)).await.unwrap();
    world.write(delete("deleted")).await.unwrap();
    world.drain().await;
    world.evict("deleted").await;
    for id in ["a", "deleted"] {
        assert_eq!(world.amount(id).await, None);
        world.plant(id, 1);
        let deadline = Instant::now() + Duration::from_secs(90);
        while world.amount(id).await.is_none() {
            assert!(Instant::now() < deadline, "the absence of {id} is never forgotten");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    let world =
        World::with(IngestOptions { absent_ttl: Duration::from_secs(600), ..quick_options() }, PLENTY as u64).await;
    assert_eq!(world.amount("a").await, None);
    world.plant("a", 1);
    assert_eq!(world.amount("a").await, None, "nobody has told us");
    assert_eq!(world.evict("a").await, Eviction::Evicted);
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn what_others_change_is_seen_after_an_eviction_and_what_we_wrote_stays() {
    let world = World::new().await;
    world.plant("a", 1);
    assert_eq!(world.amount("a").await, Some(1));
    world.plant("a", 2);
    assert_eq!(world.amount("a").await, Some(1), "it stays hot");
    assert_eq!(world.committed("a").await, Some(2));
    assert_eq!(world.evict("a").await, Eviction::Evicted);
    assert_eq!(world.evict("a").await, Eviction::NotHeld);
    assert_eq!(world.amount("a").await, Some(2));

    world.write(put("b", 1)).await.unwrap();
    world.plant("b", 7);
    assert_eq!(world.evict("b").await, Eviction::Undrained);
    assert_eq!(world.amount("b").await, Some(1));
    world.drain().await;
    assert_eq!(world.evict("b").await, Eviction::Evicted);
    assert_eq!(world.amount("b").await, Some(1));

    let wrong = [key_row("a"), payment("a", 1), row(&[])];
    let results = world.reader.evict(&table("payments"), &wrong).await.unwrap();
    assert!(matches!(results[0], Ok(Eviction::Evicted)));
    assert!(results[1..].iter().all(|r| matches!(r, Err(ReadError::Invalid { part: Part::Key, .. }))), "{results:?}");
    let other = world.reader.evict(&table("orders"), &wrong).await;
    assert_eq!(other, Err(ReadError::TableNotEnabled(table("orders"))));
}

/// Whoever asks after the eviction is not told what was read before it, however many wait for that.
#[tokio::test]
async fn an_eviction_also_ends_reads_that_are_under_way() {
    let world = Arc::new(
        World::with(IngestOptions { lease_ttl: Duration::from_secs(60), ..quick_options() }, PLENTY as u64).await,
    );
    world.plant("a", 1);
    world.db.hold_reads();
    let read = |world: Arc<World>| tokio::spawn(async move { world.amount("a").await });
    let early = read(world.clone());
    world.db.held_read().await;
    // The reader holds the old row in its hands now.
    world.plant("a", 2);
    assert_eq!(world.evict("a").await, Eviction::Evicted);
    let late: Vec<_> = (0..10).map(|_| read(world.clone())).collect();
    tokio::task::yield_now().await;
    world.db.release_reads();
    for late in late {
        assert_eq!(late.await.unwrap(), Some(2));
    }
    assert!(matches!(early.await.unwrap(), Some(1 | 2)));
    assert_eq!(world.amount("a").await, Some(2));
}

#[tokio::test]
async fn a_read_of_the_database_is_what_is_committed_there_and_leaves_no_trace() {
    let world = World::new().await;
    world.plant("a", 1);
    world.write(put("a", 2)).await.unwrap();
    world.write(put("new", 1)).await.unwrap();
    assert_eq!((world.committed("a").await, world.committed("new").await), (Some(1), None));
    assert_eq!(world.amount("a").await, Some(2));
    let found = world.reader.read(committed("a")).await.unwrap();
    assert_eq!(found, Found { row: full_payment("a", 1), etag: None });
    world.drain().await;
    assert_eq!(world.committed("a").await, Some(2));
    world.write(delete("a")).await.unwrap();
    assert_eq!(world.committed("a").await, Some(2));
    world.drain().await;
    assert_eq!(world.committed("a").await, None);

    // Not even a lease or an absence is left, and a shard that is closed is no obstacle.
    assert_eq!(world.committed("cold").await, None);
    assert_eq!(world.slot("cold").await, Slot::Empty);
    world.plant("cold", 3);
    world.store.memory.restart(Survives::Nothing);
    assert_eq!(world.committed("cold").await, Some(3));
}

#[tokio::test]
async fn both_consistencies_stand_side_by_side_in_a_batch() {
    let world = World::new().await;
    world.plant("a", 1);
    world.write(put("a", 2)).await.unwrap();
    let gets = vec![committed("a"), newest("a"), newest("b"), committed("b"), committed("a")];
    assert_eq!(world.amounts(gets).await, [Some(1), Some(2), None, None, Some(1)]);
    assert_eq!(world.reads(), 2);
}

#[tokio::test]
async fn a_cold_read_of_many_records_counts_as_several() {
    let options = IngestOptions { max_cold_reads: 4, lease_ttl: Duration::from_millis(50), ..quick_options() };
    let world = Arc::new(World::with(options, PLENTY as u64).await);
    world.db.hold_reads();
    let many = tokio::spawn({
        let world = world.clone();
        async move { world.reader.read_many((0..64).map(|n| newest(&format!("k{n}"))).collect(), PLENTY).await }
    });
    world.db.held_read().await;
    assert_eq!(world.get("other").await, Err(ReadError::Store(StoreError::ColdReadsBusy)));
    assert_eq!(world.reads(), 1);
    world.db.release_reads();
    many.await.unwrap();
    assert!(matches!(world.get("other").await, Err(ReadError::NotFound(_))));
}

#[tokio::test]
async fn while_the_database_is_away_hot_reads_go_on_and_the_others_are_told_at_once() {
    let options =
        IngestOptions { outage_pause: Duration::from_secs(600), lease_ttl: Duration::from_secs(60), ..quick_options() };
    let world = World::with(options, PLENTY as u64).await;
    world.write(put("hot", 1)).await.unwrap();
    assert_eq!(world.amount("absent").await, None);
    world.plant("cold", 2);
    world.db.set_away(true);
    let before = world.reads();
    for _ in 0..20 {
        let results = world
            .reader
            .read_many(vec![newest("cold"), newest("hot"), newest("other"), committed("hot")], PLENTY)
            .await;
        assert_eq!(amount_of(&results[1]), Some(1));
        for at in [0, 2, 3] {
            assert!(matches!(results[at], Err(ReadError::Store(StoreError::DatabaseDown(_)))), "{:?}", results[at]);
        }
        assert_eq!(world.amount("absent").await, None);
        let refused = world.write(create("cold", 1)).await;
        assert!(matches!(refused, Err(WriteError::Store(StoreError::DatabaseDown(_)))), "{refused:?}");
    }
    // The two questions of the first batch may have been under way together.
    assert!(world.reads() - before <= 2, "{} questions to a database that is away", world.reads() - before);
    assert_eq!(world.slot("cold").await, Slot::Empty, "nobody waits for a lease that brings nothing");
}

#[tokio::test]
async fn when_the_database_is_back_reads_find_it() {
    let options = IngestOptions { outage_pause: Duration::from_millis(20), ..quick_options() };
    let world = World::with(options, PLENTY as u64).await;
    world.plant("cold", 2);
    world.db.set_away(true);
    assert!(world.get("cold").await.is_err());
    world.db.set_away(false);
    let deadline = Instant::now() + Duration::from_secs(90);
    while world.get("cold").await.is_err() {
        assert!(Instant::now() < deadline, "the database is never asked again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_given_up_and_its_lease_with_it() {
    let options = IngestOptions {
        outage_pause: Duration::from_secs(600),
        database_patience: Duration::from_millis(50),
        ..quick_options()
    };
    let world = World::with(options, PLENTY as u64).await;
    world.plant("cold", 2);
    world.db.hold_reads();
    let stuck = world.get("cold").await;
    assert!(matches!(stuck, Err(ReadError::Store(StoreError::DatabaseDown(_)))), "{stuck:?}");
    let refused = world.get("other").await;
    assert!(matches!(refused, Err(ReadError::Store(StoreError::DatabaseDown(_)))), "{refused:?}");
    assert_eq!(world.reads(), 1);
}

#[tokio::test]
async fn a_batch_waits_for_a_lease_of_another_replica_and_brings_the_others_meanwhile() {
    let world = World::new().await;
    world.plant("a", 1);
    world.plant("b", 2);
    let dead = world.store.lease(world.shard("a"), world.record("a"), Duration::from_millis(100)).await.unwrap();
    assert!(matches!(dead, LeaseOutcome::Granted(_)));
    assert_eq!(world.amounts(vec![newest("a"), newest("b")]).await, [Some(1), Some(2)]);
    for id in ["a", "b"] {
        assert!(matches!(world.slot(id).await, Slot::Image { stage: Stage::Clean, .. }));
    }
}
