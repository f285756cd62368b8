//! The drain on what the embedded edition runs on: the hot store in memory, the log and the database on disk.
#![allow(clippy::unwrap_used)]

mod adaptive;
mod assignment;
mod breaker;
mod core;
mod database_errors;
mod db;
mod dead_letters;
mod horizon;
mod hot;
mod limit;
mod older_first;
mod ordinary;
mod pause;
mod purge;
mod refused_records;
mod replay;
mod schema_drift;
mod seed;
mod source;
mod status;
mod unique_values;
mod world;
