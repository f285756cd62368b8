//! The trait, and what goes into and comes out of its calls.

use std::future::Future;

use jiff::Timestamp;
use model::{
    ColumnName, DatabaseName, Epoch, Image, Key, Row, Shard, ShardCount, TableName, TableRef, TableSchema, Value,
    Version,
};

use crate::{CatalogEntry, DatabaseError, Hold, HoldKind, HoldScope, Holds, SetRate, StoredRates};

/// What the database holds for a key.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseRow {
    /// A row; version 0 if nobody wrote it through us.
    Present {
        /// Its version.
        version: Version,
        /// All its columns.
        row: Row,
    },
    /// No row, but the tombstone of our delete.
    Deleted {
        /// The delete's version.
        version: Version,
    },
    /// Neither.
    Absent,
}

/// What rows are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The table.
    pub schema: &'a TableSchema,
    /// The column.
    pub column: &'a ColumnName,
    /// Its value, in the column's type. Nothing is equal to NULL.
    pub value: &'a Value,
    /// Only rows whose key comes after this one in the database's order.
    pub after: Option<&'a Key>,
    /// At most so many.
    pub limit: usize,
}

/// A row that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRow {
    /// Its key.
    pub key: Key,
    /// Its version; 0 if nobody wrote it through us.
    pub version: Version,
    /// All its columns.
    pub row: Row,
}

/// Who owns shards of a table: one assignment of one drain process. Another assignment has another owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(pub String);

/// A shard of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardClaim {
    /// The table.
    pub table: TableName,
    /// The shard.
    pub shard: Shard,
}

/// A shard's row in `_sa_shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardRow {
    /// The highest version that any transaction has written or skipped.
    pub high_water: Version,
    /// At or below it, a row that is absent is never inserted: its tombstone may have been purged.
    pub purge_horizon: Version,
    /// Up to where readers of the database were told that it has all accepted writes: no version at or below it may be
    /// given again.
    pub horizon: Version,
    /// The epoch of the newest opening that has announced itself here.
    pub epoch: Epoch,
}

/// Up to which version the database has all accepted writes of a shard, as the hot store has told the shard's owner.
///
/// It is as good as its epoch: once the hot store has lost something, a later opening may give versions below it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    /// The shard.
    pub shard: Shard,
    /// Who asked.
    pub owner: Owner,
    /// The epoch in which the hot store answered.
    pub epoch: Epoch,
    /// Up to where.
    pub version: Version,
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its shard.
    pub shard: Shard,
    /// The key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// The row, or that it is deleted; complete.
    pub image: Image,
}

/// Changes to one table to be made in one transaction, at most one per key.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// The table.
    pub schema: &'a TableSchema,
    /// Each shard that occurs, and who owns it.
    pub owners: Vec<(Shard, Owner)>,
    /// The changes; the database sorts them by key.
    pub changes: &'a [Change],
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// Written.
    Written,
    /// The database had this very version already.
    Same,
    /// The database has something newer, which stays: the row or tombstone and its version. A row of somebody else has
    /// none; where the change is at or below the purge horizon, that is told in its place.
    Stale {
        /// What is there.
        current: DatabaseRow,
    },
    /// Absent there, and at or below the purge horizon: not inserted. What became of the record since then, at the
    /// latest at that version, is a delete.
    Purged {
        /// The shard's purge horizon.
        horizon: Version,
    },
    /// `since` forbids it: the row that is there is older than the create that looked into the hot store only.
    SinceRefused,
}

