//! Forgets what the hot store remembers of records that others may have changed in the database.

use std::collections::BTreeMap;

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{Eviction, HotStore, RecordId};
use model::{Row, Shard, TableRef};

use super::error::ReadError;
use crate::{Core, Part, StoreError};

/// What became of each key, in their order. A key that is no key of the table, or whose shard can't be asked, fails by itself.
pub(super) async fn evict<H, L, D>(
    core: &Core<H, L, D>,
    table: &TableRef,
    keys: &[Row],
) -> Result<Vec<Result<Eviction, ReadError>>, ReadError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let enabled = core.directory.table(table).ok_or_else(|| ReadError::TableNotEnabled(table.clone()))?;
    let mut by_shard: BTreeMap<Shard, Vec<(usize, RecordId)>> = BTreeMap::new();
    let mut results: Vec<Option<Result<Eviction, ReadError>>> = Vec::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        results.push(match enabled.schema.accept_key(key) {
            Ok(key) => {
                let record = RecordId { namespace: enabled.settings.namespace.clone(), key: key.to_bytes() };
                let shard = enabled.schema.shard_of(&key, core.shards);
                by_shard.entry(shard).or_default().push((at, record));
                None
            }
            Err(violations) => Some(Err(ReadError::Invalid { part: Part::Key, violations })),
        });
    }
    let ask = |(shard, records): (Shard, Vec<(usize, RecordId)>)| async move {
        let (places, records): (Vec<usize>, Vec<RecordId>) = records.into_iter().unzip();
        (places, core.hot.evict(shard, records).await)
    };
    let asked: Vec<_> =
        stream::iter(by_shard).map(ask).buffer_unordered(core.options.shards_at_once.max(1)).collect().await;
    for (places, outcome) in asked {
        match outcome {
            Ok(evictions) => {
                for (at, eviction) in places.into_iter().zip(evictions) {
                    results[at] = Some(Ok(eviction));
                }
            }
            Err(error) => {
                let error = StoreError::from(error);
                for at in places {
                    results[at] = Some(Err(error.clone().into()));
                }
            }
        }
    }
    let unanswered = || Err(StoreError::HotStoreDown("it has not answered for this key".to_owned()).into());
    Ok(results.into_iter().map(|result| result.unwrap_or_else(unanswered)).collect())
}
