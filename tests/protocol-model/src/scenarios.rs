//! The scenarios: what clients ask for, and what the world may do, within bounds that can be searched through.

use crate::{
    rules::Rule,
    state::State,
    words::{Content, KEYS, Key, Mutation, Table},
    write::Kind,
};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    /// What it writes.
    pub(crate) value: u8,
    pub(crate) request: Option<usize>,
    /// The database will always refuse it.
    pub(crate) poison: bool,
    /// The value of its secondary unique key.
    pub(crate) unique: Option<u8>,
}

impl Operation {
    pub(crate) fn content(&self) -> Content {
        let deleted = self.kind == Kind::Delete;
        Content { value: if deleted { 0 } else { self.value }, deleted }
    }
}

/// How often each of these may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Faults {
    /// The store starts again, empty.
    pub(crate) losses: u8,
    /// The store starts again with what had reached the disk.
    pub(crate) tail_losses: u8,
    /// All that the store holds reaches the disk.
    pub(crate) disk: u8,
    pub(crate) clocks_back: u8,
    pub(crate) relays: u8,
    pub(crate) checkpoints: u8,
    pub(crate) claims: u8,
    /// A partition passes to the other drain.
    pub(crate) rebalances: u8,
    /// A partition's drain starts again.
    pub(crate) crashes: u8,
    pub(crate) expiries: u8,
    pub(crate) purges: u8,
    pub(crate) horizons: u8,
    pub(crate) reads: u8,
}

/// Bounds within which all is tried.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) operations: Vec<Operation>,
    pub(crate) faults: Faults,
    pub(crate) keys: usize,
    pub(crate) tables: usize,
    pub(crate) table_of: [Table; KEYS],
    /// Keys whose rows were there before us, with version 0.
    pub(crate) rows_before: [bool; KEYS],
    /// Records that a drain takes at once.
    pub(crate) batch: u8,
    /// Whether `./tests/model --quick` and the test look at it.
    pub(crate) is_quick: bool,
}

impl Scenario {
    fn new(name: &'static str, operations: &[Operation], faults: Faults) -> Self {
        let mut operations = operations.to_vec();
        for at in 0..operations.len() {
            let first = operations[..at].iter().find(|other| {
                operations[at].value == 0 && other.request.is_some() && other.request == operations[at].request
            });
            // A retry asks for the same.
            let same = first.map(|first| first.value);
            let operation = &mut operations[at];
            operation.value = same.unwrap_or(at as u8 + 1);
        }
        let keys = operations.iter().map(|operation| operation.key + 1).max().unwrap_or(1);
        Self {
            name,
            operations,
            faults,
            keys,
            tables: 1,
            table_of: [0; KEYS],
            rows_before: [false; KEYS],
            batch: 1,
            is_quick: true,
        }
    }

    /// Each key in a table of its own, and so in a partition of its own.
    fn two_tables(mut self) -> Self {
        (self.tables, self.table_of) = (2, [0, 1]);
        self
    }

    fn batch(mut self, batch: u8) -> Self {
        self.batch = batch;
        self
    }

    fn row_before(mut self, key: Key) -> Self {
        self.rows_before[key] = true;
        self
    }

    /// Too large for the quick run.
    fn thorough(mut self) -> Self {
        self.is_quick = false;
        self
    }

    pub(crate) fn has_requests(&self) -> bool {
        self.operations.iter().any(|operation| operation.request.is_some())
    }

    fn writing(&self, value: u8) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.value == value)
    }

    pub(crate) fn is_poison(&self, content: Content) -> bool {
        !content.deleted && self.writing(content.value).is_some_and(|operation| operation.poison)
    }

    pub(crate) fn unique_value(&self, value: u8) -> Option<u8> {
        self.writing(value)?.unique
    }

    /// Whether what stood in the way of a refused record is gone.
    pub(crate) fn may_be_accepted_later(&self, s: &State, is: &Mutation) -> bool {
        self.unique_value(is.content.value).is_some_and(|unique| {
            (0..self.keys).all(|key| {
                let row = s.database.keys[key].row;
                key == is.key || row.is_none_or(|(_, value)| self.unique_value(value) != Some(unique))
            })
        })
    }
}

