//! Reading records: from the hot store, else from the database under a lease; or, for those who ask for it, what is
//! committed in the database.
//!
//! | file | subject |
//! |---|---|
//! | `batch` | one read or many: what is asked is checked, read once, and answered item by item |
//! | `cold` | what the hot store does not hold |
//! | `flights` | who brings a cold record, and who waits for it in memory |
//! | `evict` | makes the hot store forget what others may have changed |
//! | `form` | what was stored before its table was altered, as the table is now |
//! | `database_rows` | the question to the database |
//! | `outages` | databases that are away |

mod batch;
pub(crate) mod cold;
pub(crate) mod database_rows;
mod error;
mod evict;
mod flights;
pub(crate) mod form;
pub(crate) mod outages;

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{Eviction, HotStore};
use model::{Row, TableRef};

pub use error::ReadError;
pub(crate) use flights::Flights;
pub(crate) use outages::Outages;

use crate::{Core, Etag};

/// What a read is to be true of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Consistency {
    /// The newest acknowledged write, however far the database is behind.
    #[default]
    Newest,
    /// What is committed in the database now. The hot store is neither asked nor touched.
    Database,
}

/// A read.
#[derive(Debug, Clone, PartialEq)]
pub struct Get {
    /// The table.
    pub table: TableRef,
    /// The columns of the primary key.
    pub key: Row,
    /// The columns wanted; all if none is named.
    pub columns: Vec<String>,
    /// What it is to be true of.
    pub consistency: Consistency,
}

/// A record that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The columns that were asked for.
    pub row: Row,
    /// Names this version of the record. None of what was read from the database alone: whether it is still the newest
    /// version, and in which epoch, nobody has looked.
    pub etag: Option<Etag>,
}

/// Answers reads.
pub struct Reader<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Reader<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

impl<H, L, D> Reader<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// A reader on these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// The newest version of a record, however far the database is behind: some columns of it, or all if none is
    /// named.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn get(&self, table: &TableRef, key: &Row, columns: &[String]) -> Result<Found, ReadError> {
        let consistency = Consistency::Newest;
        let get = Get { table: table.clone(), key: key.clone(), columns: columns.to_vec(), consistency };
        self.read(get).await
    }

    /// One read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, get: Get) -> Result<Found, ReadError> {
        // A single record has no bound but that of records.
        let answer = batch::read(&self.core, vec![get], usize::MAX).await.pop();
        answer.unwrap_or(Err(ReadError::NoRoom))
    }

    /// Many reads, each with an answer of its own, in their order. The same record is read once, however often it is
    /// asked for. So much is read that about `max_bytes` are answered, and one record at least; the others are
    /// [`ReadError::NoRoom`].
    pub async fn read_many(&self, gets: Vec<Get>, max_bytes: usize) -> Vec<Result<Found, ReadError>> {
        batch::read(&self.core, gets, max_bytes).await
    }

    /// Makes the hot store forget what it remembers of some records of a table, so that whoever reads them afterwards sees
    /// what the database holds, also by the hand of others. What the database does not have yet stays. An answer for each
    /// key, in their order.
    ///
    /// # Errors
    /// [`ReadError::TableNotEnabled`] for all; see [`ReadError`] for each key.
    pub async fn evict(&self, table: &TableRef, keys: &[Row]) -> Result<Vec<Result<Eviction, ReadError>>, ReadError> {
        evict::evict(&self.core, table, keys).await
    }
}
