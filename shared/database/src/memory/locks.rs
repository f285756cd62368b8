//! The locks of shard rows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{Shard, TableName};
use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

use super::state::refused;
use crate::{DatabaseError, ErrorClass};

type Name = (TableName, Shard);

/// A lock per table and shard. Who waits gets it in the order of asking.
#[derive(Default)]
pub(super) struct ShardLocks {
    locks: Mutex<BTreeMap<Name, Arc<Lock<()>>>>,
}

/// Locks, held until this is dropped.
pub(super) struct Held {
    _locks: Vec<OwnedMutexGuard<()>>,
}

impl ShardLocks {
    /// Locks all of them, in one order for everybody.
    pub(super) async fn lock(&self, mut names: Vec<Name>, patience: Duration) -> Result<Held, DatabaseError> {
        names.sort();
        names.dedup();
        let mut locks = Vec::with_capacity(names.len());
        for name in names {
            let table = name.0.clone();
            let lock = {
                let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
                locks.entry(name).or_default().clone()
            };
            let Ok(locked) = tokio::time::timeout(patience, lock.lock_owned()).await else {
                let message = "waited too long for the lock of a shard";
                return Err(refused(&table, ErrorClass::Contended, "lock-timeout", message));
            };
            locks.push(locked);
        }
        Ok(Held { _locks: locks })
    }
}
