//! Records of the hot store as events in the log.

use database::Database;
use event_log::{EventPublisher, LogReader, Outgoing, PublishError, TopicPartition};
use hot_store::{DirtyRecord, HotStore, HotStoreError, Stamp};
use model::{Epoch, Event, EventBody, Mutation, Shard};
use tokio::time::timeout;

use super::Swept;
use crate::Core;

#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error(transparent)]
    HotStore(#[from] HotStoreError),
    #[error("the event log did not acknowledge the records: {0}")]
    Log(String),
}

/// Produces records under the epoch in which they were read, marks queued those that the log took, and says how many
/// that were. One that can't be produced is counted and left where it is; it stops no other.
pub(super) async fn produce<H, L, D>(
    core: &Core<H, L, D>,
    shard: Shard,
    epoch: Epoch,
    records: Vec<DirtyRecord>,
    swept: &mut Swept,
) -> Result<u64, RelayError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let (mut outgoing, mut stamps) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
    for DirtyRecord { record, version, image } in records {
        let Some(table) = core.directory.by_namespace(&record.namespace) else {
            swept.homeless += 1;
            continue;
        };
        let key = match record.key.decode() {
            Ok(key) => key,
            Err(error) => {
                swept.refused += 1;
                tracing::error!(%shard, %version, table = %table.schema.table, %error, "the key of a dirty record can't be read; it can't be queued");
                continue;
            }
        };
        let mutation = Mutation { table: table.schema.table.clone(), key, version, image };
        let event = Event { shard, epoch, body: EventBody::Mutations(vec![mutation]) };
        outgoing.push(Outgoing {
            to: TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 },
            key: record.key.as_bytes().clone(),
            payload: event.encode(),
        });
        stamps.push(Stamp { record, version });
    }
    if outgoing.is_empty() {
        return Ok(0);
    }
    let published = timeout(core.options.publish_timeout, core.log.publish(outgoing))
        .await
        .map_err(|_| RelayError::Log("there was no answer in time".to_owned()))?;
    let mut unknown = None;
    let mut taken = Vec::with_capacity(stamps.len());
    for (stamp, answer) in stamps.into_iter().zip(published) {
        match answer {
            Ok(_) => taken.push(stamp),
            Err(error @ (PublishError::Refused(_) | PublishError::TooLarge { .. })) => {
                swept.refused += 1;
                tracing::warn!(%shard, version = %stamp.version, %error, "the log did not take a record again; it will be offered again");
            }
            Err(error) => unknown = Some(error),
        }
    }
    let mut produced = 0;
    if !taken.is_empty() {
        let marked = core.hot.mark_queued(shard, epoch, taken).await?;
        produced = marked.iter().filter(|marked| **marked).count() as u64;
    }
    match unknown {
        Some(error) => Err(RelayError::Log(error.to_string())),
        None => Ok(produced),
    }
}
