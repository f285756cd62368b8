//! Checkpoints: taken under the epoch in which the log's end was read, or not at all.

use hot_store::{HotStore as _, memory::Survives};
use ingest_svc::opening::checkpoint;

use crate::world::*;

#[tokio::test]
async fn a_checkpoint_spares_the_opening_what_came_before() {
    let world = World::new().await;
    for n in 0..20 {
        world.write(put(&format!("k{n}"), n)).await.unwrap();
    }
    assert_eq!(checkpoint::write(&world.core).await, Ok(4));
    world.store.memory.restart(Survives::Everything);
    assert_eq!(checkpoint::write(&world.core).await, Ok(0), "a closed shard takes none");
    for shard in world.core.shards.all() {
        assert_eq!(world.open(shard).await.unwrap().unwrap().mutations, 0);
    }
    assert_eq!(world.amount("k7").await, Some(7));
}

#[tokio::test]
async fn an_opening_leaves_a_checkpoint_at_its_fence() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    world.restart(Survives::Nothing).await;
    world.store.memory.restart(Survives::Everything);
    let opened = world.open(world.shard("a")).await.unwrap().unwrap();
    assert_eq!((opened.mutations, opened.discarded), (0, false));
    assert_eq!(world.amount("a").await, Some(1));
}

#[tokio::test]
async fn only_open_shards_take_a_checkpoint() {
    let world = World::new().await;
    world.store.memory.restart(Survives::Everything);
    world.open(world.shard("a")).await.unwrap();
    assert_eq!(checkpoint::write(&world.core).await, Ok(1));
    assert!(world.store.header(world.shard("a")).await.unwrap().open);
}
