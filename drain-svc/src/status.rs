//! What the drain tells about itself.

mod board;
mod metrics;

pub use board::{Board, Breaker};
pub(crate) use metrics::{Metrics, TableMetrics};
