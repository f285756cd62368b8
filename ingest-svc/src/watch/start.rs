//! Where a watch begins.

use std::time::Duration;

use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogReader, LogRecord, TopicPartition};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hot_store::HotStore;
use model::{Epoch, Shard, Topic};
use planted::Bug;
use tokio::time::sleep;

use super::{
    WatchError, WatchToken,
    logged::Logged,
    token::{Place, Witness},
};
use crate::{Core, StoreError};

/// How often it is looked again whether the log is really shorter than a token says, and after what time: a broker that
/// has just become a partition's leader may not show its last records yet.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Attempts to find all shards open while the log's ends are asked for.
const ATTEMPTS: u32 = 3;

/// Where a watch begins.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) places: Vec<Place>,
    /// Where each partition ended then.
    pub(super) ends: Vec<i64>,
    pub(super) witness: Option<Witness>,
}

/// At the log's present end.
///
/// First the epochs, then the ends, then the epochs again: the fence of an epoch was in every partition before a shard
/// opened in it, and the next one comes only after it was closed. So the epoch in which a shard was open before and
/// after is in force at an end that was read in between.
pub(super) async fn now<H, L, D>(core: &Core<H, L, D>, topic: &Topic, partitions: &[u16]) -> Result<Start, WatchError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let asked = at(topic, partitions);
    let mut attempt = 1;
    let (epochs, bounds) = loop {
        let before = epochs(core, partitions).await?;
        let bounds = core.log.bounds(&asked).await?;
        let after = epochs(core, partitions).await?;
        let reopened = before.iter().zip(&after).position(|(before, after)| before != after);
        match reopened {
            None => break (before, bounds),
            Some(at) if attempt >= ATTEMPTS => {
                let shard = Shard(partitions.get(at).copied().unwrap_or_default());
                return Err(StoreError::Closed { shard }.into());
            }
            Some(_) => attempt += 1,
        }
    };
    let ends: Vec<i64> = bounds.iter().map(|(_, end)| *end).collect();
    let place =
        |((partition, offset), epoch): ((&u16, &i64), Epoch)| Place { partition: *partition, offset: *offset, epoch };
    let places = partitions.iter().zip(&ends).zip(epochs).map(place).collect();
    let mut witness = None;
    if let Some(last) = bounds.iter().position(|(low, end)| low < end) {
        let offset = ends[last] - 1;
        let digest = digest_at(core, &asked[last], offset).await?;
        witness = digest.map(|digest| Witness { partition: partitions[last], offset, digest });
    }
    Ok(Start { places, ends, witness })
}

/// Where another watch has ended.
pub(super) async fn resumed<H, L, D>(
    core: &Core<H, L, D>,
    table: &CatalogTable,
    partitions: &[u16],
    token: &WatchToken,
) -> Result<Start, WatchError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let topic = &table.settings.topic;
    if token.table != table.schema.table {
        return Err(WatchError::OtherToken(format!("the token is of a watch of {}", token.table)));
    }
    if token.topic != *topic || token.shards != core.shards.get() {
        return Err(WatchError::Expired(format!(
            "the token is of topic {} with {} partitions",
            token.topic, token.shards
        )));
    }
    let place = |partition: &u16| token.places.iter().find(|place| place.partition == *partition).copied();
    let Some(mut places) = partitions.iter().map(place).collect::<Option<Vec<Place>>>() else {
        return Err(WatchError::OtherToken("the token is of a watch of other keys".to_owned()));
    };
    let mut asked = at(topic, partitions);
    // Nothing of the partition of the witness is told, if it is not among them.
    asked.extend(token.witness.map(|witness| TopicPartition { topic: topic.clone(), partition: witness.partition }));
    let mut look = 1;
    let bounds = loop {
        let bounds = core.log.bounds(&asked).await?;
        let is_short = places.iter().zip(&bounds).any(|(place, (_, end))| place.offset > *end);
        if !is_short || look >= LOOKS {
            break bounds;
        }
        look += 1;
        sleep(LOOK_AGAIN).await;
    };
    for (place, (low, end)) in places.iter().zip(&bounds) {
        let Place { partition, offset, .. } = place;
        if offset < low {
            return Err(WatchError::Expired(format!("{topic}/{partition} begins at {low} now, behind {offset}")));
        }
        if offset > end {
            return Err(WatchError::Expired(format!(
                "{topic}/{partition} ends at {end}, before {offset}: it is another log"
            )));
        }
    }
    if let (Some(witness), Some((low, end)), Some(at)) = (token.witness, bounds.last(), asked.last()) {
        let is_there = (*low..*end).contains(&witness.offset);
        if is_there && digest_at(core, at, witness.offset).await?.is_some_and(|digest| digest != witness.digest) {
            return Err(WatchError::Expired(format!("{topic} is another log than the token is of")));
        }
    }
    let ends: Vec<i64> = bounds.iter().take(places.len()).map(|(_, end)| *end).collect();
    if planted::is(Bug::WatchResumesLate) {
        let behind = places.iter_mut().zip(&ends).filter(|(place, end)| place.offset < **end);
        behind.for_each(|(place, _)| place.offset += 1);
    }
    Ok(Start { places, ends, witness: token.witness })
}

fn at(topic: &Topic, partitions: &[u16]) -> Vec<TopicPartition> {
    partitions.iter().map(|partition| TopicPartition { topic: topic.clone(), partition: *partition }).collect()
}

/// The epochs in which these shards are open.
async fn epochs<H: HotStore, L, D>(core: &Core<H, L, D>, shards: &[u16]) -> Result<Vec<Epoch>, WatchError> {
    // Boxed, since the compiler can't see otherwise that a task may hold these while they borrow.
    let asked: Vec<_> = shards.iter().map(|shard| Box::pin(core.hot.header(Shard(*shard)))).collect();
    let headers: Vec<_> = stream::iter(asked).buffered(core.options.shards_at_once.max(1)).try_collect().await?;
    let epoch = |(header, shard): (hot_store::ShardHeader, &u16)| {
        if header.open { Ok(header.epoch) } else { Err(StoreError::Closed { shard: Shard(*shard) }.into()) }
    };
    headers.into_iter().zip(shards).map(epoch).collect()
}

/// By which a record is known again; `None` if it does not come.
async fn digest_at<H, L: LogReader, D>(
    core: &Core<H, L, D>,
    partition: &TopicPartition,
    offset: i64,
) -> Result<Option<u64>, WatchError> {
    let mut digest = None;
    let mut each = |record: LogRecord| {
        digest = Some(Logged::of(record).digest);
        false
    };
    core.log.read(partition, offset, offset + 1, &mut each).await?;
    Ok(digest)
}
