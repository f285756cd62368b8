//! What operators stop: the draining of tables (a pause), or their writes until all is drained (a drain-down).
//!
//! It is kept in the catalog's database beside the limits that operators set: nothing of it is lost with the hot store or
//! the log, and who reads one reads the other. A pause is followed by the drains. The writes of a drain-down are refused by
//! the hot store, in the step that would write: each shard's header says of which tables it takes none. So no replica
//! has to know of it, and when all headers say so, no more can come in. Here every replica sees to it that they do:
//!
//! - whoever is asked tells all shards at once;
//! - every replica looks once a second whether there is another wish, and tells the shards that do not know it;
//! - who opens a shard reads the wishes after it has claimed it, and tells the shard before it opens it. So a hot store that
//!   has lost the wish takes no write either.
//!
//! A wish has a revision, which rises: an earlier one never replaces a later one.

mod drain_down;
mod follow;

use std::{collections::BTreeSet, sync::Arc};

use database::{Database, DatabaseError, Hold, HoldKind, HoldScope, Holds, MAX_BY, MAX_REASON};
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{Halt, HaltedTables, HotStore, HotStoreError};
use model::{Namespace, Shard, TableRef};

pub use drain_down::DrainDown;
pub use follow::run;

use crate::{Core, StoreError};

/// Why something could not be stopped, or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The table is not written through us.
    #[error("table {0} was never enabled: there is nothing to stop")]
    NotEnabled(TableRef),
    /// The catalog's database could not be asked.
    #[error("what operators stop is kept in the first configured database, which did not take it: {0}")]
    Database(StoreError),
}

impl From<DatabaseError> for HoldError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error.into())
    }
}

/// Stops, and lets go on.
pub struct Operators<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Operators<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<H, L, D> Operators<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// On these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// Stops something, in place of an earlier hold of that kind and scope. Drains follow a pause within two seconds. A
    /// drain-down is told to all shards of the hot store; those that can't be told are told by whoever reaches them, and
    /// [`Operators::drain_down`] says when all of them know.
    ///
    /// # Errors
    /// [`HoldError`]; then it may have taken effect all the same.
    pub async fn set(&self, scope: HoldScope, kind: HoldKind, reason: &str, by: &str) -> Result<Hold, HoldError> {
        let core = &*self.core;
        if let HoldScope::Table(table) = &scope {
            core.directory.refresh(false).await?;
            if core.directory.known(table).is_none() {
                return Err(HoldError::NotEnabled(table.clone()));
            }
        }
        let since = core.options.wall_clock.now();
        let hold = Hold { scope, kind, reason: cut(reason, MAX_REASON), by: cut(by, MAX_BY), since };
        core.directory.catalog_database()?.set_hold(&hold).await?;
        tracing::info!(?hold, "an operator has stopped something");
        self.tell().await?;
        Ok(hold)
    }

    /// Lets something go on; whether it was stopped, and what still is.
    ///
    /// # Errors
    /// [`HoldError`]; then it may have taken effect all the same.
    pub async fn lift(&self, scope: &HoldScope, kind: HoldKind) -> Result<(bool, Holds), HoldError> {
        let core = &*self.core;
        let now = core.options.wall_clock.now();
        let (lifted, _) = core.directory.catalog_database()?.lift_hold(scope, kind, now).await?;
        if lifted {
            tracing::info!(?scope, ?kind, "an operator lets something go on");
        }
        Ok((lifted, self.tell().await?))
    }

    /// Tells all shards what is stopped now.
    async fn tell(&self) -> Result<Holds, HoldError> {
        let core = &*self.core;
        let holds = core.directory.catalog_database()?.holds().await?;
        let halt = halt_of(core, &holds).await?;
        for (shard, told) in tell(core, core.shards.all(), &halt).await {
            if let Err(error) = told {
                tracing::info!(%shard, %error, "a shard does not know yet what is stopped; it is told again");
            }
        }
        Ok(holds)
    }
}

/// What is stopped, in the hot store's words.
async fn halt_of<H, L, D: Database>(core: &Core<H, L, D>, holds: &Holds) -> Result<Halt, DatabaseError> {
    let stopped = || holds.list.iter().filter(|hold| hold.kind == HoldKind::DrainDown);
    let unknown = |hold: &Hold| matches!(&hold.scope, HoldScope::Table(t) if core.directory.namespace_of(t).is_none());
    if stopped().any(unknown) {
        // Enabled at another replica a moment ago. Who is not in the catalog even then is not written by anybody.
        core.directory.refresh(false).await?;
    }
    let mut these: BTreeSet<Namespace> = BTreeSet::new();
    for hold in stopped() {
        match &hold.scope {
            HoldScope::Everything => return Ok(Halt { revision: holds.revision, tables: HaltedTables::All }),
            HoldScope::Table(table) => {
                // Also of one that is dropped and made anew meanwhile.
                these.extend(core.directory.namespace_of(table));
            }
        }
    }
    Ok(Halt { revision: holds.revision, tables: HaltedTables::These(these) })
}

/// Tells shards of which tables they take no writes.
async fn tell<H: HotStore, L, D>(
    core: &Core<H, L, D>,
    shards: impl IntoIterator<Item = Shard>,
    halt: &Halt,
) -> Vec<(Shard, Result<Halt, HotStoreError>)> {
    stream::iter(shards)
        .map(|shard| async move { (shard, core.hot.halt_writes(shard, halt).await) })
        .buffer_unordered(core.options.shards_at_once.max(1))
        .collect()
        .await
}

/// Tells a shard that is being opened; for its opener, after its claim and before it opens the shard.
pub(crate) async fn tell_opened<H: HotStore, L, D: Database, E>(core: &Core<H, L, D>, shard: Shard) -> Result<(), E>
where
    E: From<DatabaseError> + From<HotStoreError>,
{
    let holds = core.directory.catalog_database()?.holds().await?;
    // Nothing was ever stopped.
    if holds.revision > 0 {
        core.hot.halt_writes(shard, &halt_of(core, &holds).await?).await?;
    }
    Ok(())
}

fn cut(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}
