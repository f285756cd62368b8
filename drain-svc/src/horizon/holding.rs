//! What this process owns.

use std::{sync::Arc, time::Duration};

use database::{Horizon, Owner};
use hot_store::{Backlog, HotStore, HotStoreError};
use model::{Epoch, Shard, TableRef, Version};
use tokio::{sync::oneshot, time};

use crate::{
    gather::Lane,
    parts::{Parts, Report},
};

/// A shard of a table whose owner in the database is an assignment of this process.
pub(crate) struct Holding {
    pub(crate) lane: Arc<Lane>,
    pub(crate) shard: Shard,
    pub(crate) owner: Owner,
}

impl Holding {
    pub(super) fn table(&self) -> &TableRef {
        &self.lane.table.schema.table
    }

    /// What the hot store has told this owner in that epoch.
    pub(super) fn horizon(&self, epoch: Epoch, version: Version) -> Horizon {
        Horizon { shard: self.shard, owner: self.owner.clone(), epoch, version }
    }
}

/// All of it, by topic and shard, as the consumer knows it; nothing once the drain ends.
pub(super) async fn holdings<H, D>(parts: &Parts<H, D>) -> Vec<Holding> {
    let (answer, answered) = oneshot::channel();
    parts.report(Report::Holdings { answer }).await;
    answered.await.unwrap_or_default()
}

/// What the database lacks of some tables in one shard, and the epoch in which that was so; nothing while the shard is
/// closed, since nobody knows then.
pub(super) async fn backlogs<H: HotStore, D>(
    parts: &Parts<H, D>,
    shard: Shard,
    holdings: &[Holding],
) -> Result<Option<(Epoch, Vec<Backlog>)>, HotStoreError> {
    let namespaces = holdings.iter().map(|holding| holding.lane.table.settings.namespace.clone()).collect();
    match parts.hot.backlog(shard, namespaces).await {
        Ok(answer) => Ok(Some(answer)),
        Err(HotStoreError::Closed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits until the next round; `false` if there is none.
pub(super) async fn next_round<H, D>(parts: &Parts<H, D>, after: Duration) -> bool {
    tokio::select! {
        biased;
        () = parts.stop.cancelled() => false,
        () = time::sleep(after) => true,
    }
}
