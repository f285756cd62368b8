//! The stores of a run, and what a process sees of them.

use std::sync::Arc;

use database::memory::MemoryDatabase;
use drain_svc::Drain;
use event_log::memory::{MemoryLog, MemorySource};
use hot_store::memory::MemoryStore;
use ingest_svc::{Core, accept::Writer, applied::Waiter, find::Finder, holds::Operators, read::Reader, watch::Watcher};

use crate::faulty::{Faulty, FaultySource};

pub(crate) type Hot = MemoryStore;
pub(crate) type Log = MemoryLog;
pub(crate) type Db = MemoryDatabase;

/// What a replica of ingest works on.
pub(crate) type ReplicaCore = Core<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
pub(crate) type ReplicaWriter = Writer<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
/// What an operator asks a replica.
pub(crate) type ReplicaOperators = Operators<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
pub(crate) type ReplicaReader = Reader<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
pub(crate) type ReplicaFinder = Finder<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
pub(crate) type ReplicaWaiter = Waiter<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
pub(crate) type ReplicaWatcher = Watcher<Faulty<Hot>, Faulty<Log>, Faulty<Db>>;
pub(crate) type ReplicaDrain = Drain<Faulty<Hot>, FaultySource<MemorySource>, Faulty<Log>, Faulty<Db>>;

/// The stores themselves. They outlive every process.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) hot: Arc<Hot>,
    pub(crate) log: Arc<Log>,
    pub(crate) database: Arc<Db>,
}
