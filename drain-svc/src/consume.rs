//! Consuming: the one task that speaks to the event log. It reads all the time, never waits for a database, and alone
//! knows how far each partition is done.

mod assignment;
mod consumer;
mod intake;
mod partition;
mod tables;
mod watermark;

pub(crate) use assignment::refresh_tables;
pub(crate) use consumer::Consumer;
