//! The log in memory: what the log on Kafka promises, without anything that could not be replayed.
//!
//! It has topics, partitions, offsets and a drain group with cooperative rebalances, redelivery from the committed
//! offset, and members that are expelled when their session ends; time is tokio's. It survives its users: a member that
//! is dropped has died without a word, and handles can come and go. It loses nothing and keeps nothing on a disk, so it
//! is for tests and for simulation.

mod log;
mod options;
mod source;

pub use log::MemoryLog;
pub use options::MemoryLogOptions;
pub use source::MemorySource;
