//! Dead letters: what the database refuses for good, and what nobody can read. Each is written to the dead-letter topic;
//! its record is parked in the hot store, where it stays readable; only then it is done.

mod delivery;
mod letter;
mod post;

pub(crate) use delivery::DeadLetters;
pub(crate) use letter::Undeliverable;
pub(crate) use post::Post;
