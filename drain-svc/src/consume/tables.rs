//! The lanes of each table, and the tasks that write them.

use std::{collections::BTreeMap, sync::Arc};

use database::{CatalogTable, Database};
use hot_store::{Budget, HotStore};
use model::{Shard, TableRef, Topic, Version};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{apply::Writer, dead_letter::DeadLetters, gather::Lane, parts::Parts, status::TableMetrics};

/// A lane, and whether its partitions are paused for want of room.
struct Slot {
    lane: Arc<Lane>,
    full: bool,
}

/// A table that is being drained.
struct Drained {
    table: TableRef,
    lanes: Vec<Slot>,
    metrics: TableMetrics,
    records: usize,
    bytes: usize,
    stop: CancellationToken,
}

/// All tables that are being drained, by their topics.
#[derive(Default)]
pub(crate) struct Tables {
    drained: BTreeMap<Topic, Drained>,
}

impl Tables {
    /// The lane of a partition. Makes the table's lanes and starts their writers when they are first asked for.
    pub(crate) fn lane<H: HotStore + Budget, D: Database>(
        &mut self,
        table: &Arc<CatalogTable>,
        shard: Shard,
        parts: &Arc<Parts<H, D>>,
        tasks: &mut JoinSet<()>,
    ) -> Arc<Lane> {
        let topic = &table.settings.topic;
        let drained = self.drained.entry(topic.clone()).or_insert_with(|| start(table, parts, tasks));
        drained.lanes[usize::from(shard.0) % drained.lanes.len()].lane.clone()
    }

    /// The metrics of a topic's table.
    pub(crate) fn metrics(&self, topic: &Topic) -> Option<&TableMetrics> {
        self.drained.get(topic).map(|drained| &drained.metrics)
    }

    /// Whether the lane is full: from its capacity up, until half of it is done.
    pub(crate) fn is_full(&mut self, lane: &Lane) -> bool {
        let Some(drained) = self.drained.get_mut(&lane.topic) else { return false };
        let (records, bytes) = lane.with(|gathered| (gathered.records(), gathered.bytes()));
        let Some(slot) = drained.lanes.get_mut(lane.index) else { return false };
        slot.full = if slot.full {
            records > drained.records / 2 || bytes > drained.bytes / 2
        } else {
            records >= drained.records || bytes >= drained.bytes
        };
        slot.full
    }

    /// Stops the writers of tables that are gone.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&Topic) -> bool) {
        self.drained.retain(|topic, drained| {
            let wanted = is_wanted(topic);
            if !wanted {
                drained.stop.cancel();
            }
            wanted
        });
    }

    /// What each table has gathered: records, bytes, the oldest version.
    pub(crate) fn gathered(&self) -> impl Iterator<Item = (&TableRef, &TableMetrics, usize, usize, Option<Version>)> {
        self.drained.values().map(|drained| {
            let all = drained.lanes.iter().map(|slot| slot.lane.with(|g| (g.records(), g.bytes(), g.oldest())));
            let (records, bytes, oldest) = all.fold((0, 0, None), |(records, bytes, oldest), lane| {
                (records + lane.0, bytes + lane.1, [oldest, lane.2].into_iter().flatten().min())
            });
            (&drained.table, &drained.metrics, records, bytes, oldest)
        })
    }
}

fn start<H: HotStore + Budget, D: Database>(
    table: &Arc<CatalogTable>,
    parts: &Arc<Parts<H, D>>,
    tasks: &mut JoinSet<()>,
) -> Drained {
    let (name, topic) = (&table.schema.table, &table.settings.topic);
    let options = parts.options.table(name);
    let metrics = TableMetrics::new(name);
    let stop = parts.stop.child_token();
    let gate = parts.gate(name);
    tasks.spawn(gate.clone().keep_told(stop.clone()));
    let lanes = (0..parts.options.lanes.max(1))
        .map(|index| {
            let (lane, given_up) = Lane::new(topic.clone(), index, table.clone());
            let lane = Arc::new(lane);
            tasks.spawn(DeadLetters::new(lane.clone(), given_up, parts.clone(), metrics.clone(), stop.clone()).run());
            let writer = Writer::new(lane.clone(), parts.clone(), gate.clone(), metrics.clone(), stop.clone());
            tasks.spawn(writer.run());
            Slot { lane, full: false }
        })
        .collect();
    let (rates, rows) = (gate.rates(), gate.batch_rows());
    tracing::info!(table = %name, %topic, rows_per_second = rates.rows_per_second(), batch_rows = rows, "draining");
    let (records, bytes) = (parts.options.lane_capacity.max(1), parts.options.lane_bytes(options).max(1));
    parts.board.limited(name, rates.rows_per_second(), rows);
    Drained { table: name.clone(), lanes, metrics, records, bytes, stop }
}
