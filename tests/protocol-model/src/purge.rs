//! The purge of tombstones, and the horizon for SQL readers. Both ask the hot store first and the database later.

use crate::{
    database::Locker,
    protocol::Protocol,
    rules::Rule,
    state::State,
    words::{Epoch, KEYS, Key, Seat, Table, Version},
};

/// A purge whose bound is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Purge {
    pub(crate) table: Table,
    pub(crate) by: Seat,
    pub(crate) epoch: Epoch,
    pub(crate) up_to: Version,
    /// The tombstones that its transaction has found, once that has begun.
    pub(crate) found: Option<[Option<Version>; KEYS]>,
}

/// A horizon that is to be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    pub(crate) table: Table,
    pub(crate) by: Seat,
    pub(crate) epoch: Epoch,
    pub(crate) horizon: Version,
}

impl Protocol {
    fn keys_of(&self, table: Table) -> impl Iterator<Item = Key> {
        (0..self.scenario.keys).filter(move |&key| self.scenario.table_of[key] == table)
    }

    /// Asks the hot store up to which version the database lacks nothing.
    ///
    /// If nothing is dirty, that is now; and the clock is raised to it, so that no later write gets a lower version.
    fn ask_horizon(&self, s: &mut State, table: Table) -> Version {
        let now = if s.wall_clock_is_back { s.store.clock } else { s.store.clock.max(s.wall_clock + 1) };
        let horizon = s.store.horizon(self, self.keys_of(table), now);
        if horizon == now && self.on(Rule::HorizonRaisesClock) {
            s.store.clock = s.store.clock.max(now);
        }
        s.wall_clock = s.wall_clock.max(horizon);
        horizon
    }

    /// The owner asks up to where tombstones can go.
    pub(crate) fn ask_purge(&self, s: &mut State, table: Table, by: Seat) {
        let up_to = if self.on(Rule::PurgeBelowDirty) { self.ask_horizon(s, table) } else { s.store.clock };
        s.purge = Some(Purge { table, by, epoch: s.store.epoch, up_to, found: None });
    }

    /// The transaction of a purge begins: the lock, the owner, the epoch, the tombstones up to the bound.
    pub(crate) fn begin_purge(&self, s: &mut State) {
        let Some(mut purge) = s.purge.take() else { return };
        let row = &mut s.database.shard[purge.table];
        if row.owner != purge.by && self.on(Rule::OwnerChecked) {
            return;
        }
        if row.epoch > purge.epoch && self.on(Rule::PurgeUnderEpoch) {
            return;
        }
        if self.on(Rule::PurgeUnderLock) {
            row.locked = Some(Locker::Purge);
        }
        let mut found = [None; KEYS];
        for key in self.keys_of(purge.table) {
            found[key] = s.database.keys[key].tombstone.filter(|version| *version <= purge.up_to);
        }
        purge.found = Some(found);
        s.purge = Some(purge);
    }

    /// They go, the purge horizon says so, and the transaction commits.
    pub(crate) fn commit_purge(&self, s: &mut State) {
        let Some(Purge { table, found: Some(found), .. }) = s.purge.take() else { return };
        let row = &mut s.database.shard[table];
        if row.locked == Some(Locker::Purge) {
            row.locked = None;
        }
        for (key, version) in found.into_iter().enumerate() {
            if let Some(version) = version {
                s.database.keys[key].tombstone = None;
                row.purge_horizon = row.purge_horizon.max(version);
            }
        }
    }

    /// The owner asks for the horizon.
    pub(crate) fn ask_note(&self, s: &mut State, table: Table, by: Seat) {
        let horizon = self.ask_horizon(s, table);
        s.note = Some(Note { table, by, epoch: s.store.epoch, horizon });
    }

    /// The horizon goes into the shard row, if it is still true.
    pub(crate) fn note(&self, s: &mut State) {
        let Some(Note { table, by, epoch, horizon }) = s.note.take() else { return };
        let row = &mut s.database.shard[table];
        if row.owner == by && (row.epoch <= epoch || !self.on(Rule::HorizonUnderEpoch)) {
            row.horizon = row.horizon.max(horizon);
        }
    }
}
