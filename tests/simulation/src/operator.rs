//! An operator who pauses tables and drains them down, in the midst of all that goes wrong.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::{Database as _, Hold, HoldKind, HoldScope};
use hot_store::HotStore as _;
use jiff::Timestamp;
use model::{Epoch, Shard, Version};
use tokio::time::{sleep, timeout};

use crate::world::World;

/// Between two wishes, and how long one stands, at most.
const WISH: Duration = Duration::from_millis(1500);
/// How long is waited for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a drain-down is looked at before it is given up.
const LOOKS: usize = 30;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was the newest of each shard when a drain-down was told to be ready: nothing newer may be acknowledged until it ends.
#[derive(Debug)]
pub(crate) struct DrainedDown(BTreeMap<Shard, (Epoch, Version)>);

impl DrainedDown {
    /// Whether a write was accepted behind it. What a store that lost it had given is of an earlier epoch.
    pub(crate) fn is_broken_by(&self, shard: Shard, epoch: Epoch, version: Version) -> bool {
        self.0.get(&shard).is_some_and(|(then, newest)| epoch >= *then && version > *newest)
    }
}

/// Stops things and lets them go on, until it is aborted.
pub(crate) async fn operate(world: Arc<World>) {
    while world.nature.climate().operator {
        sleep(world.nature.up_to(WISH) + Duration::from_millis(1)).await;
        let scope = match world.nature.one_of(&world.tables) {
            Some(table) if world.nature.happens(0.5) => HoldScope::Table(table.name.clone()),
            _ => HoldScope::Everything,
        };
        if world.nature.happens(0.5) {
            pause(&world, scope).await;
        } else {
            drain_down(&world, scope).await;
        }
    }
}

async fn pause(world: &Arc<World>, scope: HoldScope) {
    world.nature.note(|| format!("PAUSE {scope:?}"));
    let (reason, by) = (String::new(), String::new());
    let hold = Hold { scope: scope.clone(), kind: HoldKind::Pause, reason, by, since: now(world) };
    if let Err(error) = world.stores.database.set_hold(&hold).await {
        world.complain(format!("a pause was not taken: {error}"));
    }
    sleep(world.nature.up_to(WISH)).await;
    lift(world, &scope, HoldKind::Pause).await;
}

async fn drain_down(world: &Arc<World>, scope: HoldScope) {
    let Some(ingest) = world.nature.one_of(&world.living_ingests()).cloned() else { return };
    world.nature.note(|| format!("DRAIN DOWN {scope:?}"));
    // Whatever comes of it: it may have taken effect.
    let _ = timeout(PATIENCE, ingest.operators().set(scope.clone(), HoldKind::DrainDown, "", "")).await;
    for _ in 0..LOOKS {
        sleep(LOOK_EVERY).await;
        let Some(ingest) = world.nature.one_of(&world.living_ingests()).cloned() else { continue };
        let look = timeout(PATIENCE, ingest.operators().drain_down(&scope)).await;
        if scope == HoldScope::Everything && look.is_ok_and(|look| look.is_ok_and(|down| down.is_ready())) {
            world.nature.note(|| "READY".to_owned());
            world.is_drained_down(newest(world).await);
            sleep(world.nature.up_to(WISH)).await;
            world.is_drained_down(None);
            break;
        }
    }
    lift(world, &scope, HoldKind::DrainDown).await;
}

/// Nothing if a shard was closed meanwhile.
async fn newest(world: &World) -> Option<DrainedDown> {
    let mut all = BTreeMap::new();
    for shard in world.shards.all() {
        let header = world.stores.hot.header(shard).await.ok().filter(|header| header.open)?;
        all.insert(shard, (header.epoch, header.clock));
    }
    Some(DrainedDown(all))
}

fn now(world: &World) -> Timestamp {
    Timestamp::from_microsecond(i64::try_from(world.nature.wall_micros()).unwrap_or(0)).unwrap_or_default()
}

async fn lift(world: &World, scope: &HoldScope, kind: HoldKind) {
    world.nature.note(|| format!("{kind:?} of {scope:?} ends"));
    if let Err(error) = world.stores.database.lift_hold(scope, kind, now(world)).await {
        world.complain(format!("a hold was not lifted: {error}"));
    }
}

/// Lets all go on.
pub(crate) async fn let_all_go_on(world: &World) {
    world.is_drained_down(None);
    match world.stores.database.holds().await {
        Ok(holds) => {
            for Hold { scope, kind, .. } in holds.list {
                lift(world, &scope, kind).await;
            }
        }
        Err(error) => world.complain(format!("what is stopped is not known: {error}")),
    }
}
