//! The last step of a write: how far it has come when the client is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, future::join, stream};
use hot_store::{HotStore, RecordId, Slot, Stage};
use model::{Shard, Version};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use super::{AckLevel, WriteError, queue, request::Wish, store::Stored};
use crate::Core;

/// The first and the longest interval between two looks whether records are in the database.
const FIRST_INTERVAL: Duration = Duration::from_millis(2);
const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

type Level = Result<AckLevel, WriteError>;

/// Brings stored writes to the level that is wanted of each, and says which was reached.
pub(super) async fn reach<H, L, D>(core: &Arc<Core<H, L, D>>, stored: Vec<Stored>) -> Vec<Level>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut levels = vec![Ok(AckLevel::Logged); stored.len()];
    let wishes: Vec<Wish> = stored.iter().map(|write| write.wish).collect();
    let watched: Vec<Watched> = stored.iter().map(Watched::of).collect();
    let in_log: Vec<AckLevel> = stored.iter().map(Stored::level_in_log).collect();
    let begun = Instant::now();
    // LOGGED is reached already; where no more is required, the client does not wait for the log.
    let (mut in_background, mut at_once) = (Batch::default(), Batch::default());
    for (at, (write, wish)) in stored.into_iter().zip(&wishes).enumerate() {
        let has_event = write.event.is_some();
        if !has_event && write.note.is_none() {
            levels[at] = Ok(write.level_in_log());
            continue;
        }
        // The relay knows of no note that is alone. And before that is in the log a loss of the hot store would let the
        // request take effect again, over what superseded it: it is no more than LOGGED.
        let waits = wish.required > AckLevel::Logged || (!has_event && core.log.is_available());
        if waits { &mut at_once } else { &mut in_background }.push(at, write);
    }
    let behind = join(queue_in_background(core, in_background.writes), async {
        let queued = queue::queue(core, &at_once.writes).await;
        for (at, queued) in at_once.places.into_iter().zip(queued) {
            levels[at] = match queued {
                Ok(()) => Ok(in_log[at]),
                // Nothing was required of the log.
                Err(_) if wishes[at].required == AckLevel::Logged => Ok(AckLevel::Logged),
                Err(error) => Err(error),
            };
        }
        Instant::now()
    });
    let (work, queued_at) = behind.await;
    // Who requires more than LOGGED waits for the rest of it from when that was reached.
    let deadlines: Vec<Instant> = wishes
        .iter()
        .map(|wish| if wish.required == AckLevel::Logged { begun } else { queued_at } + wish.patience)
        .collect();
    let is_hoped = |at: usize, level: &Level| wishes[at].target > AckLevel::Logged && *level == Ok(AckLevel::Logged);
    let hoped = in_background.places.iter().filter(|&&at| is_hoped(at, &levels[at]));
    if let Some(work) = work
        && let Some(deadline) = hoped.map(|&at| deadlines[at]).max()
        && let Ok(Ok(queued)) = timeout_at(deadline, work).await
    {
        for (&at, queued) in in_background.places.iter().zip(queued) {
            // A mark that failed takes nothing from what was reached.
            if is_hoped(at, &levels[at]) && queued.is_ok() {
                levels[at] = Ok(in_log[at]);
            }
        }
    }
    let hopes =
        wishes.iter().zip(deadlines).map(|(wish, deadline)| (wish.target == AckLevel::Applied).then_some(deadline));
    let refused = watch(core, &watched, &hopes.collect::<Vec<_>>(), &mut levels).await;
    for ((level, wish), refused) in levels.iter_mut().zip(&wishes).zip(refused) {
        if let Ok(reached) = *level
            && reached < wish.required
        {
            let not_reached = WriteError::LevelNotReached { required: wish.required, reached };
            *level = Err(if refused { WriteError::DeadLettered } else { not_reached });
        }
    }
    levels
}

/// Some of the writes, and their places among all.
#[derive(Default)]
struct Batch {
    places: Vec<usize>,
    writes: Vec<Stored>,
}

