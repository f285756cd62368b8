//! The API as clients meet it: over TCP, on the hot store in memory, the embedded log and SQLite.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod calls;
mod dead_letters;
mod errors;
mod limits;
mod operate;
mod reads;
mod server;
mod verify;
mod watch;
mod world;
mod write_stream;
