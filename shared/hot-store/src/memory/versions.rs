//! Records in the order of their versions.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use model::Version;

use crate::RecordId;

/// Dirty or unqueued records by version. Nearly always one record has a version, but after a loss of the store's tail
/// a version can come again, and no mark may be lost over that.
#[derive(Debug, Clone, Default)]
pub(super) struct ByVersion {
    records: BTreeMap<Version, Vec<RecordId>>,
    len: u64,
}

impl ByVersion {
    pub(super) fn insert(&mut self, version: Version, record: RecordId) {
        let records = self.records.entry(version).or_default();
        if !records.contains(&record) {
            records.push(record);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, version: Version, record: &RecordId) {
        let Some(records) = self.records.get_mut(&version) else { return };
        let before = records.len();
        records.retain(|other| other != record);
        self.len -= (before - records.len()) as u64;
        if records.is_empty() {
            self.records.remove(&version);
        }
    }

    pub(super) fn above(&self, version: Version) -> impl Iterator<Item = (Version, &RecordId)> {
        let records = self.records.range((Excluded(version), Unbounded));
        records.flat_map(|(&version, records)| records.iter().map(move |record| (version, record)))
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn oldest(&self) -> Option<Version> {
        self.records.keys().next().copied()
    }
}
