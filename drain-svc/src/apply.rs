//! Applying: one batch, one transaction, and what follows from its outcome.

mod cleaning;
mod refusal;
mod writer;

pub(crate) use writer::Writer;
