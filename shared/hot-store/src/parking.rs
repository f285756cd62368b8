//! What is said of records that the database refused for good.

use model::{Image, Version};

use crate::RecordId;

/// What became of the wish to park a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkOutcome {
    /// It is parked at that version.
    Parked,
    /// Nothing is parked: a newer version is there, or the database has taken this one after all.
    Superseded,
    /// Nothing is parked: the store holds no image of the record, or an older one.
    Gone,
}

/// A parked record.
#[derive(Debug, Clone, PartialEq)]
pub struct ParkedRecord {
    /// The record.
    pub record: RecordId,
    /// Its version.
    pub version: Version,
    /// Its image.
    pub image: Image,
}
