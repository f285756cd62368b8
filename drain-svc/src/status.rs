//! What the drain tells about itself.

mod board;
mod metrics;
mod reporting;

pub use board::{Board, Breaker};
pub(crate) use metrics::{Metrics, TableMetrics};
pub(crate) use reporting::report_board;