impl Batch {
    fn push(&mut self, at: usize, write: Stored) {
        self.places.push(at);
        self.writes.push(write);
    }
}

type Queued = Vec<Result<(), WriteError>>;

/// Queues behind the clients' backs; `None` if it is left to the relay.
async fn queue_in_background<H, L, D>(core: &Arc<Core<H, L, D>>, stored: Vec<Stored>) -> Option<JoinHandle<Queued>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    if stored.is_empty() || !core.log.is_available() {
        return None;
    }
    // Without a permit the relay does it, when the log is faster again.
    let permit = core.background.clone().try_acquire_owned().ok()?;
    let core = core.clone();
    Some(core.tasks.clone().spawn(async move {
        let queued = queue::queue(&core, &stored).await;
        drop(permit);
        queued
    }))
}

/// A write whose arrival in the database is waited for.
struct Watched {
    shard: Shard,
    record: RecordId,
    version: Version,
}

impl Watched {
    fn of(write: &Stored) -> Self {
        Self { shard: write.shard, record: write.record.clone(), version: write.version }
    }

    /// What the slot says of this write. Dirty records never expire, and an opening puts back what was marked queued:
    /// what is no longer an image was clean before it went.
    fn end(&self, slot: &Slot) -> Option<End> {
        match slot {
            Slot::Image { version, stage: Stage::Clean, .. } if *version >= self.version => Some(End::Applied),
            Slot::Image { version, stage: Stage::Parked, .. } if *version == self.version => Some(End::Refused),
            // Of what lies under a newer version that is parked, the hot store can't tell whether the database has it.
            Slot::Image { .. } => None,
            Slot::Absent | Slot::Leased | Slot::Empty => Some(End::Applied),
        }
    }
}

/// How the way of a write to the database has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The database holds it, or a newer one of its record.
    Applied,
    /// The database refused it for good.
    Refused,
}

/// Looks at the records that somebody hopes to see in the database again and again, until every one is there or its
/// time is up. Where as many wait as may, once: a request that waits is in flight, and while the database is away
/// nobody's wait comes to an end that would let others in.
/// Answers which of them the database refused.
async fn watch<H, L, D>(
    core: &Core<H, L, D>,
    watched: &[Watched],
    hopes: &[Option<Instant>],
    levels: &mut [Level],
) -> Vec<bool>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut interval = FIRST_INTERVAL;
    let (mut now, mut waiting) = (None, None);
    let mut refused = vec![false; levels.len()];
    loop {
        let mut last = None;
        let mut by_shard = BTreeMap::<Shard, Vec<usize>>::new();
        for (at, level) in levels.iter().enumerate() {
            // The first look is everybody's.
            let in_time = hopes[at].filter(|deadline| now.is_none_or(|now| now <= *deadline));
            if *level == Ok(AckLevel::Queued) && !refused[at] && in_time.is_some() {
                last = last.max(in_time);
                by_shard.entry(watched[at].shard).or_default().push(at);
            }
        }
        let Some(last) = last else { return refused };
        let looks: Vec<_> = stream::iter(by_shard)
            .map(|(shard, places)| async move {
                let records = places.iter().map(|&at| watched[at].record.clone()).collect();
                (core.hot.read(shard, records).await, places)
            })
            .buffer_unordered(core.options.shards_at_once.max(1))
            .collect()
            .await;
        for (answer, places) in looks {
            // A closed shard or a store that is away may come back before the time is up.
            let Ok(answer) = answer else { continue };
            for (&at, slot) in places.iter().zip(&answer.slots) {
                match watched[at].end(slot) {
                    Some(End::Applied) => levels[at] = Ok(AckLevel::Applied),
                    Some(End::Refused) => refused[at] = true,
                    None => {}
                }
            }
        }
        let next = Instant::now() + interval;
        if next > last {
            return refused;
        }
        waiting = waiting.or_else(|| core.applied_waits.try_acquire().ok());
        if waiting.is_none() {
            return refused;
        }
        sleep_until(next).await;
        now = Some(next);
        interval = (interval * 3 / 2).min(LONGEST_INTERVAL);
    }
}
