//! A seed decides everything.

use std::{sync::atomic::Ordering, time::Duration};

use model::Chance;
use tokio::{runtime::Builder, time::sleep};

use crate::{
    db::id,
    world::{Still, limited},
};

/// A run with trouble in it; what the database was asked for meanwhile.
async fn calls(seed: u64) -> Vec<String> {
    let world = Still::still().await;
    let chance = Chance::seeded(seed);
    let mut options = limited(400.0);
    options.chance = chance.clone();
    options.purge_interval = Duration::from_secs(1);
    options.tombstone_retention = Duration::from_secs(2);
    let (mut one, two) = (world.start(options.clone()), world.start(options.clone()));
    for n in 0..300 {
        let key = i64::try_from(chance.token() % 40).unwrap();
        world.write(key, (!chance.token().is_multiple_of(4)).then_some(n)).await;
        sleep(Duration::from_millis(chance.token() % 20)).await;
        match n {
            60 => drop(world.db.poison.lock().unwrap().replace((id(7), database::ErrorClass::Permanent))),
            90 => {
                one.kill().await;
                one = world.start(options.clone());
            }
            120 => world.db.away.store(true, Ordering::SeqCst),
            150 => world.db.away.store(false, Ordering::SeqCst),
            180 => drop(world.db.poison.lock().unwrap().take()),
            200 => world.db.lose_next_answer.store(true, Ordering::SeqCst),
            _ => {}
        }
    }
    world.until_clean().await;
    sleep(Duration::from_secs(10)).await;
    one.stop().await;
    two.stop().await;
    world.assert_rows_are_as_written().await;
    world.assert_all_committed().await;
    world.db.calls()
}

fn run(seed: u64) -> Vec<String> {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(calls(seed))
}

#[test]
fn the_same_seed_asks_the_database_the_same_things_at_the_same_times() {
    for seed in 1..4 {
        let (first, second) = (run(seed), run(seed));
        for (at, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "call {at} of seed {seed}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
        for kind in ["take", "apply", "note", "purge"] {
            assert!(first.iter().any(|call| call.contains(kind)), "no {kind} in seed {seed}");
        }
    }
    assert_ne!(run(1), run(2));
}
