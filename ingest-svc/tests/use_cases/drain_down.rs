//! A drain-down is told to be ready when nothing comes in any more and nothing waits, and at no other time.

use std::sync::Arc;

use database::{Database as _, Hold, HoldKind::DrainDown, HoldScope};
use hot_store::{Halt, HotStore as _};
use ingest_svc::{
    IngestOptions,
    accept::WriteError,
    holds::{self, Operators},
};
use jiff::Timestamp;
use model::Shard;
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::{db::payment_columns, world::*};

fn operators(world: &World) -> Operators<crate::store::BentStore, crate::log::BentLog, crate::db::BentDatabase> {
    Operators::new(world.core.clone())
}

fn payments() -> HoldScope {
    HoldScope::Table(table("payments"))
}

async fn is_ready(world: &World, scope: &HoldScope) -> bool {
    operators(world).drain_down(scope).await.unwrap().is_ready()
}

/// Looks at one shard after the other.
async fn looking_in_turn() -> World {
    World::with(IngestOptions { shards_at_once: 1, ..quick_options() }, u64::MAX / 1000).await
}

/// An id whose record lies in that shard.
fn id_in(world: &World, shard: Shard) -> String {
    (0..).map(|n| format!("p{n}")).find(|id| world.shard(id) == shard).unwrap()
}

/// The first shard is looked at before, the last one after.
const FIRST: Shard = Shard(0);
const LAST: Shard = Shard(3);
/// A replica that looks once a second has looked by then, and does not look just then.
const BETWEEN_LOOKS: Duration = Duration::from_millis(3_500);

async fn refused_shards(world: &World) -> usize {
    let mut refused = 0;
    for shard in world.core.shards.all() {
        let written = world.write(put(&id_in(world, shard), 1)).await;
        refused += usize::from(matches!(written, Err(WriteError::DrainingDown(_))));
    }
    refused
}

#[tokio::test]
async fn a_record_without_its_entry_in_the_backlog_is_waited_for() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.store.lose_entries(true);
    for scope in [payments(), HoldScope::Everything] {
        operators(&world).set(scope.clone(), DrainDown, "", "").await.unwrap();
        let down = operators(&world).drain_down(&scope).await.unwrap();
        assert_eq!((down.is_ready(), down.records, down.refusing), (false, 1, 4), "{down:?}");
    }
    world.drain().await;
    assert!(is_ready(&world, &payments()).await && is_ready(&world, &HoldScope::Everything).await);
}

#[tokio::test]
async fn everything_is_also_what_no_catalog_knows() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.db.forget_table(&table("payments"));
    operators(&world).set(HoldScope::Everything, DrainDown, "", "").await.unwrap();
    let down = operators(&world).drain_down(&HoldScope::Everything).await.unwrap();
    assert_eq!((down.is_ready(), down.records, down.refusing), (false, 1, 4), "{down:?}");
}

/// Between two looks somebody ends it, a write comes in where it was looked already, and it is begun again.
#[tokio::test]
async fn looks_under_two_wishes_are_not_added_up() {
    let world = Arc::new(looking_in_turn().await);
    operators(&world).set(payments(), DrainDown, "", "").await.unwrap();
    assert!(is_ready(&world, &payments()).await);
    world.store.before_header(LAST, {
        let world = world.clone();
        async move {
            operators(&world).lift(&payments(), DrainDown).await.unwrap();
            world.write(put(&id_in(&world, FIRST), 1)).await.unwrap();
            operators(&world).set(payments(), DrainDown, "", "").await.unwrap();
        }
    });
    assert!(!is_ready(&world, &payments()).await);
    world.drain().await;
    assert!(is_ready(&world, &payments()).await);
}

/// The same, but whoever ends it and whoever begins it again dies before the last shard was told.
#[tokio::test]
async fn a_wish_that_the_last_shards_were_not_told_counts() {
    let world = Arc::new(looking_in_turn().await);
    operators(&world).set(payments(), DrainDown, "", "").await.unwrap();
    world.store.before_header(LAST, {
        let world = world.clone();
        async move {
            let (_, revision) = world.db.lift_hold(&payments(), DrainDown, Timestamp::now()).await.unwrap();
            world.store.halt_writes(FIRST, &Halt { revision, ..Halt::default() }).await.unwrap();
            world.write(put(&id_in(&world, FIRST), 1)).await.unwrap();
            let (reason, by) = (String::new(), String::new());
            let again = Hold { scope: payments(), kind: DrainDown, reason, by, since: Timestamp::now() };
            world.db.set_hold(&again).await.unwrap();
        }
    });
    assert!(!is_ready(&world, &payments()).await, "the first shard took a write behind the look at it");
}

/// Its maintenance may be that a table is made anew. A replica that starts meanwhile does not see it in the database.
#[tokio::test(start_paused = true)]
async fn a_table_that_is_made_anew_is_drained_down_all_the_while() {
    let world = World::new().await;
    operators(&world).set(payments(), DrainDown, "", "").await.unwrap();
    world.tables.disable(&table("payments")).await.unwrap();
    world.db.drop_table("payments");
    let (other, shutdown) = (replica(&world, 4), CancellationToken::new());
    other.directory.refresh(false).await.unwrap();
    let follower = tokio::spawn(holds::run(other, shutdown.clone()));
    sleep(BETWEEN_LOOKS).await;
    world.db.make_table("payments", Some(payment_columns()));
    world.tables.enable(&table("payments")).await.unwrap();
    assert_eq!(refused_shards(&world).await, 4, "before anybody looks again");
    sleep(BETWEEN_LOOKS).await;
    assert!(refused_shards(&world).await == 4 && is_ready(&world, &payments()).await);
    shutdown.cancel();
    follower.await.unwrap();
}

/// The wish is the same, its tables are not: whoever told a shard of it before tells it again.
#[tokio::test(start_paused = true)]
async fn a_table_that_comes_back_into_the_catalog_under_a_drain_down_is_told_to_the_shards() {
    let world = World::new().await;
    operators(&world).set(payments(), DrainDown, "", "").await.unwrap();
    let entry = world.db.forget_table(&table("payments"));
    let (other, shutdown) = (replica(&world, 4), CancellationToken::new());
    other.directory.refresh(false).await.unwrap();
    let follower = tokio::spawn(holds::run(other, shutdown.clone()));
    sleep(BETWEEN_LOOKS).await;
    assert_eq!(refused_shards(&world).await, 0, "nobody knows what is meant");
    world.drain().await;
    world.db.enable(&entry).await.unwrap();
    sleep(BETWEEN_LOOKS).await;
    assert!(refused_shards(&world).await == 4 && is_ready(&world, &payments()).await);
    shutdown.cancel();
    follower.await.unwrap();
}
