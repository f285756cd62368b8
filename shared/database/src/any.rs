//! The database that a configuration names, whichever kind it is.

use std::fmt;

use model::{ColumnName, DatabaseName, Epoch, Key, Shard, ShardCount, TableName, TableRef, TableSchema};

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
use crate::relational::Relational;
use crate::{
    Applied, Batch, CatalogEntry, Database, DatabaseError, DatabaseOptions, DatabaseRow, FoundRow, Hold, HoldKind,
    HoldScope, Holds, Horizon, Owner, Search, SetRate, ShardClaim, ShardRow, StoredRates,
};

/// A database of any kind that this build knows.
pub struct AnyDatabase {
    name: DatabaseName,
    kind: Kind,
}

pub(crate) enum Kind {
    #[cfg(feature = "mysql")]
    Mysql(Relational<crate::mysql::Mysql>),
    #[cfg(feature = "postgres")]
    Postgres(Relational<crate::postgres::Postgres>),
    #[cfg(feature = "sqlite")]
    Sqlite(Relational<crate::sqlite::Sqlite>),
}

impl AnyDatabase {
    /// Connects; the url's scheme says to what.
    ///
    /// # Errors
    /// `Unfit` if the url can't be used, else what the database says, or that it doesn't answer.
    pub async fn connect(options: DatabaseOptions) -> Result<Self, DatabaseError> {
        let (scheme, rest) = options.url.split_once(':').unwrap_or_default();
        let kind = match scheme {
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Kind::Mysql(Relational::new(crate::mysql::Mysql::connect(&options).await?)),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                Kind::Postgres(Relational::new(crate::postgres::Postgres::connect(&options).await?))
            }
            #[cfg(feature = "sqlite")]
            "sqlite" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                Kind::Sqlite(Relational::new(crate::sqlite::Sqlite::connect(&options, path).await?))
            }
            _ => {
                let _ = rest;
                return Err(DatabaseError::Unfit(format!(
                    "the url of database {} names no kind of database that this build knows: it begins with mysql://, \
                     mariadb://, postgres:// or sqlite:",
                    options.name
                )));
            }
        };
        Ok(Self { name: options.name, kind })
    }

    pub(crate) fn name(&self) -> &DatabaseName {
        &self.name
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }
}

impl fmt::Debug for AnyDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            #[cfg(feature = "mysql")]
            Kind::Mysql(_) => "mysql",
            #[cfg(feature = "postgres")]
            Kind::Postgres(_) => "postgres",
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(_) => "sqlite",
        };
        f.debug_struct("AnyDatabase").field("name", &self.name).field("kind", &kind).finish_non_exhaustive()
    }
}

/// Hands a call to whichever database it is.
macro_rules! delegate {
    ($self:ident.$call:ident($($argument:expr),*) $($awaited:tt)*) => {
        match &$self.kind {
            #[cfg(feature = "mysql")]
            Kind::Mysql(database) => database.$call($($argument),*) $($awaited)*,
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => database.$call($($argument),*) $($awaited)*,
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(database) => database.$call($($argument),*) $($awaited)*,
        }
    };
}

impl Database for AnyDatabase {
    async fn probe(&self) -> Result<(), DatabaseError> {
        delegate!(self.probe().await)
    }

    async fn prepare(&self) -> Result<(), DatabaseError> {
        delegate!(self.prepare().await)
    }

    async fn add_version_column(&self, table: &TableName) -> Result<(), DatabaseError> {
        delegate!(self.add_version_column(table).await)
    }

    async fn list_tables(&self) -> Result<Vec<TableName>, DatabaseError> {
        delegate!(self.list_tables().await)
    }

    async fn introspect(&self, database: &DatabaseName, table: &TableName) -> Result<TableSchema, DatabaseError> {
        delegate!(self.introspect(database, table).await)
    }

    async fn read(&self, schema: &TableSchema, keys: &[Key]) -> Result<Vec<DatabaseRow>, DatabaseError> {
        delegate!(self.read(schema, keys).await)
    }

    async fn search_columns(&self, table: &TableName) -> Result<Vec<ColumnName>, DatabaseError> {
        delegate!(self.search_columns(table).await)
    }

    async fn find(&self, search: Search<'_>) -> Result<Vec<FoundRow>, DatabaseError> {
        delegate!(self.find(search).await)
    }

    async fn take_ownership(&self, claims: &[ShardClaim], owner: &Owner) -> Result<(), DatabaseError> {
        delegate!(self.take_ownership(claims, owner).await)
    }

    async fn shard_rows(&self, tables: &[TableName], shard: Shard) -> Result<Vec<ShardRow>, DatabaseError> {
        delegate!(self.shard_rows(tables, shard).await)
    }

    async fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> Result<Vec<ShardRow>, DatabaseError> {
        delegate!(self.announce_opening(tables, shard, epoch).await)
    }

    async fn apply(&self, batch: Batch<'_>) -> Result<Vec<Applied>, DatabaseError> {
        delegate!(self.apply(batch).await)
    }

    async fn note_horizons(&self, table: &TableName, horizons: &[Horizon]) -> Result<(), DatabaseError> {
        delegate!(self.note_horizons(table, horizons).await)
    }

    async fn purge_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        delegate!(self.purge_tombstones(schema, horizon, limit).await)
    }

    async fn count_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> Result<u64, DatabaseError> {
        delegate!(self.count_tombstones(schema, horizon, limit).await)
    }

    fn max_batch_rows(&self, schema: &TableSchema) -> usize {
        delegate!(self.max_batch_rows(schema))
    }

    async fn shard_count(&self, configured: ShardCount) -> Result<u32, DatabaseError> {
        delegate!(self.shard_count(configured).await)
    }

    async fn next_epoch(&self, shard: Shard, at_least: Epoch) -> Result<Epoch, DatabaseError> {
        delegate!(self.next_epoch(shard, at_least).await)
    }

    async fn catalog(&self) -> Result<(u64, Vec<CatalogEntry>), DatabaseError> {
        delegate!(self.catalog().await)
    }

    async fn enable(&self, entry: &CatalogEntry) -> Result<bool, DatabaseError> {
        delegate!(self.enable(entry).await)
    }

    async fn disable(&self, table: &TableRef) -> Result<bool, DatabaseError> {
        delegate!(self.disable(table).await)
    }

    async fn rates(&self) -> Result<StoredRates, DatabaseError> {
        delegate!(self.rates().await)
    }

    async fn set_rate(&self, table: &TableRef, rate: Option<SetRate>) -> Result<(), DatabaseError> {
        delegate!(self.set_rate(table, rate).await)
    }

    async fn holds(&self) -> Result<Holds, DatabaseError> {
        delegate!(self.holds().await)
    }

    async fn set_hold(&self, hold: &Hold) -> Result<u64, DatabaseError> {
        delegate!(self.set_hold(hold).await)
    }

    async fn lift_hold(
        &self,
        scope: &HoldScope,
        kind: HoldKind,
        now: jiff::Timestamp,
    ) -> Result<(bool, u64), DatabaseError> {
        delegate!(self.lift_hold(scope, kind, now).await)
    }
}
