//! What happens to the processes and stores of a run.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{climate::Blows, nature::Place, verdict, world::World};

/// A process that was killed is started again after so long, at most.
const START_AGAIN: Duration = Duration::from_millis(400);
/// How long a process stands still, at most.
const PAUSE: Duration = Duration::from_millis(1500);
/// How long a store can't be reached, at most.
const OUTAGE: Duration = Duration::from_millis(1200);
/// Between two moments to which the hot store can be set back, at most.
const SNAPSHOT: Duration = Duration::from_millis(30);
const HOUR_MICROS: i64 = 3_600_000_000;

/// What happens to the world at once.
type Blow = fn(&Arc<World>);

/// Remembers moments to which the hot store can be set back, for ever.
pub(crate) async fn take_snapshots(world: Arc<World>) {
    loop {
        sleep(world.nature.up_to(SNAPSHOT) + Duration::from_millis(1)).await;
        world.take_snapshot();
    }
}

/// Strikes again and again.
pub(crate) async fn strike(world: Arc<World>) {
    for _ in 0..world.nature.climate().blow_count {
        let pause = world.nature.up_to(world.nature.climate().blow_every);
        sleep(pause + Duration::from_millis(1)).await;
        // Blows at a store that is not open yet are worth having, but mostly it shall come to something in between.
        if verdict::is_open(&world).await || world.nature.happens(0.3) {
            blow(&world);
        }
    }
}

fn blow(world: &Arc<World>) {
    let Blows {
        kill_ingest: a,
        kill_drain: b,
        pause,
        restart_hot,
        lose_tail,
        lose_all,
        step_clock,
        rebalance: r,
        outage: o,
        kill_all,
        lose_tail_and_time,
        cut_power: p,
    } = world.nature.climate().blows;
    let blows: [(u32, Blow); 12] = [
        (a, kill_ingest),
        (b, kill_drain),
        (pause, stop_one),
        (restart_hot, |world| world.restart_hot()),
        (lose_tail, |world| world.lose_tail()),
        (lose_all, |world| world.lose_all()),
        (step_clock, step_wall_clock),
        (r, rebalance),
        (o, outage),
        (kill_all, kill_everything),
        (lose_tail_and_time, lose_tail_and_time_together),
        (p, cut_power),
    ];
    let all: u32 = blows.iter().map(|(weight, _)| weight).sum();
    let mut dice = world.nature.pick(0..u64::from(all)) as u32;
    for (weight, blow) in blows {
        if dice < weight {
            return blow(world);
        }
        dice -= weight;
    }
}

fn kill_ingest(world: &Arc<World>) {
    let living = world.living_ingests();
    let Some(one) = world.nature.one_of(&living) else { return };
    world.nature.note(|| format!("{} is killed", one.process.name()));
    one.kill();
    start_again(world, World::start_ingest);
}

fn kill_drain(world: &Arc<World>) {
    let living = world.living_drains();
    let Some(one) = world.nature.one_of(&living) else { return };
    world.nature.note(|| format!("{} is killed", one.process.name()));
    one.kill();
    if !one.has_left() {
        start_again(world, World::start_drain);
    }
}

fn start_again(world: &Arc<World>, start: fn(&Arc<World>)) {
    let world = world.clone();
    tokio::spawn(async move {
        sleep(world.nature.up_to(START_AGAIN)).await;
        start(&world);
    });
}

fn stop_one(world: &Arc<World>) {
    let ingests = world.living_ingests().into_iter().map(|ingest| ingest.process.clone());
    let drains = world.living_drains().into_iter().map(|drain| drain.process.clone());
    let processes: Vec<_> = ingests.chain(drains).collect();
    let Some(one) = world.nature.one_of(&processes) else { return };
    let how_long = world.nature.up_to(PAUSE);
    world.nature.note(|| format!("{} stands still for {how_long:?}", one.name()));
    one.stop_for(how_long);
}

fn step_wall_clock(world: &Arc<World>) {
    let by = match world.nature.pick(0..4) {
        0 => HOUR_MICROS,
        1 | 2 => -HOUR_MICROS,
        _ => -(world.nature.pick(0..2_000_000) as i64),
    };
    world.nature.note(|| format!("the wall clock steps by {by} us"));
    world.nature.step_wall_clock(by);
}

fn lose_tail_and_time_together(world: &Arc<World>) {
    let by = -HOUR_MICROS - world.nature.pick(0..1_000_000) as i64;
    world.nature.note(|| format!("the wall clock steps by {by} us"));
    world.nature.step_wall_clock(by);
    world.lose_tail();
}

fn rebalance(world: &Arc<World>) {
    let living: Vec<_> = world.living_drains().into_iter().filter(|drain| !drain.has_left()).collect();
    match world.nature.one_of(&living) {
        Some(one) if living.len() > 1 => {
            world.nature.note(|| format!("{} is to leave", one.process.name()));
            one.leave();
        }
        _ => world.start_drain(),
    }
}

fn outage(world: &Arc<World>) {
    let Some(place) = world.nature.one_of(&Place::ALL).copied() else { return };
    let how_long = world.nature.up_to(OUTAGE);
    world.nature.note(|| format!("{place:?} can't be reached for {how_long:?}"));
    world.nature.take_away(place, how_long);
}

fn kill_everything(world: &Arc<World>) {
    kill_all_processes(world);
    match world.nature.pick(0..3) {
        0 if world.nature.climate().blows.cut_power == 0 => world.lose_tail(),
        1 => world.restart_hot(),
        _ => {}
    }
}

fn kill_all_processes(world: &Arc<World>) {
    world.nature.note(|| "everything is killed".to_owned());
    for ingest in world.living_ingests() {
        ingest.kill();
        start_again(world, World::start_ingest);
    }
    for drain in world.living_drains() {
        drain.kill();
        start_again(world, World::start_drain);
    }
}

fn cut_power(world: &Arc<World>) {
    kill_all_processes(world);
    world.lose_end_of_log();
    world.restart_hot();
}
