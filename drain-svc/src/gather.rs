//! Gathering: records wait in the lanes of their table until a batch of them is due.

mod coalescer;
mod lane;

pub(crate) use coalescer::{Coalescer, Due, Entry, Gathered, Generation, Limits, Ticket, Verdict};
pub(crate) use lane::Lane;
