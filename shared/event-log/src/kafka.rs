//! The log on Kafka, by librdkafka.
//!
//! [`KafkaLog`] publishes and reads, [`KafkaSource`] is a member of the drain group.

mod availability;
mod bounds;
mod client;
mod commit;
mod contiguous;
mod delivery;
mod following;
mod lane;
mod member;
mod membership;
mod options;
mod polled;
mod protocol;
mod publisher;
mod reader;
mod rebalance;
mod source;
mod start;
mod topic;

pub use options::{GroupProtocol, KafkaOptions, KafkaSecurity};
pub use publisher::KafkaLog;
pub use source::KafkaSource;
