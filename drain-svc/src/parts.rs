//! What all tasks of one drain share.

use std::{collections::BTreeMap, sync::Arc};

use database::TableDirectory;
use hot_store::Budget;
use model::{DatabaseName, Shard, TableRef};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    DrainOptions,
    backoff::Backoff,
    breaker::Breakers,
    budget::{Gate, Gates, Pulse},
    dead_letter::Post,
    gather::{Generation, Lane, Ticket},
    horizon::{Fronts, Holding},
    status::{Board, Metrics},
};

pub(crate) struct Parts<H, D> {
    pub(crate) hot: Arc<H>,
    pub(crate) directory: Arc<TableDirectory<D>>,
    /// Where dead letters go.
    pub(crate) post: Arc<dyn Post>,
    pub(crate) options: DrainOptions,
    pub(crate) gates: Gates<H>,
    /// How databases fare whose limit follows that.
    pub(crate) pulses: BTreeMap<DatabaseName, Pulse>,
    pub(crate) breakers: Breakers,
    /// How far databases are in which rows wait for others.
    pub(crate) fronts: Fronts,
    pub(crate) metrics: Metrics,
    /// What is shown to operators.
    pub(crate) board: Board,
    /// To the consumer, which alone speaks to the event log.
    pub(crate) reports: mpsc::Sender<Report>,
    /// Take nothing new, finish what is in a transaction.
    pub(crate) stop: CancellationToken,
}

impl<H, D> Parts<H, D> {
    pub(crate) fn backoff(&self) -> Backoff {
        let DrainOptions { retry_initial, retry_max, chance, .. } = &self.options;
        Backoff::new(*retry_initial, *retry_max, chance.clone())
    }

    /// How a database fares, if its limit follows that.
    pub(crate) fn pulse(&self, database: &DatabaseName) -> Option<&Pulse> {
        self.pulses.get(database)
    }

    /// Tells the consumer. Without one the drain is gone, and nobody needs to know.
    pub(crate) async fn report(&self, report: Report) {
        let _ = self.reports.send(report).await;
    }
}

impl<H: Budget, D> Parts<H, D> {
    /// What all that is written to a table has to pass.
    pub(crate) fn gate(&self, table: &TableRef) -> Arc<Gate<H>> {
        self.gates.of(table, &self.hot, &self.options)
    }
}

/// What the consumer is told.
pub(crate) enum Report {
    /// The enabled tables were looked at again.
    Tables,
    /// These shards of a lane have this process as their owner in the database.
    Owned { lane: Arc<Lane>, shards: Vec<Shard>, generation: Generation },
    /// These records are in the database and marked so in the hot store.
    Done { lane: Arc<Lane>, shard: Shard, generation: Generation, offsets: Vec<i64> },
    /// The lane may have room again.
    Room { lane: Arc<Lane> },
    /// Somebody asks what this process owns.
    Holdings { answer: oneshot::Sender<Vec<Holding>> },
}

impl Report {
    /// That all records of these tickets are done.
    pub(crate) fn done(lane: Arc<Lane>, shard: Shard, generation: Generation, tickets: &[Ticket]) -> Self {
        let offsets = tickets.iter().flat_map(|ticket| &ticket.records).map(|(_, offset)| *offset).collect();
        Self::Done { lane, shard, generation, offsets }
    }
}
