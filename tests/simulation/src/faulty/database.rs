//! The database of one process.

use std::sync::Arc;

use database::{
    Applied, Batch, CatalogEntry, Change, Database, DatabaseError, DatabaseRow, ErrorClass, FoundRow, Hold, HoldKind,
    HoldScope, Holds, Horizon, Owner, Search, SetRate, ShardClaim, ShardRow, StoredRates,
};
use model::{ColumnName, DatabaseName, Epoch, Key, Shard, ShardCount, TableName, TableRef, TableSchema};

use super::Faulty;
use crate::{
    nature::Place,
    process::{Fault, wait},
};

impl Fault for DatabaseError {
    fn refused() -> Self {
        Self::Statement {
            table: String::new(),
            class: ErrorClass::Transient,
            code: "simulated".to_owned(),
            message: "simulated".to_owned(),
        }
    }

    fn unanswered() -> Self {
        Self::Unknown("simulated".to_owned())
    }
}

impl<D: Database> Database for Faulty<D> {
    async fn probe(&self) -> Result<(), DatabaseError> {
        let inner = self.inner.clone();
        self.process
            .call(Place::Database, self.process.shown(|| "probe".to_owned()), async move { inner.probe().await })
            .await
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        let inner = self.inner.clone();
        self.process
            .call(Place::Database, self.process.shown(|| "prepare".to_owned()), async move { inner.prepare().await })
            .await
    }

    async fn add_version_column(&self, table: &TableName) -> Result<(), DatabaseError> {
        self.inner.add_version_column(table).await
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        self.inner.list_tables().await
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        let (inner, database, table) = (self.inner.clone(), database.clone(), table.clone());
        let effect = async move { inner.introspect(&database, &table).await };
        self.process.call(Place::Database, self.process.shown(|| "introspect".to_owned()), effect).await
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        let what = self.process.shown(|| format!("read({}, {keys:?})", schema.table));
        let (inner, schema, keys_owned) = (self.inner.clone(), schema.clone(), keys.to_vec());
        let effect = async move { inner.read(&schema, &keys_owned).await };
        self.process.call(Place::Database, what, effect).await
    }

    async fn search_columns(&self, table: &TableName) -> Result<Vec<ColumnName>, DatabaseError> {
        let (inner, table) = (self.inner.clone(), table.clone());
        let what = self.process.shown(|| format!("search_columns({table})"));
        self.process.call(Place::Database, what, async move { inner.search_columns(&table).await }).await
    }

    async fn find(&self, search: Search<'_>) -> Result<Vec<FoundRow>, DatabaseError> {
        let what = self.process.shown(|| format!("find({} = {:?})", search.column, search.value));
        let (inner, schema) = (self.inner.clone(), search.schema.clone());
        let (column, value, after) = (search.column.clone(), search.value.clone(), search.after.cloned());
        let limit = search.limit;
        let effect = async move {
            let search = Search { schema: &schema, column: &column, value: &value, after: after.as_ref(), limit };
            inner.find(search).await
        };
        self.process.call(Place::Database, what, effect).await
    }

    async fn take_ownership(&self, claims: &[ShardClaim], owner: &Owner) -> Result<(), DatabaseError> {
        let what = self.process.shown(|| format!("take_ownership({claims:?}, {owner:?})"));
        let (inner, claims, owner) = (self.inner.clone(), claims.to_vec(), owner.clone());
        let nature = self.process.nature().clone();
        let effect = async move {
            inner.take_ownership(&claims, &owner).await?;
            nature.owners.taken(&claims, &owner);
            Ok(())
        };
        self.process.call(Place::Database, what, effect).await
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        let (inner, tables) = (self.inner.clone(), tables.to_vec());
        let effect = async move { inner.shard_rows(&tables, shard).await };
        self.process.call(Place::Database, self.process.shown(|| format!("shard_rows({shard})")), effect).await
    }

    async fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Vec<ShardRow>, DatabaseError> {
        let what = self.process.shown(|| format!("announce_opening({tables:?}, {shard}, {epoch})"));
        let (inner, tables) = (self.inner.clone(), tables.to_vec());
        let effect = async move { inner.announce_opening(&tables, shard, epoch).await };
        self.process.call(Place::Database, what, effect).await
    }

    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        let what = self.process.shown(|| format!("apply({:?}, {:?})", batch.owners, batch.changes));
        let Batch { schema, owners, changes } = batch.clone();
        let (inner, schema, changes): (_, _, Arc<[Change]>) = (self.inner.clone(), schema.clone(), changes.into());
        let nature = self.process.nature().clone();
        let effect = async move {
            let (table, asked) = (&schema.table.table, owners.clone());
            let stand = nature.owners.stand(table, &asked);
            let applied = inner.apply(Batch { schema: &schema, owners, changes: &changes }).await?;
            if let Some(owner) = stand.overruled(nature.owners.stand(table, &asked)) {
                nature.complain(format!("a transaction of {asked:?} was committed, though {owner:?} was the owner"));
            }
            Ok(applied)
        };
        self.process.call(Place::Database, what, effect).await
    }

    async fn note_horizons(&self, table: &TableName, horizons: &[Horizon]) -> Result<(), DatabaseError> {
        let what = self.process.shown(|| format!("note_horizons({table}, {horizons:?})"));
        let (inner, table, horizons) = (self.inner.clone(), table.clone(), horizons.to_vec());
        let delay = self.process.nature().upkeep_delay();
        let effect = async move {
            wait(delay).await;
            inner.note_horizons(&table, &horizons).await
        };
        self.process.call(Place::Database, what, effect).await
    }

    async fn purge_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        let what = self.process.shown(|| format!("purge_tombstones({}, {horizon:?})", schema.table));
        let (inner, schema, horizon) = (self.inner.clone(), schema.clone(), horizon.clone());
        let delay = self.process.nature().upkeep_delay();
        let effect = async move {
            wait(delay).await;
            inner.purge_tombstones(&schema, &horizon, limit).await
        };
        self.process.call(Place::Database, what, effect).await
    }

    async fn count_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        let what = self.process.shown(|| format!("count_tombstones({}, {horizon:?})", schema.table));
        let (inner, schema, horizon) = (self.inner.clone(), schema.clone(), horizon.clone());
        let effect = async move { inner.count_tombstones(&schema, &horizon, limit).await };
        self.process.call(Place::Database, what, effect).await
    }

    fn max_batch_rows(&self, schema: &TableSchema) -> usize {
        self.inner.max_batch_rows(schema)
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        let inner = self.inner.clone();
        let effect = async move { inner.shard_count(configured).await };
        self.process.call(Place::Database, self.process.shown(|| "shard_count".to_owned()), effect).await
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        let inner = self.inner.clone();
        let effect = async move { inner.next_epoch(shard, at_least).await };
        self.process
            .call(Place::Database, self.process.shown(|| format!("next_epoch({shard}, {at_least})")), effect)
            .await
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        let inner = self.inner.clone();
        self.process
            .call(Place::Database, self.process.shown(|| "catalog".to_owned()), async move { inner.catalog().await })
            .await
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        self.inner.enable(entry).await
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        self.inner.disable(table).await
    }

    async fn rates(&self) -> Result<StoredRates, DatabaseError> {
        self.inner.rates().await
    }

    async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
        self.inner.set_rate(table, rate).await
    }

    async fn holds(&self) -> Result<Holds, DatabaseError> {
        let inner = self.inner.clone();
        let what = self.process.shown(|| "holds".to_owned());
        self.process.call(Place::Database, what, async move { inner.holds().await }).await
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
