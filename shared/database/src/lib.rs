//! The database behind Shock Absorber: introspection, reads, version-guarded batches and the catalog of tables.

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod any;
#[cfg(any(feature = "memory", feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod batch;
mod catalog;
mod database;
mod directory;
mod error;
mod hold;
#[cfg(any(feature = "laws", all(test, feature = "mysql", feature = "postgres", feature = "sqlite")))]
pub mod laws;
#[cfg(feature = "memory")]
pub mod memory;
#[cfg(feature = "mysql")]
mod mysql;
mod options;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod relational;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod script;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "memory", feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod verdict;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub use any::AnyDatabase;
pub use catalog::{CatalogEntry, CreateCheck, SetRate, StoredRates, TableSettings};
pub use database::{
    Applied, Batch, Change, Database, DatabaseRow, FoundRow, Horizon, Owner, Search, ShardClaim, ShardRow,
};
pub use directory::{CatalogTable, TableDirectory};
pub use error::{CONNECTION_LOST, DatabaseError, ErrorClass};
pub use hold::{Hold, HoldKind, HoldScope, Holds, MAX_BY, MAX_REASON};
pub use options::DatabaseOptions;
