//! The trait, and what goes into and comes out of its calls.

use std::{future::Future, time::Duration};

use model::{Epoch, Image, IndexId, IndexTerms, KeyBytes, Namespace, Shard, Version};
use tokio::time::Instant;

use crate::{
    Checkpoint, Claim, FoundInShard, Halt, HotStoreError, IndexBuild, IndexState, Indexed, Lookup, OpeningStart,
    OpeningToken, ParkOutcome, ParkedRecord, ReplicaReport, Restore, SeenReport, SetAsidePage,
};

/// How long a request is remembered unless the store is told otherwise.
pub const REQUEST_WINDOW: Duration = Duration::from_secs(120);

/// A record's place in the hot store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The table's namespace.
    pub namespace: Namespace,
    /// The canonical key.
    pub key: KeyBytes,
}

/// What must hold for a write to take effect; checked in the same atomic step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// No such record (a tombstone or a remembered absence). What is not in the store is [`WriteOutcome::Cold`].
    Absent,
    /// As [`Precondition::Absent`], but what is not in the store counts as absent.
    AbsentFromStore,
    /// There is such a record. What is not in the store is [`WriteOutcome::Cold`].
    Present,
    /// The record has this version, and the shard is in this epoch (after a loss a version can come again).
    At {
        /// The version that was read.
        version: Version,
        /// The shard's epoch when it was read.
        epoch: Epoch,
    },
    /// The record, be it a row or a tombstone, is parked at this version, and the shard is in this epoch; else
    /// [`WriteOutcome::Changed`].
    Parked {
        /// The version at which it is parked.
        version: Version,
        /// The shard's epoch when it was read.
        epoch: Epoch,
    },
}

/// One write. The store assigns the version.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The record.
    pub record: RecordId,
    /// What must hold.
    pub precondition: Precondition,
    /// The image to store. The store alone sets its `since`: over a dirty record (a delete) or a parked one that
    /// record's goes on, since the store knows for sure what the database does not have; else, with
    /// [`Precondition::AbsentFromStore`], it is the new version. A write with [`Precondition::None`] over a parked record
    /// has none: it is right whatever row the database has, and a create that was refused is no part of it. A write that
    /// asks for what is parked builds on that create, and is refused with it.
    ///
    /// If it names a request, the store looks for that before it looks at the precondition
    /// ([`WriteOutcome::Repeated`], [`WriteOutcome::Reused`]), and stores it in the same atomic step as the image. What
    /// is refused stores no request.
    pub image: Image,
    /// What the record is found by from then on, of a table with declared fields.
    pub index: Option<IndexTerms>,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Stored as dirty and unqueued, without a TTL.
    Stored {
        /// Its version.
        version: Version,
        /// The epoch under which it was written, and must be marked queued.
        epoch: Epoch,
        /// The image's `since` as stored: kept from a dirty or parked predecessor that was created so, see [`Write::image`].
        since: Option<Version>,
    },
    /// The request took effect before: nothing was written. That says nothing of how safe it is by now; the record
    /// does.
    Repeated {
        /// The version that it was given then.
        version: Version,
        /// The epoch under which it was written, or put back by an opening.
        epoch: Epoch,
        /// The epoch in which the store says so: what it knew in another one it may have lost since.
        current: Epoch,
    },
    /// The request's id names a write that asked for something else: nothing was written.
    Reused,
    /// `Absent` was asked, and there is a record.
    Exists,
    /// `Present` or `At` was asked, and the record is known to be absent.
    Missing,
    /// `At` or `Parked` was asked, and version or epoch are others, or it is not parked.
    Changed,
    /// The store does not hold the record, so it can't tell.
    Cold,
    /// The shard takes no writes of the table ([`HotStore::halt_writes`]), whatever was asked; nothing was written. A
    /// request that took effect before is told so all the same.
    Halted,
}

