//! The gRPC API, generated from the protos beside this crate.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code; the protos hold the documentation")]

mod reason;

pub use reason::Reason;

/// Package `shockabsorber.v1`.
pub mod v1 {
    tonic::include_proto!("shockabsorber.v1");
}

/// The descriptors of the API, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shockabsorber.bin"));

/// The domain of every `google.rpc.ErrorInfo` that this API gives.
pub const ERROR_DOMAIN: &str = "shockabsorber";
