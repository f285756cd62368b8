//! The loop that looks for closed shards and opens them.

use std::{collections::BTreeMap, panic::resume_unwind, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{HotStore, HotStoreError};
use model::{Chance, Epoch, Shard};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{OpeningError, OpeningProgress, open_shard};
use crate::Core;

/// The longest time for which a replica leaves a shard alone after an attempt that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The shortest time for which it leaves a shard to the replica that took it over.
const COURTESY: Duration = Duration::from_secs(1);

/// What is remembered of a closed shard between two attempts.
#[derive(Debug, Clone, Copy)]
struct Attempts {
    failed: u32,
    not_before: Instant,
    /// The next epoch must be above this one.
    above: Epoch,
}

/// Opens closed shards, until `shutdown`. An opening that has begun is left where it is then: another replica, or
/// the next start, goes on from its start.
pub async fn run<H, L, D>(core: Arc<Core<H, L, D>>, shutdown: CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut ticks = interval(core.options.opening_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut attempts: BTreeMap<Shard, Attempts> = BTreeMap::new();
    loop {
        let round = async {
            ticks.tick().await;
            pass(&core, &mut attempts).await;
        };
        if shutdown.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// Looks at every shard once, and opens those that are closed and due.
async fn pass<H, L, D>(core: &Arc<Core<H, L, D>>, attempts: &mut BTreeMap<Shard, Attempts>)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let at_once = core.options.shards_at_once.max(1);
    let headers: Vec<_> = stream::iter(core.shards.all())
        .map(|shard| async move { (shard, core.hot.header(shard).await) })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let (mut open, mut closed) = (0, Vec::new());
    for (shard, header) in headers {
        match header {
            Ok(header) if header.open => {
                open += 1;
                attempts.remove(&shard);
            }
            Ok(_) => closed.push(shard),
            Err(error) => tracing::warn!(%shard, %error, "can't see whether a shard is open"),
        }
    }
    report(core, open);
    let now = Instant::now();
    closed.retain(|shard| attempts.get(shard).is_none_or(|a| a.not_before <= now));
    if closed.is_empty() || !is_fit(core).await {
        return;
    }
    // Replicas that start together begin at different ends, and so seldom take a shard over from each other.
    core.options.chance.shuffle(&mut closed);
    tracing::info!(shards = closed.len(), "opening shards of the hot store");
    let mut failures = Vec::new();
    let mut waiting = closed.into_iter();
    // Each on a task of its own: what is read has to be taken apart and put together again, on more than one core.
    let mut openings = JoinSet::new();
    loop {
        for shard in waiting.by_ref().take(at_once - openings.len()) {
            let (core, above) = (Arc::clone(core), attempts.get(&shard).map_or(Epoch::ZERO, |a| a.above));
            openings.spawn(async move { (shard, open_shard(&core, shard, above).await) });
        }
        let Some(ended) = openings.join_next().await else { break };
        let (shard, result) = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // Nobody cancels one but who gives up this pass.
            Err(_) => continue,
        };
        match result {
            Ok(opened) => {
                open += 1;
                report(core, open);
                if let Some(opened) = opened {
                    tracing::debug!(
                        %shard, epoch = %opened.epoch, mutations = opened.mutations, void = opened.void, requests = opened.requests,
                        discarded = opened.discarded, kept = opened.kept, parked = opened.parked, "opened a shard"
                    );
                }
            }
            Err(error) => failures.push((shard, error)),
        }
    }
    for (shard, error) in failures {
        let next = after_failure(attempts.get(&shard), &error, core.options.opening_interval, &core.options.chance);
        match &error {
            OpeningError::HotStore(HotStoreError::Superseded { .. }) => {
                tracing::info!(%shard, %error, "leaving a shard to another replica");
            }
            _ => {
                tracing::warn!(%shard, %error, attempts = next.failed, "could not open a shard; it stays closed until an attempt succeeds")
            }
        }
        attempts.insert(shard, next);
    }
    if open == core.shards.get() {
        tracing::info!(shards = open, "all shards are open");
    }
}

/// A restart is when a store's settings change: one that may evict or be promoted is not opened.
async fn is_fit<H: HotStore, L, D>(core: &Core<H, L, D>) -> bool {
    match core.hot.settings().await {
        Ok(settings) if settings.refused.is_empty() => true,
        Ok(settings) => {
            let refused = settings.refused.join("; ");
            tracing::error!(refused, "the hot store is not fit for use; its shards stay closed");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "can't see whether the hot store is fit for use");
            false
        }
    }
}

fn report<H, L, D>(core: &Core<H, L, D>, opened: u16) {
    let progress = OpeningProgress { opened, total: core.shards.get() };
    core.opening.send_if_modified(|shown| std::mem::replace(shown, progress) != progress);
}

/// When to try again: soon at first, then less and less often, at no regular time, so that two replicas do not take
/// a shard from each other for ever.
fn after_failure(earlier: Option<&Attempts>, error: &OpeningError, first: Duration, chance: &Chance) -> Attempts {
    let failed = earlier.map_or(0, |a| a.failed).saturating_add(1);
    let mut pause = first.saturating_mul(1 << failed.min(16)).min(LONGEST_PAUSE);
    let mut above = earlier.map_or(Epoch::ZERO, |a| a.above);
    match error {
        OpeningError::HotStore(HotStoreError::Superseded { .. }) => {
            pause = pause.saturating_add(COURTESY.saturating_mul(failed)).min(LONGEST_PAUSE);
        }
        OpeningError::Outrun { found, .. } => {
            above = above.max(*found);
            pause = Duration::ZERO;
        }
        _ => {}
    }
    Attempts { failed, not_before: Instant::now() + pause.mul_f64(chance.jitter(0.5..1.0)), above }
}
