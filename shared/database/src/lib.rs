//! The database behind Shock Absorber: introspection, reads, version-guarded batches and the catalog of tables.

mod catalog;
mod database;
mod directory;
mod error;

pub use catalog::{CatalogEntry, CreateCheck, TableSettings};
pub use database::{Applied, Batch, Change, Database, DatabaseRow, Owner, ShardClaim, ShardRow};
pub use directory::{EnabledTable, TableDirectory};
pub use error::{DatabaseError, ErrorClass};
