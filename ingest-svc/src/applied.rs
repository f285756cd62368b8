//! Waiting until the database has what tokens name: by the horizon of each table in each shard, up to which the
//! database has every write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{Backlog, HotStore, HotStoreError};
use model::{Epoch, Namespace, Shard, TableRef, Version};
use tokio::time::{Instant, sleep_until};

use crate::{Core, StoreError, Token};

/// Nobody waits longer.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// The first and the longest interval between two looks.
const FIRST_INTERVAL: Duration = Duration::from_millis(2);
const LONGEST_INTERVAL: Duration = Duration::from_millis(100);

/// Why it can't be told whether the database has the writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// No such table or shard.
    #[error("not a token of this installation, or its table is gone")]
    UnknownToken {
        /// Its place among the tokens.
        at: usize,
    },
    /// The hot store was restarted since, and the write was not in the log when it was acknowledged.
    #[error(
        "a write was acknowledged as LOGGED only, and shard {shard} was opened again since: the hot store may have lost it"
    )]
    PerhapsLost {
        /// The shard.
        shard: Shard,
    },
    /// The database refused a write for good.
    #[error(
        "the database refuses a write to table {table} for good: it is among the dead letters, where an operator replays or purges it"
    )]
    DeadLettered {
        /// The place of its token among the tokens.
        at: usize,
        /// The table.
        table: TableRef,
    },
    /// The hot store could not be asked until the time was up.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is waited for in one table in one shard.
#[derive(Debug, Default)]
struct Goal {
    version: Version,
    /// The versions of the tokens, and the place of each among them.
    tokens: BTreeMap<Version, usize>,
    /// The epochs of writes that only the hot store had.
    logged_in: BTreeSet<Epoch>,
}

type Goals = BTreeMap<Namespace, Goal>;

/// Waits for writes.
pub struct Waiter<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Waiter<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<H, L, D> Waiter<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// A waiter on these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// Whether the database has all that the tokens name, or newer versions of those records, by the end of the wait;
    /// asked at least once.
    ///
    /// # Errors
    /// See [`WaitError`].
    pub async fn wait(&self, tokens: &[Token], wait: Duration) -> Result<bool, WaitError> {
        let core = &*self.core;
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut pending: BTreeMap<Shard, Goals> = BTreeMap::new();
        for (at, token) in tokens.iter().enumerate() {
            if token.shard.0 >= core.shards.get() || core.directory.by_namespace(&token.namespace).is_none() {
                return Err(WaitError::UnknownToken { at });
            }
            let goal = pending.entry(token.shard).or_default().entry(token.namespace.clone()).or_default();
            goal.version = goal.version.max(token.version);
            goal.tokens.insert(token.version, at);
            if token.logged_only {
                goal.logged_in.insert(token.epoch);
            }
        }
        let mut interval = FIRST_INTERVAL;
        loop {
            let looks: Vec<_> = stream::iter(pending)
                .map(|(shard, goals)| async move {
                    let answer = core.hot.backlog(shard, goals.keys().cloned().collect()).await;
                    (shard, goals, answer)
                })
                .buffer_unordered(core.options.shards_at_once.max(1))
                .collect()
                .await;
            pending = BTreeMap::new();
            let mut trouble = None;
            for (shard, mut goals, answer) in looks {
                match answer {
                    Err(error) => trouble = Some(error),
                    Ok((epoch, backlogs)) => {
                        if goals.values().any(|goal| goal.logged_in.iter().any(|logged| *logged != epoch)) {
                            return Err(WaitError::PerhapsLost { shard });
                        }
                        let mut backlogs = backlogs.into_iter();
                        let mut waiting = Goals::new();
                        for (namespace, goal) in goals {
                            match backlogs.next() {
                                Some(backlog) if backlog.horizon >= goal.version => {
                                    // The horizon passes what the database refused. Who can't be asked that now is asked
                                    // again.
                                    match self.refused(shard, &namespace, &goal, &backlog).await {
                                        Ok(None) => {}
                                        Ok(Some(refused)) => return Err(refused),
                                        Err(error) => {
                                            trouble = Some(error);
                                            waiting.insert(namespace, goal);
                                        }
                                    }
                                }
                                _ => drop(waiting.insert(namespace, goal)),
                            }
                        }
                        goals = waiting;
                    }
                }
                if !goals.is_empty() {
                    pending.insert(shard, goals);
                }
            }
            if pending.is_empty() {
                return Ok(true);
            }
            let next = Instant::now() + interval;
            if next > deadline {
                return trouble.map_or(Ok(false), |error| Err(WaitError::Store(error.into())));
            }
            sleep_until(next).await;
            interval = (interval * 3 / 2).min(LONGEST_INTERVAL);
        }
    }
    /// Which of the writes is parked.
    async fn refused(
        &self,
        shard: Shard,
        namespace: &Namespace,
        goal: &Goal,
        backlog: &Backlog,
    ) -> Result<Option<WaitError>, HotStoreError> {
        let core = &*self.core;
        let Some(lowest) = backlog.lowest_parked else { return Ok(None) };
        for (&version, &at) in goal.tokens.range(lowest..) {
            let (_, parked) = core.hot.parked(shard, namespace.clone(), version.before(), 1).await?;
            if parked.first().is_some_and(|parked| parked.version == version)
                && let Some(table) = core.directory.by_namespace(namespace)
            {
                return Ok(Some(WaitError::DeadLettered { at, table: table.schema.table.clone() }));
            }
        }
        Ok(None)
    }
}
