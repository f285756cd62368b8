//! The index over what the database does not have: which records have a value in a field.
//!
//! There is one per shard and table. It has what is dirty or parked, and it is complete or it is none: it belongs to one
//! way of indexing ([`IndexId`]) and to the epoch in which it was begun. A write that brings no terms of that way drops
//! it, since it would have a hole from there on; an opening makes it void by its epoch, as it does leases. So whatever
//! puts images back needs to know nothing of it, and neither a table whose fields were declared while it was full, nor a
//! column that was altered, nor a replica that has not heard of either can make it lie: it is missing, and whoever needs it
//! builds it from what is dirty and parked ([`HotStore::begin_index`](crate::HotStore::begin_index)). A replica of a release
//! that knows of no index at all would leave a hole in it: fields are declared once all replicas are of a release that does.

use model::{Epoch, IndexId, IndexTerms, KeyBytes, Namespace, Shard, Term, Version};

use crate::RecordId;

/// Names one building of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexBuild(pub(crate) String);

/// How an index stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexState {
    /// It has all that is dirty or parked.
    Complete,
    /// Writes keep it; what was there before has to be put in. Another one may be at it, too.
    Building(IndexBuild),
}

/// What an image that was there before has to be found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// The record.
    pub record: RecordId,
    /// The image's version.
    pub version: Version,
    /// What it is found by.
    pub terms: IndexTerms,
}

/// What is looked for in all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The table.
    pub namespace: Namespace,
    /// The way in which it must be indexed.
    pub index: IndexId,
    /// The field and its value.
    pub term: Term,
    /// Only keys above this one.
    pub after: Option<KeyBytes>,
    /// At most so many of each shard.
    pub limit: usize,
}

/// What one shard has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundInShard {
    /// The shard.
    pub shard: Shard,
    /// Its epoch.
    pub epoch: Epoch,
    /// The newest version that it has given.
    pub clock: Version,
    /// How many images were taken out of it ([`Answer::removed`](crate::Answer::removed)).
    pub removed: u64,
    /// The lowest keys, in the order of their bytes; `None`: it has no complete index of this way.
    pub keys: Option<Vec<KeyBytes>>,
}
