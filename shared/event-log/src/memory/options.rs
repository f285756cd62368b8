//! The settings of the memory log.

use std::time::Duration;

/// The settings of the memory log.
#[derive(Debug, Clone)]
pub struct MemoryLogOptions {
    /// Undrained bytes at most; past it records are refused.
    pub max_log_bytes: u64,
    /// Key and payload of one record at most.
    pub max_message_bytes: usize,
    /// A member that is not within `next` for so long loses its partitions to others, if there are any.
    pub session_timeout: Duration,
    /// How long ago that must have been committed which [`Committed::window`](crate::Committed::window) tells.
    pub request_window: Duration,
    /// Keep what is drained for ever, as Kafka does for a week; else until the window has passed it, as the embedded
    /// log does.
    pub keep_drained: bool,
}

impl Default for MemoryLogOptions {
    fn default() -> Self {
        Self {
            max_log_bytes: 256 << 20,
            max_message_bytes: 1_000_000,
            session_timeout: Duration::from_secs(10),
            request_window: Duration::from_secs(120),
            keep_drained: true,
        }
    }
}