const fn on(key: Key, kind: Kind) -> Operation {
    Operation { key, kind, value: 0, request: None, poison: false, unique: None }
}

fn put(key: Key) -> Operation {
    on(key, Kind::Put)
}

fn delete(key: Key) -> Operation {
    on(key, Kind::Delete)
}

fn update(key: Key) -> Operation {
    on(key, Kind::Update)
}

fn create_unseen(key: Key) -> Operation {
    on(key, Kind::CreateUnseen)
}

impl Operation {
    fn request(mut self, id: usize) -> Self {
        self.request = Some(id);
        self
    }

    fn poison(mut self) -> Self {
        self.poison = true;
        self
    }

    fn unique(mut self, value: u8) -> Self {
        self.unique = Some(value);
        self
    }

    /// The same request id, and another payload.
    fn other_payload(mut self) -> Self {
        self.value = 100;
        self
    }
}

/// All scenarios, small ones first.
pub(crate) fn all() -> Vec<Scenario> {
    let none = Faults::default();
    let tail = Faults { tail_losses: 1, disk: 1, claims: 1, ..none };
    let total = Faults { losses: 1, claims: 1, ..none };
    let twice = [put(0), put(0)];
    vec![
        Scenario::new("clock set back", &twice, Faults { clocks_back: 1, ..none }),
        Scenario::new("no loss", &twice, Faults { relays: 1, crashes: 1, expiries: 1, ..none }),
        Scenario::new("delete", &[put(0), delete(0)], Faults { reads: 1, expiries: 1, relays: 1, ..none }),
        Scenario::new("update", &[put(0), update(0), put(0)], none),
        Scenario::new("readers", &twice, Faults { reads: 2, expiries: 2, ..none }),
        Scenario::new("rebalance", &twice, Faults { rebalances: 2, crashes: 1, ..none }).batch(2),
        Scenario::new("rebalance, delete", &[put(0), delete(0)], Faults { rebalances: 1, ..none }),
        Scenario::new("rebalance, delete, relay", &[put(0), delete(0)], Faults { rebalances: 2, relays: 1, ..none })
            .batch(2)
            .thorough(),
        // The store is lost.
        Scenario::new("all lost", &twice, total),
        Scenario::new("all lost, clock", &twice, Faults { clocks_back: 1, ..total }),
        Scenario::new("all lost, checkpoint", &[put(0)], Faults { checkpoints: 1, ..total }),
        Scenario::new("all lost, delete", &[put(0), delete(0)], Faults { expiries: 1, ..total }),
        Scenario::new("all lost, relay, clock", &twice, Faults { relays: 1, clocks_back: 1, ..total }).thorough(),
        Scenario::new("two openers", &[put(0)], Faults { losses: 1, claims: 2, ..none }),
        Scenario::new("two openers, two writes", &twice, Faults { claims: 2, ..total }).thorough(),
        Scenario::new("three openers", &[put(0)], Faults { losses: 1, claims: 3, ..none }).thorough(),
        Scenario::new("all lost twice, clock", &twice, Faults { losses: 2, clocks_back: 1, ..total }).thorough(),
        Scenario::new("all lost twice, two writes", &twice, Faults { losses: 2, claims: 2, ..none }).thorough(),
        // The store goes back to what had reached the disk.
        Scenario::new("tail lost", &twice, Faults { checkpoints: 1, ..tail }),
        Scenario::new("tail lost, expiry", &twice, Faults { checkpoints: 1, expiries: 1, ..tail }).thorough(),
        Scenario::new("tail lost, reader", &twice, Faults { reads: 1, expiries: 1, ..tail }).thorough(),
        Scenario::new("tail lost, relay", &twice, Faults { checkpoints: 1, relays: 1, ..tail }).thorough(),
        Scenario::new("tail lost, update, clock", &[put(0), update(0), put(0)], Faults { clocks_back: 1, ..tail })
            .thorough(),
        Scenario::new("tail lost twice", &twice, Faults { tail_losses: 2, claims: 2, ..tail }).thorough(),
        Scenario::new("all lost, then the tail", &twice, Faults { tail_losses: 1, disk: 1, ..total }).thorough(),
        Scenario::new(
            "all lost, then the tail, two openers",
            &twice,
            Faults { claims: 2, tail_losses: 1, disk: 1, ..total },
        )
        .thorough(),
        // Tombstones are purged.
        Scenario::new("purge", &[put(0), delete(0)], Faults { purges: 1, expiries: 1, rebalances: 1, ..none }),
        Scenario::new("purge, deleted again", &[delete(0), put(0), delete(0)], Faults { purges: 1, ..none }),
        Scenario::new("purge, two keys", &[put(0), delete(0), put(1)], Faults { purges: 1, ..none }),
        Scenario::new("purge, all lost", &[put(0), delete(0)], Faults { purges: 1, ..total }),
        Scenario::new("purge, all lost, clock", &[put(1), delete(0)], Faults { purges: 2, clocks_back: 1, ..total }),
        Scenario::new("purge, tail lost, reader", &[put(0), delete(0)], Faults { purges: 1, reads: 1, ..tail })
            .thorough(),
        // Two tables: two partitions of the shard.
        Scenario::new("two tables, all lost", &[put(0), put(1)], total).two_tables(),
        Scenario::new("two tables, all lost, clock", &[put(1), put(1)], Faults { clocks_back: 1, ..total })
            .two_tables(),
        Scenario::new("two tables, tail lost", &[put(0), put(1)], Faults { checkpoints: 1, ..tail })
            .two_tables()
            .thorough(),
        Scenario::new("two tables, three writes", &[put(0), put(1), put(1)], Faults { clocks_back: 1, ..total })
            .two_tables()
            .thorough(),
        // Records that the database refuses.
        Scenario::new("poison", &[put(0), put(0).poison()], Faults { crashes: 1, relays: 1, expiries: 1, ..none }),
        Scenario::new("poison beside others", &[put(0).poison(), put(1)], Faults { crashes: 1, ..none }),
        Scenario::new("poison, all lost", &[put(0).poison(), put(1)], total),
        Scenario::new("poison, tail lost", &[put(0).poison(), put(0)], Faults { checkpoints: 1, ..tail }).thorough(),
        Scenario::new("unique values", &[put(0).unique(1), delete(0), put(1).unique(1)], Faults { crashes: 1, ..none })
            .batch(2),
        Scenario::new("create unseen", &[create_unseen(0), put(0)], Faults { crashes: 1, relays: 1, ..none })
            .row_before(0)
            .batch(2),
        Scenario::new("create unseen, all lost", &[create_unseen(0), put(0)], total).row_before(0),
        Scenario::new("create unseen, no row", &[create_unseen(0), delete(0), create_unseen(0)], none).batch(2),
        // Requests with an id, and their retries.
        Scenario::new("request", &[put(0).request(0), put(0).request(0), put(0)], none),
        Scenario::new("request, all lost", &[put(0).request(0), put(0).request(0)], total),
        Scenario::new("request, other payload", &[put(0).request(0), put(0).request(0).other_payload()], none),
        Scenario::new("request, tail lost", &[put(0).request(0), put(0).request(0)], Faults { checkpoints: 1, ..tail }),
        Scenario::new(
            "request, superseded, all lost",
            &[put(0).request(0), put(0), put(0).request(0), put(0).request(0)],
            total,
        )
        .thorough(),
        Scenario::new(
            "request, superseded, expired, all lost",
            &[put(0).request(0), put(0), put(0).request(0), put(0).request(0)],
            Faults { expiries: 1, ..total },
        )
        .thorough(),
        // The horizon for SQL readers.
        Scenario::new("horizon", &[put(0), put(0), put(1)], Faults { horizons: 1, ..none }),
        Scenario::new("horizon, clock", &[put(0)], Faults { horizons: 1, clocks_back: 1, ..none }),
        Scenario::new("horizon, all lost", &[put(0)], Faults { horizons: 1, clocks_back: 1, ..total }),
        Scenario::new(
            "horizon, request, superseded, all lost",
            &[put(0).request(0), put(0), put(0).request(0)],
            Faults { horizons: 1, ..total },
        )
        .thorough(),
        Scenario::new("horizon, tail lost", &twice, Faults { horizons: 1, clocks_back: 1, ..tail }).thorough(),
    ]
}

