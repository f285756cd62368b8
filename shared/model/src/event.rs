//! What lies in the event log.

use std::sync::Arc;

use crate::{Epoch, Image, InvalidName, Key, Shard, TableRef, Version};

/// A client's id of a write: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// # Errors
    /// If it is empty, longer than 128 characters, or holds anything but visible ASCII.
    pub fn new(id: &str) -> Result<Self, InvalidName> {
        if (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(Arc::from(id)));
        }
        let name = id.chars().take(80).collect();
        Err(InvalidName { kind: "request", name, problem: "use 1 to 128 visible ASCII characters" })
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

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
}

/// The mark that an opening leaves in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Who opened the shard; for people who read the log.
    pub opener: String,
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
