//! A database that can be told to fail, and remembers what it was asked.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use database::{
    AnyDatabase, Applied, Batch, CatalogEntry, Change, Database, DatabaseError, DatabaseRow, ErrorClass, FoundRow,
    Hold, HoldKind, HoldScope, Holds, Horizon, Owner, Search, SetRate, ShardClaim, ShardRow, StoredRates,
};
use model::{
    ColumnName, Content, DatabaseName, Epoch, Key, Shard, ShardCount, TableName, TableRef, TableSchema, Value, Version,
};
use tokio::{sync::Notify, time::Instant};

use crate::core::Core;

/// One call of `apply`.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) at: Instant,
    pub(crate) changes: Vec<(Key, Version)>,
    pub(crate) applied: bool,
}

/// What happened to the database, in order.
#[derive(Debug, Clone)]
pub(crate) enum Happened {
    /// It has these versions, or newer ones of their keys.
    Applied(Vec<(Key, Version)>),
    /// Its readers were told.
    Noted(Vec<(Shard, Version)>),
}

/// Calls wait here while it is closed, each until it is let through.
#[derive(Default)]
pub(crate) struct Gate {
    closed: AtomicBool,
    held: Mutex<Vec<Horizon>>,
    arrived: Notify,
    passes: Notify,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Waits for the next call, and tells what it says.
    pub(crate) async fn next(&self) -> Vec<Horizon> {
        self.arrived.notified().await;
        self.held.lock().unwrap().clone()
    }

    pub(crate) fn let_one_through(&self) {
        self.passes.notify_one();
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
        self.passes.notify_one();
    }

    async fn pass(&self, said: &[Horizon]) {
        if self.closed.load(Ordering::SeqCst) {
            *self.held.lock().unwrap() = said.to_vec();
            self.arrived.notify_one();
            self.passes.notified().await;
        }
    }
}

pub(crate) struct BentDatabase<D = AnyDatabase> {
    inner: D,
    begun: Instant,
    /// Every call that writes, when it was made, and what came of it.
    calls: Mutex<Vec<String>>,
    attempts: Mutex<Vec<Attempt>>,
    /// How often it was asked whether it takes writes.
    pub(crate) probes: AtomicU64,
    history: Mutex<Vec<Happened>>,
    /// Horizons and purges are refused for good.
    pub(crate) no_upkeep: AtomicBool,
    /// Where horizons are on their way.
    pub(crate) notes: Gate,
    /// Where purges are on their way.
    pub(crate) purges: Gate,
    /// Nothing can be written: the connection is refused.
    pub(crate) away: AtomicBool,
    /// It can't be reached, which whoever tries finds out after a while.
    pub(crate) cut_off: AtomicBool,
    /// The limits that operators set can't be read.
    pub(crate) hides_rates: AtomicBool,
    /// What operators set for these tables can't be read.
    pub(crate) garbled_rates: Mutex<Vec<TableRef>>,
    /// How long transactions take.
    takes: Mutex<Duration>,
    /// What they share with others, and how much of it a row takes.
    core: Mutex<Option<(Core, Duration)>>,
    /// The next transaction is committed, and its answer is lost.
    pub(crate) lose_next_answer: AtomicBool,
    /// Rows with this key are refused for good.
    pub(crate) poison: Mutex<Option<(Key, ErrorClass)>>,
    /// Rows with this amount are refused.
    pub(crate) bad_amount: Mutex<Option<(i64, ErrorClass)>>,
}

impl<D> BentDatabase<D> {
    pub(crate) fn new(inner: D) -> Self {
        Self {
            inner,
            begun: Instant::now(),
            calls: Mutex::default(),
            attempts: Mutex::default(),
            probes: AtomicU64::new(0),
            history: Mutex::default(),
            no_upkeep: AtomicBool::new(false),
            notes: Gate::default(),
            purges: Gate::default(),
            away: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
            hides_rates: AtomicBool::new(false),
            garbled_rates: Mutex::default(),
            takes: Mutex::default(),
            core: Mutex::default(),
            lose_next_answer: AtomicBool::new(false),
            poison: Mutex::default(),
            bad_amount: Mutex::default(),
        }
    }