/// How an image stands to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The database does not have it yet.
    Dirty,
    /// The database refused it for good, and the dead letters have it: it stays, without a TTL, until it is written
    /// again or purged.
    Parked,
    /// The database has it, or had it when it was read. Only this may expire.
    Clean,
}

/// What the store knows of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// An image: a row or a tombstone.
    Image {
        /// Its version.
        version: Version,
        /// The image.
        image: Image,
        /// How it stands to the database.
        stage: Stage,
    },
    /// The database was asked a moment ago and has no such row.
    Absent,
    /// Somebody is reading the database for it.
    Leased,
    /// Nothing.
    Empty,
}

/// Slots in the order in which they were asked for, and the shard's epoch at that moment (an etag needs it).
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The shard's epoch.
    pub epoch: Epoch,
    /// How many images were taken out of this shard, otherwise than by the end of their TTL.
    ///
    /// It is for those who read the database first and the hot store afterwards, to put what is newer over what they
    /// found. An empty slot tells them that the database has all that was accepted, but not that it had when they looked:
    /// a record that was dirty then may have been drained and removed since. If they ask before the database and
    /// afterwards, and neither the epoch nor this number is another one, and less than a TTL lies between, then what is
    /// empty afterwards was not dirty before, and their row is no older than the newest accepted write of then. Else they
    /// read the record once more, as one that the hot store does not hold.
    ///
    /// It is the number of when the last of the slots was read, if they were read by and by: such an answer is one to
    /// look at afterwards, not before.
    pub removed: u64,
    /// One per record; of [`HotStore::read_many`] perhaps fewer.
    pub slots: Vec<Slot>,
}

/// A record at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The record.
    pub record: RecordId,
    /// The version.
    pub version: Version,
}

/// The right to fill one record from the database; lost by any write, by expiry, by a restart of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseToken(pub String);

/// What became of the wish for a lease.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseOutcome {
    /// Read the database, then fill.
    Granted(LeaseToken),
    /// The slot is not empty: here is what it holds ([`Slot::Leased`]: wait for the other reader).
    Taken(Slot),
}

/// What the database said.
#[derive(Debug, Clone, PartialEq)]
pub enum Fill {
    /// A row or a tombstone with its version; stored as clean.
    Image {
        /// The row's version.
        version: Version,
        /// The row.
        image: Image,
    },
    /// No such row; remembered for a short time.
    Absent,
    /// Nothing: it could not be asked. The lease is given back.
    Nothing,
}

/// A record that the database now holds at `version`.
#[derive(Debug, Clone, PartialEq)]
pub struct Clean {
    /// The record.
    pub record: RecordId,
    /// The version that the transaction wrote or found.
    pub version: Version,
    /// Set when the database turned out to be newer than the event: replaces a lower image, as clean.
    pub newer: Option<Image>,
}

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanOutcome {
    /// Clean now; the TTL has started.
    Cleaned,
    /// A newer version is there, which stays dirty.
    Newer,
    /// The store does not hold the record.
    Gone,
}

/// What became of the wish to forget a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Eviction {
    /// It is forgotten: the next read asks the database.
    Evicted,
    /// There was nothing to forget.
    NotHeld,
    /// It stays: the database does not have it yet.
    Undrained,
    /// It stays: the database has refused it, and the dead letters have it.
    Parked,
}

/// Which dirty records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dirty {
    /// Those that are not known to be in the log.
    Unqueued,
    /// All that the database does not have.
    All,
}

/// A dirty record.
#[derive(Debug, Clone, PartialEq)]
pub struct DirtyRecord {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: Version,
    /// Its image.
    pub image: Image,
}

/// What of one table in one shard the database does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// How many records are dirty.
    pub records: u64,
    /// The bytes of their encoded images.
    pub bytes: u64,
    /// The lowest version that the database may lack; `None` if nothing is dirty. It is no higher than the version of
    /// any dirty record, and lower where a record was written again before the database had it.
    pub oldest: Option<Version>,
    /// The database has every write of the table in this shard up to this version, and no later write will get a
    /// version at or below it, but for an opening after a loss of the store's tail: that one must seed the clock above
    /// every horizon that was made known.
    pub horizon: Version,
    /// How many records are parked. They are no part of what is said above: the horizon passes them.
    pub parked: u64,
    /// The lowest version of a parked record.
    pub lowest_parked: Option<Version>,
}

