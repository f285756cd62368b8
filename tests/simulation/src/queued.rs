//! What the hot store takes for queued lies in the log, and counts there: else nobody would ever produce it again. And
//! what the database holds counts in the log: an event that a fence has made void is applied by nobody.

use std::collections::{BTreeMap, BTreeSet};

use database::DatabaseRow;
use event_log::{LogReader as _, LogRecord, TopicPartition};
use hot_store::{Dirty, DirtyRecord, HotStore as _};
use model::{Epoch, Event, EventBody, KeyBytes, Namespace, Shard, Version};

use crate::world::World;

/// Records asked for at once: more than there are.
const ALL: usize = 10_000;

/// How far a partition was read.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    next: i64,
    in_force: Epoch,
}

/// What the log holds and no fence has made void.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    read: BTreeMap<TopicPartition, Read>,
    counts: BTreeSet<(Namespace, KeyBytes, Version)>,
}

impl Queued {
    /// Compares the hot store and the database with the log.
    pub(crate) async fn look(&mut self, world: &World) {
        if world.cuts() > 0 {
            // What the log has lost may have been applied before anybody looked, and be marked still: behind the
            // checkpoint that is believed, the relay produces it again once the drain has passed the mark.
            return;
        }
        let rows: Vec<_> = world.tables.iter().map(|t| world.stores.database.records(&t.name.table)).collect();
        for shard in world.shards.all() {
            self.read(world, shard).await;
        }
        for (table, rows) in world.tables.iter().zip(rows) {
            for (key, row) in rows.unwrap_or_default() {
                let (DatabaseRow::Present { version, .. } | DatabaseRow::Deleted { version }) = row else { continue };
                let applied = (table.settings.namespace.clone(), key, version);
                if version > Version::ZERO && !self.counts.contains(&applied) {
                    world.complain(format!("the database has {applied:?}, which does not count in the log"));
                }
            }
        }
        for shard in world.shards.all() {
            let hot = &world.stores.hot;
            let all = hot.dirty(shard, Dirty::All, Version::ZERO, ALL).await;
            let unqueued = hot.dirty(shard, Dirty::Unqueued, Version::ZERO, ALL).await;
            // Closed: nobody relies on its marks.
            let (Ok((_, all)), Ok((_, unqueued))) = (all, unqueued) else { continue };
            // After the store: what is marked was in the log before.
            self.read(world, shard).await;
            let is_unqueued = |dirty: &DirtyRecord| {
                unqueued.iter().any(|other| other.record == dirty.record && other.version == dirty.version)
            };
            for dirty in all.into_iter().filter(|dirty| !is_unqueued(dirty)) {
                let (record, version) = (dirty.record, dirty.version);
                if !self.counts.contains(&(record.namespace.clone(), record.key.clone(), version)) {
                    world.complain(format!("{record:?} at {version} is taken for queued, but does not lie in the log"));
                }
            }
        }
    }

    async fn read(&mut self, world: &World, shard: Shard) {
        for table in &world.tables {
            let at = TopicPartition { topic: table.settings.topic.clone(), partition: shard.0 };
            let Ok(bounds) = world.stores.log.bounds(std::slice::from_ref(&at)).await else { continue };
            let Some((low, end)) = bounds.first().copied() else { continue };
            let read = self.read.entry(at.clone()).or_default();
            let from = read.next.max(low);
            let counts = &mut self.counts;
            let mut each = |record: LogRecord| {
                match Event::decode(record.payload) {
                    Ok(Event { epoch, body: EventBody::Fence(_), .. }) => read.in_force = read.in_force.max(epoch),
                    Ok(Event { body: EventBody::Requests(_), .. }) => {}
                    Ok(event) if event.epoch.is_void_under(read.in_force) => {}
                    Ok(Event { body: EventBody::Mutations(mutations), .. }) => {
                        let of = |m: model::Mutation| (table.settings.namespace.clone(), m.key.to_bytes(), m.version);
                        counts.extend(mutations.into_iter().map(of));
                    }
                    Err(error) => world.complain(format!("the log holds what can't be read: {error}")),
                }
                read.next = record.offset + 1;
                true
            };
            if from < end
                && let Err(error) = world.stores.log.read(&at, from, end, &mut each).await
            {
                world.complain(format!("the log does not answer the harness: {error}"));
            }
        }
    }
}
