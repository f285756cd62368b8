//! Rules that no client sees broken at once, watched where they are kept: who may commit, and how far progress may go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use database::{DatabaseRow, Owner, ShardClaim};
use event_log::{LogReader as _, Progress, TopicPartition};
use futures::FutureExt as _;
use hot_store::{HotStore as _, RecordId, Slot, Stage};
use model::{Event, EventBody, KeyBytes, Mutation, Shard, TableName};

use crate::{
    backends::Stores,
    letters,
    nature::{Nature, lock},
    world::Table,
};

/// Who owns which shard of which table, as the database was told last.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    owners: Mutex<BTreeMap<(TableName, Shard), Owner>>,
    changes: AtomicU64,
}

/// How the owners stood at some moment.
pub(crate) struct Stand {
    changes: u64,
    stranger: Option<Owner>,
}

impl Owners {
    /// The database has taken these claims.
    pub(crate) fn taken(&self, claims: &[ShardClaim], owner: &Owner) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        let mut owners = lock(&self.owners);
        for claim in claims {
            owners.insert((claim.table.clone(), claim.shard), owner.clone());
        }
    }

    /// Whether somebody else owns one of these shards.
    pub(crate) fn stand(&self, table: &TableName, asked: &[(Shard, Owner)]) -> Stand {
        let owners = lock(&self.owners);
        let is_other = |(shard, owner): &(Shard, Owner)| {
            owners.get(&(table.clone(), *shard)).filter(|present| *present != owner).cloned()
        };
        Stand { changes: self.changes.load(Ordering::Relaxed), stranger: asked.iter().find_map(is_other) }
    }
}

impl Stand {
    /// Who owned a shard from the beginning to the end of a transaction that was committed, and was another.
    pub(crate) fn overruled(self, at_the_end: Self) -> Option<Owner> {
        self.stranger.filter(|_| self.changes == at_the_end.changes && at_the_end.stranger.is_some())
    }
}

/// Watches how far drains say that they are.
pub(crate) struct Witness {
    pub(crate) nature: Arc<Nature>,
    pub(crate) stores: Stores,
    pub(crate) tables: Vec<Table>,
}

impl Witness {
    /// A drain says that a partition is done up to `to`: every record below it that counts is in the database, or a
    /// newer one of its key, and the hot store knows (unless it has forgotten, which `may_have_forgotten` says).
    pub(crate) fn progressed(&self, at: &TopicPartition, from: Progress, to: Progress, may_have_forgotten: bool) {
        let Some(table) = self.tables.iter().find(|table| table.settings.topic == at.topic) else { return };
        let (mut in_force, mut mutations) = (from.epoch, Vec::new());
        let mut each = |record: event_log::LogRecord| {
            match Event::decode(record.payload) {
                Ok(Event { epoch, body: EventBody::Fence(_), .. }) => in_force = in_force.max(epoch),
                Ok(event) if event.epoch.is_void_under(in_force) => {}
                Ok(Event { body: EventBody::Mutations(found), .. }) => mutations.extend(found),
                Ok(Event { body: EventBody::Requests(_), .. }) | Err(_) => {}
            }
            true
        };
        // It has answered before it waits for the first time; of a stretch that is longer the beginning is looked at.
        let _ = self.stores.log.read(at, from.offset, to.offset, &mut each).now_or_never();
        for mutation in mutations {
            self.is_done(table, Shard(at.partition), &mutation, may_have_forgotten);
        }
    }

    /// Whether the dead letters have it.
    fn is_given_up(&self, key: &KeyBytes, mutation: &Mutation) -> bool {
        let letters = letters::of_table(&self.stores.log, &self.tables, &mutation.table);
        letters.iter().any(|letter| letter.key == *key && letter.version == Some(mutation.version))
    }

    /// What was given up is parked, or something newer stands in its place.
    fn is_kept(&self, table: &Table, shard: Shard, key: &KeyBytes, mutation: &Mutation, may_have_forgotten: bool) {
        let record = RecordId { namespace: table.settings.namespace.clone(), key: key.clone() };
        let Some(Ok(answer)) = self.stores.hot.read(shard, vec![record]).now_or_never() else { return };
        let kept = match answer.slots.first() {
            Some(Slot::Image { version, stage, .. }) if *version == mutation.version => *stage == Stage::Parked,
            Some(Slot::Image { version, .. }) => *version > mutation.version,
            _ => false,
        };
        if !kept && !may_have_forgotten {
            let what = format!("progress went past {mutation:?}, which is dead-lettered and not parked: {answer:?}");
            self.nature.complain(what);
        }
    }

    fn is_done(&self, table: &Table, shard: Shard, mutation: &Mutation, may_have_forgotten: bool) {
        let (key, name) = (mutation.key.to_bytes(), &table.name.table);
        let rows = self.stores.database.records(name).unwrap_or_default();
        let there = rows.into_iter().find(|(stored, _)| *stored == key).map(|(_, row)| row);
        let has_it = match there {
            Some(DatabaseRow::Present { version, .. } | DatabaseRow::Deleted { version }) => {
                version >= mutation.version
            }
            Some(DatabaseRow::Absent) | None => {
                let purged = self.stores.database.shard_state(name, shard).map(|shard| shard.purge_horizon);
                purged >= Some(mutation.version)
            }
        };
        if !has_it && self.is_given_up(&key, mutation) {
            return self.is_kept(table, shard, &key, mutation, may_have_forgotten);
        }
        if !has_it {
            self.nature.complain(format!("progress went past {mutation:?}, which the database does not have"));
        }
        if may_have_forgotten {
            return;
        }
        let record = RecordId { namespace: table.settings.namespace.clone(), key };
        if let Some(Ok(answer)) = self.stores.hot.read(shard, vec![record]).now_or_never()
            && let Some(Slot::Image { version, stage: Stage::Dirty, .. }) = answer.slots.first()
            && *version == mutation.version
        {
            self.nature.complain(format!("progress went past {mutation:?}, which the hot store still takes for dirty"));
        }
    }
}
