//! By which fields what the database does not have is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use model::{Epoch, IndexId, IndexTerms, KeyBytes, Namespace, Term};

use super::{Now, ShardState, slots::Standing};
use crate::{FoundInShard, IndexBuild, IndexState, Indexed, Lookup, RecordId};

/// The index of one table.
#[derive(Debug, Clone)]
pub(super) struct Index {
    id: IndexId,
    /// The epoch in which it was begun; in another one it is void.
    epoch: Epoch,
    build: IndexBuild,
    is_complete: bool,
    terms: BTreeMap<KeyBytes, Vec<Term>>,
    entries: BTreeSet<(Term, KeyBytes)>,
}

impl Index {
    fn set(&mut self, key: &KeyBytes, terms: &[Term]) {
        for term in self.terms.remove(key).unwrap_or_default() {
            self.entries.remove(&(term, key.clone()));
        }
        if !terms.is_empty() {
            self.entries.extend(terms.iter().map(|term| (*term, key.clone())));
            self.terms.insert(key.clone(), terms.to_vec());
        }
    }
}

impl ShardState {
    /// A write has put an image in the record's place, which is found by this.
    pub(super) fn keep_index(&mut self, record: &RecordId, terms: Option<&IndexTerms>) {
        let epoch = self.epoch;
        let Some(index) = self.indexes.get_mut(&record.namespace) else { return };
        match terms {
            Some(IndexTerms { index: id, terms }) if *id == index.id && epoch == index.epoch => {
                index.set(&record.key, terms);
            }
            _ => {
                self.indexes.remove(&record.namespace);
            }
        }
    }

    /// The record is neither dirty nor parked any more.
    pub(super) fn unindex(&mut self, record: &RecordId) {
        if let Some(index) = self.indexes.get_mut(&record.namespace) {
            index.set(&record.key, &[]);
        }
    }

    pub(in crate::memory) fn begin_index(&mut self, namespace: Namespace, id: IndexId) -> IndexState {
        let there = self.indexes.get(&namespace).filter(|index| index.id == id && index.epoch == self.epoch);
        if let Some(index) = there {
            let build = index.build.clone();
            return if index.is_complete { IndexState::Complete } else { IndexState::Building(build) };
        }
        self.indexes_begun += 1;
        let build = IndexBuild(format!("{:016x}.{}.{}", id.0, self.epoch, self.indexes_begun));
        let is_complete = self.dirty.len() == 0 && self.parked.get(&namespace).is_none_or(|parked| parked.len() == 0);
        let (terms, entries) = (BTreeMap::new(), BTreeSet::new());
        let index = Index { id, epoch: self.epoch, build: build.clone(), is_complete, terms, entries };
        self.indexes.insert(namespace, index);
        if is_complete { IndexState::Complete } else { IndexState::Building(build) }
    }

    pub(in crate::memory) fn build_index(
        &mut self,
        now: Now,
        namespace: &Namespace,
        build: &IndexBuild,
        records: Vec<Indexed>,
        is_last: bool,
    ) -> bool {
        let Some(mut index) = self.indexes.remove(namespace) else { return false };
        let is_it = index.build == *build && index.epoch == self.epoch;
        if is_it {
            for Indexed { record, version, terms } in records {
                let held = self.held_image(now, &record);
                let is_there = held.is_some_and(|it| it.version == version && it.standing != Standing::Clean);
                if is_there && terms.index == index.id && record.namespace == *namespace {
                    index.set(&record.key, &terms.terms);
                }
            }
            index.is_complete |= is_last;
        }
        self.indexes.insert(namespace.clone(), index);
        is_it
    }

    pub(in crate::memory) fn look_up(&self, lookup: &Lookup) -> FoundInShard {
        let index = self.indexes.get(&lookup.namespace);
        let index = index.filter(|it| it.is_complete && it.id == lookup.index && it.epoch == self.epoch);
        let keys = index.map(|index| {
            let lowest = KeyBytes::from_stored(Bytes::new());
            let from = match &lookup.after {
                Some(after) => Bound::Excluded((lookup.term, after.clone())),
                None => Bound::Included((lookup.term, lowest)),
            };
            let entries = index.entries.range((from, Bound::Unbounded));
            let entries = entries.take_while(|(term, _)| *term == lookup.term).take(lookup.limit);
            entries.map(|(_, key)| key.clone()).collect()
        });
        FoundInShard { shard: self.shard, epoch: self.epoch, clock: self.clock, removed: self.removed, keys }
    }
}