    pub(crate) fn straight(&self) -> &D {
        &self.inner
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn history(&self) -> Vec<Happened> {
        self.history.lock().unwrap().clone()
    }

    fn upkeep_refusal(&self) -> Option<DatabaseError> {
        let refused = self.no_upkeep.load(Ordering::SeqCst);
        self.refusal(&[]).or_else(|| refused.then(|| DatabaseError::Unfit("no upkeep".into())))
    }

    async fn reach(&self) -> Result<(), DatabaseError> {
        if self.cut_off.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(DatabaseError::Unknown("no connection within 5 s".into()));
        }
        Ok(())
    }

    /// How long transactions take from now on.
    pub(crate) fn takes(&self, time: Duration) {
        *self.takes.lock().unwrap() = time;
    }

    /// What transactions share with others from now on, and how much of it each row of theirs takes.
    pub(crate) fn shares(&self, core: &Core, of_a_row: Duration) {
        *self.core.lock().unwrap() = Some((core.clone(), of_a_row));
    }

    fn called(&self, what: String) {
        self.calls.lock().unwrap().push(format!("{:?} {what}", self.begun.elapsed()));
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    pub(crate) fn rows_applied(&self) -> usize {
        self.attempts.lock().unwrap().iter().filter(|a| a.applied).map(|a| a.changes.len()).sum()
    }

    /// Whether any attempt, failed or not, held this version of this key.
    pub(crate) fn was_tried(&self, key: &Key, version: Version) -> bool {
        self.attempts.lock().unwrap().iter().any(|a| a.changes.iter().any(|(k, v)| k == key && *v == version))
    }

    fn refusal(&self, changes: &[Change]) -> Option<DatabaseError> {
        let statement = |class, message: &str| DatabaseError::Statement {
            table: "payments".into(),
            class,
            code: "HY000/1".into(),
            message: message.into(),
        };
        if self.away.load(Ordering::SeqCst) {
            return Some(statement(ErrorClass::Transient, "connection refused"));
        }
        if let Some((amount, class)) = *self.bad_amount.lock().unwrap()
            && changes.iter().any(|change| amount_of(change) == Some(amount))
        {
            return Some(statement(class, "the amount 4711 is refused"));
        }
        let poison = self.poison.lock().unwrap();
        let (key, class) = poison.as_ref()?;
        changes.iter().any(|change| change.key == *key).then(|| statement(*class, "refused"))
    }
}

fn amount_of(change: &Change) -> Option<i64> {
    let Content::Row(row) = &change.image.content else { return None };
    row.iter().find(|(name, _)| name.as_str() == "amount").and_then(|(_, value)| match value {
        Value::Int64(amount) => Some(*amount),
        _ => None,
    })
}

pub(crate) fn id(n: i64) -> Key {
    Key(vec![Value::Int64(n)])
}

impl<D: Database> Database for BentDatabase<D> {
    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        self.reach().await?;
        let takes = *self.takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let core = self.core.lock().unwrap().clone();
        if let Some((core, of_a_row)) = core {
            core.work(of_a_row * batch.changes.len() as u32).await;
        }
        let at = Instant::now();
        let changes: Vec<_> = batch.changes.iter().map(|change| (change.key.clone(), change.version)).collect();
        let outcome = match self.refusal(batch.changes) {
            Some(error) => Err(error),
            None => self.inner.apply(batch).await,
        };
        self.called(format!("apply {changes:?}: {outcome:?}"));
        if outcome.is_ok() {
            self.history.lock().unwrap().push(Happened::Applied(changes.clone()));
        }
        self.attempts.lock().unwrap().push(Attempt { at, changes, applied: outcome.is_ok() });
        if self.lose_next_answer.swap(false, Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("the connection broke".into()));
        }
        outcome
    }

    async fn take_ownership(&self, claims: &[ShardClaim], owner: &Owner) -> Result<(), DatabaseError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("connection refused".into()));
        }
        self.called(format!("take {claims:?} for {owner:?}"));
        self.inner.take_ownership(claims, owner).await
    }

    async fn probe(&self) -> Result<(), DatabaseError> {
        self.reach().await?;
        self.probes.fetch_add(1, Ordering::SeqCst);
        match self.refusal(&[]) {
            Some(error) => Err(error),
            None => self.inner.probe().await,
        }
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        self.inner.prepare().await
    }

    async fn add_version_column(&self, table: &TableName) -> Result<(), DatabaseError> {
        self.inner.add_version_column(table).await
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        self.inner.list_tables().await
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        self.inner.introspect(database, table).await
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        self.inner.read(schema, keys).await
    }

    async fn search_columns(&self, table: &TableName) -> Result<Vec<ColumnName>, DatabaseError> {
        self.inner.search_columns(table).await
    }

    async fn find(&self, search: Search<'_>) -> Result<Vec<FoundRow>, DatabaseError> {
        self.inner.find(search).await
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        self.reach().await?;
        self.inner.shard_rows(tables, shard).await
    }

    async fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Vec<ShardRow>, DatabaseError> {
        self.inner.announce_opening(tables, shard, epoch).await
    }

    async fn note_horizons(&self, table: &TableName, horizons: &[Horizon]) -> Result<(), DatabaseError> {
        self.notes.pass(horizons).await;
        if let Some(error) = self.upkeep_refusal() {
            return Err(error);
        }
        self.called(format!("note {horizons:?}"));
        let noted = horizons.iter().map(|horizon| (horizon.shard, horizon.version)).collect();
        self.history.lock().unwrap().push(Happened::Noted(noted));
        self.inner.note_horizons(table, horizons).await
    }

    async fn purge_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        self.purges.pass(std::slice::from_ref(horizon)).await;
        if let Some(error) = self.upkeep_refusal() {
            return Err(error);
        }
        let purged = self.inner.purge_tombstones(schema, horizon, limit).await;
        self.called(format!("purge {} {horizon:?}: {purged:?}", schema.table.table));
        purged
    }

    async fn count_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        if let Some(error) = self.upkeep_refusal() {
            return Err(error);
        }
        let found = self.inner.count_tombstones(schema, horizon, limit).await;
        self.called(format!("count tombstones {} {horizon:?}: {found:?}", schema.table.table));
        found
    }

    fn max_batch_rows(&self, schema: &TableSchema) -> usize {
        self.inner.max_batch_rows(schema)
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        self.inner.shard_count(configured).await
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        self.inner.next_epoch(shard, at_least).await
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        self.inner.catalog().await
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        self.inner.enable(entry).await
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        self.inner.disable(table).await
    }

    async fn rates(&self) -> Result<StoredRates, DatabaseError> {
        if self.hides_rates.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("hidden".into()));
        }
        let garbled = self.garbled_rates.lock().unwrap().clone();
        let mut rates = self.inner.rates().await?;
        rates.retain(|(table, _)| !garbled.contains(table));
        rates.extend(garbled.into_iter().map(|table| (table, Err(DatabaseError::Unfit("garbled".into())))));
        Ok(rates)
    }

    async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
        self.inner.set_rate(table, rate).await
    }

    async fn holds(&self) -> Result<Holds, DatabaseError> {
        if self.hides_rates.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unknown("hidden".into()));
        }
        self.inner.holds().await
    }

    async fn set_hold(&self, hold: &Hold) -> Result<u64, DatabaseError> {
        self.inner.set_hold(hold).await
    }

    async fn lift_hold(
        &self,
        scope: &HoldScope,
        kind: HoldKind,
        now: jiff::Timestamp,
    ) -> Result<(bool, u64), DatabaseError> {
        self.inner.lift_hold(scope, kind, now).await
    }
}