/// The state of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardHeader {
    /// Open for the live incarnation of the store.
    pub open: bool,
    /// The epoch, 0 before the first opening.
    pub epoch: Epoch,
    /// The newest version given.
    pub clock: Version,
    /// How many records are dirty.
    pub dirty: u64,
    /// How many of them are unqueued.
    pub unqueued: u64,
    /// The version of the oldest dirty record.
    pub oldest_dirty: Option<Version>,
    /// Of which tables it takes no writes.
    pub halt: Halt,
}

/// What the store is and how it is set up, for the checks at start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// What forbids to start: each a sentence that says what to change.
    pub refused: Vec<String>,
    /// What weakens a promise, and should be logged.
    pub warned: Vec<String>,
}

/// The hot store.
///
/// Every call but [`HotStore::read_many`] concerns one shard, is atomic, and answers [`HotStoreError::Closed`] unless the shard is open for the
/// live incarnation of the store (but for the calls that open it, [`HotStore::header`], [`HotStore::halt_writes`], [`HotStore::settings`], and the
/// reports, which concern none).
/// Results are in the order of the arguments. Calls with several records are atomic per record at least.
pub trait HotStore: Send + Sync + 'static {
    /// Writes records in the given order: checks the precondition, assigns the next version
    /// ([`Version::next`]), stores the image without TTL, puts it into the dirty and the unqueued set.
    ///
    /// `asked` is when the writes were asked for. They take effect within half of the time for which requests are
    /// remembered, or never ([`HotStoreError::Late`]), whatever holds the call up, and wherever: a retry of it may have
    /// taken effect, have been overwritten and be forgotten by then. The store decides, at the moment of the effect.
    fn write(
        &self,
        shard: Shard,
        asked: Instant,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Vec<WriteOutcome>, HotStoreError>> + Send;

    /// Reads slots.
    fn read(&self, shard: Shard, records: Vec<RecordId>) -> impl Future<Output = Result<Answer, HotStoreError>> + Send;

    /// Reads slots of many shards at once: one answer for each group, in their order. A group may have no records: then it
    /// asks for the shard's epoch, and what else an [`Answer`] tells. What is wrong with a shard fails its own group only.
    /// Each group is read at one moment at least as long as it has no more than 1,000 records; not all groups together.
    ///
    /// The values that are brought have at most `max_bytes` as they are stored, but for the last of them. Past that an answer
    /// has fewer slots than its group has records: those of the first ones. One record is always answered, whatever it has,
    /// so that who asks again for the rest comes to an end. It takes one round trip to each node of the store, and more of them only
    /// where an even share of `max_bytes` is too little for some shard.
    fn read_many(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        max_bytes: usize,
    ) -> impl Future<Output = Vec<Result<Answer, HotStoreError>>> + Send;

    /// Takes records out of the unqueued set, those that are still at the given version; all fail with
    /// [`HotStoreError::Closed`] if the shard's epoch is not `epoch`. A version that was superseded meanwhile counts
    /// as marked (`true`); `false`: the store no longer knows this or a newer version of the record as written. Without
    /// any stamps it tells no more than whether the epoch still is that one.
    fn mark_queued(
        &self,
        shard: Shard,
        epoch: Epoch,
        stamps: Vec<Stamp>,
    ) -> impl Future<Output = Result<Vec<bool>, HotStoreError>> + Send;

    /// Asks for the right to fill an empty slot. The lease ends by itself after `ttl`.
    fn lease(
        &self,
        shard: Shard,
        record: RecordId,
        ttl: Duration,
    ) -> impl Future<Output = Result<LeaseOutcome, HotStoreError>> + Send;

    /// Fills a slot, or gives the lease back ([`Fill::Nothing`]), if the lease still stands there; says whether it did. The
    /// entry expires after `ttl`.
    fn fill(
        &self,
        shard: Shard,
        record: RecordId,
        token: LeaseToken,
        fill: Fill,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, HotStoreError>> + Send;

    /// Marks records as held by the database. A record at that version becomes clean and gets `ttl`; a lower one is
    /// replaced by [`Clean::newer`] if given, else removed ([`CleanOutcome::Gone`]: the next read asks the database); a
    /// higher one stays dirty or parked, and the database lacks none of its versions up to the given one any more.
    fn mark_clean(
        &self,
        shard: Shard,
        cleans: Vec<Clean>,
        ttl: Duration,
    ) -> impl Future<Output = Result<Vec<CleanOutcome>, HotStoreError>> + Send;

    /// Forgets clean images, remembered absences and leases in progress, so that the next read asks the database and no
    /// read that began before can fill in what it saw. What is dirty or parked stays. Images that it removes are told
    /// with every read from then on ([`Answer::removed`]).
    fn evict(
        &self,
        shard: Shard,
        records: Vec<RecordId>,
    ) -> impl Future<Output = Result<Vec<Eviction>, HotStoreError>> + Send;

    /// Parks records that the dead letters have. A dirty record at that version becomes [`Stage::Parked`]; one that is
    /// parked at it already stays so. Whatever else is there stays as it is.
    fn park(
        &self,
        shard: Shard,
        stamps: Vec<Stamp>,
    ) -> impl Future<Output = Result<Vec<ParkOutcome>, HotStoreError>> + Send;

    /// The parked records of a table in the order of their versions, from above `after`, with the shard's epoch; paged as
    /// [`HotStore::dirty`].
    fn parked(
        &self,
        shard: Shard,
        namespace: Namespace,
        after: Version,
        limit: usize,
    ) -> impl Future<Output = Result<(Epoch, Vec<ParkedRecord>), HotStoreError>> + Send;

    /// Removes a record that is parked at that version: the next read asks the database. `false`: it is not, and nothing
    /// was done.
    fn purge_parked(&self, shard: Shard, stamp: Stamp) -> impl Future<Output = Result<bool, HotStoreError>> + Send;

    /// Dirty records in the order of their versions, from above `after`, with the shard's epoch. At most `limit`, but
    /// records of one version are not parted. A page may be shorter; only an empty one is the end. A record that can't
    /// be read is logged and left out: it must not keep the others from being relayed.
    fn dirty(
        &self,
        shard: Shard,
        which: Dirty,
        after: Version,
        limit: usize,
    ) -> impl Future<Output = Result<(Epoch, Vec<DirtyRecord>), HotStoreError>> + Send;

    /// The backlog of each of these tables, and the shard's epoch. Where a table has none, its horizon is the shard's
    /// clock, which this call first raises to the store's own time.
    fn backlog(
        &self,
        shard: Shard,
        namespaces: Vec<Namespace>,
    ) -> impl Future<Output = Result<(Epoch, Vec<Backlog>), HotStoreError>> + Send;

    /// Begins the index of a table over what is dirty or parked in the shard, unless it has it: from here on whatever
    /// changes an image keeps the index, and drops it if it can't ([`crate::IndexState`]). Where nothing is dirty or
    /// parked it is complete at once.
    fn begin_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        index: IndexId,
    ) -> impl Future<Output = Result<IndexState, HotStoreError>> + Send;

    /// Puts records into an index that is being built, those that are still dirty or parked at that version. With
    /// `is_last` the caller has put in all that was dirty and then all that was parked since it was begun: the index
    /// is complete. `false`: it was dropped meanwhile, and has to be begun anew.
    fn build_index(
        &self,
        shard: Shard,
        namespace: Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> impl Future<Output = Result<bool, HotStoreError>> + Send;

    /// Looks a term up in these shards, in one round trip, each at a moment of its own. [`HotStoreError::Closed`] if one of
    /// them is. What is found may have changed before the caller reads it.
    fn look_up(
        &self,
        shards: &[Shard],
        lookup: &Lookup,
    ) -> impl Future<Output = Result<Vec<FoundInShard>, HotStoreError>> + Send;

    /// The shard's state; also of a closed one.
    fn header(&self, shard: Shard) -> impl Future<Output = Result<ShardHeader, HotStoreError>> + Send;

    /// Stores a checkpoint; `Closed` if the shard's epoch is not `epoch`.
    fn checkpoint(
        &self,
        shard: Shard,
        epoch: Epoch,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// Takes a closed shard over: every other opener's token is void from here on. The claim is bound to the live
    /// incarnation of the store. `Ok(None)`: the shard is open, there is nothing to do.
    fn claim(
        &self,
        shard: Shard,
        token: &OpeningToken,
    ) -> impl Future<Output = Result<Option<Claim>, HotStoreError>> + Send;

    /// Begins to open, conditional on token and incarnation: stores start and epoch; leases, remembered absences and
    /// (with `discard`) images of earlier epochs count as nothing from here on, dirty records are set aside
    /// ([`HotStore::set_aside`]), and the checkpoint is forgotten: it was not believed, and must not be after another
    /// restart.
    fn begin_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        epoch: Epoch,
        start: OpeningStart,
    ) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// What was dirty when this opening, or one before it that did not get so far, discarded what the store held: at
    /// most `limit` records, of which the first `skip` are passed over (those that can't be read, or that the opener
    /// left there). Conditional on token and incarnation, and on [`HotStore::begin_opening`]. A page may be shorter; only
    /// [`SetAsidePage::is_last`] is the end.
    ///
    /// An opener puts back what is here, in whatever form, before anything else: what it puts back takes the place of
    /// what is set aside of the same record. What it leaves stays aside, for the next opening that discards.
    fn set_aside(
        &self,
        shard: Shard,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> impl Future<Output = Result<SetAsidePage, HotStoreError>> + Send;

    /// Puts records and requests back, conditional on token and incarnation. Clean records get `ttl`, requests the
    /// store's whole request window.
    fn restore(
        &self,
        shard: Shard,
        token: &OpeningToken,
        records: Vec<Restore>,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// Opens the shard, conditional on token and incarnation: the clock rises to `clock` at least, `checkpoint` becomes
    /// the shard's checkpoint, the epoch that [`HotStore::begin_opening`] stored is the shard's epoch. `clock` must be no
    /// lower than any version seen in the log, any high-water version and any horizon ([`Backlog::horizon`]) that was
    /// made known: the store's own time may have stepped back meanwhile.
    fn finish_opening(
        &self,
        shard: Shard,
        token: &OpeningToken,
        clock: Version,
        checkpoint: Checkpoint,
    ) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// Takes no more writes of some tables ([`WriteOutcome::Halted`]), in place of what was said before, unless that was a
    /// wish of a higher revision; also in a closed shard. Answers what is in force then. It is lost with the store's
    /// history, so whoever opens a shard says it again.
    fn halt_writes(&self, shard: Shard, halt: &Halt) -> impl Future<Output = Result<Halt, HotStoreError>> + Send;

    /// Takes a drain replica's report in place of its last one. It is kept for [`REPORT_TTL`](crate::REPORT_TTL), and of
    /// all replicas [`MAX_REPORTS`](crate::MAX_REPORTS) at most. Nothing is decided by it.
    fn report(&self, report: &ReplicaReport) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// Forgets the report of a replica that ends.
    fn withdraw_report(&self, incarnation: &str) -> impl Future<Output = Result<(), HotStoreError>> + Send;

    /// The reports that are kept, by name and incarnation.
    fn reports(&self) -> impl Future<Output = Result<Vec<SeenReport>, HotStoreError>> + Send;

    /// Whether the store is fit for its job.
    fn settings(&self) -> impl Future<Output = Result<Settings, HotStoreError>> + Send;
}
