//! The database: rows, the ledger's tombstones, a shard row per table, the verdict on each change.

use crate::{
    protocol::Protocol,
    rules::Rule,
    scenarios::Scenario,
    state::{Broken, State},
    words::{Content, Epoch, KEYS, Key, Mutation, Seat, Seen, TABLES, Table, Version},
};

/// What the database holds of a key. A tombstone and a row can't be there together, unless something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Held {
    /// Version and value.
    pub(crate) row: Option<(Version, u8)>,
    pub(crate) tombstone: Option<Version>,
}

impl Held {
    /// The newest version that is known of the key.
    pub(crate) fn version(&self) -> Option<Version> {
        self.row.map(|(version, _)| version).max(self.tombstone)
    }

    /// The same, with what was written.
    pub(crate) fn current(&self) -> Option<(Version, Content)> {
        let row = self.row.map(|(version, value)| (version, Content { value, deleted: false }));
        row.or(self.tombstone.map(|version| (version, Content { value: 0, deleted: true })))
    }
}

/// Whose transaction holds the lock of a shard row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Locker {
    Drain(Seat),
    Purge,
}

/// The row of (table, this shard) in `_sa_shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct ShardRow {
    pub(crate) owner: Seat,
    /// No row of the shard has a higher version.
    pub(crate) high_water: Version,
    /// No tombstone at or below it is known any more.
    pub(crate) purge_horizon: Version,
    /// For SQL readers: all acked writes up to it are in the table.
    pub(crate) horizon: Version,
    /// The epoch of the last opening that looked at this row.
    pub(crate) epoch: Epoch,
    /// Whose transaction holds the lock.
    pub(crate) locked: Option<Locker>,
}

/// The database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) keys: [Held; KEYS],
    pub(crate) shard: [ShardRow; TABLES],
    /// The shard's counter: the last epoch that was drawn.
    pub(crate) epochs_drawn: Epoch,
    /// The newest that was ever applied to each key; only checks look at it.
    pub(crate) newest: [(Version, Option<Content>); KEYS],
}

/// What is to be done about a change; found in the transaction, under the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// A row where none is.
    Insert,
    /// Over the row that is there, guarded by version once more.
    Update,
    /// The row goes, a tombstone comes; guarded as well.
    Delete,
    /// The database has this version or a newer one.
    Stale,
    /// Its tombstone may have been there, and purged.
    Purged,
    /// The row is older than the create that this rests on.
    SinceRefused,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The database won't have it.
    Refused,
    /// The statement met what the transaction had not found: all is to be done again.
    Conflict,
}

impl Database {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut keys = [Held::default(); KEYS];
        for (held, is_there) in keys.iter_mut().zip(scenario.rows_before) {
            held.row = is_there.then_some((0, 0));
        }
        let row = ShardRow { epoch: 1, ..ShardRow::default() };
        Self { keys, shard: [row; TABLES], epochs_drawn: 1, newest: [(0, None); KEYS] }
    }

    /// What a read sees.
    pub(crate) fn see(&self, key: Key) -> Seen {
        match (self.keys[key].row, self.keys[key].tombstone, self.newest[key]) {
            (Some((version, value)), _, _) => Seen { version, value: Some(value) },
            (None, Some(version), _) => Seen { version, value: None },
            // A tombstone that was purged.
            (None, None, (version, Some(Content { deleted: true, .. }))) => Seen { version, value: None },
            (None, None, _) => Seen { version: 0, value: None },
        }
    }
}

impl Protocol {
    /// Decides about a change. Pure.
    pub(crate) fn judge(&self, held: Held, is: &Mutation, purge_horizon: Version) -> Verdict {
        let current = held.version();
        if let (Some(since), Some((row, _)), true) = (is.since, held.row, self.on(Rule::SinceChecked))
            && row.max(held.tombstone.unwrap_or(0)) < since
        {
            return Verdict::SinceRefused;
        }
        if self.on(Rule::VersionGuard) && current.is_some_and(|current| current >= is.version) {
            return Verdict::Stale;
        }
        if current.is_none() && is.version <= purge_horizon && self.on(Rule::PurgeHorizonHeeded) {
            return Verdict::Purged;
        }
        match (is.content.deleted, held.row) {
            (true, _) => Verdict::Delete,
            (false, None) => Verdict::Insert,
            (false, Some(_)) => Verdict::Update,
        }
    }

    /// Carries out a verdict in the transaction that found it.
    pub(crate) fn carry_out(&self, s: &mut State, is: &Mutation, verdict: Verdict) -> Outcome {
        let held = s.database.keys[is.key];
        let is_stale = self.on(Rule::VersionGuard) && held.row.is_some_and(|(version, _)| version >= is.version);
        match verdict {
            Verdict::Stale | Verdict::Purged => return Outcome::Done,
            Verdict::SinceRefused => return Outcome::Refused,
            _ if self.scenario.is_poison(is.content) => return Outcome::Refused,
            Verdict::Insert if held.row.is_some() => return Outcome::Conflict,
            Verdict::Update | Verdict::Delete if is_stale => return Outcome::Done,
            Verdict::Insert | Verdict::Update | Verdict::Delete => {}
        }
        if !is.content.deleted
            && let Some(other) = self.holder_of_unique_value(s, is)
        {
            if self.on(Rule::PlainInsert) {
                return Outcome::Refused;
            }
            // An upsert takes the other row for its own.
            s.database.keys[other].row = Some((is.version, is.content.value));
            s.broken = Some(Broken::OtherRowOverwritten);
            return Outcome::Done;
        }
        self.check_applied(s, is);
        let tombstone = held.tombstone.max(Some(is.version));
        s.database.keys[is.key] = match (is.content.deleted, verdict) {
            (true, _) => Held { row: None, tombstone: if self.on(Rule::DatabaseTombstone) { tombstone } else { None } },
            // The statement that inserts knows nothing of a tombstone that the transaction has not found.
            (false, _) => Held {
                row: Some((is.version, is.content.value)),
                tombstone: held.tombstone.filter(|version| *version > is.version),
            },
        };
        Outcome::Done
    }

    /// The other live row of the table that has the unique value of this write.
    fn holder_of_unique_value(&self, s: &State, is: &Mutation) -> Option<Key> {
        let unique = self.scenario.unique_value(is.content.value)?;
        (0..self.scenario.keys).find(|&other| {
            other != is.key
                && self.scenario.table_of[other] == self.scenario.table_of[is.key]
                && s.database.keys[other]
                    .row
                    .is_some_and(|(_, value)| self.scenario.unique_value(value) == Some(unique))
        })
    }

    /// A statement that names only the shard row waits for the lock.
    pub(crate) fn is_free(&self, s: &State, table: Table) -> bool {
        s.database.shard[table].locked.is_none()
    }
}
