//! Writes.

use model::Version;
use planted::Bug;

use super::{
    Now, ShardState,
    requests::RequestTerms,
    slots::{Held, StoredImage},
};
use crate::{Precondition, Write, WriteOutcome};

/// What the store knows of a record that is to be written.
enum Known {
    Row(Version),
    Absent,
    Nothing,
}

impl ShardState {
    pub(in crate::memory) fn write(&mut self, now: Now, write: Write, terms: RequestTerms) -> WriteOutcome {
        let Write { record, precondition, image } = write;
        if let Some(answered) = image.request.as_ref().and_then(|it| self.answered(now, &record.namespace, it)) {
            return answered;
        }
        let held = self.held(now, &record);
        if let Err(refused) = self.judge(precondition, held) {
            return refused;
        }
        let (dirty_since, dirty_behind) = match held {
            // What the store knows of a dirty record, it knows for sure: only its own `since` goes on.
            Some(Held::Image(StoredImage { behind: Some(behind), since, .. })) => (Some(*since), Some(*behind)),
            _ => (None, None),
        };
        let version = self.clock.next(now.micros);
        let since = dirty_since.unwrap_or((precondition == Precondition::AbsentFromStore).then_some(version));
        self.clock = version;
        if let Some(request) = &image.request {
            self.put_request(now, &record.namespace, request, version, self.epoch, terms);
        }
        let stored = StoredImage::new(version, since, Some(dirty_behind.unwrap_or(version)), image);
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
            (Precondition::Absent | Precondition::Present | Precondition::At { .. }, Known::Nothing) => {
                Err(WriteOutcome::Cold)
            }
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
