//! The hot store: the newest version of every record that was written or read of late.
//!
//! It is the write-ahead log in front of the database and the cache behind which nobody sees the database lag.
//! [`HotStore`] is cut so that a store with conditional transactions (DynamoDB) could carry it as well as one with
//! scripts: every method touches one shard, but for a read of many, and every condition is part of the call.

mod budget;
mod error;
mod halt;
mod index;
pub mod memory;
mod opening;
mod parking;
#[cfg(feature = "redis")]
pub mod redis;
mod report;
mod store;

pub use budget::{AgreedLimit, Agreement, Budget, Ended, Grant, Limit, Limits, PERMIT_LEASE, Permit, PermitId, Unit};
pub use error::HotStoreError;
pub use halt::{Halt, HaltedTables};
pub use index::{FoundInShard, IndexBuild, IndexState, Indexed, Lookup};
pub use opening::{Checkpoint, Claim, LogPoint, OpeningStart, OpeningToken, Restore, SetAside, SetAsidePage};
pub use parking::{ParkOutcome, ParkedRecord};
pub use report::{
    BreakerState, DatabaseReport, MAX_REPORTS, REPORT_TTL, ReplicaReport, SeenReport, TableReport, TableState,
};
pub use store::{
    Answer, Backlog, Clean, CleanOutcome, Dirty, DirtyRecord, Eviction, Fill, HotStore, LeaseOutcome, LeaseToken,
    Precondition, REQUEST_WINDOW, RecordId, Settings, ShardHeader, Slot, Stage, Stamp, Write, WriteOutcome,
};
