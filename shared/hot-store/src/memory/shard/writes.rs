//! Writes.

use model::Version;
use planted::Bug;

use super::{
    Now, ShardState,
    requests::RequestTerms,
    slots::{Held, Standing, StoredImage},
};
use crate::{Precondition, Write, WriteOutcome};

/// What the store knows of a record that is to be written.
enum Known {
    Row(Version),
    Absent,
    Nothing,
}

/// What is not in the database of a record that is to be written.
#[derive(Default)]
struct Missing {
    since: Option<Option<Version>>,
    behind: Option<Version>,
}

impl ShardState {
    pub(in crate::memory) fn write(&mut self, now: Now, write: Write, terms: RequestTerms) -> WriteOutcome {
        let Write { record, precondition, image, index } = write;
        if let Some(answered) = image.request.as_ref().and_then(|it| self.answered(now, &record.namespace, it)) {
            return answered;
        }
        if self.halt.tables.covers(&record.namespace) {
            return WriteOutcome::Halted;
        }
        let held = self.held(now, &record);
        if let Err(refused) = self.judge(precondition, held) {
            return refused;
        }
        let missing = match held {
            // The create is in the dead letters; this write asks for nothing that was there.
            Some(Held::Image(stored)) if stored.standing == Standing::Parked && precondition == Precondition::None => {
                Missing { since: Some(None), behind: stored.behind() }
            }
            // What the store knows of a dirty or parked record, it knows for sure: only its own `since` goes on.
            Some(Held::Image(stored)) if stored.standing != Standing::Clean => {
                Missing { since: Some(stored.since), behind: stored.behind() }
            }
            _ => Missing::default(),
        };
        let version = self.clock.next(now.micros);
        let since = missing.since.unwrap_or((precondition == Precondition::AbsentFromStore).then_some(version));
        self.clock = version;
        if let Some(request) = &image.request {
            self.put_request(now, &record.namespace, request, version, self.epoch, terms);
        }
        self.keep_index(&record, index.as_ref());
        let standing = Standing::Dirty { behind: missing.behind.unwrap_or(version) };
        let stored = StoredImage::new(version, since, standing, image);
        if stored.tombstone && planted::is(Bug::HotTombstoneDropped) {
            self.remove(&record);
        } else {
            let expires = planted::is(Bug::TtlOnDirty).then(|| now.instant + TTL_OF_A_PLANTED_BUG);
            self.put(&record, Held::Image(stored), expires);
            self.unqueued.insert(version, record);
        }
        WriteOutcome::Stored { version, epoch: self.epoch, since }
    }

    fn judge(&self, precondition: Precondition, held: Option<&Held>) -> Result<(), WriteOutcome> {
        if let (Precondition::Parked { version, epoch }, Some(Held::Image(image))) = (precondition, held) {
            let is_there = image.standing == Standing::Parked && image.version == version && epoch == self.epoch;
            return if is_there { Ok(()) } else { Err(WriteOutcome::Changed) };
        }
        let known = match held {
            Some(Held::Image(image)) if image.tombstone => Known::Absent,
            Some(Held::Image(image)) => Known::Row(image.version),
            Some(Held::Absent) => Known::Absent,
            Some(Held::Lease(_)) | None => Known::Nothing,
        };
        match (precondition, known) {
            (Precondition::None, _)
            | (Precondition::AbsentFromStore, Known::Absent | Known::Nothing)
            | (Precondition::Absent, Known::Absent)
            | (Precondition::Present, Known::Row(_)) => Ok(()),
            (Precondition::Absent | Precondition::AbsentFromStore, Known::Row(_)) => Err(WriteOutcome::Exists),
            (Precondition::Present | Precondition::At { .. }, Known::Absent) => Err(WriteOutcome::Missing),
            (
                Precondition::Absent | Precondition::Present | Precondition::At { .. } | Precondition::Parked { .. },
                Known::Nothing,
            ) => Err(WriteOutcome::Cold),
            (Precondition::Parked { .. }, Known::Row(_) | Known::Absent) => Err(WriteOutcome::Changed),
            (Precondition::At { version, epoch }, Known::Row(held)) => {
                if version == held && (epoch == self.epoch || planted::is(Bug::EtagIgnoresEpoch)) {
                    Ok(())
                } else {
                    Err(WriteOutcome::Changed)
                }
            }
        }
    }
}

/// See [`Bug::TtlOnDirty`].
const TTL_OF_A_PLANTED_BUG: std::time::Duration = std::time::Duration::from_secs(1);
