//! What the drain tells about itself.

mod metrics;

pub(crate) use metrics::{Metrics, TableMetrics};
