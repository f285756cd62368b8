//! The last step of a write: how far it has come when the client is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{HotStore, RecordId, Slot};
use model::{Shard, Version};
use tokio::time::{Instant, sleep_until, timeout};

use super::{AckLevel, Acknowledge, WriteError, queue, store::Stored};
use crate::Core;

/// The first and the longest interval between two looks whether records are in the database.
const FIRST_INTERVAL: Duration = Duration::from_millis(2);
const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

type Level = Result<AckLevel, WriteError>;

/// Brings stored writes to the level that is wanted, and says for each which was reached.
pub(super) async fn reach<H, L, D>(core: &Arc<Core<H, L, D>>, stored: Vec<Stored>, ack: Acknowledge) -> Vec<Level>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    if stored.is_empty() {
        return Vec::new();
    }
    let watched: Vec<Watched> = stored.iter().map(Watched::of).collect();
    let (mut levels, deadline) = if ack.required == AckLevel::Logged {
        let deadline = Instant::now() + ack.patience();
        (queue_in_background(core, stored, ack).await, deadline)
    } else {
        let queued = queue::queue(core, &stored).await;
        let levels = queued.into_iter().map(|queued| queued.map(|()| AckLevel::Queued)).collect();
        (levels, Instant::now() + ack.patience())
    };
    if ack.target() == AckLevel::Applied {
        watch(core, &watched, deadline, &mut levels).await;
    }
    for level in &mut levels {
        if let Ok(reached) = *level
            && reached < ack.required
        {
            *level = Err(WriteError::LevelNotReached { required: ack.required, reached });
        }
    }
    levels
}

/// LOGGED is reached already. Queueing goes on behind the client's back, and is waited for only if it prefers more.
async fn queue_in_background<H, L, D>(core: &Arc<Core<H, L, D>>, stored: Vec<Stored>, ack: Acknowledge) -> Vec<Level>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let logged = vec![Ok(AckLevel::Logged); stored.len()];
    if !core.log.is_available() {
        return logged;
    }
    // Without a permit the relay does it, when the log is faster again.
    let Ok(permit) = core.background.clone().try_acquire_owned() else { return logged };
    let work = core.tasks.spawn({
        let core = core.clone();
        async move {
            let queued = queue::queue(&core, &stored).await;
            drop(permit);
            queued
        }
    });
    if ack.target() == AckLevel::Logged {
        return logged;
    }
    match timeout(ack.patience(), work).await {
        Ok(Ok(queued)) => queued.into_iter().map(|q| Ok(q.map_or(AckLevel::Logged, |()| AckLevel::Queued))).collect(),
        Ok(Err(_)) | Err(_) => logged,
    }
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

    /// Whether the slot says that the database holds this write or a newer one of its record. Dirty records never
    /// expire, and an opening puts back what was marked queued: what is no longer an image was clean before it went.
    fn is_applied(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Image { version, dirty, .. } => !dirty && *version >= self.version,
            Slot::Absent | Slot::Leased | Slot::Empty => true,
        }
    }
}

/// Looks at all records again and again, until every one is in the database or the time is up.
async fn watch<H, L, D>(core: &Core<H, L, D>, watched: &[Watched], deadline: Instant, levels: &mut [Level])
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut interval = FIRST_INTERVAL;
    loop {
        let mut by_shard = BTreeMap::<Shard, Vec<usize>>::new();
        for (at, level) in levels.iter().enumerate() {
            if *level == Ok(AckLevel::Queued) {
                by_shard.entry(watched[at].shard).or_default().push(at);
            }
        }
        if by_shard.is_empty() {
            return;
        }
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
                if watched[at].is_applied(slot) {
                    levels[at] = Ok(AckLevel::Applied);
                }
            }
        }
        let next = Instant::now() + interval;
        if next > deadline {
            return;
        }
        sleep_until(next).await;
        interval = (interval * 3 / 2).min(LONGEST_INTERVAL);
    }
}
