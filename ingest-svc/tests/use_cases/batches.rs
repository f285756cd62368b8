//! Batches: order per key, a result for each item, one call to the log.

use ingest_svc::accept::{Acknowledge, Change, Require, WriteError};
use model::{ShardCount, Value};
use proptest::prelude::*;

use crate::world::*;

fn amount(n: i64) -> [(&'static str, Value); 1] {
    [("amount", Value::Int64(n))]
}

async fn batch(world: &World, changes: Vec<Change>) -> Vec<WriteResult> {
    world.writer.write_batch(changes.into_iter().map(request).collect(), Acknowledge::default()).await
}

#[tokio::test]
async fn writes_to_one_key_take_effect_in_the_order_of_the_batch() {
    let world = World::new().await;
    world.plant("cold", 1);
    let results = batch(
        &world,
        vec![
            create("a", 1),
            put("a", 2),
            update("a", &amount(3)),
            create("a", 4),
            delete("a"),
            update("a", &amount(5)),
            create("a", 6),
            // Cold: it has to be warmed before what follows may go on.
            create("cold", 2),
            put("cold", 3),
            delete_if("cold", Require::Exists(true)),
            put_if("cold", 4, Require::Exists(true)),
        ],
    )
    .await;
    let exists = || Err(WriteError::AlreadyExists(table("payments")));
    let not_found = || Err(WriteError::NotFound(table("payments")));
    let outcomes: Vec<_> = results.iter().map(|r| r.clone().map(|accepted| accepted.reached)).collect();
    let done = Ok(QUEUED);
    assert_eq!(
        outcomes,
        [
            done.clone(),
            done.clone(),
            done.clone(),
            exists(),
            done.clone(),
            not_found(),
            done.clone(),
            exists(),
            done.clone(),
            done,
            not_found()
        ]
    );
    assert_eq!((world.amount("a").await, world.amount("cold").await), (Some(6), None));
    let versions: Vec<_> = world.logged("a").into_iter().map(|(version, ..)| version).collect();
    assert!(versions.is_sorted() && versions.len() == 5, "{versions:?}");
}

#[tokio::test]
async fn an_item_that_fails_does_not_harm_the_others() {
    let world = World::new().await;
    let results = batch(
        &world,
        vec![put("a", 1), Change::Put { row: key_row("b"), precondition: None }, put("c", 3), update("d", &amount(1))],
    )
    .await;
    assert!(matches!(
        results.as_slice(),
        [Ok(_), Err(WriteError::Invalid { .. }), Ok(_), Err(WriteError::NotFound(_))]
    ));
    assert_eq!((world.amount("a").await, world.amount("c").await), (Some(1), Some(3)));
    assert_eq!(world.unqueued().await, 0);
}

#[tokio::test]
async fn a_large_batch_reaches_the_log_whole() {
    let world = World::new().await;
    let results = batch(&world, (0..1000).map(|n| put(&format!("k{}", n % 700), n)).collect()).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((world.unqueued().await, world.dirty().await), (0, 700));
    for n in 0..1000_i64 {
        let id = format!("k{}", n % 700);
        let newest = if n < 300 { n + 700 } else { n };
        assert_eq!(world.amount(&id).await, Some(newest), "{id}");
    }
    assert!(batch(&world, vec![]).await.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Create,
    Put,
    Update,
    Delete,
    PutIf(bool),
}

/// What a map of amounts says to a step: the reference for a whole batch.
fn expected(amounts: &mut std::collections::HashMap<String, i64>, id: &str, step: &Step, n: i64) -> bool {
    let there = amounts.contains_key(id);
    let works = match step {
        Step::Create => !there,
        Step::Put | Step::Delete => true,
        Step::Update => there,
        Step::PutIf(exists) => there == *exists,
    };
    if works {
        match step {
            Step::Delete => drop(amounts.remove(id)),
            _ => drop(amounts.insert(id.to_owned(), n)),
        }
    }
    works
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Create),
        Just(Step::Put),
        Just(Step::Update),
        Just(Step::Delete),
        any::<bool>().prop_map(Step::PutIf)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_does_what_its_items_one_by_one_would_do(steps in prop::collection::vec((0_u8..6, step()), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            assert_eq!(world.core.shards, ShardCount::new(4).unwrap());
            let mut amounts = std::collections::HashMap::new();
            // Half of the keys have a row in the database that is cold.
            for planted in 0..3 {
                let id = format!("k{planted}");
                world.plant(&id, -1);
                amounts.insert(id, -1);
            }
            let (mut changes, mut works) = (Vec::new(), Vec::new());
            for (n, (which, step)) in steps.iter().enumerate() {
                let (id, n) = (format!("k{which}"), n as i64);
                works.push(expected(&mut amounts, &id, step, n));
                changes.push(match step {
                    Step::Create => create(&id, n),
                    Step::Put => put(&id, n),
                    Step::Update => update(&id, &amount(n)),
                    Step::Delete => delete(&id),
                    Step::PutIf(exists) => put_if(&id, n, Require::Exists(*exists)),
                });
            }
            let results = batch(&world, changes).await;
            let worked: Vec<bool> = results.iter().map(Result::is_ok).collect();
            assert_eq!(worked, works);
            for which in 0..6 {
                let id = format!("k{which}");
                assert_eq!(world.amount(&id).await, amounts.get(&id).copied(), "{id}");
            }
            // And the same once it is drained and forgotten by the hot store.
            world.drain().await;
            world.restart(hot_store::memory::Survives::Nothing).await;
            for which in 0..6 {
                let id = format!("k{which}");
                assert_eq!(world.amount(&id).await, amounts.get(&id).copied(), "{id} after the drain");
            }
        });
    }
}
