//! Deterministic simulation: the use cases of ingest and drain on stores in memory, on one thread and a paused clock.
//! A seed decides what every call to a store comes to, which processes die and when, and what a restarted store has
//! lost; so every failure can be had again.

mod backends;
pub mod climate;
mod driver;
mod faulty;
mod letters;
pub mod nature;
mod operator;
mod process;
mod queued;
mod replicas;
pub mod run;
mod verdict;
mod watching;
mod witness;
mod workload;
mod world;
