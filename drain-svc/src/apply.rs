//! Applying: one batch, one transaction, and what follows from its outcome.

#[cfg(test)]
mod batchings;
mod cleaning;
mod refusal;
mod refused;
#[cfg(test)]
mod swaps;
mod writer;

pub(crate) use refusal::without_values;
pub(crate) use writer::Writer;