/// A database.
///
/// A call that was begun runs to its end, also when its future is dropped: a transaction is never left half-way on
/// a connection that somebody else uses next.
pub trait Database: Send + Sync + 'static {
    /// Whether it takes writes now: a transaction that says it would write and changes nothing.
    ///
    /// # Errors
    /// Why it does not.
    fn probe(&self) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Makes or upgrades our own tables (`_sa_shard`, `_sa_ledger`; in the first database also `_sa_table`,
    /// `_sa_epoch`, `_sa_meta`, `_sa_rate`, `_sa_hold`).
    fn prepare(&self) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Adds the version column to a table, invisible where that exists. No harm if it is there.
    fn add_version_column(&self, table: &TableName) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The tables that could be enabled, without our own.
    fn list_tables(&self) -> impl Future<Output = Result<Vec<TableName>, DatabaseError>> + Send;

    /// A table's schema. `group` is all of the key.
    ///
    /// # Errors
    /// `NoSuchTable`; `Unsupported` for a table without primary key, a type that we don't carry, a generated
    /// column, an auto-increment key.
    fn introspect(
        &self,
        database: &DatabaseName,
        table: &TableName,
    ) -> impl Future<Output = Result<TableSchema, DatabaseError>> + Send;

    /// Reads rows by key, committed data of the primary; in the order of the keys.
    fn read(
        &self,
        schema: &TableSchema,
        keys: &[Key],
    ) -> impl Future<Output = Result<Vec<DatabaseRow>, DatabaseError>> + Send;

    /// The columns by which rows can be found without looking at all of them: an index begins with each, in which all rows
    /// are, and by which values are equal that are equal to the column.
    fn search_columns(&self, table: &TableName) -> impl Future<Output = Result<Vec<ColumnName>, DatabaseError>> + Send;

    /// Finds rows by a column's value, committed data of the primary, in the order of the primary key as the database
    /// has it. Which values are equal the database says, by the column's collation.
    fn find(&self, search: Search<'_>) -> impl Future<Output = Result<Vec<FoundRow>, DatabaseError>> + Send;

    /// Writes `owner` into the shard rows, making those that are missing.
    fn take_ownership(
        &self,
        claims: &[ShardClaim],
        owner: &Owner,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// The shard row of each table; zeros where there is none.
    fn shard_rows(
        &self,
        tables: &[TableName],
        shard: Shard,
    ) -> impl Future<Output = Result<Vec<ShardRow>, DatabaseError>> + Send;

    /// Announces an opening of this epoch in the shard row of each table, making those that are missing, and answers
    /// the rows as they are then. One transaction, which waits for those that hold one of the rows: what an earlier
    /// epoch has to say of the shard ([`Horizon`]) is in the answer already, or is not taken any more. An epoch never
    /// falls: where an opening of a higher one came first, the row answers that.
    fn announce_opening(
        &self,
        tables: &[TableName],
        shard: Shard,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Vec<ShardRow>, DatabaseError>> + Send;

    /// Applies a batch in one transaction: first one statement that locks the shard rows, checks their owners and
    /// raises the high-water version; then the changes, each guarded by its version; results in the order of the
    /// changes.
    fn apply(&self, batch: Batch<'_>) -> impl Future<Output = Result<Vec<Applied>, DatabaseError>> + Send;

    /// Tells those who read the database itself up to which version all accepted writes of a shard are in it. A horizon
    /// never falls. A shard that has another owner by now, or an opening of a higher epoch, is left alone, silently:
    /// its owner tells again.
    fn note_horizons(
        &self,
        table: &TableName,
        horizons: &[Horizon],
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// Forgets tombstones of a shard, the oldest first, at most `limit`, none above the horizon; returns how many. One
    /// transaction: it locks the shard row, checks owner and epoch, and raises the purge horizon to the highest version
    /// that it forgot, so that what was deleted stays deleted, whatever is delivered again.
    ///
    /// # Errors
    /// `NotOwner` if another owner holds the shard; `Outdated` if an opening of a higher epoch was announced.
    fn purge_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> impl Future<Output = Result<u64, DatabaseError>> + Send;

    /// How many tombstones [`Database::purge_tombstones`] would forget now, counted up to `limit`. It locks and writes
    /// nothing: a look that costs no budget, before any is asked for.
    fn count_tombstones(
        &self,
        schema: &TableSchema,
        horizon: &Horizon,
        limit: usize,
    ) -> impl Future<Output = Result<u64, DatabaseError>> + Send;

    /// Rows written by one transaction are limited by the database to about this many; a batch may not be larger.
    fn max_batch_rows(&self, schema: &TableSchema) -> usize;

    /// The stored number of shards; stores `configured` if there is none yet.
    fn shard_count(&self, configured: ShardCount) -> impl Future<Output = Result<u32, DatabaseError>> + Send;

    /// The next epoch of a shard: one above the counter and above `at_least`; never given twice.
    fn next_epoch(&self, shard: Shard, at_least: Epoch) -> impl Future<Output = Result<Epoch, DatabaseError>> + Send;

    /// All entries, and a number that changes whenever one does.
    fn catalog(&self) -> impl Future<Output = Result<(u64, Vec<CatalogEntry>), DatabaseError>> + Send;

    /// Enables a table or changes how it is, whatever the entry says of `enabled`; `false` if another table has that
    /// namespace or topic.
    fn enable(&self, entry: &CatalogEntry) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    /// Disables a table, whose entry stays; `false` if it was not enabled.
    fn disable(&self, table: &TableRef) -> impl Future<Output = Result<bool, DatabaseError>> + Send;

    /// The limits that operators have set, by table. What can't be read of one is said in its place: it is no other
    /// table's business. A row under names that no table can have is left out, as it limits none.
    fn rates(&self) -> impl Future<Output = Result<StoredRates, DatabaseError>> + Send;

    /// Sets a table's limit; `None` takes back what was set.
    fn set_rate(
        &self,
        table: &TableRef,
        rate: Option<SetRate>,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send;

    /// What operators have stopped.
    fn holds(&self) -> impl Future<Output = Result<Holds, DatabaseError>> + Send;

    /// Stops something, in place of an earlier hold of the same kind and scope; answers the revision
    /// ([`Holds::revision`]), which is above all earlier ones and no lower than [`Hold::since`] in microseconds.
    fn set_hold(&self, hold: &Hold) -> impl Future<Output = Result<u64, DatabaseError>> + Send;

    /// Lets something go on. Answers whether it was stopped, and the revision, which is a new one in any case, no lower
    /// than `now` in microseconds.
    fn lift_hold(
        &self,
        scope: &HoldScope,
        kind: HoldKind,
        now: Timestamp,
    ) -> impl Future<Output = Result<(bool, u64), DatabaseError>> + Send;
}
