//! The protocol of the shard as an executable specification, checked exhaustively at small bounds.
//!
//! Read it in the order of a record's way: [`words`], [`store`], [`log`], [`database`] say what there is; [`write`],
//! [`drain`], [`reading`], [`opening`], [`purge`] say what each part does, in steps between which anything may
//! happen: a crash is a step that never comes. [`protocol`] says when each step is possible, [`checks`] what must hold
//! in every state, as it is and after everything has healed from it, [`scenarios`] within which bounds all is tried.
//! [`rules`] names each sentence of the design that the promises rest on; without any one of them a check fails.
//!
//! ```text
//! ./tests/model                  everything
//! ./tests/model --quick          what takes a minute
//! ./tests/model trace RULE       the shortest way to what breaks without a rule
//! ./tests/model rules            their names and sentences
//! ./tests/model scenario NAME    the design in one scenario
//! ./tests/model hunt RULE        which scenarios notice that a rule is missing
//! ```
//!
//! # Rules that no scenario shows to be needed
//!
//! | rule | why it is kept |
//! |---|---|
//! | `StartStored` | Offsets do not move while the shard is closed (`CommitAfterClean`), so a successor would choose the same start; it saves the work of an opening that was nearly done. |
//! | `NewerRowReplaces` | An image below its row can only come from a loss, and there `RowReplacesLower` has replaced it already. Either is enough. |
//! | `PurgedIsGone` | A dirty image at or below the purge horizon can't be while `PurgeBelowDirty` and `CompareWithRow` hold. It says what to do if it is all the same. |
//! | `PurgeHorizonWithRow` | No purge commits between an opening's announcement and its end (`PurgeUnderEpoch`, and the announcement waits for one that holds the lock), so the purge horizon that the announcement read is still true. It holds where a drain of an earlier release purges. |
//!
//! `OwnerChecked` is shown by a check of its own, that no former owner's transaction commits: for the data, the lock and
//! the version guard are enough. A purge is bounded by what is dirty, not by the watermark as well: that is enough.
//!
//! # Where the code and the model part
//!
//! The model knows no durations: whatever is under way may arrive at any later time, and a tombstone may be purged at
//! once. The code relies on none either.
//!
//! Dead letters and parking are here as the design has them; until the code has them it tries a refused record again
//! for ever, and the watermark waits.
//!
//! # What is left out
//!
//! Preconditions that read the database under a lease, the levels LOGGED and APPLIED (but for repeated requests), the
//! budget, the log's retention and the loss of its end (so every checkpoint that survives is reached by the log, and no
//! opening sets aside what is dirty), replays of dead letters, FindByField; request ids do not run out within a scenario.

mod checks;
mod database;
mod drain;
mod log;
mod opening;
mod protocol;
mod purge;
mod reading;
mod report;
mod rules;
mod scenarios;
mod search;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod words;
mod write;

use std::process::ExitCode;

use report::Bounds;
use rules::Rule;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_right = match arguments.as_slice() {
        [] => report::run(Bounds::All),
        ["--quick"] => report::run(Bounds::Quick),
        ["rules"] => {
            Rule::ALL.iter().for_each(|rule| println!("{:<26} {}", rule.name(), rule.sentence()));
            true
        }
        ["hunt", name] => match Rule::ALL.iter().find(|rule| rule.name() == *name) {
            Some(rule) => report::hunt(*rule),
            None => false,
        },
        ["scenario", name] => report::run_one(name),
        ["trace", name] => match Rule::ALL.iter().find(|rule| rule.name() == *name) {
            Some(rule) => report::print_trace_without(*rule),
            None => {
                eprintln!("there is no rule {name:?}; `rules` lists them");
                false
            }
        },
        _ => {
            eprintln!("usage: ./tests/model [--quick | trace RULE | rules]");
            false
        }
    };
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
