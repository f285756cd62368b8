//! The test kit: real servers and our own processes, started on free ports in temporary directories, and hurt as tests
//! need it: killed, stopped, frozen, restarted on the same port and data.
//!
//! - [`servers`]: Redis, Kafka, MariaDB and PostgreSQL.
//! - [`Service`]: `ingest-svc`, `drain-svc` and `shock-absorber` as processes.
//! - [`proxy`]: what stands between two parts and hurts their connections.
//! - [`given`]: the servers that `./tests/run` has started for all tests that break none.
//! - [`System`]: the whole of it, embedded or on real servers.
//! - [`operator`]: what an operator types.
//! - [`payments`]: what is measured with.
//! - [`history`]: what clients saw, and whether that can be.
//! - [`eventually`]: waiting for what must come to be, within a bound.

mod eventually;
pub mod given;
pub mod http;
pub mod operator;
pub mod payments;
pub mod port;
mod process;
pub mod proxy;
pub mod servers;
mod service;
mod system;

pub use eventually::eventually;
pub use history;
pub use process::Process;
pub use service::{Service, ServiceSettings, binary};
pub use system::{OwnServers, System};
