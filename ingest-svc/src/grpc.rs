//! The gRPC face: what comes over the wire is taken apart here, handed to a use case, and its answer put together.
//!
//! | file | subject |
//! |---|---|
//! | `server` | the listener, limits, health, reflection, the orderly end |
//! | `admission` | how many requests are worked on at once, decided before a request is decoded |
//! | `records`, `tables`, `operators`, `watch` | the services |
//! | `batch` | the answer to many reads, as far as it fits into a message |
//! | `work` | what is the same for every call |
//! | `write_stream` | the messages of WriteStream as single writes, and their results as messages |
//! | `value`, `request`, `answer`, `dead_letters`, `status` | conversion between the API's messages and the model |
//! | `failure`, `reasons` | errors as the API tells them: one stable reason, the fields, when to try again |

mod admission;
mod answer;
mod batch;
mod dead_letters;
mod failure;
mod operators;
mod reasons;
mod records;
mod request;
mod server;
mod status;
mod tables;
pub(crate) mod value;
mod verify;
mod watch;
mod work;
mod write_stream;

pub use admission::Gate;
pub use server::{ApiError, ServerOptions, serve};
