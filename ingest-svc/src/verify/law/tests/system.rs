//! One record in a system that does what it promises, step by step: what may happen between two looks.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Column, ColumnDefault, ColumnName, ColumnType, DatabaseName, Image, Operation, Row, TableName, TableRef,
    TableSchema, Value, VersionGuard,
};

use super::{
    super::{Content, DatabaseRow, Epoch, Held, Hot, HotSlot, Letter, Logged, Look, Slot, Stage, Version},
    v,
};

pub(super) fn schema() -> TableSchema {
    let column = |name: &str| Column {
        name: ColumnName::new(name).unwrap(),
        ty: ColumnType::Int { bits: 64 },
        nullable: false,
        default: ColumnDefault::None,
        on_update_now: false,
    };
    TableSchema {
        table: TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("t").unwrap() },
        columns: vec![column("id"), column("n")],
        key_columns: vec![0],
        group: vec![0],
        has_secondary_unique: false,
        guard: VersionGuard::Column,
    }
}

/// What is written at a version: a delete if that can be divided by ten.
pub(super) fn image(version: u64) -> Image {
    let delete = version.is_multiple_of(10);
    let number = |n: u64| Value::Int64(i64::try_from(n).unwrap());
    let row = [("id", 1), ("n", version)].map(|(name, n)| (ColumnName::new(name).unwrap(), number(n)));
    Image {
        content: if delete { Content::Tombstone } else { Content::Row(row.into_iter().collect::<Row>()) },
        operation: if delete { Operation::Delete } else { Operation::Put },
        fingerprint: schema().fingerprint(),
        request: None,
        since: None,
    }
}

pub(super) fn row_of(version: Version) -> DatabaseRow {
    match image(version.get()).content {
        Content::Row(row) => DatabaseRow::Present { version, row },
        Content::Tombstone => DatabaseRow::Deleted { version },
    }
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Write {
        delete: bool,
    },
    /// The event of a write gets into the log, perhaps behind later ones.
    Produce(usize),
    /// What is dirty is produced again.
    Relay,
    /// So many records of the log are gathered, and the newest is written.
    Apply(usize),
    /// The same, but the database refuses the newest: an older one is written, and a letter.
    Refuse(usize),
    Mark,
    Park,
    Commit,
    /// The drain begins anew from what is committed.
    Crash,
    Expire,
    Fill,
    NotePurge,
    RemoveParked,
    PurgeTombstone,
}

/// What a drain has in hand.
#[derive(Debug, Default)]
struct Batch {
    end: usize,
    /// What the hot store is to be told.
    clean: Option<(Version, Image)>,
    refused: Option<Version>,
    is_marked: bool,
    is_parked: bool,
}

#[derive(Debug, Default)]
pub(super) struct System {
    clock: u64,
    hot: Option<(Version, Image, Stage)>,
    /// The lowest version that the database may lack, while the record is dirty.
    behind: Option<Version>,
    unproduced: Vec<u64>,
    log: Vec<u64>,
    committed: usize,
    row: Option<Version>,
    horizon: Version,
    letters: BTreeSet<Version>,
    purged: Option<Version>,
    batch: Option<Batch>,
}

