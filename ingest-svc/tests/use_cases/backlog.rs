//! What waits for the database: it is counted, it is bounded, and it can be waited for.

use std::{sync::Arc, time::Duration};

use hot_store::{HotStore as _, memory::Survives};
use ingest_svc::{
    IngestOptions, MaxBacklog, StoreError, TableRules, Token, WallClock, WriteRules,
    accept::{WriteError, WriteRequest},
    applied::{WaitError, Waiter},
    backlog::Observer,
};
use jiff::{SignedDuration, Timestamp};
use model::Namespace;

use crate::{dead_letters::refuse, log::Fate, world::*};

async fn world_with(max_backlog: MaxBacklog) -> World {
    let rules = TableRules { max_backlog, ..TableRules::default() };
    let rules = WriteRules { per_table: [(table("payments"), rules)].into(), ..WriteRules::default() };
    World::with(IngestOptions { rules, ..quick_options() }, u64::MAX / 1000).await
}

fn is_full(result: &WriteResult) -> bool {
    matches!(result, Err(WriteError::BacklogFull { .. }))
}

#[tokio::test]
async fn past_its_caps_a_table_is_refused_before_anything_is_touched_until_it_is_drained() {
    let caps = [
        MaxBacklog { records: Some(3), ..MaxBacklog::default() },
        MaxBacklog { bytes: Some(150), ..MaxBacklog::default() },
    ];
    for max in caps {
        let world = world_with(max).await;
        world.db.make_table("others", Some(crate::db::payment_columns()));
        world.tables.enable(&table("others")).await.unwrap();
        let mut observer = Observer::new(world.core.clone());
        for n in 0..3 {
            observer.look().await;
            world.write(put(&format!("k{n}"), n)).await.unwrap();
        }
        let seen = observer.look().await[&table("payments")];
        assert!(seen.records == 3 && seen.bytes >= 150 && seen.oldest.is_some(), "{seen:?}");
        for change in [put("k1", 9), put("new", 1), delete("k1")] {
            for level in [LOGGED, QUEUED] {
                assert!(is_full(&world.write_at(change.clone(), level).await), "{change:?}");
            }
        }
        assert_eq!((world.dirty().await, world.amount("k1").await), (3, Some(1)));
        let other = WriteRequest { table: table("others"), ..request(put("a", 1)) };
        world.writer.write(other, Default::default()).await.unwrap();
        world.drain().await;
        assert_eq!(observer.look().await[&table("payments")].records, 0);
        world.write(put("k1", 9)).await.unwrap();
    }
}

/// A key whose shard is that of `id`, or another one.
fn neighbour(world: &World, id: &str, same: bool) -> String {
    (0..).map(|n| format!("k{n}")).find(|key| (world.shard(key) == world.shard(id)) == same).unwrap()
}

#[tokio::test]
async fn what_is_too_old_is_refused_by_the_cap_or_half_of_the_log_s_retention() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    // Age cap, retention, how late it is, refused.
    let cases = [
        (Some(2), Some(9), 1, false),
        (Some(2), Some(9), 3, true),
        (None, Some(4), 1, false),
        (None, Some(4), 3, true),
        (None, None, 300, false),
    ];
    for (cap, retention, late, refused) in cases {
        let rules = TableRules {
            max_backlog: MaxBacklog { age: cap.map(hours), ..MaxBacklog::default() },
            ..TableRules::default()
        };
        let rules = WriteRules { default: rules, ..WriteRules::default() };
        let late = SignedDuration::from_hours(late);
        let options = IngestOptions {
            rules,
            log_retention: retention.map(hours),
            wall_clock: WallClock::new(move || Timestamp::now() + late),
            ..quick_options()
        };
        let world = World::with(options, u64::MAX / 1000).await;
        let mut observer = Observer::new(world.core.clone());
        world.write(put("a", 1)).await.unwrap();
        observer.look().await;
        let near = neighbour(&world, "a", true);
        assert_eq!(is_full(&world.write(put(&near, 1)).await), refused, "{cap:?} {retention:?}");
        // One record that is stuck stops no other shard.
        let far = neighbour(&world, "a", false);
        assert!(world.write(put(&far, 1)).await.is_ok(), "{cap:?} {retention:?}");
    }
}

#[tokio::test]
async fn of_a_closed_shard_the_last_known_backlog_counts() {
    let world = world_with(MaxBacklog { records: Some(1), ..MaxBacklog::default() }).await;
    let mut observer = Observer::new(world.core.clone());
    world.write(put("a", 1)).await.unwrap();
    observer.look().await;
    world.store.memory.restart(Survives::Everything);
    assert_eq!(observer.look().await[&table("payments")].records, 1);
    assert!(is_full(&world.write(put("b", 1)).await));
}

fn waiter(world: &World) -> Waiter<crate::store::BentStore, crate::log::BentLog, crate::db::BentDatabase> {
    Waiter::new(world.core.clone())
}

