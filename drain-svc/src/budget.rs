//! The budget: how many rows a table's database may be asked to write, and when.

mod gate;
mod sizing;

pub(crate) use gate::Gate;
pub(crate) use sizing::batch_rows;
