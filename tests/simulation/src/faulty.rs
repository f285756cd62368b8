//! The stores as one process sees them: calls take time, fail before or after they took effect, or take effect much
//! later.

mod database;
mod hot;
mod log;
mod source;

use std::sync::Arc;

use crate::process::Process;

pub(crate) use source::FaultySource;

/// A store as one process sees it.
#[derive(Debug)]
pub(crate) struct Faulty<T> {
    inner: Arc<T>,
    process: Arc<Process>,
}

impl<T> Faulty<T> {
    pub(crate) fn new(inner: Arc<T>, process: Arc<Process>) -> Arc<Self> {
        Arc::new(Self { inner, process })
    }
}