const SOON: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_token_is_applied_once_the_database_has_its_write() {
    let world = World::new().await;
    let first = world.write(put("a", 1)).await.unwrap().token;
    let other = world.write(put("b", 1)).await.unwrap().token;
    let waiter = waiter(&world);
    assert_eq!(waiter.wait(&[], Duration::ZERO).await, Ok(true));
    assert_eq!(waiter.wait(&[first.clone(), other.clone()], SOON).await, Ok(false));
    // Written again before it is drained: a newer version in the store is not the older one in the database.
    let second = world.write(put("a", 2)).await.unwrap().token;
    assert_eq!(waiter.wait(std::slice::from_ref(&first), SOON).await, Ok(false));
    let world = Arc::new(world);
    let waiting = tokio::spawn({
        let (waiter, tokens) = (waiter.clone(), [first, second, other]);
        async move { waiter.wait(&tokens, Duration::from_secs(20)).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    world.drain().await;
    assert_eq!(waiting.await.unwrap(), Ok(true));
}

#[tokio::test]
async fn what_is_stuck_is_not_applied() {
    let world = World::new().await;
    world.log.set_fate(Fate::Refuse);
    let logged = world.write_at(put("a", 1), LOGGED).await.unwrap().token;
    world.log.set_fate(Fate::Append);
    let near = neighbour(&world, "a", true);
    let queued = world.write(put(&near, 1)).await.unwrap().token;
    world.drain().await;
    let waiter = waiter(&world);
    assert_eq!(waiter.wait(&[logged], SOON).await, Ok(false));
    // The horizon is the shard's: an older write that is not in the database holds up the later one.
    assert_eq!(waiter.wait(&[queued], SOON).await, Ok(false));
}

#[tokio::test]
async fn a_token_outlives_a_restart_unless_its_write_may_be_lost() {
    let world = World::new().await;
    let queued = world.write(put("a", 1)).await.unwrap().token;
    world.log.set_available(false);
    let logged = world.write_at(put("a", 2), LOGGED).await.unwrap().token;
    world.log.set_available(true);
    let waiter = waiter(&world);
    world.store.memory.restart(Survives::Nothing);
    let closed = waiter.wait(std::slice::from_ref(&queued), Duration::ZERO).await;
    assert_eq!(closed, Err(WaitError::Store(StoreError::Closed { shard: queued.shard })));
    world.open_all().await;
    assert_eq!(waiter.wait(std::slice::from_ref(&queued), SOON).await, Ok(false));
    world.drain().await;
    assert_eq!(waiter.wait(std::slice::from_ref(&queued), SOON).await, Ok(true));
    assert_eq!(waiter.wait(&[queued, logged.clone()], SOON).await, Err(WaitError::PerhapsLost { shard: logged.shard }));
}

#[tokio::test]
async fn a_token_of_elsewhere_is_refused() {
    let world = World::new().await;
    let token = world.write(put("a", 1)).await.unwrap().token;
    let elsewhere = Token { shard: model::Shard(99), ..token.clone() };
    assert_eq!(waiter(&world).wait(&[token.clone(), elsewhere], SOON).await, Err(WaitError::UnknownToken { at: 1 }));
    let gone = Token { namespace: Namespace::new("gone").unwrap(), ..token };
    assert_eq!(waiter(&world).wait(&[gone], SOON).await, Err(WaitError::UnknownToken { at: 0 }));
}

#[tokio::test]
async fn a_token_of_what_the_database_refused_is_no_success() {
    let world = World::new().await;
    let refused = world.write(put("a", 1)).await.unwrap().token;
    let near = neighbour(&world, "a", true);
    let good = world.write(put(&near, 1)).await.unwrap().token;
    refuse(&world, "a").await;
    let waiter = waiter(&world);
    // The horizon has passed the one, and not the other.
    let dead = |at| Err(WaitError::DeadLettered { at, table: table("payments") });
    assert_eq!(waiter.wait(std::slice::from_ref(&refused), SOON).await, dead(0));
    assert_eq!(waiter.wait(std::slice::from_ref(&good), SOON).await, Ok(false));
    let record = world.record(&near);
    let clean = hot_store::Clean { record, version: good.version, newer: None };
    world.store.mark_clean(good.shard, vec![clean], Duration::from_secs(60)).await.unwrap();
    assert_eq!(waiter.wait(std::slice::from_ref(&good), SOON).await, Ok(true));
    assert_eq!(waiter.wait(&[good, refused.clone()], SOON).await, dead(1));
    // What took its place has to reach the database.
    let second = world.write(put("a", 2)).await.unwrap().token;
    assert_eq!(waiter.wait(std::slice::from_ref(&second), SOON).await, Ok(false));
    world.drain().await;
    assert_eq!(waiter.wait(&[refused, second], SOON).await, Ok(true));
}

#[tokio::test]
async fn beside_as_many_parked_records_as_may_be_only_those_are_written() {
    let rules = TableRules { max_parked: Some(2), ..TableRules::default() };
    let rules = WriteRules { per_table: [(table("payments"), rules)].into(), ..WriteRules::default() };
    let world = World::with(IngestOptions { rules, ..quick_options() }, u64::MAX / 1000).await;
    world.db.make_table("others", Some(crate::db::payment_columns()));
    world.tables.enable(&table("others")).await.unwrap();
    let mut observer = Observer::new(world.core.clone());
    for (n, id) in ["a", "b"].into_iter().enumerate() {
        assert_eq!(observer.look().await[&table("payments")].parked, n as u64);
        world.write(put(id, 1)).await.unwrap();
        refuse(&world, id).await;
    }
    assert_eq!(observer.look().await[&table("payments")].parked, 2);
    let full = Err(WriteError::ParkedFull { table: table("payments"), parked: 2 });
    for level in [LOGGED, QUEUED] {
        assert_eq!(world.write_at(put("c", 1), level).await, full);
    }
    let other = WriteRequest { table: table("others"), ..request(put("c", 1)) };
    world.writer.write(other, Default::default()).await.unwrap();
    // One batch: what mends is let in, what does not is not.
    let batch = vec![request(put("a", 2)), request(put("c", 1)), request(delete("b"))];
    let results = world.writer.write_batch(batch, Default::default()).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!((world.amount("a").await, world.amount("b").await, world.amount("c").await), (Some(2), None, None));
    observer.look().await;
    world.write(put("c", 1)).await.unwrap();
}
