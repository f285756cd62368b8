//! One budget for all drain replicas: what a replica asks the store, and what that answers.

use std::{future::Future, time::Duration};

use crate::HotStoreError;

/// How long a permit stands that its holder does not renew. So long a replica that was killed keeps others waiting.
pub const PERMIT_LEASE: Duration = Duration::from_secs(10);

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Every row of a batch.
    Rows,
    /// Every batch once.
    Transactions,
}

impl Unit {
    /// How much of it a batch takes.
    pub(crate) fn amount(self, rows: u32) -> u32 {
        match self {
            Self::Rows => rows,
            Self::Transactions => 1,
        }
    }
}

/// One limit that batches pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// By which all replicas know it, within its database.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// How much of it a second may see; infinity is no limit, and what is not above 0 lets nothing pass.
    pub per_second: f64,
    /// How many batches may be granted and unfinished over all replicas, if that is limited.
    pub unfinished: Option<u32>,
}

/// All limits that the batches of one table pass. They are asked in one atomic step.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The database that they protect.
    pub database: String,
    /// Each with another name.
    pub limits: Vec<Limit>,
}

/// A permit's name, which its holder draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId(pub u64);

/// Leave for one batch, from its grant until it is told that the batch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Its name.
    pub id: PermitId,
    /// How many rows the batch may have.
    pub rows: u32,
}

/// A permit whose batch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The permit.
    pub permit: Permit,
    /// How long ago.
    pub ago: Duration,
}

/// An answer of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Go ahead; as far as it goes by time, another batch may follow after this.
    Now(Duration),
    /// Ask again after this time.
    After(Duration),
    /// As much as may be unfinished is: ask again when something has ended.
    Busy,
}

/// A database's limit that follows how it fares, as all replicas have agreed on it. Moments are microseconds of the store's
/// clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgreedLimit {
    /// Rows per second.
    pub per_second: f64,
    /// Up to when it has been raised for the time that passed.
    pub raised: u64,
    /// When it was lowered last.
    pub lowered: u64,
    /// When a replica last found that the database is in trouble.
    pub troubled: u64,
}

/// What is agreed on, and the store's time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// None if this incarnation of the store knows of none.
    pub limit: Option<AgreedLimit>,
    /// The time.
    pub now: u64,
}

/// Limits over all drain replicas.
///
/// A batch is granted by a limit of R per second if all of this holds, by the store's own clock:
///
/// - **Evenly:** after a grant of n nothing is granted for n / R seconds (the generic cell rate algorithm, ITU-T I.371).
///   Who comes late for that may come as much too early the next time, up to a twentieth of a second; so what the limit
///   allows is reached though nobody asks at the very moment.
/// - **In any second:** what is unfinished or has ended within the last second is at most R, and together with the batch
///   itself at most R and a twentieth of it (or 1 more): a larger batch must find room. A batch is committed at some moment
///   between its grant and its end; so, however long each takes, no second sees commits of more than that. A batch that is
///   larger than all of it waits until a second has seen nothing else.
/// - **Unfinished:** there are fewer than [`Limit::unfinished`] permits, those counted that were refused for it before
///   ([`Grant::Busy`]) and have asked again of late, under the same name: who waits for longer goes first. A permit that
///   is not renewed ([`Budget::tell`]) within [`PERMIT_LEASE`] is taken for ended.
///
/// A limit that this incarnation of the store has not seen begins as if a second's worth and this batch had just been
/// granted and ended: what was granted before a restart may be lost, and must not be granted twice. A raised limit holds
/// at once, a lowered one from the next grant on.
pub trait Budget: Send + Sync + 'static {
    /// Takes what a batch needs of every limit, or nothing. What has ended meanwhile is told in the same call.
    fn take(
        &self,
        limits: &Limits,
        permit: Permit,
        ended: &[Ended],
    ) -> impl Future<Output = Result<Grant, HotStoreError>> + Send;

    /// Renews permits and tells what has ended. A permit that the store doesn't know (any more) is put back by a renewal;
    /// that such a one has ended counts as well, for it did write. To tell an end again does no harm but that it counts
    /// again.
    fn tell(
        &self,
        limits: &Limits,
        held: &[Permit],
        ended: &[Ended],
    ) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// What replicas have agreed on for a database that heeds how it fares.
    fn agreed(&self, database: &str) -> impl Future<Output = Result<Agreement, HotStoreError>> + Send;

    /// Agrees on another limit, unless another replica did so since `before` was read: then `false`. It is kept as long
    /// as this incarnation of the store lives.
    fn agree(
        &self,
        database: &str,
        before: Option<AgreedLimit>,
        after: AgreedLimit,
    ) -> impl Future<Output = Result<bool, HotStoreError>> + Send;
}
