//! The rules of the protocol, each one a sentence of the design, each one with a name by which it can be taken away.
//!
//! A rule is in force unless the check was told to go without it; [`crate::protocol::Protocol::on`] asks. Where a rule
//! is asked for in the code is where it acts.

use std::fmt;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $rule:ident,)+) => {
        /// A rule of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Rule { $($(#[doc = $doc])+ $rule,)+ }

        impl Rule {
            /// All of them, in the order of the design.
            pub(crate) const ALL: &[Self] = &[$(Self::$rule),+];

            /// Its name on the command line.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$rule => stringify!($rule),)+ }
            }

            /// The sentence that it is.
            pub(crate) fn sentence(self) -> &'static str {
                match self { $(Self::$rule => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

rules! {
    /// A version is above the shard's clock, also when the wall clock steps back.
    ClockNeverFalls,
    /// Order is by version, never by position in the log: a batch keeps the newest version of each key.
    NewestByVersion,

    /// A shard whose header does not name the live incarnation of the store is closed.
    ClosedAfterRestart,
    /// A closed shard takes no checkpoint.
    NoCheckpointWhileClosed,
    /// A checkpoint is the log's end offsets, read first and then written.
    CheckpointReadsFirst,
    /// The checkpoint that survives says from where the log must be read again.
    StartFromCheckpoint,
    /// Without a checkpoint the start is the group's committed offset, whatever anybody remembers.
    EmptyStartsFromCommitted,
    /// Without a checkpoint the unresolved dead letters are put back as well.
    DeadLettersPutBack,
    /// An opening appends a fence of its epoch.
    Fence,
    /// The fence goes to each of the shard's partitions.
    FenceEveryPartition,
    /// A fence with a lower epoch than the one in force is ignored.
    LowerFenceIgnored,
    /// A drain does not apply an event of another epoch than the one in force.
    DrainSkipsVoid,
    /// An opener does not put back an event of another epoch than the one in force.
    OpenerSkipsVoid,
    /// Where an offset is kept to start from, the epoch in force there is kept with it.
    EpochKeptWithOffset,
    /// The opener's token is bound to the live incarnation.
    TokenBoundToIncarnation,
    /// Every step of an opening is conditional on the token.
    StepsUnderToken,
    /// What lies there without a checkpoint is deleted.
    DiscardWithoutCheckpoint,
    /// The start is stored before the first put, so that a successor resumes from it.
    StartStored,
    /// Leases and remembered absences are deleted by every opening.
    DropLeases,
    /// The next epoch is drawn from the shard's counter in the database.
    EpochFromDatabase,
    /// The epoch is stored in the header, and only then the fence is appended.
    HeaderBeforeFence,
    /// An opening reads up to its fence.
    ReadUpToFence,
    /// A record is put back over a lower version only.
    PutBackOverLower,
    /// In every opening a record at or below the high-water version is compared with its row in the database.
    CompareWithRow,
    /// If the row is at least as new, a lower image is replaced by it, as clean.
    RowReplacesLower,
    /// The clock is seeded above all versions seen.
    ClockAboveSeen,
    /// The clock is seeded above the high-water version.
    ClockAboveHighWater,
    /// The clock is seeded above the horizon that SQL readers may have seen.
    ClockAboveHorizon,
    /// A horizon is noted only if the shard is still in the epoch in which it was true.
    HorizonUnderEpoch,
    /// Tombstones are purged only if the shard is still in the epoch in which the bound was true.
    PurgeUnderEpoch,
    /// A mark counts only under the epoch in which the record was written.
    MarkUnderItsEpoch,
    /// Conditional writes compare the epoch too.
    ConditionOnEpoch,

    /// An update is written conditionally on the version that it read.
    ConditionOnVersion,
    /// QUEUED is answered only after the log has the event.
    AckAfterLog,
    /// A mark takes the record out of the unqueued set only if that is still its version.
    MarkComparesVersion,
    /// The relay produces again what is unqueued.
    RelayUnqueued,
    /// The relay produces again what is dirty though the log was drained past it.
    RelayDrainedPast,
    /// Dirty data never expires.
    DirtyNeverExpires,
    /// A delete leaves a tombstone in the hot store until the database has it.
    HotTombstone,

    /// A repeated request is not written again: it names the version of the first.
    RequestRemembered,
    /// The same request id with another payload is refused.
    RequestDigest,
    /// If the version of a repeated request is unqueued, it is produced again before the ack.
    RepeatedIsQueuedFirst,
    /// What a repeated request's version has become is asked in the epoch in which it was found.
    RepeatedInOneEpoch,
    /// Request ids travel in the event and are put back by an opening.
    RequestsPutBack,
    /// Request ids are put back from the window's start, also below the committed offset.
    RequestsFromWindow,
    /// A repeated request whose version was superseded, or is gone, puts its id into the log before the ack.
    SupersededRequestLogged,
    /// It names the record, too: while that waits for the database, the horizon stays below the request's version.
    NoteNamesRecord,

    /// A record that was created unseen is applied only where the row is absent or has at least that version.
    SinceChecked,
    /// Until a create is clean, every event of the key carries its `since`.
    SinceTravels,

    /// A fill succeeds only if its lease still stands.
    FillUnderLease,

    /// A transaction begins with a lock on its shard row, and holds it to its end.
    LockShardRow,
    /// A transaction checks that its drain is the owner in the shard row.
    OwnerChecked,
    /// A transaction raises the high-water version.
    HighWaterRaised,
    /// A version is written over a lower one only.
    VersionGuard,
    /// A delete leaves a tombstone in the database.
    DatabaseTombstone,
    /// A table with a secondary unique key gets plain inserts, where the locked read found no row.
    PlainInsert,
    /// An offset is committed only after the transaction that holds its record.
    CommitAfterDatabase,
    /// An offset is committed only after the mark clean was accepted.
    CommitAfterClean,
    /// Where the newest version of a key is refused, the next older one gathered is applied.
    NextOlderApplied,
    /// The watermark is contiguous: it does not pass a record that was set aside.
    ContiguousWatermark,
    /// A refused record goes to the dead letters, it is never dropped.
    RefusedIsKept,
    /// A dead-lettered record stays in the hot store as parked.
    ParkedStays,
    /// A record is marked clean only if that is still its version.
    CleanComparesVersion,
    /// If the database holds a newer version than the hot store, the hot image is replaced.
    NewerRowReplaces,
    /// A record that the purge horizon refused is replaced by a tombstone at the horizon.
    PurgedIsGone,

    /// At or below the purge horizon an absent row is never inserted.
    PurgeHorizonHeeded,
    /// Tombstones are purged never past the oldest version that the database may lack.
    PurgeBelowDirty,
    /// Purging takes the shard's lock.
    PurgeUnderLock,
    /// An opening reads the purge horizon not before the row that it compares with.
    PurgeHorizonWithRow,

    /// The horizon stays below a version that a newer one has overwritten, until the database has the newer.
    HorizonBelowOverwritten,
    /// The horizon stays below every dirty record.
    HorizonBelowDirty,
    /// Nothing dirty: the clock is first raised to the horizon that is given.
    HorizonRaisesClock,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
