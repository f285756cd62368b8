//! What the first database keeps of an installation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{Epoch, Shard, ShardCount, TableRef};

use crate::{CatalogEntry, DatabaseError, Hold, HoldKind, HoldScope, Holds, SetRate, StoredRates};

#[derive(Default)]
pub(super) struct Installation {
    shards: Option<u32>,
    epochs: BTreeMap<Shard, u32>,
    generation: u64,
    catalog: BTreeMap<TableRef, CatalogEntry>,
    rates: BTreeMap<TableRef, SetRate>,
    hold_revision: u64,
    holds: BTreeMap<(HoldScope, HoldKind), Hold>,
}

impl Installation {
    pub(super) fn shard_count(&mut self, configured: ShardCount) -> u32 {
        *self.shards.get_or_insert(configured.get().into())
    }

    pub(super) fn next_epoch(&mut self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        let last = self.epochs.entry(shard).or_default();
        *last = (*last).max(at_least.0).checked_add(1).ok_or_else(|| {
            DatabaseError::Unfit(format!("the epochs of shard {shard} are used up, or their counter was changed"))
        })?;
        Ok(Epoch(*last))
    }

    pub(super) fn catalog(&self) -> (u64, Vec<CatalogEntry>) {
        (self.generation, self.catalog.values().cloned().collect())
    }

    pub(super) fn enable(&mut self, entry: CatalogEntry) -> bool {
        let taken = |other: &CatalogEntry| {
            other.table != entry.table
                && (other.settings.topic == entry.settings.topic
                    || other.settings.namespace == entry.settings.namespace)
        };
        if self.catalog.values().any(taken) {
            return false;
        }
        self.generation += 1;
        self.catalog.insert(entry.table.clone(), CatalogEntry { enabled: true, ..entry });
        true
    }

    pub(super) fn disable(&mut self, table: &TableRef) -> bool {
        let Some(entry) = self.catalog.get_mut(table).filter(|entry| entry.enabled) else { return false };
        entry.enabled = false;
        self.generation += 1;
        true
    }

    pub(super) fn rates(&self) -> StoredRates {
        self.rates.iter().map(|(table, rate)| (table.clone(), Ok(*rate))).collect()
    }

    pub(super) fn set_rate(&mut self, table: TableRef, rate: Option<SetRate>) {
        match rate {
            Some(rate) => self.rates.insert(table, rate),
            None => self.rates.remove(&table),
        };
    }

    pub(super) fn holds(&self) -> Holds {
        Holds { revision: self.hold_revision, list: self.holds.values().cloned().collect() }
    }

    pub(super) fn set_hold(&mut self, hold: Hold) -> u64 {
        let revision = self.raise_hold_revision(hold.since);
        self.holds.insert((hold.scope.clone(), hold.kind), hold);
        revision
    }

    pub(super) fn lift_hold(&mut self, scope: &HoldScope, kind: HoldKind, now: Timestamp) -> (bool, u64) {
        let lifted = self.holds.remove(&(scope.clone(), kind)).is_some();
        (lifted, self.raise_hold_revision(now))
    }

    fn raise_hold_revision(&mut self, now: Timestamp) -> u64 {
        self.hold_revision = (self.hold_revision + 1).max(u64::try_from(now.as_microsecond()).unwrap_or(0));
        self.hold_revision
    }

    pub(super) fn forget(&mut self, table: &TableRef) -> Option<CatalogEntry> {
        self.generation += 1;
        self.catalog.remove(table)
    }
}
