//! The hot store on Redis 7 or later: one script per call, all keys of a shard under one hash tag.
//!
//! | file | subject |
//! |---|---|
//! | `options` | what it is told, and how a connection follows from that |
//! | `clock` | what the server's answers tell of its time |
//! | `keys` | every key's name |
//! | `value` | the layout of a record's value |
//! | `laws` | what holds of any bytes that Redis gives back, for tests and the fuzzer |
//! | `points` | the layout of checkpoints and starts |
//! | `scripts` | the scripts, and how a call of one is put together |
//! | `planted` | bugs for the tests of the tests |
//! | `link` | one connection, and what a broken one means for who waits on it |
//! | `torn_file` | what a server is asked before anything is written to it |
//! | `reply` | what comes back |
//! | `records`, `reads`, `parking`, `openings`, `budgets` | the calls |
//! | `halts` | which tables a shard takes no writes of |
//! | `reports` | what drain replicas tell of themselves |
//! | `settings` | whether a server is fit for its job |

mod budgets;
mod clock;
mod halts;
mod indexes;
mod keys;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
mod link;
mod openings;
mod options;
mod parking;
mod planted;
mod points;
mod reads;
mod records;
mod reply;
mod reports;
mod restore_new;
mod restores;
mod scripts;
mod settings;
mod store;
mod torn_file;
mod value;

pub use options::RedisOptions;
pub use store::RedisStore;
