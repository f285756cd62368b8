//! One state of everything: the stores, and how far each process has come between two of its steps.

use std::fmt;

use crate::{
    database::Database,
    drain::Consumer,
    log::{Partition, Produce},
    opening::Opener,
    purge::{Note, Purge},
    reading::Reader,
    scenarios::{Faults, Scenario},
    store::{Offsets, Store},
    words::{Epoch, Incarnation, Key, Mutation, Seat, TABLES, Table, Version},
    write::Progress,
};

/// The state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    // What lasts.
    pub(crate) store: Store,
    /// What of the store is on disk: a loss of its tail goes back to this.
    pub(crate) on_disk: Option<Store>,
    pub(crate) incarnation: Incarnation,
    pub(crate) log: [Partition; TABLES],
    /// The topic of the dead letters.
    pub(crate) dead_letters: Vec<Mutation>,
    pub(crate) database: Database,

    // What is under way.
    pub(crate) under_way: Vec<Produce>,
    pub(crate) clients: Vec<Progress>,
    /// What the relay produced and is to mark.
    pub(crate) relayed: Vec<(Key, Version, Epoch)>,
    /// A checkpoint between its two steps.
    pub(crate) checkpoint: Option<(Epoch, Option<Offsets>)>,
    /// The last checkpoint that a replica remembers having written.
    pub(crate) remembered_checkpoint: Offsets,
    pub(crate) openers: [Option<Opener>; 2],
    pub(crate) drains: [[Option<Consumer>; 2]; TABLES],
    /// Which of its two drains the group has given a partition to.
    pub(crate) assigned: [Seat; TABLES],
    pub(crate) readers: [Reader; 2],
    pub(crate) purge: Option<Purge>,
    pub(crate) note: Option<Note>,

    // What the world does.
    /// The highest version given so far; the wall clock is above it, unless it was set back.
    pub(crate) wall_clock: Version,
    pub(crate) wall_clock_is_back: bool,
    /// Tokens given so far.
    pub(crate) tokens: u8,
    /// Whether the hot store was ever restarted with less than it had.
    pub(crate) store_lost: bool,
    pub(crate) left: Faults,

    /// What is wrong in this state.
    pub(crate) broken: Option<Broken>,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// Promise 1.
    AckedWriteLost,
    /// Promise 2.
    StaleRead,
    /// Promise 2: an update was built on another write than the one it read.
    UpdateOfAnother,
    /// A new write would lose against one that was acknowledged.
    VersionTooLow,
    /// Promise 3.
    DatabaseWentBack,
    /// Promise 3: replaying the log changed something.
    ReplayChanged,
    /// Promise 3: another row than the written one was changed.
    OtherRowOverwritten,
    /// Promise 3: a create that had not looked replaced a row that was there.
    CreatedOverRow,
    /// A former owner's transaction committed.
    FormerOwnerCommitted,
    /// A request took effect twice.
    RequestTwice,
    /// A request was acknowledged, and another payload was written.
    AckOfAnother,
    /// A repeated request was acknowledged as applied, and the database lacks it.
    AckedNotApplied,
    /// The horizon is at or above a version that the database lacks.
    HorizonNotTrue,
    /// A record stays dirty for ever.
    StaysDirty,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AckedWriteLost => "an acked write is lost",
            Self::StaleRead => "a read is older than an acked write",
            Self::UpdateOfAnother => "an update rests on another write than it read",
            Self::VersionTooLow => "a new write loses against an acked one",
            Self::DatabaseWentBack => "the database went back",
            Self::ReplayChanged => "a replay changed the database",
            Self::OtherRowOverwritten => "another row was overwritten",
            Self::CreatedOverRow => "a create replaced a row",
            Self::FormerOwnerCommitted => "a former owner's transaction committed",
            Self::RequestTwice => "a request took effect twice",
            Self::AckOfAnother => "a request was acked for another payload",
            Self::AckedNotApplied => "acked as applied, and it is not",
            Self::HorizonNotTrue => "the horizon is not true",
            Self::StaysDirty => "a record stays dirty for ever",
        })
    }
}

impl State {
    /// An open shard in its first epoch, nothing written.
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let store = Store { open_for: 1, epoch: 1, checkpoint: Some([0; TABLES]), ..Store::empty() };
        Self {
            store,
            on_disk: None,
            incarnation: 1,
            log: Default::default(),
            dead_letters: Vec::new(),
            database: Database::new(scenario),
            under_way: Vec::new(),
            clients: vec![Progress::Waiting; scenario.operations.len()],
            relayed: Vec::new(),
            checkpoint: None,
            remembered_checkpoint: [0; TABLES],
            openers: [None; 2],
            drains: std::array::from_fn(|_| [Some(Consumer::first()), None]),
            assigned: [0; TABLES],
            readers: [Reader::Idle; 2],
            purge: None,
            note: None,
            wall_clock: 0,
            wall_clock_is_back: false,
            tokens: 0,
            store_lost: false,
            left: scenario.faults,
            broken: None,
        }
    }

    /// Whether every script of the hot store finds the shard open for the live incarnation.
    pub(crate) fn is_open(&self) -> bool {
        self.store.open_for == self.incarnation
    }

    /// The first thing found wrong is what is told.
    pub(crate) fn breaks(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    pub(crate) fn end(&self, table: Table) -> u8 {
        self.log[table].end()
    }
}
