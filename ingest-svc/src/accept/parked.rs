//! Parked records as writes: what an operator wants written again goes the way of every write, with the image that the hot
//! store kept and on the condition that it still is parked.

use std::{collections::BTreeMap, sync::Arc};

use database::{CatalogTable, Database};
use event_log::{EventPublisher, LogReader};
use hot_store::{HotStore, Precondition, RecordId, Stage};
use model::{Content, Epoch, Image, KeyBytes, Moment, Row, Shard, Version};
use tokio::time::Instant;

use super::{
    Accepted, AckLevel, WriteError, Writer, carry,
    draft::Draft,
    merge,
    request::Wish,
    store::Item,
    validate::{Checked, Intent, fits},
};
use crate::{
    Core, Part, StoreError,
    read::form::{self, Use},
};

/// A parked record that is to be written again.
#[derive(Debug, Clone)]
pub(crate) struct Parked {
    pub(crate) table: Arc<CatalogTable>,
    pub(crate) shard: Shard,
    pub(crate) key: KeyBytes,
    /// The version at which it was seen parked, in this epoch.
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    pub(crate) image: Image,
}

impl<H, L, D> Writer<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// Writes parked records again, up to QUEUED. [`WriteError::Aborted`] is told of one that is not parked as it was seen.
    pub(crate) async fn write_parked(&self, parked: Vec<Parked>) -> Vec<Result<Accepted, WriteError>> {
        let (core, count) = (self.core.clone(), parked.len());
        let asked = Instant::now();
        let work = async move { accept(&core, asked, parked).await };
        self.finish(work, count).await
    }
}

async fn accept<H, L, D>(
    core: &Arc<Core<H, L, D>>,
    asked: Instant,
    parked: Vec<Parked>,
) -> Vec<Result<Accepted, WriteError>>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let moment = core.options.moment();
    let max = core.log.max_payload_bytes();
    let mut results = vec![Err(WriteError::OutcomeUnknown("the write was not worked on".to_owned())); parked.len()];
    let mut by_shard: BTreeMap<Shard, Vec<Item>> = BTreeMap::new();
    let wish = Wish { required: AckLevel::Queued, target: AckLevel::Queued, patience: std::time::Duration::ZERO };
    for (index, parked) in parked.into_iter().enumerate() {
        let table = &parked.table.schema.table;
        // As it is now: it may have been disabled, or altered, which is what helps most of these records.
        let Some(current) = core.directory.table(table) else {
            results[index] = Err(WriteError::TableNotEnabled(table.clone()));
            continue;
        };
        match check(core, current, parked, max, moment).await {
            Ok(checked) => by_shard.entry(checked.shard).or_default().push(Item { index, checked, wish }),
            Err(error) => results[index] = Err(error),
        }
    }
    carry(core, asked, by_shard, results, moment).await
}

async fn check<H, L, D>(
    core: &Core<H, L, D>,
    table: Arc<CatalogTable>,
    parked: Parked,
    max: usize,
    moment: Moment<'_>,
) -> Result<Checked, WriteError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let Parked { shard, key: bytes, version, epoch, image, .. } = parked;
    let schema = &table.schema;
    let fingerprint = table.fingerprint();
    let unreadable = |problem: String| WriteError::Store(StoreError::Corrupt { shard, problem });
    let key = bytes.decode().map_err(|error| unreadable(error.to_string()))?;
    let image = form::image(core, &table, &key, image, Stage::Parked, Use::Write).await?;
    let content = match image.content {
        Content::Row(row) => {
            let invalid = |violations| WriteError::Invalid { part: Part::Row, violations };
            let row = merge::after_image(schema, fingerprint, row, image.fingerprint, Row::default(), moment)
                .map_err(invalid)?;
            Content::Row(row)
        }
        Content::Tombstone => Content::Tombstone,
    };
    let record = RecordId { namespace: table.settings.namespace.clone(), key: bytes };
    // The request that made it took effect then; this is a write of its own.
    let image = Image { content, fingerprint, request: None, since: None, ..image };
    let draft = Draft { table: schema.table.clone(), shard, key: key.clone(), image };
    fits(&draft, &record, max)?;
    let intent = Intent::Store { precondition: Precondition::Parked { version, epoch }, draft };
    Ok(Checked { fingerprint, record, shard, key, request: None, intent, table })
}
