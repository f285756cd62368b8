//! What was dirty when an opening discarded it.

use std::collections::btree_map::Entry as Place;

use model::Version;

use super::{
    ShardState,
    slots::{Entry, Held, Standing, StoredImage, image_weight},
};
use crate::{HotStoreError, OpeningToken, RecordId, SetAside, SetAsidePage};

/// A record that was set aside.
#[derive(Debug, Clone)]
pub(super) struct Aside {
    stored: StoredImage,
    /// The lowest version of the record that the database may lack.
    behind: Version,
}

impl ShardState {
    /// Sets a record aside, if the database does not have it. It is removed by the caller.
    pub(super) fn put_aside(&mut self, record: &RecordId) {
        let Some(Entry { held: Held::Image(stored), .. }) = self.entries.get(record) else { return };
        let behind = match stored.standing {
            Standing::Dirty { behind } => behind,
            // Whether the dead letters still have it is not known, and it will be refused again.
            Standing::Parked => stored.version,
            Standing::Clean => return,
        };
        let stored = stored.clone();
        self.bytes += image_weight(record, &stored);
        match self.aside.entry(record.clone()) {
            Place::Vacant(place) => {
                place.insert(Aside { stored, behind });
            }
            // An earlier discard had left it there.
            Place::Occupied(mut place) => {
                let earlier = place.get_mut();
                self.bytes -= image_weight(record, &earlier.stored);
                *earlier = Aside { stored, behind: behind.min(earlier.behind) };
            }
        }
    }

    /// Something was put back in its place.
    pub(super) fn take_from_aside(&mut self, record: &RecordId) {
        if let Some(aside) = self.aside.remove(record) {
            self.bytes -= image_weight(record, &aside.stored);
        }
    }

    pub(in crate::memory) fn set_aside(
        &mut self,
        token: &OpeningToken,
        skip: u64,
        limit: usize,
    ) -> Result<SetAsidePage, HotStoreError> {
        self.check_begun(token)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut page =
            SetAsidePage { is_last: self.aside.len() <= skip.saturating_add(limit), ..SetAsidePage::default() };
        for (record, Aside { stored, behind }) in self.aside.iter().skip(skip).take(limit) {
            match self.decode_with_since(stored) {
                Ok(image) => page.records.push(SetAside {
                    record: record.clone(),
                    version: stored.version,
                    behind: *behind,
                    image,
                }),
                Err(error) => {
                    page.unreadable += 1;
                    tracing::error!(%error, "a record that the database does not have can't be read; it stays aside");
                }
            }
        }
        Ok(page)
    }
}