/// The scenario in which taking a rule away shows; `None` if none does, which the crate's documentation explains.
pub(crate) fn showing(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::StartStored | Rule::NewerRowReplaces | Rule::PurgedIsGone | Rule::PurgeHorizonWithRow => return None,
        Rule::ClockNeverFalls => "clock set back",
        Rule::NewestByVersion | Rule::OwnerChecked => "rebalance",
        Rule::LockShardRow => "rebalance, delete",
        Rule::ClosedAfterRestart
        | Rule::PutBackOverLower
        | Rule::CompareWithRow
        | Rule::MarkUnderItsEpoch
        | Rule::AckAfterLog
        | Rule::HighWaterRaised => "all lost",
        Rule::Fence
        | Rule::DrainSkipsVoid
        | Rule::EpochKeptWithOffset
        | Rule::EpochFromDatabase
        | Rule::ClockAboveSeen
        | Rule::ReadUpToFence
        | Rule::ClockAboveHighWater => "all lost, clock",
        Rule::OpenerSkipsVoid => "all lost twice, clock",
        Rule::EmptyStartsFromCommitted => "all lost, checkpoint",
        Rule::StepsUnderToken | Rule::LowerFenceIgnored | Rule::HeaderBeforeFence => "two openers",
        Rule::NoCheckpointWhileClosed
        | Rule::CheckpointReadsFirst
        | Rule::StartFromCheckpoint
        | Rule::RowReplacesLower
        | Rule::RelayDrainedPast => "tail lost",
        Rule::TokenBoundToIncarnation | Rule::DiscardWithoutCheckpoint => "all lost, then the tail",
        Rule::DropLeases => "purge, tail lost, reader",
        Rule::PurgeUnderEpoch => "purge, all lost, clock",
        Rule::FenceEveryPartition => "two tables, all lost, clock",
        Rule::ConditionOnEpoch => "tail lost, update, clock",
        Rule::ConditionOnVersion => "update",
        Rule::MarkComparesVersion
        | Rule::RelayUnqueued
        | Rule::DirtyNeverExpires
        | Rule::VersionGuard
        | Rule::CommitAfterDatabase
        | Rule::CommitAfterClean
        | Rule::CleanComparesVersion => "no loss",
        Rule::HotTombstone | Rule::DatabaseTombstone => "delete",
        Rule::FillUnderLease => "readers",
        Rule::DeadLettersPutBack | Rule::ContiguousWatermark => "poison, all lost",
        Rule::RefusedIsKept | Rule::ParkedStays => "poison",
        Rule::PlainInsert | Rule::NextOlderApplied => "unique values",
        Rule::SinceChecked | Rule::SinceTravels => "create unseen",
        Rule::RequestRemembered => "request",
        Rule::RequestDigest => "request, other payload",
        Rule::RepeatedIsQueuedFirst | Rule::RepeatedInOneEpoch | Rule::RequestsPutBack | Rule::RequestsFromWindow => {
            "request, all lost"
        }
        Rule::SupersededRequestLogged => "request, superseded, all lost",
        Rule::NoteNamesRecord => "horizon, request, superseded, all lost",
        Rule::PurgeHorizonHeeded => "purge",
        Rule::PurgeUnderLock => "purge, deleted again",
        Rule::PurgeBelowDirty => "purge, two keys",
        Rule::HorizonBelowOverwritten | Rule::HorizonBelowDirty => "horizon",
        Rule::HorizonRaisesClock => "horizon, clock",
        Rule::ClockAboveHorizon | Rule::HorizonUnderEpoch => "horizon, all lost",
    })
}
