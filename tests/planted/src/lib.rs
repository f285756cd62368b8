//! Planted bugs: each takes one rule away that the promises rest on, to show that the tests would notice.
//!
//! In an ordinary build [`is`] is a constant `false`, which the compiler removes together with what depends on it. Only
//! a build with the feature `armed` looks at the environment variable [`VARIABLE`], once, at the first question.

use std::{fmt, str::FromStr};

/// The environment variable that names the bug to be switched on, in a build with the feature `armed`.
pub const VARIABLE: &str = "SHOCK_ABSORBER_PLANTED_BUG";

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $name:literal,)+) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// The name by which it is switched on.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }
        }
    };
}

bugs! {
    /// The drain notes progress when it hands a batch to the database, not when that has committed.
    CommitBeforeDatabase = "commit-before-database",
    /// The drain notes progress before the hot store has accepted the mark.
    CommitBeforeClean = "commit-before-clean",
    /// A drain writes whatever version it has over whatever version is there.
    NoVersionGuard = "no-version-guard",
    /// The newest of several events of a key is taken to be the one that lies last in the log.
    CoalesceByPosition = "coalesce-by-position",
    /// A refused batch is dropped after a few attempts.
    DropRefused = "drop-refused",
    /// A transaction does not check who owns the shard, so a former owner's late one commits.
    NoOwnerCheck = "no-owner-check",
    /// A drain applies events whose epoch is void.
    ApplyVoid = "apply-void",
    /// A delete leaves nothing in the database by which an older write could be told.
    DatabaseTombstoneDropped = "database-tombstone-dropped",
    /// Tombstones are purged, and the horizon is not heeded at an insert.
    NoPurgeHorizon = "no-purge-horizon",
    /// Tombstones are purged up to the shard's clock, past what is still dirty.
    PurgePastDirty = "purge-past-dirty",
    /// A record is marked clean whatever version it has by now.
    CleanWithoutComparing = "clean-without-comparing",
    /// Dirty records get a TTL.
    TtlOnDirty = "ttl-on-dirty",
    /// A delete leaves nothing in the hot store.
    HotTombstoneDropped = "hot-tombstone-dropped",
    /// A record leaves the unqueued set whatever version was marked.
    RelayClearsNewerMark = "relay-clears-newer-mark",
    /// A fill does not check that its lease still stands.
    FillWithoutLease = "fill-without-lease",
    /// An opened shard's clock starts from what the store has, whatever the log and the database have.
    ClockReset = "clock-reset",
    /// A record is marked queued in whatever epoch the shard is.
    AckAcrossEpoch = "ack-across-epoch",
    /// A condition on a version does not compare the epoch.
    EtagIgnoresEpoch = "etag-ignores-epoch",
    /// An update is written whether or not the record is still the one that it read.
    UpdateWithoutCondition = "update-without-condition",
    /// QUEUED is answered before the log has the event.
    AckBeforeLog = "ack-before-log",
    /// A produce of unknown outcome counts as done.
    UnknownIsDone = "unknown-is-done",
    /// A checkpoint is the log's end after the marks, not before: it names events that the store may not have.
    CheckpointAhead = "checkpoint-ahead",
    /// An opening reads from the group's committed offset though a checkpoint survived.
    OpenFromCommitted = "open-from-committed",
    /// An opening leaves no fence.
    NoFence = "no-fence",
    /// An opening puts events back without looking at the database.
    RestoreWithoutComparing = "restore-without-comparing",
    /// An opening does not store from where it reads, so its successor may begin later.
    StartNotStored = "start-not-stored",
    /// An opening that does not believe the checkpoint drops what is dirty with all the rest.
    DirtyDiscarded = "dirty-discarded",
    /// The horizon that readers see ignores records that are dirty.
    HorizonPastDirty = "horizon-past-dirty",
    /// A horizon is taken whatever opening the shard has had since it was asked for.
    HorizonAcrossEpochs = "horizon-across-epochs",
    /// A repeated request is answered from the memory of the first, whatever became of that.
    RequestAnsweredFromMemory = "request-answered-from-memory",
    /// Request ids are not put back by an opening.
    RequestsForgotten = "requests-forgotten",
    /// Of a key whose newest version was refused, the older ones that were gathered with it are counted as done.
    OlderDropped = "older-dropped",
    /// The drain notes progress past a refused record before its letter is written.
    LetterAfterOffset = "letter-after-offset",
    /// A dead letter whose write failed counts as written.
    LetterLost = "letter-lost",
    /// Parked records get a TTL.
    ParkedExpires = "parked-expires",
    /// An eviction takes away what the database does not have yet.
    EvictDropsDirty = "evict-drops-dirty",
    /// A find looks into the database only.
    FindForgetsUndrained = "find-forgets-undrained",
    /// A write of a stream does not wait for the earlier ones of its record.
    StreamOvertakes = "stream-overtakes",
    /// Results of a stream that are there together go out in the wrong order.
    StreamTurned = "stream-turned",
    /// A watch is resumed one event too late.
    WatchResumesLate = "watch-resumes-late",
    /// A restarted store is taken for open.
    IncarnationIgnored = "incarnation-ignored",
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no bug of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBug(String);

impl fmt::Display for UnknownBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no planted bug named {:?}", self.0)
    }
}

impl std::error::Error for UnknownBug {}

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name).ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

/// Whether this bug is switched on. Never in an ordinary build.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is switched on.
///
/// # Panics
/// If the environment names a bug that there is not: a test that plants nothing must not pass for one that does.
#[cfg(feature = "armed")]
#[allow(clippy::panic, reason = "see above; this is no build for production")]
pub fn is(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
        Some(name.parse().unwrap_or_else(|unknown: UnknownBug| panic!("{VARIABLE}: {unknown}")))
    });
    *planted == Some(bug)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        for bug in Bug::ALL {
            assert_eq!(bug.name().parse::<Bug>().unwrap(), *bug);
        }
        assert!("none".parse::<Bug>().is_err());
    }
}
