//! What lies in the event log.

use crate::{Epoch, Image, Key, Request, Shard, TableRef, Version};

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The shard that it belongs to; equals the partition it lies in.
    pub shard: Shard,
    /// The epoch in which it was produced.
    pub epoch: Epoch,
    /// What it says.
    pub body: EventBody,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// 1..N mutations, to be applied together; today always one.
    Mutations(Vec<Mutation>),
    /// Puts the event's epoch in force in this partition, if it is higher than the one in force.
    Fence(Fence),
    /// 1..N requests that were answered though no event of theirs may be in the log: nothing to apply, but an opening
    /// puts them back.
    Requests(Vec<RequestNote>),
}

/// The mark that an opening leaves in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Who opened the shard; for people who read the log.
    pub opener: String,
}

/// A request that took effect, and that was superseded before its own event was seen in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestNote {
    /// The table.
    pub table: TableRef,
    /// The primary key of the record that it wrote; notes of an earlier release do not name it.
    pub key: Option<Key>,
    /// The request.
    pub request: Request,
    /// The version that the hot store gave its write.
    pub version: Version,
}

/// One write to one record, with its full after-image.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The table.
    pub table: TableRef,
    /// The primary key.
    pub key: Key,
    /// The version that the hot store gave it.
    pub version: Version,
    /// The record afterwards.
    pub image: Image,
}
