//! Telling the hot store what the database holds. Only then is a record done.

use std::{sync::Arc, time::Duration};

use database::{Applied, Change, DatabaseRow};
use hot_store::{Clean, HotStore, RecordId};
use model::{Content, Fingerprint, Image, KeyBytes, Namespace, Operation, Shard};

use crate::{
    dead_letter::Undeliverable,
    gather::{Generation, Lane, Ticket},
    parts::{Parts, Report},
    status::TableMetrics,
};

/// The mark that follows from what became of a change; `None` if it was not applied at all.
pub(crate) fn mark(
    change: &Change,
    applied: Applied,
    key: KeyBytes,
    namespace: &Namespace,
    schema: Fingerprint,
) -> Option<Clean> {
    let record = RecordId { namespace: namespace.clone(), key };
    let newer = |version, content| Clean {
        record: record.clone(),
        version,
        newer: Some(Image { content, operation: Operation::Fill, fingerprint: schema, request: None, since: None }),
    };
    match applied {
        Applied::Stale { current: DatabaseRow::Present { version, row } } => Some(newer(version, Content::Row(row))),
        Applied::Stale { current: DatabaseRow::Deleted { version } } => Some(newer(version, Content::Tombstone)),
        // The tombstone was purged; the record must not be readable as if it had been written.
        Applied::Purged { horizon } => Some(newer(horizon, Content::Tombstone)),
        Applied::Written | Applied::Same | Applied::Stale { current: DatabaseRow::Absent } => {
            Some(Clean { record, version: change.version, newer: None })
        }
        Applied::SinceRefused => None,
    }
}

/// What one transaction wrote of one shard.
pub(crate) struct Cleaning {
    pub(crate) shard: Shard,
    pub(crate) generation: Generation,
    pub(crate) cleans: Vec<Clean>,
    pub(crate) tickets: Vec<Ticket>,
}

impl Cleaning {
    /// Marks until the hot store accepts it, then lets the records go.
    ///
    /// A shard that is closed is opened again by an ingest replica; until then its records wait, and those of others
    /// don't wait for them. Given up only when another drain has the partition, or at the end of the process: then
    /// the records are delivered again.
    pub(crate) async fn run<H: HotStore, D>(
        self,
        parts: Arc<Parts<H, D>>,
        lane: Arc<Lane>,
        metrics: TableMetrics,
        ttl: Duration,
    ) {
        let Self { shard, generation, cleans, tickets } = self;
        let table = &lane.table.schema.table;
        if planted::is(planted::Bug::CommitBeforeClean) {
            parts.report(Report::done(lane.clone(), shard, generation, &tickets)).await;
        }
        let mut backoff = parts.backoff();
        while let Err(error) = parts.hot.mark_clean(shard, cleans.clone(), ttl).await {
            if parts.stop.is_cancelled() {
                return;
            }
            if !lane.with(|gathered| gathered.is_assigned(shard, generation)) {
                lane.with(|gathered| tickets.iter().for_each(|ticket| gathered.release(shard, ticket)));
                return parts.report(Report::Room { lane }).await;
            }
            if backoff.failures() == 0 {
                tracing::warn!(%table, %shard, %error, "written records can't be marked clean; trying until they can");
            }
            parts.metrics.of(&metrics).retry("mark_clean");
            tokio::select! {
                biased;
                // One more attempt, the last one.
                () = parts.stop.cancelled() => {}
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
        if backoff.failures() > 0 {
            tracing::info!(%table, %shard, "written records were marked clean");
        }
        let (refused, done): (Vec<_>, Vec<_>) = tickets.into_iter().partition(|ticket| !ticket.refused.is_empty());
        // An older version has landed; now the newer ones can be parked.
        for ticket in refused {
            lane.give_up(Undeliverable::Refused { shard, ticket });
        }
        lane.with(|gathered| done.iter().for_each(|ticket| gathered.release(shard, ticket)));
        // The consumer knows whether the assignment still stands.
        parts.report(Report::done(lane, shard, generation, &done)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{Key, Row, Value, Version};

    use super::*;

    #[test]
    fn the_hot_store_learns_what_the_database_holds() {
        let version = |n| Version::new(n).unwrap();
        let key = Key(vec![Value::Int64(1)]);
        let image = Image {
            content: Content::Tombstone,
            operation: Operation::Delete,
            fingerprint: Fingerprint(1),
            request: None,
            since: None,
        };
        let change = Change { shard: Shard(1), key: key.clone(), version: version(7), image };
        let namespace = Namespace::new("payments").unwrap();
        let marked = |applied| {
            mark(&change, applied, key.to_bytes(), &namespace, Fingerprint(2))
                .map(|clean| (clean.version, clean.newer.map(|image| (image.content, image.operation))))
        };
        for applied in [Applied::Written, Applied::Same] {
            assert_eq!(marked(applied), Some((version(7), None)));
        }
        let purged = Applied::Purged { horizon: version(12) };
        assert_eq!(marked(purged), Some((version(12), Some((Content::Tombstone, Operation::Fill)))));
        let present = DatabaseRow::Present { version: version(9), row: Row::default() };
        let row = Content::Row(Row::default());
        assert_eq!(marked(Applied::Stale { current: present }), Some((version(9), Some((row, Operation::Fill)))));
        let deleted = DatabaseRow::Deleted { version: version(8) };
        let tombstone = Some((Content::Tombstone, Operation::Fill));
        assert_eq!(marked(Applied::Stale { current: deleted }), Some((version(8), tombstone)));
        assert_eq!(marked(Applied::SinceRefused), None);
    }
}