impl System {
    pub(super) fn run<'a>(&mut self, actions: impl IntoIterator<Item = &'a Action>) {
        for action in actions {
            self.step(action);
        }
    }

    fn step(&mut self, action: &Action) {
        match *action {
            Action::Write { delete } => {
                self.clock += 1;
                while self.clock.is_multiple_of(10) != delete {
                    self.clock += 1;
                }
                let is_dirty = matches!(self.hot, Some((_, _, Stage::Dirty)));
                self.behind = self.behind.filter(|_| is_dirty).or(Some(v(self.clock)));
                self.hot = Some((v(self.clock), image(self.clock), Stage::Dirty));
                self.unproduced.push(self.clock);
            }
            Action::Produce(at) if at < self.unproduced.len() => self.log.push(self.unproduced.remove(at)),
            Action::Relay => {
                if let Some((version, _, Stage::Dirty)) = &self.hot {
                    self.log.push(version.get());
                }
            }
            Action::Apply(records) => self.gather(records, false),
            Action::Refuse(records) => self.gather(records, true),
            Action::Mark => self.mark(),
            Action::Park => self.park(),
            Action::Commit => {
                let is_done = |batch: &mut Batch| batch.is_marked && (batch.is_parked || batch.refused.is_none());
                if let Some(batch) = self.batch.take_if(is_done) {
                    self.committed = batch.end;
                }
            }
            Action::Crash => self.batch = None,
            Action::Expire => drop(self.hot.take_if(|(_, _, stage)| *stage == Stage::Clean)),
            Action::Fill if self.hot.is_none() => {
                self.hot = self.row.map(|version| (version, image(version.get()), Stage::Clean));
            }
            Action::NotePurge => {
                if let Some((version, _, Stage::Parked)) = &self.hot {
                    self.purged = self.purged.max(Some(*version));
                }
            }
            Action::RemoveParked => {
                let purged = self.purged;
                self.hot
                    .take_if(|(version, _, stage)| *stage == Stage::Parked && purged.is_some_and(|p| p >= *version));
            }
            Action::PurgeTombstone => {
                let parked =
                    self.hot.as_ref().filter(|(_, _, stage)| *stage == Stage::Parked).map(|(version, ..)| *version);
                let undrained = self.log[self.committed..].iter().map(|version| v(*version)).min();
                let is_dirty = matches!(self.hot, Some((_, _, Stage::Dirty)));
                let behind = self.behind.filter(|_| is_dirty);
                let bound = parked.into_iter().chain(undrained).chain(behind).min();
                if let Some(row) = self.row
                    && row.get().is_multiple_of(10)
                    && bound.is_none_or(|bound| row < bound)
                {
                    self.row = None;
                    self.horizon = self.horizon.max(row);
                }
            }
            Action::Produce(_) | Action::Fill => {}
        }
    }

    fn gather(&mut self, records: usize, refuse: bool) {
        let end = (self.committed + records).min(self.log.len());
        if self.batch.is_some() || end == self.committed {
            return;
        }
        let mut versions: BTreeSet<u64> = self.log[self.committed..end].iter().copied().collect();
        let refused = if refuse { versions.pop_last().map(v) } else { None };
        // The database refuses only what it would write.
        let refused = refused.filter(|version| self.row.is_none_or(|row| row < *version) && *version > self.horizon);
        if refuse && refused.is_none() {
            return;
        }
        let clean = versions.last().map(|version| self.apply(v(*version)));
        self.letters.extend(refused);
        self.batch = Some(Batch { end, is_marked: clean.is_none(), clean, refused, is_parked: false });
    }

    /// As the database decides; and what the hot store is told.
    fn apply(&mut self, version: Version) -> (Version, Image) {
        match self.row {
            None if version <= self.horizon => (self.horizon, image(self.horizon.get())),
            Some(row) if row >= version => (row, image(row.get())),
            _ => {
                self.row = Some(version);
                (version, image(version.get()))
            }
        }
    }

    fn mark(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        batch.is_marked = true;
        let Some((version, image)) = batch.clean.clone() else { return };
        match &mut self.hot {
            Some((held, _, stage)) if *held == version => *stage = Stage::Clean,
            Some((held, ..)) if *held < version => self.hot = Some((version, image, Stage::Clean)),
            Some(_) => self.behind = self.behind.map(|behind| behind.max(v(version.get() + 1))),
            None => {}
        }
    }

    fn park(&mut self) {
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.is_marked) else { return };
        batch.is_parked = true;
        if let (Some(refused), Some((held, _, stage))) = (batch.refused, &mut self.hot)
            && *held == refused
            && *stage == Stage::Dirty
        {
            *stage = Stage::Parked;
        }
    }

    fn hot(&self) -> Hot {
        let slot = match self.hot.clone() {
            Some((version, image, stage)) => Slot::Image { version, image, stage },
            None => Slot::Empty,
        };
        Hot { epoch: Epoch(1), slot: HotSlot::Slot(slot) }
    }

    /// One of the eight steps of a look, of what lies in a window of the log.
    pub(super) fn observe(&self, at: usize, (from, records): (usize, usize), observed: &mut Observed) {
        if at == 0 {
            let window = from.min(self.log.len())..from.saturating_add(records).min(self.log.len());
            let newest = self.log[window.start..window.end.max(window.start)].iter().copied().max();
            observed.reaches_back = from == 0;
            observed.offsets = self.log.iter().enumerate().map(|(offset, version)| (*version, offset)).collect();
            observed.logged =
                newest.map(|n| Logged { version: v(n), image: image(n), epoch: Epoch(1), is_in_force: true });
            return;
        }
        let Some(logged) = &observed.logged else { return };
        let look = observed.look.get_or_insert_with(|| Look {
            before: self.hot(),
            row: Held::Row(DatabaseRow::Absent),
            horizon: Version::ZERO,
            clock: Version::ZERO,
            is_committed: false,
            letter: Letter::NotAsked,
            after: self.hot(),
            is_newest: false,
        });
        match at {
            1 => look.before = self.hot(),
            2 => look.row = Held::Row(self.row.map_or(DatabaseRow::Absent, row_of)),
            3 => (look.horizon, look.clock) = (self.horizon, v(self.clock)),
            4 => look.is_committed = observed.offsets.get(&logged.version.get()).is_some_and(|at| *at < self.committed),
            5 => {
                look.letter = match self.letters.contains(&logged.version) {
                    _ if self.purged >= Some(logged.version) => Letter::Purged,
                    true => Letter::Kept,
                    false => Letter::None,
                };
            }
            6 => look.after = self.hot(),
            // Whoever has read all of the log knows the newest event.
            _ => {
                let newest = self.log.iter().max().copied().map(v);
                if observed.reaches_back && newest == Some(logged.version) {
                    look.is_newest = true;
                }
            }
        }
    }
}

/// What somebody has seen so far.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) logged: Option<Logged>,
    pub(super) look: Option<Look>,
    offsets: BTreeMap<u64, usize>,
    reaches_back: bool,
}
