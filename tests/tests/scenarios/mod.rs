//! What the system must do, whatever it runs on.

mod durability;
mod finds;
mod operate;
mod payments;
mod reads;
mod semantics;
mod streams;
mod tables;
mod writers;

pub(crate) use durability::*;
pub(crate) use finds::*;
pub(crate) use operate::*;
pub(crate) use reads::*;
pub(crate) use semantics::*;
pub(crate) use streams::*;
pub(crate) use tables::*;
pub(crate) use writers::*;
