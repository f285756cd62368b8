//! The use cases of the ingest service on the hot store in memory, and on a log and a database that fail on demand.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod accept;
mod acknowledge;
mod altered;
mod backlog;
mod batches;
mod checkpoints;
mod db;
mod dead_letters;
mod drain_down;
mod find;
mod log;
mod lost_letters;
mod lost_log;
mod opening;
mod read;
mod reads;
mod relay;
mod requests;
mod store;
mod superseded;
mod tables;
mod verify;
mod watch;
mod world;
mod write_stream;
