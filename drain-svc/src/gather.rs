//! Gathering: records wait in the lanes of their table until a batch of them is due.

mod coalescer;
mod entry;
mod lane;
mod stepping;

pub(crate) use coalescer::{Coalescer, Due, Generation, Limits, Verdict};
pub(crate) use entry::{Entry, Gathered, GivenUp, Reason, Refused, Ticket};
pub(crate) use lane::Lane;
