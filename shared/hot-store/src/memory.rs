//! The hot store in memory: for the embedded edition and for tests. It forgets everything when the process ends,
//! which is what the opening of a shard is for; within its life it keeps the same contract as Redis.

mod budget;
mod reports;
mod shard;
mod store;
mod versions;

pub use store::{MemorySnapshot, MemoryStore, Survives};
